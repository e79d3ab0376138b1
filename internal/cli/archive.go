package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/archive"
	"tripod/internal/vault/local"
)

type archiveFlags struct {
	to, after, lock string
	noLock          bool
	rate            rateFlag
	segment         rateFlag
}

func newArchive(a *app) *cobra.Command {
	f := new(archiveFlags)
	cmd := &cobra.Command{
		Use:   "archive --to ARCHIVE",
		Short: "Put old snapshots where nobody can delete them",
		Long: `Copies the snapshots that are older than --after into an archive, and locks every
object there for --lock: until then nobody can change or delete it, not the owner
of the store either, and not who has this machine and all passwords. A new or empty
place becomes an archive first.

The place must be able to lock: a bucket made with Object Lock, or, as root, a
folder on ext4, xfs or btrfs. Locks are tried before anything relies on them. A
place without is refused unless --no-lock is given; then nothing keeps the
snapshots from being deleted.

An archive is a vault for everything that reads, with the same passphrase and the
same recovery code: snapshots, ls, find, restore, mount and verify take it as
--vault. Snapshots may then expire from the vault. What is locked costs its space
until the date, also when it is forgotten.

This needs no passphrase and no keys. An interrupted run goes on where it stopped.`,
		Example: `  tripod archive --vault /mnt/disk/vault --to s3://s3.example.com/archive
  tripod archive --to s3://s3.example.com/archive --after 90d --lock 2y
  tripod restore --vault s3://s3.example.com/archive latest --to ~/restored`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.to == "" {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "no place for the archive given: --to ARCHIVE"))
			}
			if f.noLock && cmd.Flags().Changed("lock") {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--lock and --no-lock exclude each other"))
			}
			return a.archive(cmd.Context(), f)
		},
	}
	a.vaultFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.to, "to", "", "the `ARCHIVE`, which is made when the place is empty")
	flags.StringVar(&f.after, "after", "30d", "archive what is older than `TIME`, such as 36h, 30d, 8w or 2y; all with 0")
	flags.StringVar(&f.lock, "lock", "365d", "lock what is archived for `TIME` from now")
	flags.BoolVar(&f.noLock, "no-lock", false, "do not lock: whoever can write to the archive can delete it")
	flags.Var(&f.rate, "rate", "read no more than `BYTES` a second, such as 20M")
	flags.Var(&f.segment, "segment", "gather `BYTES` in an object (default 96M, which is the most)")
	cmd.AddCommand(newArchiveCheck(a), newArchiveHold(a))
	return cmd
}

// dates gives the age and the end of the lock, the zero time for none.
func (f *archiveFlags) dates(now time.Time) (after time.Duration, until time.Time, err error) {
	if f.after != "0" {
		if after, err = parseSpan(f.after); err != nil {
			return 0, until, fmt.Errorf("--after: %w", err)
		}
	}
	if f.noLock {
		return after, until, nil
	}
	lock, err := parseSpan(f.lock)
	if err != nil {
		return 0, until, fmt.Errorf("--lock: %w", err)
	}
	return after, ending(now, lock), nil
}

// ending is a whole second, which is what stores keep.
func ending(now time.Time, span time.Duration) time.Time {
	return now.Add(span).UTC().Truncate(time.Second)
}

