package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault/local"
	"tripod/internal/vault/scrub"
)

type scrubFlags struct {
	from    string
	both    bool
	rate    rateFlag
	maxTime time.Duration
}

func newScrub(a *app) *cobra.Command {
	f := new(scrubFlags)
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Find damage without a passphrase, and heal it from another copy",
		Long: `Reads a vault again and checks all that can be checked without a key: checksums,
signatures, and that each snapshot has all that it needs. This needs no passphrase.

Each run checks all documents, then packs: those that were never checked first,
then those that were longest ago. So a run with --max-time goes on where the one
before stopped. What was checked when is remembered on this machine.

With --from what is damaged or missing is fetched from another copy of the vault,
checked, and stored again; so are snapshots that only the other copy has. With
--both the other copy is scrubbed and healed from this one, too: two damaged copies
repair each other.

What no copy has is named by machine and number of the snapshot, and counts as
missing from then on: the next backup of a machine that has the data stores it
again. Where TRIPOD_PASSPHRASE (_FILE, _COMMAND) is set, hosts and paths are named.

What was damaged and is healed is a warning (exit code 3): look at the disk. What
is left damaged ends with exit code 9.`,
		Example: `  tripod scrub --vault /mnt/disk/vault
  tripod scrub --vault /mnt/disk/vault --from /mnt/other/vault
  tripod scrub --max-time 1h --rate 20M
  tripod scrub --vault /mnt/disk/vault --from /mnt/other/vault --both`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.both && f.from == "":
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--both needs another copy: --from COPY"))
			case f.maxTime < 0:
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--max-time %s: must not be negative", f.maxTime))
			}
			return arguments(0, 0, "")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.scrub(cmd.Context(), f) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().StringVar(&f.from, "from", "", "heal from `COPY`, another copy of the vault")
	cmd.Flags().BoolVar(&f.both, "both", false, "scrub and heal the other copy as well")
	cmd.Flags().Var(&f.rate, "rate", "read no more than `BYTES` a second, such as 20M")
	cmd.Flags().DurationVar(&f.maxTime, "max-time", 0, "check no further packs after this `TIME`, such as 1h")
	return cmd
}

func (a *app) scrub(ctx context.Context, f *scrubFlags) (err error) {
	location, err := a.location()
	if err != nil {
		return err
	}
	if f.from == "" {
		o, err := a.openAt(ctx, location, f.rate.number)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		return a.scrubOne(ctx, f, o, nil)
	}
	if absolute(location) == absolute(f.from) {
		return tripod.Errorf(tripod.Invalid, "%s is both the vault and the copy to heal from", location).WithHint("give two places")
	}
	o, other, err := a.openBoth(ctx, location, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close(), other.Close()) }()
	err = a.scrubOne(ctx, f, o, other)
	if !f.both || err != nil && !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.Conflict) {
		return err
	}
	// The first could not give what it only now has; the second could not take it.
	return errors.Join(err, a.scrubOne(ctx, f, other, o))
}

// openBoth opens a vault and another copy of it. Where what says whose vault it is
// was damaged in one, it is healed from the other first.
func (a *app) openBoth(ctx context.Context, location string, f *scrubFlags) (o, other *opened, err error) {
	if other, err = a.openAt(ctx, f.from, f.rate.number); err != nil && (!f.both || !errors.Is(err, tripod.Corrupt)) {
		return nil, nil, err
	}
	if other != nil {
		if _, err := a.describe(ctx, location, other); err != nil {
			return nil, nil, errors.Join(err, other.Close())
		}
	}
	if o, err = a.openAt(ctx, location, f.rate.number); err != nil {
		if other != nil {
			err = errors.Join(err, other.Close())
		}
		return nil, nil, err
	}
	if !f.both {
		return o, other, nil
	}
	healed, err := a.describe(ctx, f.from, o)
	if healed && other != nil {
		err = errors.Join(err, other.Close())
		other = nil
	}
	if err == nil && other == nil {
		other, err = a.openAt(ctx, f.from, f.rate.number)
	}
	if err != nil {
		return nil, nil, errors.Join(err, o.Close())
	}
	return o, other, nil
}

// describe heals what says whose vault lies at a location.
func (a *app) describe(ctx context.Context, location string, other *opened) (healed bool, err error) {
	s, err := a.env.Store(ctx, location, false)
	if err != nil {
		return false, fmt.Errorf("vault: %w", err)
	}
	healed, err = scrub.Descriptor(ctx, s, other)
	if err := errors.Join(err, s.Close()); err != nil && !errors.Is(err, tripod.NotFound) { // opening it tells that there is none
		return false, fmt.Errorf("vault %s: %w", location, err)
	}
	if healed {
		a.Warn("", tripod.Errorf(tripod.Corrupt, "%s: what says whose vault it is was damaged or missing, and is healed from %s", location, other.location))
	}
	return healed, nil
}

