package cli

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/policy"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault/expire"
)

// keepFlags are the rules of a policy.
type keepFlags struct {
	rules  policy.Rules
	within string
	zone   string
}

func (k *keepFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	for _, c := range []struct {
		n    *uint32
		name string
		of   string
	}{
		{&k.rules.Last, "last", "the newest `N` snapshots"},
		{&k.rules.Hourly, "hourly", "the newest of each of the newest `N` hours that have one"},
		{&k.rules.Daily, "daily", "the same for days"},
		{&k.rules.Weekly, "weekly", "the same for weeks, which begin on Monday"},
		{&k.rules.Monthly, "monthly", "the same for months"},
		{&k.rules.Yearly, "yearly", "the same for years"},
	} {
		f.Uint32Var(c.n, "keep-"+c.name, 0, "keep "+c.of)
	}
	f.StringVar(&k.within, "keep-within", "", "keep all that are no older than `TIME`, such as 36h, 30d, 8w or 2y")
	f.StringArrayVar(&k.rules.Tags, "keep-tag", nil, "keep all with tag `WORD` (repeatable); tags are sealed, so expire needs the passphrase then")
	f.StringVar(&k.zone, "time-zone", "", "the `ZONE` in which hours, days and so on begin, such as Europe/Berlin (default UTC)")
}

// parse completes the rules. given tells that there are some.
func (k *keepFlags) parse(cmd *cobra.Command) (given bool, err error) {
	if k.within != "" {
		if k.rules.Within, err = parseSpan(k.within); err != nil {
			return false, usageOf(cmd, err)
		}
	}
	if k.rules.In, err = policy.Zone(k.zone); err != nil {
		return false, err
	}
	if k.zone != "" && k.rules.None() {
		return false, usageOf(cmd, tripod.Errorf(tripod.Invalid, "--time-zone needs a rule, such as --keep-daily 7"))
	}
	return !k.rules.None(), nil
}

// parseSpan reads a time such as 36h, 30d, 8w or 2y.
func parseSpan(text string) (time.Duration, error) {
	bad := tripod.Errorf(tripod.Invalid, "time %q: must be a number and h, d, w or y", text)
	if text == "" {
		return 0, bad
	}
	at := len(text) - 1
	unit := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'y': 365 * 24 * time.Hour}[text[at]]
	n, err := strconv.ParseUint(text[:at], 10, 32)
	if err != nil || unit == 0 || n == 0 || n > uint64(math.MaxInt64/unit) {
		return 0, bad
	}
	return time.Duration(n) * unit, nil //nolint:gosec // was compared
}

func newVaultPolicy(a *app) *cobra.Command {
	var keep keepFlags
	var all, right bool
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show or set how long snapshots are kept",
		Long: `Shows the vault's policy, or signs a new one. A policy says which snapshots to keep
of each machine's source; a snapshot is kept while any rule keeps it, and expires
when "tripod expire" runs and none does. Without a policy nothing expires.

No policy lets these go: the newest good snapshot of a source, one that is locked,
one that is dated in the future, and any while a hold is open.

A new policy replaces the one before. It is signed by the company's key, which
needs the passphrase; applying it needs no key. Someone who takes over a machine
can make many snapshots, but not old ones younger: give --keep-within besides
rules that count.`,
		Example: `  tripod vault policy --vault /mnt/disk/vault
  tripod vault policy --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --keep-within 3d
  tripod vault policy --keep-all`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			given, err := keep.parse(cmd)
			switch {
			case err != nil:
				return err
			case given && all:
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--keep-all goes with no other rule"))
			case given || all:
				return a.setPolicy(cmd.Context(), &keep, right)
			}
			return a.showPolicy(cmd.Context())
		},
	}
	a.vaultFlag(cmd)
	keep.add(cmd)
	cmd.Flags().BoolVar(&all, "keep-all", false, "keep everything: nothing expires any more")
	clockFlag(cmd, &right)
	return cmd
}

