package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
)

type replicateFlags struct {
	from, to string
	rate     rateFlag
	drop     bool
	dryRun   bool
}

func newReplicate(a *app) *cobra.Command {
	f := new(replicateFlags)
	cmd := &cobra.Command{
		Use:   "replicate --from VAULT --to COPY",
		Short: "Keep a second copy of a vault",
		Long: `Brings a second copy of a vault up to date: fetches the snapshots that it lacks and
the data that only they need. A new or empty place becomes a copy first.

This needs no passphrase and no keys: everything is copied as it is, and all that
can be checked without a key is: checksums, signatures, the chain of snapshots.
What was forged, or is missing at the source, is refused and named. The copy
opens with the same passphrase and the same recovery code.

The copy only grows: what expires in one of them, or is lost there, stays in the
other, until the company orders to forget it. An interrupted run goes on where
it stopped.

Old keyrings stay in the copy, since nobody can tell without a passphrase that the
new ones are good. Who has seen the copy open with the new passphrase removes them
by --drop-replaced: until then an old passphrase opens the copy, too.

With --dry-run it shows, for each machine and source, how far the copy is behind,
and copies nothing.`,
		Example: `  tripod replicate --from /mnt/disk/vault --to /mnt/other/vault
  tripod replicate --from /mnt/disk/vault --to /mnt/other/vault --dry-run
  tripod replicate --from /mnt/disk/vault --to /mnt/other/vault --rate 20M`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.to == "" {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "no place for the copy given: --to COPY"))
			}
			return arguments(0, 0, "")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.replicate(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.from, "from", "", "the `VAULT` to copy (or TRIPOD_VAULT)")
	cmd.Flags().StringVar(&f.to, "to", "", "the `COPY`, which is made when the place is empty")
	cmd.Flags().Var(&f.rate, "rate", "read no more than `BYTES` a second, such as 20M")
	cmd.Flags().BoolVar(&f.drop, "drop-replaced", false, "remove keyrings from the copy that newer ones replaced, after it was seen to open with those")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show how far the copy is behind, and copy nothing")
	a.bucketFlags(cmd)
	return cmd
}

// rateFlag is a number of bytes a second.
type rateFlag struct {
	text   string
	number int64
}

func (r *rateFlag) String() string { return r.text }
func (r *rateFlag) Type() string   { return "size" }

// Set implements pflag.Value.
func (r *rateFlag) Set(text string) error {
	n, ok := terminal.ParseSize(text)
	if !ok || n <= 0 {
		return tripod.Errorf(tripod.Invalid, "must be a number of bytes such as 500K or 20M")
	}
	r.text, r.number = text, n
	return nil
}

func (a *app) replicate(ctx context.Context, f *replicateFlags) (err error) {
	a.vault = f.from
	location, err := a.location()
	if err != nil {
		return tripod.Errorf(tripod.Invalid, "no vault given").WithHint("name it: --from VAULT, or TRIPOD_VAULT=VAULT in the environment")
	}
	if absolute(location) == absolute(f.to) {
		return tripod.Errorf(tripod.Invalid, "%s is both the vault and its copy", location).WithHint("give two places")
	}
	src, err := a.openAt(ctx, location, f.rate.number)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if f.dryRun {
		return a.lag(ctx, src, f.to)
	}
	if err := a.createCopy(ctx, src, f.to); err != nil {
		return err
	}
	dst, err := a.openAt(ctx, f.to, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := replicate.Same(ctx, src, dst); err != nil {
		return err
	}
	session, err := dst.begin(ctx, "replicate", tripod.MachineID{})
	if err != nil {
		return err
	}
	a.note = "what was copied stays: run it again, it goes on"
	report, err := replicate.Run(ctx, src, dst.Vault, session, replicate.Options{Now: time.Now(), DropReplaced: f.drop, Progress: a.quietly()})
	err = errors.Join(err, session.Close())
	a.StopProgress()
	if err != nil {
		return err
	}
	return errors.Join(a.printCopied(location, f.to, report), report.Err())
}

// quietly shows progress without warnings: the report tells of each.
func (a *app) quietly() run.Progress {
	show := a.Progress()
	return func(e run.Event) {
		if e.Warning == nil {
			show.Emit(e)
		}
	}
}

// createCopy makes an empty copy unless there is one.
func (a *app) createCopy(ctx context.Context, src *opened, location string) (err error) {
	if err := vacantForCopy(location); err != nil {
		return err
	}
	s, err := a.env.Store(ctx, location, true)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := local.Describe(ctx, s); !errors.Is(err, tripod.NotFound) {
		return nil // opening it tells what is wrong
	}
	if err := replicate.Create(ctx, src, s); err != nil {
		return fmt.Errorf("copy %s: %w", location, err)
	}
	a.Tell("Made an empty copy in %s.", absolute(location))
	return nil
}

// vacantForCopy refuses a directory in which there is something else than a vault,
// or the beginning of one.
func vacantForCopy(location string) error {
	if inBucket(location) {
		return nil // the store tells
	}
	entries, err := os.ReadDir(location)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return terminal.System(err, "read directory")
	}
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return vault.Documented(e.Name()) && e.Name() != vault.CopyName }) {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); !slices.Contains([]string{"lost+found", ".incoming", ".lock", "keyring", vault.CopyName}, name) {
			return tripod.Errorf(tripod.Exists, "%s is not empty: it holds %s", location, terminal.Printable(name)).
				WithHint("give a new or an empty directory, or a copy of this vault")
		}
	}
	return nil
}