func (a *app) archive(ctx context.Context, f *archiveFlags) (err error) {
	now := time.Now()
	after, until, err := f.dates(now)
	if err != nil {
		return err
	}
	location, err := a.location()
	if err != nil {
		return err
	}
	if absolute(location) == absolute(f.to) {
		return tripod.Errorf(tripod.Invalid, "%s is both the vault and its archive", location).WithHint("give two places")
	}
	src, err := a.openAt(ctx, location, f.rate.number)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if f.noLock {
		a.Warn("", tripod.Errorf(tripod.Denied, "--no-lock: nothing will keep anybody from deleting what is archived by this run").
			WithHint("give a place that locks: a bucket with Object Lock, or a folder on ext4, xfs or btrfs as root"))
	}
	if err := a.createArchive(ctx, src, f.to, now, until); err != nil {
		return err
	}
	dst, err := a.openAt(ctx, f.to, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := archive.Same(ctx, src, dst); err != nil {
		return err
	}
	session, err := dst.beginArchive(ctx, "archive")
	if err != nil {
		return err
	}
	a.note = "what was archived stays: run it again, it goes on"
	report, err := archive.Run(ctx, src, dst.Vault, session, archive.Options{
		Now: now, After: after, Until: until, Segment: int(f.segment.number), Progress: a.quietly(),
	})
	err = errors.Join(err, session.Close())
	a.StopProgress()
	if err != nil {
		return err
	}
	return errors.Join(a.printArchived(location, f.to, until, report), report.Err())
}

// createArchive makes an empty archive unless there is one.
func (a *app) createArchive(ctx context.Context, src *opened, location string, now, until time.Time) (err error) {
	if err := vacantForArchive(location); err != nil {
		return err
	}
	s, err := a.env.Store(ctx, location, true)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := local.Describe(ctx, s); !errors.Is(err, tripod.NotFound) {
		return nil // opening it tells what is wrong
	}
	if err := archive.Create(ctx, src, s, now, until); err != nil {
		return fmt.Errorf("archive %s: %w", location, err)
	}
	a.Tell("Made an empty archive in %s.", absolute(location))
	return nil
}

// vacantForArchive refuses a directory in which there is something else than a
// vault, or the beginning of one: the store does not see all files.
func vacantForArchive(location string) error {
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
	begun := []string{"lost+found", ".incoming", ".lock", "keyring", "key", vault.CopyName, vault.ArchiveName}
	for _, e := range entries {
		if e.Name() == vault.DescriptorName {
			return nil
		}
	}
	for _, e := range entries {
		if !slices.Contains(begun, e.Name()) {
			return tripod.Errorf(tripod.Exists, "%s is not empty: it holds %s", location, terminal.Printable(e.Name())).
				WithHint("give a new or an empty directory, or an archive of this vault")
		}
	}
	return nil
}

// beginArchive waits for its turn to write to an archive.
func (o *opened) beginArchive(ctx context.Context, what string) (*local.Session, error) {
	return o.Begin(ctx, holder(what), o.waiting)
}

// writable returns Denied for an archive, which only tripod archive adds to.
func (o *opened) writable(ctx context.Context) error {
	is, err := archive.Is(ctx, o)
	if err == nil && is {
		err = tripod.Errorf(tripod.Denied, "%s is an archive: nothing is ever changed in it", o.location).
			WithHint("give the vault; what is in an archive can be listed, verified, mounted and restored")
	}
	return err
}

func (a *app) printArchived(from, to string, until time.Time, r *archive.Report) error {
	if a.JSON {
		problems := make([]jsonProblem, 0, len(r.Problems))
		for _, p := range r.Problems {
			problems = append(problems, jsonProblem{Document: p.Document, Kind: tripod.KindOf(p.Err).Error(), Message: terminal.OneLine(p.Err), Hint: tripod.HintOf(p.Err)})
		}
		return a.Result("archive", map[string]any{
			"from": absolute(from), "to": absolute(to), "snapshots": r.Snapshots, "already_there": r.Held, "too_young": r.Young, "given_up": r.Gone,
			"segments": r.Segments, "stored_bytes": r.Stored, "fetched_bytes": r.Read, "extended_segments": r.Extended,
			"locked_until": stampOf(until), "problems": problems,
		})
	}
	for _, p := range r.Problems {
		a.Printf("left out: %s\n", p.Err)
		if hint := tripod.HintOf(p.Err); hint != "" {
			a.Printf("  %s\n", hint)
		}
	}
	locked := "not locked"
	if !until.IsZero() {
		locked = "locked until " + terminal.When(until)
	}
	if r.Snapshots+r.Gone == 0 {
		a.Printf("Nothing to archive: %s there already, %s too young.\n", tripod.Count(r.Held, "snapshot"), tripod.Number(int64(r.Young)))
		return nil
	}
	a.Printf("Archived %s: %s in %s, %s.\n", tripod.Count(r.Snapshots, "snapshot"), terminal.Size(r.Stored), tripod.Count(r.Segments, "segment"), locked)
	if r.Extended > 0 {
		a.Printf("The lock of %s that were there already was extended.\n", tripod.Count(r.Extended, "segment"))
	}
	if r.Gone > 0 {
		a.Printf("Of %s only the record was taken: forgotten or expired in the vault.\n", tripod.Count(r.Gone, "snapshot"))
	}
	return nil
}

func stampOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// archiveFlag adds --archive.
func (a *app) archiveFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.vault, "archive", "", "the `ARCHIVE`: a directory, or s3://HOST/BUCKET/PREFIX (or TRIPOD_VAULT)")
	a.bucketFlags(cmd)
}

