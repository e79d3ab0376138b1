package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/verdict"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/verify"
)

type verifyFlags struct {
	filterFlags
	sample float64
	seed   uint64
}

func newVerify(a *app) *cobra.Command {
	f := new(verifyFlags)
	cmd := &cobra.Command{
		Use:   "verify [SNAPSHOT...]",
		Short: "Prove that the snapshots can be restored",
		Long: `Reads everything that the snapshots of a vault need, decrypts it and checks it to
the last byte. What is damaged or lost is named with the snapshots it is in.

With --sample only a part of the data is read, chosen anew each time; names and
structure are always read whole.

What is damaged counts as missing from then on: the next backup from this machine
stores it again, if what it was made of is still there.

The last line is the verdict. Damage ends with exit code 9.`,
		Example: `  tripod verify --vault /mnt/disk/vault
  tripod verify --sample 5
  tripod verify latest`,
		Args: func(cmd *cobra.Command, _ []string) error {
			if f.sample <= 0 || f.sample > 100 {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--sample %g: must be more than 0 and at most 100", f.sample))
			}
			return nil
		},
		ValidArgsFunction: a.completeSnapshots,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), f, args) },
	}
	a.vaultFlag(cmd)
	f.add(cmd)
	cmd.Flags().Float64Var(&f.sample, "sample", 100, "read `PERCENT` of the data")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "choose the sample by `NUMBER`, to repeat one")
	return cmd
}

func (a *app) verify(ctx context.Context, f *verifyFlags, specs []string) (err error) {
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	chosen, err := u.choose(f, specs)
	if err != nil {
		return err
	}
	packs, err := u.checkTables(ctx)
	if err == nil {
		err = a.tellStrangers(ctx, u.store)
	}
	if err != nil {
		return err
	}
	if len(chosen)+len(u.catalog.Problems())+len(packs) == 0 {
		stats, err := u.Stats(ctx)
		if err != nil {
			return err
		}
		return verdict.Nothing(a.Console, &stats, len(u.catalog.Snapshots()) > 0, verdict.Run{Sample: f.sample, Seed: f.seed})
	}
	if f.seed == 0 && f.sample < 100 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		f.seed = binary.LittleEndian.Uint64(b[:]) >> 32
	}
	began := time.Now()
	show := a.Progress()
	report, err := verify.Run(ctx, u, u.catalog, verify.Options{
		Sample: f.sample, Seed: f.seed, Snapshots: chosen, Packs: packs,
		Progress: func(e run.Event) {
			if e.Warning == nil { // the report tells of each
				show.Emit(e)
			}
		},
	})
	if tripod.KindOf(err) != tripod.Unavailable { // what is out of reach is not damaged
		if failed := u.suspect(ctx, report, show); failed != nil {
			a.Warn("", fmt.Errorf("the next backup will not know what is damaged: %w", failed))
		}
	}
	a.StopProgress()
	if ctx.Err() != nil {
		return err
	}
	if err != nil && !errors.Is(err, tripod.Corrupt) {
		return err
	}
	return errors.Join(verdict.Print(a.Console, report, verdict.Run{Sample: f.sample, Seed: f.seed, Took: time.Since(began)}), err)
}

// checkTables finds damaged packs, and warns of objects that are no vault's.
func (u *unlocked) checkTables(ctx context.Context) (packs []catalog.Problem, err error) {
	err = u.CheckTables(ctx, func(object string, err error) error {
		if errors.Is(err, tripod.Invalid) {
			u.app.Warn(object, err)
			return nil
		}
		packs = append(packs, catalog.Problem{Document: object, Err: err})
		return nil
	})
	return packs, err
}

// suspect sees to it that the next backup stores again what is damaged. Below a
// damaged node verify saw nothing, so then every pack is looked at.
func (u *unlocked) suspect(ctx context.Context, r *verify.Report, show run.Progress) error {
	err := u.Suspect(context.WithoutCancel(ctx), r.Lost()) // what an interrupted run found is damaged, too
	if err != nil || !r.Unseen || ctx.Err() != nil {
		return err
	}
	return u.CheckPacks(ctx, 1, show, func(string, tripod.ID, error) error { return nil })
}

// choose gives the snapshots that are meant, all of them by default.
func (u *unlocked) choose(f *verifyFlags, specs []string) ([]catalog.Snapshot, error) {
	if len(specs) == 0 {
		return u.catalog.Select(f.filter()), nil
	}
	var chosen []catalog.Snapshot
	for _, spec := range specs {
		s, err := u.catalog.Find(spec, f.filter())
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, s)
	}
	return chosen, nil
}
