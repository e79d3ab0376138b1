package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"tripod/internal/cli/listing"
	"tripod/internal/cli/terminal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
	"tripod/internal/engine/catalog"
)

type lsFlags struct {
	filterFlags
	long      bool
	recursive bool
}

func newLs(a *app) *cobra.Command {
	f := new(lsFlags)
	cmd := &cobra.Command{
		Use:   "ls SNAPSHOT[:PATH]",
		Short: "List the files of a snapshot",
		Long: `Lists a folder of a snapshot; without PATH, the protected folder. PATH is absolute,
or relative to the one protected path. Folders end in a slash.`,
		Example: `  tripod ls --vault /mnt/disk/vault latest
  tripod ls -l latest:/home/me
  tripod ls -R 1a2b3c4d:projects`,
		Args:              arguments(1, 1, "one SNAPSHOT or SNAPSHOT:PATH"),
		ValidArgsFunction: a.completeSnapshots,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.ls(cmd.Context(), f, args[0]) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().BoolVarP(&f.long, "long", "l", false, "show mode, owner, size and time")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "list everything below, too")
	f.add(cmd)
	return cmd
}

func (a *app) ls(ctx context.Context, f *lsFlags, what string) (err error) {
	u, s, path, err := a.readOne(ctx, what, f.filter())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	b := browse.New(u, u.company.ID)
	top, err := b.Stat(ctx, s, path)
	if err != nil {
		return err
	}
	prefix := top.Path()
	if a.JSON {
		a.BeginList("ls", "entries", listing.Place{Snapshot: s.ID, Path: "/" + prefix, PathRaw: terminal.Raw("/" + prefix)})
	}
	n := 0
	print := func(e *tree.Entry) error {
		n++
		if a.JSON {
			if n > 1 {
				a.Printf(",")
			}
			a.PrintJSON(a.Out, listing.OfEntry(e))
			return a.Failed()
		}
		a.printEntry(f, e, prefix)
		return a.Failed()
	}
	if f.recursive && top.Type == tree.Dir {
		err = b.Walk(ctx, s, path, print)
	} else {
		var entries []tree.Entry
		entries, err = b.List(ctx, s, path)
		for i := range entries {
			if err == nil {
				err = print(&entries[i])
			}
		}
	}
	if err == nil && a.JSON {
		a.EndList()
	}
	return err
}

// readOne opens a vault and finds what SNAPSHOT[:PATH] means in it.
func (a *app) readOne(ctx context.Context, what string, f catalog.Filter) (*unlocked, catalog.Snapshot, string, error) {
	u, err := a.read(ctx)
	if err != nil {
		return nil, catalog.Snapshot{}, "", err
	}
	spec, path := catalog.ParseSpec(what)
	s, err := u.catalog.FindFor(spec, path, f)
	if err != nil {
		return nil, s, "", errors.Join(err, u.Close())
	}
	return u, s, path, nil
}

func (a *app) printEntry(f *lsFlags, e *tree.Entry, prefix string) {
	name := e.Name
	if f.recursive {
		name = strings.TrimPrefix(strings.TrimPrefix(e.Path(), prefix), "/")
	}
	if e.Type == tree.Dir {
		name += "/"
	}
	if !f.long {
		a.Printf("%s\n", name)
		return
	}
	a.Printf("%s\n", listing.Long(e, name))
}

func newCat(a *app) *cobra.Command {
	var f filterFlags
	cmd := &cobra.Command{
		Use:   "cat SNAPSHOT:PATH",
		Short: "Print a file of a snapshot",
		Long:  "Writes one file of a snapshot to standard output. PATH is absolute, or relative to the one\nprotected path.",
		Example: `  tripod cat --vault /mnt/disk/vault latest:/etc/fstab
  tripod cat 1a2b3c4d:notes.txt | less`,
		Args:              arguments(1, 1, "one SNAPSHOT:PATH"),
		ValidArgsFunction: a.completeSnapshots,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.cat(cmd.Context(), f.filter(), args[0]) },
	}
	a.vaultFlag(cmd)
	f.add(cmd)
	return cmd
}

func (a *app) cat(ctx context.Context, f catalog.Filter, what string) (err error) {
	if a.JSON {
		return tripod.Errorf(tripod.Invalid, "cat writes the file itself, not JSON")
	}
	if _, path := catalog.ParseSpec(what); path == "" {
		return tripod.Errorf(tripod.Invalid, "no file given").WithHint("name it behind a colon: tripod cat %s", terminal.Quoted(strings.TrimSuffix(what, ":")+":PATH"))
	}
	u, s, path, err := a.readOne(ctx, what, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	return browse.New(u, u.company.ID).Cat(ctx, s, path, a.Out)
}