type policyResult struct {
	Number  uint32     `json:"number"` // 0 for none
	Made    string     `json:"made,omitempty"`
	Text    string     `json:"text"`
	Last    uint32     `json:"keep_last"`
	Hourly  uint32     `json:"keep_hourly"`
	Daily   uint32     `json:"keep_daily"`
	Weekly  uint32     `json:"keep_weekly"`
	Monthly uint32     `json:"keep_monthly"`
	Yearly  uint32     `json:"keep_yearly"`
	Within  int64      `json:"keep_within_seconds"`
	Tags    []string   `json:"keep_tags"`
	Zone    string     `json:"time_zone"`
	Holds   []jsonHold `json:"holds"`
}

func (a *app) printPolicy(kind string, p *snapshot.Policy, holds []*snapshot.Hold) error {
	r := policyResult{Text: "keep everything", Tags: []string{}, Holds: jsonHolds(holds)}
	if p != nil {
		in, err := policy.Zone(p.Zone)
		if err != nil {
			return err
		}
		rules := policy.RulesOf(p, in)
		r = policyResult{
			p.Number, p.Time.UTC().Format(time.RFC3339), rules.String(), p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly,
			int64(p.Within / time.Second), append(r.Tags, p.Tags...), p.Zone, r.Holds,
		}
	}
	switch {
	case a.JSON:
		return a.Result(kind, r)
	case p == nil:
		a.Printf("The vault has no policy: nothing expires.\n")
	default:
		a.Printf("Policy %d, made %s: %s.\n", p.Number, terminal.When(p.Time), r.Text)
	}
	for _, h := range holds {
		a.Printf("Hold %s, since %s, keeps everything: %s\n", h.Name, terminal.When(h.Time), h.Reason)
	}
	return nil
}

func (a *app) showPolicy(ctx context.Context) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	p, _, err := expire.Policy(ctx, o, o.Descriptor())
	if err != nil {
		return err
	}
	holds, err := o.holds(ctx)
	if err != nil {
		return err
	}
	return a.printPolicy("vault-policy", p, holds)
}