func newArchiveCheck(a *app) *cobra.Command {
	sample, tries := 100.0, 0
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Prove that an archive is whole and cannot be changed",
		Long: `Reads the segments of an archive again and checks every byte that can be checked
without a key, and tries to overwrite and to delete what is locked: all documents
and some segments, chosen anew each time. The archive must refuse. What it lets be
deleted is put back and locked, and named.

What is damaged is named with the snapshots that need it; the next tripod archive
archives it again where the vault still has it. Damage and locks that do not hold
end with exit code 9. It needs no passphrase; tripod verify --vault ARCHIVE checks
all that a restore does.`,
		Example: `  tripod archive check --archive s3://s3.example.com/archive
  tripod archive check --archive /mnt/archive --sample 5`,
		Args: func(cmd *cobra.Command, args []string) error {
			if sample < 0 || sample > 100 {
				return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--sample %g: must be 0 to 100", sample))
			}
			return arguments(0, 0, "")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.archiveCheck(cmd.Context(), sample/100, tries) },
	}
	a.archiveFlag(cmd)
	cmd.Flags().Float64Var(&sample, "sample", 100, "read `PERCENT` of the segments again")
	cmd.Flags().IntVar(&tries, "tries", archive.DefaultTries, "try to change `NUMBER` segments")
	return cmd
}

type jsonFinding struct {
	Object  string `json:"object"`
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

func (a *app) archiveCheck(ctx context.Context, sample float64, tries int) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	now := time.Now()
	r, err := archive.Check(ctx, o.Vault, archive.CheckOptions{Now: now, Sample: sample, Tries: tries, Progress: a.quietly()})
	a.StopProgress()
	if err != nil {
		return err
	}
	if r.Unlocked > 0 {
		a.Warn("", tripod.Errorf(tripod.Denied, "%s not locked: the lock has ended, or there never was one", tripod.Count(r.Unlocked, "snapshot")).
			WithHint("tripod archive hold locks one again"))
	}
	if a.JSON {
		findings := make([]jsonFinding, 0, len(r.Findings))
		for _, p := range r.Findings {
			findings = append(findings, jsonFinding{p.Document, tripod.KindOf(p.Err).Error(), terminal.OneLine(p.Err)})
		}
		err = a.Result("archive-check", map[string]any{
			"archive": absolute(o.location), "good": len(r.Findings) == 0, "snapshots": r.Snapshots, "segments": r.Segments, "not_locked": r.Unlocked,
			"refused_to_change": r.Tried, "first_lock_ends": stampOf(r.First), "last_lock_ends": stampOf(r.Last), "findings": findings,
		})
	} else {
		a.printChecked(r)
	}
	if len(r.Findings) > 0 {
		return errors.Join(err, tripod.Errorf(tripod.Corrupt, "%s in the archive", tripod.Count(len(r.Findings), "finding")).
			WithHint("run tripod archive again: it archives anew what is damaged, as far as the vault still has it"))
	}
	return err
}