// scrubOne scrubs a vault and heals it from another copy, if there is one.
func (a *app) scrubOne(ctx context.Context, f *scrubFlags, o, other *opened) error {
	options := scrub.Options{
		Dir: o.cache, MaxTime: f.maxTime, Now: time.Now(), Progress: a.quietly(),
		Keyring: func(content []byte) error {
			_, err := seal.UnmarshalKeyring(content)
			return err
		},
		Begin: func(ctx context.Context) (*local.Session, error) { return o.begin(ctx, "scrub", tripod.MachineID{}) },
	}
	if other != nil {
		options.Other = other
	}
	a.note = "what was checked is remembered: run it again, it goes on"
	began := time.Now()
	report, err := scrub.Run(ctx, o.Vault, o.store, options)
	a.StopProgress()
	if err != nil {
		return err
	}
	who := a.knownSnapshots(ctx, o, len(report.Lost) > 0)
	if err := a.printScrubbed(o.location, report, who, time.Since(began)); err != nil {
		return err
	}
	if report.Healed() {
		a.Warn("", tripod.Errorf(tripod.Corrupt, "%s was damaged, and is healed", o.location).
			WithHint("something damages or deletes what is in the vault: look at its disk"))
	}
	return report.Err()
}

// knownSnapshots gives ids, hosts and paths by snapshot, when the environment has
// the passphrase; nobody is asked for it.
func (a *app) knownSnapshots(ctx context.Context, o *opened, needed bool) map[snapshot.Key]string {
	who := map[snapshot.Key]string{}
	if !needed {
		return who
	}
	text, found, err := a.Secret(ctx, passphraseVar)
	if err != nil || !found {
		return who
	}
	sealed, err := keyring.Load(ctx, o)
	if err != nil {
		return who
	}
	keys, err := sealed.OpenPassphrase(text)
	if err != nil {
		return who
	}
	c, err := catalog.Open(ctx, o, keys)
	if err != nil {
		return who
	}
	for _, s := range c.Snapshots() {
		who[s.Key] = fmt.Sprintf("%s of %s, %s %s", s.ID, terminal.When(s.Record.Time), s.Label.Host, strings.Join(s.Label.Paths, " "))
	}
	return who
}

type jsonLost struct {
	Machine string `json:"machine"`
	Source  string `json:"source"`
	Number  uint64 `json:"snapshot_number"`
	Name    string `json:"name,omitempty"`
}

type jsonDamage struct {
	Object string `json:"object"`
	Blobs  int    `json:"damaged_blobs"`
	Healed bool   `json:"healed"`
	Error  string `json:"error"`
}

func (a *app) printScrubbed(location string, r *scrub.Report, who map[snapshot.Key]string, took time.Duration) error {
	if a.JSON {
		lost, damaged := make([]jsonLost, 0, len(r.Lost)), make([]jsonDamage, 0, len(r.Damaged))
		for _, l := range r.Lost {
			lost = append(lost, jsonLost{l.Key.Machine.String(), l.Key.Source.String(), l.Key.Seq, who[l.Key]})
		}
		for _, d := range r.Damaged {
			damaged = append(damaged, jsonDamage{d.Object, d.Blobs, d.Healed, terminal.OneLine(d.Err)})
		}
		oldest := ""
		if !r.Oldest.IsZero() {
			oldest = r.Oldest.UTC().Format(time.RFC3339)
		}
		return a.Result("scrub", map[string]any{
			"vault": absolute(location), "good": r.Err() == nil, "packs": r.Packs, "bytes": r.Bytes, "packs_left": r.Left, "oldest_check": oldest,
			"documents": r.Documents, "damaged": damaged, "healed_blobs": r.HealedBlobs, "healed_documents": r.HealedDocuments, "copied_snapshots": r.Copied,
			"lost": lost, "problems": jsonProblems(r.Problems), "seconds": took.Seconds(),
		})
	}
	const most = 20
	for i, d := range r.Damaged {
		if i == most {
			a.Printf("and %s more: --json lists all\n", tripod.Number(int64(len(r.Damaged)-most)))
			break
		}
		state := "damaged"
		if d.Healed {
			state = "healed"
		}
		a.Printf("%s: %s\n", state, d.Err)
	}
	for i, l := range r.Lost {
		if i == most {
			a.Printf("and %s more: --json lists all\n", tripod.Number(int64(len(r.Lost)-most)))
			break
		}
		a.Printf("lost: %s\n", l.Err)
		if name := who[l.Key]; name != "" {
			a.Printf("  %s\n", name)
		}
	}
	for i, p := range r.Problems {
		if i == most {
			a.Printf("and %s more: --json lists all\n", tripod.Number(int64(len(r.Problems)-most)))
			break
		}
		a.Printf("damaged: %s\n", p.Err)
	}
	a.Printf("%s: checked %s and %s (%s) in %s.\n", absolute(location), tripod.Count(r.Documents, "document"), tripod.Count(r.Packs, "pack"),
		terminal.Size(r.Bytes), terminal.Duration(took))
	if r.HealedBlobs+r.HealedDocuments+r.Copied > 0 {
		a.Printf("Healed %s and %s; %s only the other copy had.\n", tripod.Count(r.HealedBlobs, "blob"), tripod.Count(r.HealedDocuments, "document"),
			tripod.Count(r.Copied, "snapshot"))
	}
	switch {
	case r.Left > 0:
		a.Printf("%s left for the next run.\n", tripod.Count(r.Left, "pack"))
	case r.Err() == nil:
		a.Printf("All that can be checked without a key is good.\n")
	}
	return nil
}
