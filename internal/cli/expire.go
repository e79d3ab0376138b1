package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/policy"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault/expire"
)

type expireOptions struct {
	keep  keepFlags
	dry   bool
	tags  bool
	right bool
}

func newExpire(a *app) *cobra.Command {
	var o expireOptions
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Let go what the vault's policy does not keep",
		Long: `Applies the vault's policy (see "tripod vault policy"): shows for every snapshot
whether it is kept, and for which reasons, and lets go those that nothing keeps.
They are not listed any more and cannot be restored. This cannot be undone; with
--dry-run nothing changes.

It needs no key: whoever keeps the vault can run it, each night for example. Only
a policy that keeps tags needs the passphrase and --with-tags, because tags are
sealed; without them everything is kept.

A clock that is ahead would let snapshots go too early. So the policy is applied
as of a time that is proved to have passed: by this machine's boot clock since the
last run, by the clocks of other machines that back up, or by someone who vouches
for it with --clock-is-right. When clocks contradict each other by more than an
hour nothing expires.

With --dry-run the flags --keep-... show what other rules would do.`,
		Example: `  tripod expire --vault /mnt/disk/vault --dry-run
  tripod expire --vault /mnt/disk/vault
  tripod expire --dry-run --keep-daily 7 --keep-weekly 4`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			given, err := o.keep.parse(cmd)
			if err != nil {
				return err
			}
			if given && !o.dry {
				return tripod.Errorf(tripod.Invalid, "--keep-... needs --dry-run: what expires is decided by the vault's policy").
					WithHint("sign the rules: tripod vault policy --keep-...")
			}
			return a.expire(cmd.Context(), &o, given)
		},
	}
	a.vaultFlag(cmd)
	cmd.Flags().BoolVarP(&o.dry, "dry-run", "n", false, "show what would expire, and change nothing")
	cmd.Flags().BoolVar(&o.tags, "with-tags", false, "read the snapshots' tags, with the passphrase")
	clockFlag(cmd, &o.right)
	o.keep.add(cmd)
	return cmd
}

func clockFlag(cmd *cobra.Command, right *bool) {
	cmd.Flags().BoolVar(right, "clock-is-right", false, "vouch for this machine's clock, where nothing else proves it")
}

// clock is how this machine tells the time to expiry.
func (o *opened) clock(right bool) expire.Clock {
	d := o.Descriptor()
	c := expire.Clock{
		Wall: time.Now(), Right: right, Boot: expire.Booted,
		File: filepath.Join(filepath.Dir(keyring.MemoryFile(o.config, d.Vault)), "clock"),
	}
	if m, _, err := keyring.LoadMachine(o.config, d.Company); err == nil {
		c.Own = m.Machine
	}
	return c
}

func (a *app) expire(ctx context.Context, how *expireOptions, given bool) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	options := expire.Options{Clock: o.clock(how.right)}
	if given {
		options.Rules = &how.keep.rules
	}
	if how.tags {
		if options.Tags, err = o.tags(ctx); err != nil {
			return err
		}
	}
	session, err := o.begin(ctx, "expire", tripod.MachineID{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	plan, err := expire.Look(ctx, session, o.Descriptor(), options)
	if err != nil {
		return err
	}
	for _, r := range plan.Refused {
		a.Warn(r.Document, r.Err)
	}
	if !how.dry {
		if err := plan.Apply(ctx, session, o.Descriptor()); err != nil {
			return err
		}
	}
	return a.printPlan(plan, how)
}

// tags opens the snapshots' labels.
func (o *opened) tags(ctx context.Context) (func(snapshot.Key) ([]string, bool), error) {
	u, err := o.openLog(ctx)
	if err != nil {
		return nil, err
	}
	o.tell(u.seen, u.who)
	tags := map[snapshot.Key][]string{}
	for _, s := range u.catalog.Snapshots() {
		tags[s.Key] = s.Label.Tags
	}
	return func(k snapshot.Key) ([]string, bool) {
		t, known := tags[k]
		return t, known
	}, nil
}

type jsonDecision struct {
	ID       string       `json:"id"`
	Time     string       `json:"time"`
	Machine  string       `json:"machine"`
	Source   string       `json:"source"`
	Sequence uint64       `json:"sequence"`
	Type     string       `json:"type"`
	Hash     string       `json:"record_hash"`
	Keep     bool         `json:"keep"`
	Reasons  []jsonReason `json:"reasons"`
}

type jsonReason struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}

func (a *app) printPlan(p *expire.Plan, how *expireOptions) error {
	rows := [][]string{{"ID", "TIME", "MACHINE", "SOURCE", "TYPE", "", "WHY"}}
	list := []jsonDecision{}
	expired := 0
	for i := range p.Rows {
		r := &p.Rows[i]
		j := jsonDecision{
			hex.EncodeToString(r.Record[:4]), r.Time.UTC().Format(time.RFC3339), r.Key.Machine.String(), r.Key.Source.String(), r.Key.Seq,
			r.Type.String(), hex.EncodeToString(r.Record[:]), r.Keep(),
			[]jsonReason{},
		}
		for _, reason := range r.Reasons {
			j.Reasons = append(j.Reasons, jsonReason{string(reason.Rule), reason.Text})
		}
		list = append(list, j)
		what := "keep"
		if !j.Keep {
			what = "expire"
			expired++
		}
		rows = append(rows, []string{j.ID, terminal.When(r.Time), j.Machine[:8], j.Source[:8], j.Type, what, r.Because()})
	}
	number := uint32(0)
	by := "these rules"
	if p.Policy != nil {
		number = p.Policy.Number
		by = "policy " + tripod.Number(int64(number))
	}
	if a.JSON {
		return a.Result("expire", map[string]any{
			"dry_run": how.dry, "policy": number, "rules": p.Rules.String(), "now": p.Now.UTC().Format(time.RFC3339),
			"clock_ahead_seconds": int64(p.Behind.Seconds()), "holds": jsonHolds(p.Holds), "snapshots": list, "expired": expired, "kept": len(list) - expired,
		})
	}
	if len(list) > 0 {
		a.Table(rows)
	}
	done, kept := "Expired", "kept"
	if how.dry {
		done, kept = "Would expire", "keep"
	}
	a.Printf("%s %s and %s %s by %s: %s.\n", done, tripod.Count(expired, "snapshot"), kept, tripod.Number(int64(len(list)-expired)), by, p.Rules.String())
	if p.Behind > policy.Tolerance {
		a.Tell("It is applied as of %s: nothing proves the %s since then.\n  if the clock of this machine is right: tripod expire --clock-is-right",
			terminal.When(p.Now), policy.Span(p.Behind.Round(time.Hour)))
	}
	return nil
}
