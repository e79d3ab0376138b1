package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tripod/internal/cli/listing"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
	"tripod/internal/engine/catalog"
)

func newFind(a *app) *cobra.Command {
	var f filterFlags
	var ignoreCase bool
	cmd := &cobra.Command{
		Use:   "find PATTERN",
		Short: "Find files and their versions in all snapshots",
		Long: `Finds files by name, or by path when PATTERN has a slash, in all snapshots, and
lists their versions. * stands for any text without a slash, ? for one character,
[a-z] for one of several, ** for any number of folders.`,
		Example: `  tripod find --vault /mnt/disk/vault 'letter*.odt'
  tripod find -i '/home/**/report*' --host laptop`,
		Args: arguments(1, 1, "one pattern"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.find(cmd.Context(), browse.Query{Pattern: args[0], IgnoreCase: ignoreCase, Filter: f.filter()})
		},
	}
	a.vaultFlag(cmd)
	cmd.Flags().BoolVarP(&ignoreCase, "ignore-case", "i", false, "take upper and lower case as equal")
	f.add(cmd)
	return cmd
}

func (a *app) find(ctx context.Context, q browse.Query) (err error) {
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	q.Lost = func(s catalog.Snapshot, from string, err error) {
		a.Warn("", fmt.Errorf("snapshot %s could not be searched from /%s on: %w", s.ID, from, err))
	}
	found, err := browse.New(u, u.company.ID).Find(ctx, u.catalog, q)
	if err != nil {
		return err
	}
	if len(found) == 0 && !a.JSON {
		return tripod.Errorf(tripod.NotFound, "nothing found for %q", q.Pattern).
			WithHint("searched %s; * stands for any text: '*%s*'", tripod.Count(len(u.catalog.Select(q.Filter)), "snapshot"), strings.Trim(q.Pattern, "*"))
	}
	return listing.Found(a.Console, q.Pattern, found)
}

func newDiff(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff SNAPSHOT SNAPSHOT [PATH]",
		Short: "Compare two snapshots",
		Long: `Lists what differs from the first snapshot to the second:

  +  added            M  content changed    T  another type
  -  removed          U  only mode, owner, times or attributes changed`,
		Example: `  tripod diff --vault /mnt/disk/vault 1a2b3c4d latest
  tripod diff 1a2b3c4d 5e6f7a8b /home/me`,
		Args:              arguments(2, 3, "two snapshots, and a path if you like"),
		ValidArgsFunction: a.completeSnapshots,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.diff(cmd.Context(), args) },
	}
	a.vaultFlag(cmd)
	return cmd
}

func (a *app) diff(ctx context.Context, args []string) (err error) {
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	from, err := u.catalog.Find(args[0], catalog.Filter{})
	if err != nil {
		return err
	}
	var f catalog.Filter
	if args[1] == catalog.Latest { // of the same source
		f = catalog.Filter{Host: from.Label.Host, Type: from.Record.Type}
		if len(from.Label.Paths) > 0 {
			f.Path = from.Label.Paths[0]
		}
	}
	to, err := u.catalog.Find(args[1], f)
	if err != nil {
		return err
	}
	b := browse.New(u, u.company.ID)
	below := ""
	if len(args) == 3 {
		below = inTree(&to, args[2])
		if err := inEither(ctx, b, from, to, "/"+below); err != nil {
			return err
		}
	}
	changes := listing.NewChanges(a.Console)
	err = b.Diff(ctx, from, to, func(c browse.Change) error {
		if !under(c.Path, below) {
			return nil
		}
		return changes.Add(&c)
	})
	if err != nil {
		return err
	}
	return changes.End(from.ID, to.ID)
}

// inEither returns NotFound when a path is in neither of two snapshots.
func inEither(ctx context.Context, b *browse.Browser, from, to catalog.Snapshot, path string) error {
	_, err := b.Stat(ctx, to, path)
	if errors.Is(err, tripod.NotFound) {
		if _, err = b.Stat(ctx, from, path); errors.Is(err, tripod.NotFound) {
			return tripod.Errorf(tripod.NotFound, "path %s: is in neither snapshot", path).
				WithHint("tripod ls lists what is there")
		}
	}
	return err
}

// inTree is the name in the tree of a path given by a user: absolute, or
// relative to the one protected path.
func inTree(s *catalog.Snapshot, path string) string {
	if base, single := s.Base(); single && !strings.HasPrefix(path, "/") && !strings.Contains(path, `:\`) {
		return catalog.TreePath(base + "/" + path)
	}
	return catalog.TreePath(path)
}

func under(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir+"/")
}
