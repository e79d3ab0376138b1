package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"tripod/internal/cli/listing"
	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/keyring"
)

// unlocked is a vault whose snapshots are open.
type unlocked struct {
	*opened
	company *seal.CompanyKeys
	catalog *catalog.Catalog
	reader  *blobs.Reader
	seen    *keyring.Watch
}

// read opens a vault with the passphrase, and its log. What in it cannot be
// trusted becomes warnings.
func (a *app) read(ctx context.Context) (*unlocked, error) {
	o, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	u, err := o.openLog(ctx)
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	o.tell(u.seen, u.who)
	return u, nil
}

func (u *unlocked) who(c keyring.Chain) string { return u.catalog.Who(c.Machine, c.Source) }

func (o *opened) openLog(ctx context.Context) (*unlocked, error) {
	seen, err := o.watch(ctx, "")
	if err != nil {
		return nil, err
	}
	company, err := o.unlock(ctx)
	if err != nil {
		for i := range seen.Losses {
			if l := &seen.Losses[i]; l.OfKeyring() { // perhaps why the passphrase is wrong
				o.app.Warn("", l.Err(nil))
			}
		}
		return nil, err
	}
	c, err := catalog.Open(ctx, o, company)
	if err != nil {
		return nil, err
	}
	for _, p := range c.Problems() {
		o.app.Warn(p.Document, p.Err)
	}
	return &unlocked{o, company, c, blobs.New(o, company.ID), seen}, nil
}

// filterFlags select snapshots.
type filterFlags struct {
	host string
	path string
	tags []string
}

func (f *filterFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.host, "host", "", "only snapshots of host `NAME`")
	cmd.Flags().StringVar(&f.path, "path", "", "only snapshots that protect `PATH`")
	cmd.Flags().StringArrayVar(&f.tags, "tag", nil, "only snapshots with tag `WORD` (repeatable: with all of them)")
}

func (f *filterFlags) filter() catalog.Filter {
	return catalog.Filter{Host: f.host, Path: f.path, Tags: f.tags}
}

func newSnapshots(a *app) *cobra.Command {
	var f filterFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "snapshots",
		Short: "List the snapshots of a vault",
		Long: `Lists the snapshots of a vault, oldest first. Other commands take a snapshot's id,
or the first digits of it, or "latest".

With --all it lists those as well that expired or were forgotten, with the reason:
they cannot be restored.

What the vault holds and cannot be trusted, such as a damaged or forged record or
a vault that shows less than this machine has seen before, is told as a warning.`,
		Example: `  tripod snapshots --vault /mnt/disk/vault
  tripod snapshots --host web1 --tag nightly`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && (f.host != "" || f.path != "" || len(f.tags) > 0) {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--all goes with no filter: hosts, paths and tags of what is gone are sealed for good"))
			}
			return a.snapshots(cmd.Context(), f.filter(), all)
		},
	}
	a.vaultFlag(cmd)
	f.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "list expired and forgotten ones as well")
	return cmd
}

func (a *app) snapshots(ctx context.Context, f catalog.Filter, all bool) (err error) {
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	found := u.catalog.Select(f)
	var gone []catalog.Snapshot
	if all {
		gone = append(u.catalog.Expired(), u.catalog.Forgotten()...)
	}
	if a.JSON {
		r := map[string]any{"snapshots": listing.OfSnapshots(found)}
		if all {
			r["gone"] = listing.OfGone(gone)
		}
		return a.Result("snapshots", r)
	}
	if len(gone) > 0 {
		defer listing.TableGone(a.Console, gone, u.catalog)
	}
	if len(found) == 0 {
		switch n := len(u.catalog.Snapshots()); {
		case n > 0:
			a.Tell("No snapshot fits; the vault holds %s.", tripod.Number(n))
		case a.Warnings() > 0:
			a.Tell("The vault shows no snapshot that can be used: see the warnings.")
		case len(u.catalog.Forgotten())+len(u.catalog.Expired()) > 0:
			a.Tell("The vault holds no snapshots any more: %s forgotten, %s expired.", tripod.Number(len(u.catalog.Forgotten())), tripod.Number(len(u.catalog.Expired())))
		default:
			a.Tell("The vault holds no snapshots yet.")
		}
		return nil
	}
	listing.Table(a.Console, found)
	return nil
}

// completeSnapshots offers the ids of snapshots, where the passphrase is at hand
// without asking.
func (a *app) completeSnapshots(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "forget" && cmd.Name() != "diff" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	silent := newApp(a.env)
	silent.vault, silent.Quiet = a.vault, true
	silent.In, silent.Err = nil, nil // nobody is asked or told
	u, err := silent.read(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer u.Close()
	names := []string{"latest\tthe newest snapshot"}
	for _, s := range u.catalog.Snapshots() {
		names = append(names, s.ID+"\t"+terminal.When(s.Record.Time)+" "+terminal.Printable(s.Label.Host+" "+strings.Join(s.Label.Paths, " ")))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
