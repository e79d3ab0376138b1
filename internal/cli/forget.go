package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/listing"
	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
)

func newForget(a *app) *cobra.Command {
	var yes bool
	var f filterFlags
	cmd := &cobra.Command{
		Use:   "forget SNAPSHOT...",
		Short: "Give up snapshots",
		Long: `Signs an order to forget snapshots and stores it in the vault: they are not listed
any more and cannot be restored. This cannot be undone.

What only they needed stays stored, encrypted, until the next tripod collect, which
frees its space.

On a terminal it asks to type the id of the snapshot, or the number of snapshots
when there are several; elsewhere --yes must be given.`,
		Example: `  tripod forget --vault /mnt/disk/vault 1a2b3c4d
  tripod forget --yes 1a2b3c4d 5e6f7a8b
  tripod forget --host web1 --path /srv latest`,
		Args:              arguments(1, -1, "the ids of the snapshots"),
		ValidArgsFunction: a.completeSnapshots,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.forget(cmd.Context(), args, f.filter(), yes) },
	}
	a.vaultFlag(cmd)
	f.add(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) forget(ctx context.Context, specs []string, f catalog.Filter, yes bool) (err error) {
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	var chosen []catalog.Snapshot
	seen := map[string]bool{}
	for _, spec := range specs {
		s, err := u.catalog.FindOnly(spec, f)
		if err != nil {
			return err
		}
		if until := s.Record.LockUntil; time.Now().Before(until) {
			return tripod.Errorf(tripod.Denied, "snapshot %s is locked until %s", s.ID, terminal.When(until))
		}
		if !seen[s.ID] {
			seen[s.ID] = true
			chosen = append(chosen, s)
		}
	}
	if err := a.confirmForget(ctx, chosen, yes); err != nil {
		return err
	}
	if err := u.order(ctx, chosen); err != nil {
		return err
	}
	return a.printForgotten(chosen, len(u.catalog.Snapshots())-len(chosen))
}

func (a *app) confirmForget(ctx context.Context, chosen []catalog.Snapshot, yes bool) error {
	if !yes && a.Interactive() {
		t := a.Console
		t.Say("To be forgotten for good:")
		for i := range chosen {
			s := listing.OfSnapshot(&chosen[i])
			t.Say("  %s  %s  %s  %s", s.ID, terminal.When(chosen[i].Record.Time), terminal.Printable(s.Host), terminal.Printable(strings.Join(s.Paths, " ")))
		}
	}
	if len(chosen) == 1 {
		return a.Confirm(ctx, yes, "Type its id to confirm: ", chosen[0].ID)
	}
	return a.Confirm(ctx, yes, "Type how many they are to confirm: ", fmt.Sprint(len(chosen)))
}

// order stores the signed orders.
func (u *unlocked) order(ctx context.Context, chosen []catalog.Snapshot) error {
	session, err := u.begin(ctx, "forget", tripod.MachineID{})
	if err != nil {
		return err
	}
	now := time.Now()
	for _, s := range chosen {
		name, encoded := catalog.Order(u.company, s, now)
		if err := session.PutDocument(ctx, name, encoded); err != nil && !errors.Is(err, tripod.Exists) {
			return errors.Join(fmt.Errorf("forget snapshot %s: %w", s.ID, err), session.Close())
		}
	}
	return errors.Join(session.Close(), u.remember(ctx, ""))
}

func (a *app) printForgotten(chosen []catalog.Snapshot, left int) error {
	if a.JSON {
		return a.Result("forget", map[string]any{"forgotten": listing.OfSnapshots(chosen), "left": left})
	}
	for _, s := range chosen {
		a.Printf("Forgot snapshot %s of %s.\n", s.ID, terminal.When(s.Record.Time))
	}
	a.Printf("%s left. What only the forgotten needed stays stored until: tripod collect\n", tripod.Count(left, "snapshot"))
	return nil
}
