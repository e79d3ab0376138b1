package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/collect"
	"tripod/internal/vault/index"
)

type collectFlags struct {
	dryRun bool
	rate   string
	unused float64
}

func newCollect(a *app) *cobra.Command {
	f := new(collectFlags)
	cmd := &cobra.Command{
		Use:   "collect",
		Short: "Free the space of what no snapshot needs any more",
		Long: `Finds what only forgotten and expired snapshots needed and frees its space. Packs of
which nothing is needed are deleted; mostly dead and tiny ones are written anew
without what is dead. It needs no passphrase.

Backups may run meanwhile: one of another process waits while space is freed, not
while it is looked for. A run that is interrupted does no harm; the next one starts
over. Damage to what a snapshot needs ends a run before anything is deleted.

--dry-run says what the space is used for, and changes nothing.`,
		Example: `  tripod collect --vault /mnt/disk/vault
  tripod collect --dry-run
  tripod collect --rate 20M`,
		Args: arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.collect(cmd.Context(), f) },
	}
	a.vaultFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&f.dryRun, "dry-run", "n", false, "only say what the space is used for")
	flags.StringVar(&f.rate, "rate", "", "read and write at most `SIZE` a second, such as 20M")
	flags.Float64Var(&f.unused, "unused", 100*collect.DefaultUnused, "let so many `PERCENT` of what is needed lie unused, rather than write more packs anew")
	return cmd
}

// limited gives the vault's store within the limit of a --rate flag.
func (o *opened) limited(rate string) (store.Store, error) {
	if rate == "" {
		return o.store, nil
	}
	n, ok := terminal.ParseSize(rate)
	if !ok || n <= 0 {
		return nil, tripod.Errorf(tripod.Invalid, "--rate %q: must be a number of bytes a second, such as 500K or 20M", rate)
	}
	return o.app.env.Limit(o.store, n), nil
}

// holder tells others who keeps them waiting.
func holder(what string) vault.Holder {
	return vault.Holder{Text: fmt.Sprintf("tripod %s on %s (process %d, since %s)", what, hostname(), os.Getpid(), terminal.When(time.Now()))}
}

func (o *opened) waiting(holder string) { o.app.Tell("waiting for another writer: %s", holder) }

func (a *app) collect(ctx context.Context, f *collectFlags) (err error) {
	if f.unused < 0 || f.unused > 1000 {
		return tripod.Errorf(tripod.Invalid, "--unused %v: must be 0 to 1000", f.unused)
	}
	a.note = "nothing that a snapshot needs was touched; the next run starts over"
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	err = o.writable(ctx)
	var s store.Store
	if err == nil {
		s, err = o.limited(f.rate)
	}
	if err != nil {
		return err
	}
	began := time.Now()
	report, err := collect.Run(ctx, o.Vault, collect.Options{
		Holder: holder("collect"), Waiting: o.waiting, Store: s, Unused: f.unused / 100,
		TempDir: o.cache, DryRun: f.dryRun, Progress: a.Progress(),
	})
	a.StopProgress()
	if err != nil {
		return err
	}
	return a.printCollected(f, report, time.Since(began))
}

type collectResult struct {
	DryRun    bool             `json:"dry_run,omitempty"`
	Snapshots int64            `json:"snapshots"`
	Packs     int64            `json:"packs"`
	Blobs     int64            `json:"blobs"`
	Live      int64            `json:"live_bytes"`
	Dead      int64            `json:"dead_bytes"`
	Spare     int64            `json:"spare_bytes"`
	Damaged   int64            `json:"damaged_bytes"`
	Freed     int64            `json:"freed_bytes"`
	Written   int64            `json:"written_bytes"`
	Deleted   int64            `json:"deleted_packs"`
	Kept      []jsonKeptObject `json:"kept"`
	Seconds   float64          `json:"seconds"`
}

type jsonKeptObject struct {
	Object string `json:"object"`
	Bytes  int64  `json:"bytes"`
	Why    string `json:"why"`
}

func keptObjects(kept []collect.Kept) []jsonKeptObject {
	all := make([]jsonKeptObject, 0, len(kept))
	for _, k := range kept {
		all = append(all, jsonKeptObject{vault.PackName(k.Pack), k.Size, k.Why.Error()})
	}
	return all
}