func (a *app) printChecked(r *archive.CheckReport) {
	for _, p := range r.Findings {
		a.Printf("%s\n", p.Err)
		if hint := tripod.HintOf(p.Err); hint != "" {
			a.Printf("  %s\n", hint)
		}
	}
	if r.Tried > 0 {
		a.Printf("%s could neither be overwritten nor deleted.\n", tripod.Count(r.Tried, "object"))
	}
	if len(r.Findings) > 0 {
		return
	}
	a.Printf("%s in %s: nothing is damaged or missing", tripod.Count(r.Snapshots, "snapshot"), tripod.Count(r.Segments, "segment"))
	if !r.First.IsZero() {
		a.Printf("; the first lock ends %s, the last %s", terminal.When(r.First), terminal.When(r.Last))
	}
	a.Printf(".\n")
}

func newArchiveHold(a *app) *cobra.Command {
	span := ""
	cmd := &cobra.Command{
		Use:   "hold SNAPSHOT",
		Short: "Lock an archived snapshot for longer",
		Long: `Extends the lock of a snapshot, and of all that it needs, for example because a
court wants it kept. A lock can be extended, never shortened. SNAPSHOT is an id as
tripod snapshots --vault ARCHIVE shows it. It needs no passphrase.`,
		Example: `  tripod archive hold --archive s3://s3.example.com/archive 8c51f06a --for 10y`,
		Args:    arguments(1, 1, "a snapshot"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := parseSpan(span)
			if err != nil {
				return usageOf(cmd, fmt.Errorf("--for: %w", err))
			}
			return a.archiveHold(cmd.Context(), args[0], d)
		},
	}
	a.archiveFlag(cmd)
	cmd.Flags().StringVar(&span, "for", "", "keep it locked for `TIME` from now, such as 90d or 10y")
	return cmd
}

func (a *app) archiveHold(ctx context.Context, spec string, span time.Duration) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if is, err := archive.Is(ctx, o); err != nil || !is {
		return errors.Join(err, tripod.Errorf(tripod.Invalid, "%s is a vault and no archive", o.location).WithHint("tripod vault hold keeps everything in a vault from expiring"))
	}
	k, id, err := o.archived(ctx, spec)
	if err != nil {
		return err
	}
	session, err := o.beginArchive(ctx, "archive hold")
	if err != nil {
		return err
	}
	now := time.Now()
	m, err := archive.Extend(ctx, o.Vault, k, now, ending(now, span))
	if err := errors.Join(err, session.Close()); err != nil {
		return err
	}
	if a.JSON {
		return a.Result("archive-hold", map[string]any{"id": id, "segments": len(m.Segments), "locked_until": stampOf(m.Until)})
	}
	a.Printf("Snapshot %s is locked until %s, with the %s that it needs.\n", id, terminal.When(m.Until), tripod.Count(len(m.Segments), "segment"))
	return nil
}

// archived finds a snapshot by the first digits of its id, which need no key.
func (o *opened) archived(ctx context.Context, spec string) (k snapshot.Key, id string, err error) {
	const shortest = 4
	found := 0
	spec = strings.ToLower(spec)
	err = o.Live(ctx, func(string) bool { return false }, func(name string, r *snapshot.Record) error {
		content, err := o.Document(ctx, name)
		if err != nil {
			return err
		}
		if hash := fmt.Sprintf("%x", snapshot.HashOf(content)); strings.HasPrefix(hash, spec) {
			k, id = r.Key, hash[:8]
			found++
		}
		return nil
	})
	switch {
	case err != nil:
		return k, id, err
	case found == 0 || len(spec) < shortest:
		return k, id, tripod.Errorf(tripod.NotFound, "snapshot %q: there is none in the archive", spec).WithHint("tripod snapshots --vault %s lists them", terminal.Quoted(o.location))
	case found > 1:
		return k, id, tripod.Errorf(tripod.Conflict, "snapshot %q: %d ids begin so", spec, found).WithHint("give more digits")
	}
	return k, id, nil
}