func (a *app) setPolicy(ctx context.Context, keep *keepFlags, right bool) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	company, err := o.unlock(ctx)
	if err != nil {
		return err
	}
	session, err := o.begin(ctx, "vault policy", tripod.MachineID{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	// The policy's time is what retention goes by from now on.
	clock := o.clock(right)
	plan, err := expire.Look(ctx, session, o.Descriptor(), expire.Options{Clock: clock, Rules: &keep.rules})
	if err != nil {
		return err
	}
	old, newest, err := expire.Policy(ctx, o, o.Descriptor())
	if err != nil {
		a.Warn("", err) // the new one takes its place
		old = nil
	}
	r := &keep.rules
	p := &snapshot.Policy{
		Company: company.ID, Number: max(newest, plan.Applied) + 1, Time: clock.Wall, Last: r.Last, Hourly: r.Hourly, Daily: r.Daily, Weekly: r.Weekly,
		Monthly: r.Monthly, Yearly: r.Yearly, Within: r.Within, Zone: keep.zone, Tags: r.Tags,
	}
	if old != nil && sameRules(old, p) {
		p = old
	} else if err := session.PutPolicy(ctx, p.Encode(company.Sign)); err != nil {
		return err
	}
	if err := clock.Vouch(); err != nil {
		return err
	}
	holds, err := o.holds(ctx)
	if err != nil {
		return err
	}
	return a.printPolicy("vault-policy", p, holds)
}

func sameRules(a, b *snapshot.Policy) bool {
	x, y := *a, *b
	x.Number, x.Time, y.Number, y.Time = 0, time.Time{}, 0, time.Time{}
	if len(x.Tags)+len(y.Tags) == 0 {
		x.Tags, y.Tags = nil, nil
	}
	return reflect.DeepEqual(x, y)
}

func newVaultHold(a *app) *cobra.Command {
	var reason string
	add := &cobra.Command{
		Use:   "add NAME",
		Short: "Keep everything from expiring",
		Long: `Opens a hold: while there is one nothing in the vault expires, whatever the policy
says. This needs no key. A hold can be seen by whoever keeps the vault, with its
name and its reason.`,
		Example: `  tripod vault hold add case-17 --reason "letter of our lawyer, 2 March"`,
		Args:    arguments(1, 1, "the name of the hold"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := snapshot.CheckHoldName(args[0]); err != nil {
				return usageOf(cmd, err)
			}
			if reason == "" {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "missing --reason: say why, for those who find the hold later"))
			}
			return a.holdAdd(cmd.Context(), args[0], reason)
		},
	}
	a.vaultFlag(add)
	add.Flags().StringVar(&reason, "reason", "", "why, as a `TEXT` for those who find the hold later")
	var yes bool
	remove := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Let snapshots expire again",
		Long:    "Removes a hold. Snapshots that it kept may expire the next time that the policy is applied.",
		Example: `  tripod vault hold remove case-17`,
		Args:    arguments(1, 1, "the name of the hold"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.holdRemove(cmd.Context(), args[0], yes) },
	}
	a.vaultFlag(remove)
	remove.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the holds that are open",
		Long:    "Lists the holds of a vault. This needs no key.",
		Example: `  tripod vault hold list --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.holdList(cmd.Context()) },
	}
	a.vaultFlag(list)
	return group("hold", "Keep everything from expiring for a while", `  tripod vault hold add case-17 --reason "letter of our lawyer, 2 March"`, add, remove, list)
}

type jsonHold struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
	Since  string `json:"since,omitempty"`
}

func jsonHolds(holds []*snapshot.Hold) []jsonHold {
	list := []jsonHold{}
	for _, h := range holds {
		j := jsonHold{Name: h.Name, Reason: h.Reason}
		if !h.Time.IsZero() {
			j.Since = h.Time.UTC().Format(time.RFC3339)
		}
		list = append(list, j)
	}
	return list
}

// holds gives the open holds; those that cannot be read become warnings.
func (o *opened) holds(ctx context.Context) ([]*snapshot.Hold, error) {
	holds, refused, err := expire.Holds(ctx, o, o.Descriptor())
	for _, r := range refused {
		o.app.Warn(r.Document, r.Err)
	}
	return holds, err
}

func (a *app) holdAdd(ctx context.Context, name, reason string) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	session, err := o.begin(ctx, "vault hold", tripod.MachineID{})
	if err != nil {
		return err
	}
	h := &snapshot.Hold{Company: o.Descriptor().Company, Name: name, Reason: reason, Time: time.Now()}
	if err := errors.Join(session.OpenHold(ctx, h), session.Close()); err != nil {
		return err
	}
	if a.JSON {
		return a.Result("vault-hold-add", jsonHolds([]*snapshot.Hold{h})[0])
	}
	a.Printf("Hold %s is open: nothing expires until it is removed.\n", name)
	return nil
}

func (a *app) holdRemove(ctx context.Context, name string, yes bool) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if err := a.Confirm(ctx, yes, "Type the name of the hold to remove it: ", name); err != nil {
		return err
	}
	session, err := o.begin(ctx, "vault hold", tripod.MachineID{})
	if err != nil {
		return err
	}
	if err := errors.Join(session.CloseHold(ctx, name), session.Close()); err != nil {
		return err
	}
	left, err := o.holds(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.Result("vault-hold-remove", map[string]any{"name": name, "holds": jsonHolds(left)})
	}
	a.Printf("Removed hold %s; %s left.\n", name, tripod.Count(len(left), "hold"))
	return nil
}

func (a *app) holdList(ctx context.Context) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	holds, err := o.holds(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.Result("vault-hold-list", map[string]any{"holds": jsonHolds(holds)})
	}
	if len(holds) == 0 {
		a.Tell("No hold is open.")
		return nil
	}
	rows := [][]string{{"HOLD", "SINCE", "REASON"}}
	for _, h := range holds {
		since := "-"
		if !h.Time.IsZero() {
			since = terminal.When(h.Time)
		}
		rows = append(rows, []string{h.Name, since, h.Reason})
	}
	a.Table(rows)
	return nil
}