// lag shows how far a copy is behind.
func (a *app) lag(ctx context.Context, src *opened, location string) (err error) {
	var dst vault.Source = replicate.Nothing{}
	s, err := a.env.Store(ctx, location, false)
	if err == nil {
		_, err = local.Describe(ctx, s)
		err = errors.Join(err, s.Close())
	}
	switch {
	case err == nil:
		o, err := a.openAt(ctx, location, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		if err := replicate.Same(ctx, src, o); err != nil {
			return err
		}
		dst = o
	case !errors.Is(err, tripod.NotFound):
		return fmt.Errorf("copy %s: %w", location, err)
	}
	chains, err := replicate.Compare(ctx, src, dst)
	if err != nil {
		return err
	}
	return a.printLag(src.location, location, chains)
}

type jsonChain struct {
	Machine  string `json:"machine"`
	Source   string `json:"source"`
	Behind   int    `json:"snapshots_behind"`
	Newest   uint64 `json:"newest"`
	Time     string `json:"newest_time,omitempty"`
	CopyHas  uint64 `json:"copy_newest"`
	CopyTime string `json:"copy_newest_time,omitempty"`
	Seconds  int64  `json:"seconds_behind"`
}

func jsonChains(chains []replicate.Chain) []jsonChain {
	all := make([]jsonChain, 0, len(chains))
	stamp := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	for i := range chains {
		c := &chains[i]
		all = append(all, jsonChain{
			c.Machine.String(), c.Source.String(), c.Behind, c.Newest, stamp(c.Time), c.CopyHas, stamp(c.CopyTime), int64(c.Lag().Seconds()),
		})
	}
	return all
}

func (a *app) printLag(from, to string, chains []replicate.Chain) error {
	behind := 0
	var worst time.Duration
	for i := range chains {
		behind += chains[i].Behind
		worst = max(worst, chains[i].Lag())
	}
	if a.JSON {
		return a.Result("replicate-lag", map[string]any{
			"from": absolute(from), "to": absolute(to), "snapshots_behind": behind, "seconds_behind": int64(worst.Seconds()), "chains": jsonChains(chains),
		})
	}
	rows := [][]string{{"MACHINE", "SOURCE", "BEHIND", "NEWEST", "IN THE COPY", "LAG"}}
	for i := range chains {
		c := &chains[i]
		rows = append(rows, []string{
			c.Machine.String()[:8], c.Source.String()[:8], tripod.Number(int64(c.Behind)), numbered(c.Newest, c.Time), numbered(c.CopyHas, c.CopyTime), lagOf(c),
		})
	}
	if len(chains) > 0 {
		a.Table(rows)
	}
	if behind == 0 {
		a.Printf("The copy has every snapshot of the vault.\n")
		return nil
	}
	a.Printf("The copy is %s behind.\n", tripod.Count(behind, "snapshot"))
	return nil
}

func numbered(n uint64, t time.Time) string {
	switch {
	case n == 0:
		return "none"
	case t.IsZero():
		return fmt.Sprintf("%d", n)
	}
	return fmt.Sprintf("%d of %s", n, terminal.When(t))
}

func lagOf(c *replicate.Chain) string {
	switch lag := c.Lag(); {
	case c.CopyHas == 0:
		return "all"
	case c.Newest < c.CopyHas:
		return "the vault has less"
	case lag <= 0:
		return "none"
	default:
		return terminal.Duration(lag)
	}
}

type jsonProblem struct {
	Document string `json:"document"`
	Machine  string `json:"machine,omitempty"`
	Source   string `json:"source,omitempty"`
	Number   uint64 `json:"snapshot_number,omitempty"`
	Kind     string `json:"kind"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

func jsonProblems(problems []replicate.Problem) []jsonProblem {
	all := make([]jsonProblem, 0, len(problems))
	for _, p := range problems {
		j := jsonProblem{Document: p.Document, Kind: tripod.KindOf(p.Err).Error(), Message: terminal.OneLine(p.Err), Hint: tripod.HintOf(p.Err)}
		if p.Key.Seq > 0 {
			j.Machine, j.Source, j.Number = p.Key.Machine.String(), p.Key.Source.String(), p.Key.Seq
		}
		all = append(all, j)
	}
	return all
}

func (a *app) printCopied(from, to string, r *replicate.Report) error {
	if a.JSON {
		return a.Result("replicate", map[string]any{
			"from": absolute(from), "to": absolute(to), "snapshots": r.Snapshots, "given_up": r.Gone, "documents": r.Documents, "blobs": r.Blobs,
			"fetched_bytes": r.Bytes, "stored_bytes": r.Stored, "problems": jsonProblems(r.Problems), "chains": jsonChains(r.Chains),
		})
	}
	a.printProblems(r.Problems)
	if r.Snapshots+r.Gone+r.Documents == 0 && len(r.Problems) == 0 {
		a.Printf("The copy had everything already.\n")
		return nil
	}
	a.Printf("Copied %s: %s fetched, %s stored.\n", tripod.Count(r.Snapshots, "snapshot"), terminal.Size(r.Bytes), terminal.Size(r.Stored))
	if r.Gone > 0 {
		a.Printf("Of %s only the record was taken: forgotten or expired at the source.\n", tripod.Count(r.Gone, "snapshot"))
	}
	return nil
}

// printProblems lists what was refused.
func (a *app) printProblems(problems []replicate.Problem) {
	const most = 20
	for i, p := range problems {
		if i == most {
			a.Printf("and %s more: --json lists all\n", tripod.Number(int64(len(problems)-most)))
			return
		}
		a.Printf("refused: %s\n", p.Err)
		if hint := tripod.HintOf(p.Err); hint != "" {
			a.Printf("  %s\n", hint)
		}
	}
}
