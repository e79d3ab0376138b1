package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
	"tripod/internal/service/mount"
)

type mountFlags struct {
	filterFlags
	allowOther bool
}

func newMount(a *app) *cobra.Command {
	f := new(mountFlags)
	cmd := &cobra.Command{
		Use:   "mount DIR",
		Short: "Show all snapshots as folders",
		Long: `Shows the snapshots as a read-only file system below the folder DIR, by host and
time, until Ctrl-C is pressed or "umount DIR" is called:

  DIR/HOST/2026-03-01_10.15.00/home/me/letter.odt
  DIR/HOST/latest

Snapshots made meanwhile appear with the next mount. This needs FUSE, on Linux or
macOS.`,
		Example: `  tripod mount --vault /mnt/disk/vault /mnt/snapshots
  tripod mount --host web1 --tag nightly /mnt/snapshots`,
		Args: arguments(1, 1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.mount(cmd.Context(), f, args[0]) },
	}
	a.vaultFlag(cmd)
	f.add(cmd)
	cmd.Flags().BoolVar(&f.allowOther, "allow-other", false, "let other users of this machine in, as far as the files' modes allow")
	return cmd
}

func (a *app) mount(ctx context.Context, f *mountFlags, dir string) (err error) {
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	snapshots := u.catalog.Select(f.filter())
	if len(snapshots) == 0 {
		return tripod.Errorf(tripod.NotFound, "there is no snapshot to show").WithHint("tripod snapshots lists what there is")
	}
	return mount.Serve(ctx, mount.Options{
		Dir: dir, Snapshots: snapshots, Browser: browse.New(u, u.company.ID), AllowOther: f.allowOther,
		Ready: func() {
			if a.JSON {
				_ = a.Result("mount", map[string]any{"dir": absolute(dir), "snapshots": len(snapshots)}) // told by Failed
				return
			}
			a.Tell("Mounted %s on %s. Ctrl-C or \"umount %s\" ends it.", tripod.Count(len(snapshots), "snapshot"), terminal.Printable(absolute(dir)),
				terminal.Quoted(dir))
		},
	})
}