func (a *app) printCollected(f *collectFlags, r *collect.Report, took time.Duration) error {
	if a.JSON {
		return a.Result("collect", collectResult{
			f.dryRun, r.Snapshots, r.Packs, r.Blobs, r.Live, r.Dead, r.Spare, r.Damaged,
			r.Freed, r.Written, r.Deleted, keptObjects(r.Kept), took.Seconds(),
		})
	}
	switch {
	case f.dryRun:
		a.Printf("%s in %s hold %s.\n", terminal.Size(r.Live+r.Dead+r.Spare+r.Damaged), tripod.Count(r.Packs, "pack"), tripod.Count(r.Blobs, "blob"))
	case r.Deleted == 0:
		a.Printf("Nothing was worth freeing.\n")
	default:
		a.Printf("Freed %s in %s: %s went, %s were written anew.\n", terminal.Size(r.Freed-r.Written), terminal.Duration(took),
			tripod.Count(r.Deleted, "pack"), terminal.Size(r.Written))
	}
	left := r.Dead
	if !f.dryRun {
		left = max(0, r.Dead+r.Written-r.Freed)
	}
	a.Printf("  %10s  needed by %s\n", terminal.Size(r.Live), tripod.Count(r.Snapshots, "snapshot"))
	if left > 0 {
		what := "not needed, in packs that hold too much that is"
		if f.dryRun {
			what = "not needed any more"
		}
		a.Printf("  %10s  %s\n", terminal.Size(left), what)
	}
	if r.Damaged > 0 {
		a.Printf("  %10s  damaged: tripod vault repair\n", terminal.Size(r.Damaged))
	}
	for _, k := range r.Kept {
		a.Warn(vault.PackName(k.Pack), k.Why)
	}
	return nil
}

func newRepair(a *app) *cobra.Command {
	rate := ""
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Take what is whole out of damaged packs, and delete those",
		Long: `Reads all packs. What is whole in damaged ones is written into new packs, and the
damaged ones are deleted: nobody can open what is damaged in them. It needs no
passphrase. What is lost is put back by the next backup of a machine that still
has it, or from another copy of the vault; tripod verify tells which snapshots
need it. Backups wait meanwhile.`,
		Example: `  tripod vault repair --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.repair(cmd.Context(), rate) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().StringVar(&rate, "rate", "", "read and write at most `SIZE` a second, such as 20M")
	return cmd
}

func (a *app) repair(ctx context.Context, rate string) (err error) {
	a.note = "what was repaired so far stays so"
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	err = o.writable(ctx)
	var s store.Store
	if err == nil {
		s, err = o.limited(rate)
	}
	if err != nil {
		return err
	}
	r, err := collect.Repair(ctx, o.Vault, collect.Options{
		Holder: holder("vault repair"), Waiting: o.waiting, Store: s, TempDir: o.cache, Progress: a.Progress(),
	})
	a.StopProgress()
	if err != nil {
		return err
	}
	if a.JSON {
		lost := make([]string, 0, len(r.Lost))
		for _, id := range r.Lost {
			lost = append(lost, id.String())
		}
		err = a.Result("repair", map[string]any{
			"checked_packs": r.Checked, "repaired_packs": r.Packs, "saved_blobs": r.Saved, "lost_blobs": lost,
			"freed_bytes": r.Freed, "written_bytes": r.Written, "kept": keptObjects(r.Kept),
		})
	} else {
		a.Printf("Checked %s; %s repaired, %s saved.\n", tripod.Count(r.Checked, "pack"), tripod.Count(r.Packs, "damaged pack"), tripod.Count(r.Saved, "blob"))
		for _, k := range r.Kept {
			a.Warn(vault.PackName(k.Pack), k.Why)
		}
	}
	if len(r.Lost) > 0 {
		return errors.Join(err, tripod.Errorf(tripod.Corrupt, "of %s no undamaged copy is left", tripod.Count(len(r.Lost), "blob")).
			WithHint("tripod verify tells which snapshots need them; the next backup stores again what it still finds"))
	}
	return err
}

func newRebuildIndex(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebuild-index",
		Short: "Make this machine's index of a vault anew",
		Long: `Throws away what this machine remembers of where in the vault what lies, and reads
it again from the packs. Commands do so by themselves when they find the index
missing, damaged or too old; this is for who does not trust it. The vault itself
is only read, and others may use it meanwhile.`,
		Example: `  tripod vault rebuild-index --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.rebuildIndex(cmd.Context()) },
	}
	a.vaultFlag(cmd)
	return cmd
}

func (a *app) rebuildIndex(ctx context.Context) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if err := index.Discard(o.cache, o.descriptor.Vault); err != nil {
		if errors.Is(err, tripod.Conflict) {
			return tripod.Errorf(tripod.Conflict, "rebuild the index: %w", err).WithHint("end the other tripod on this machine first, a mount for example")
		}
		return err
	}
	began := time.Now()
	x, err := o.Index(ctx)
	if err != nil {
		return err
	}
	n, err := x.Blobs()
	a.StopProgress()
	if err != nil {
		return err
	}
	packs := len(x.Packs())
	if a.JSON {
		return a.Result("rebuild-index", map[string]any{"packs": packs, "blobs": n, "damaged_packs": len(o.Damaged()), "seconds": time.Since(began).Seconds()})
	}
	a.Printf("Read %s of %s in %s.\n", tripod.Count(n, "blob"), tripod.Count(packs, "pack"), terminal.Duration(time.Since(began)))
	for _, d := range o.Damaged() {
		a.Warn(vault.PackName(d.Pack), d.Err)
	}
	return nil
}
