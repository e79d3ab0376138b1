package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/listing"
	"tripod/internal/cli/terminal"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/restore"
)

type restoreFlags struct {
	filterFlags
	to           string
	overwrite    string
	dryRun       bool
	numericOwner bool
}

func newRestore(a *app) *cobra.Command {
	f := new(restoreFlags)
	cmd := &cobra.Command{
		Use:   "restore SNAPSHOT[:PATH] --to DIR",
		Short: "Get files, a disk or a stream back",
		Long: `Restores a snapshot, or one file or folder of it, into a folder. SNAPSHOT is an id
of tripod snapshots, its first digits, or "latest". PATH is absolute, or relative
to the one protected path. "latest" is the newest of all snapshots, or of those
that --host and --path leave; with an absolute PATH, of those that protect it.

A whole snapshot of one folder puts the folder's content into DIR; one of several
paths keeps their structure below DIR. A PATH is put into DIR under its own name.
A disk or a stream goes into DIR under its name when that is a folder or ends in a
slash, else into the file or device of that name; "--to -" sends a stream to
standard output.

Nothing that is in the way is touched unless --overwrite says so: "changed" leaves
files alone that have the right size and time, and of large files rewrites only
what differs; it also continues an interrupted restore. "always" replaces every
file. What is in the way of a folder, or a folder in the way of a file, always
stays, and what belongs there is left out with all below it.

Of a long file, a disk or a stream that is damaged in the vault, what can be read
goes to a file whose name ends in .partial; what is missing is named.`,
		Example: `  tripod restore --vault /mnt/disk/vault latest --to /tmp/restored
  tripod restore latest:/home/me/letter.odt --to .
  tripod restore 1a2b3c4d --to /srv --overwrite changed
  tripod restore latest --path postgres.sql --to - | psql`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := arguments(1, 1, "one SNAPSHOT or SNAPSHOT:PATH")(cmd, args); err != nil {
				return err
			}
			return f.check(cmd)
		},
		ValidArgsFunction: a.completeSnapshots,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.restore(cmd.Context(), f, args[0]) },
	}
	a.vaultFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.to, "to", "", "restore into `DIR` (required)")
	flags.StringVar(&f.overwrite, "overwrite", "never", "replace files in the way `WHEN`: never, changed or always")
	flags.BoolVarP(&f.dryRun, "dry-run", "n", false, "tell what would be done and change nothing")
	flags.BoolVar(&f.numericOwner, "numeric-owner", false, "restore owners by number, not by name")
	f.add(cmd)
	_ = cmd.MarkFlagDirname("to") // the flag is there
	_ = cmd.RegisterFlagCompletionFunc("overwrite", cobra.FixedCompletions([]string{"never", "changed", "always"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *restoreFlags) check(cmd *cobra.Command) error {
	if f.to == "" {
		return usageOf(cmd, tripod.Errorf(tripod.Invalid, "no place to restore to: give --to DIR"))
	}
	if _, ok := overwriteRule(f.overwrite); !ok {
		return usageOf(cmd, tripod.Errorf(tripod.Invalid, "--overwrite %q: must be never, changed or always", f.overwrite))
	}
	return nil
}

func overwriteRule(text string) (restore.Overwrite, bool) {
	switch text {
	case "never":
		return restore.Never, true
	case "changed":
		return restore.Changed, true
	case "always":
		return restore.Always, true
	}
	return 0, false
}

func (a *app) restore(ctx context.Context, f *restoreFlags, what string) (err error) {
	if !f.dryRun {
		a.note = "what was restored so far is kept; the same command with --overwrite changed goes on from there"
	}
	u, err := a.read(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	spec, path := catalog.ParseSpec(what)
	s, err := u.catalog.FindFor(spec, path, f.filter())
	if err != nil {
		return err
	}
	if path != "" && s.Record.Type != tripod.Files {
		return tripod.Errorf(tripod.Invalid, "snapshot %s is of a %s and holds no paths", s.ID, s.Record.Type).
			WithHint("restore it whole: tripod restore %s --to DIR", s.ID)
	}
	if err := f.checkTarget(&s, a); err != nil {
		return err
	}
	which := ""
	if n := u.catalog.Sources(f.filter()); spec == catalog.Latest && n > 1 {
		which = fmt.Sprintf(" (the newest of %d sources)", n)
	}
	a.tellSnapshot(&s, which)
	show := &capped{next: a.Progress(), all: a.JSON}
	o := restore.Options{Path: path, To: f.target(), DryRun: f.dryRun, NumericOwner: f.numericOwner, Progress: show.emit}
	o.Overwrite, _ = overwriteRule(f.overwrite) // checked with the flags
	if f.dryRun && f.to != stdout && (a.JSON || !a.Quiet) {
		o.Each = func(path string, what restore.Action) { a.eachRestored(path, what) }
	}
	began := time.Now()
	var report *restore.Report
	switch s.Record.Type {
	case tripod.DiskImage:
		report, err = restore.Disk(ctx, u, s, o)
	case tripod.Stream:
		report, err = u.restoreStream(ctx, s, o)
	default:
		report, err = restore.Files(ctx, u, s, o)
	}
	a.StopProgress()
	show.rest(a)
	if errors.Is(err, context.Canceled) || err != nil && report.Files+report.Folders+report.Failed == 0 {
		return err // nothing was restored
	}
	return errors.Join(a.printRestore(f, &s, report, time.Since(began)), err)
}

// tellSnapshot says which snapshot was found, before anything is written.
func (a *app) tellSnapshot(s *catalog.Snapshot, which string) {
	if a.JSON {
		a.PrintJSON(a.Err, struct {
			Type     string           `json:"type"`
			V        int              `json:"v"`
			Snapshot listing.Snapshot `json:"snapshot"`
		}{"restoring", 1, listing.OfSnapshot(s)})
		return
	}
	left := ""
	if n := s.Label.Skipped; n > 0 {
		left = fmt.Sprintf("; incomplete: its backup ended with %s", tripod.Count(n, "warning"))
	}
	a.Tell("Snapshot %s of %s: %s %s, %s%s%s", s.ID, terminal.Printable(s.Label.Host), s.Record.Type, terminal.Printable(strings.Join(s.Label.Paths, " ")),
		terminal.When(s.Record.Time), which, left)
}

// mostKept is how many files that are in the way are named; as JSON all are.
const mostKept = 20

// capped shows a restore's progress. Where there are very many files in the way,
// it names the first.
type capped struct {
	next run.Progress
	all  bool
	kept int // only one warning is emitted at a time
	left int
}

func (c *capped) emit(e run.Event) {
	if _, kept := errors.AsType[*restore.Kept](e.Warning); kept && !c.all {
		if c.kept++; c.kept > mostKept {
			c.left++
			return
		}
	}
	c.next(e)
}

func (c *capped) rest(a *app) {
	if c.left > 0 {
		a.Warn("", tripod.Errorf(tripod.Conflict, "and %s more, in the way and kept: --json lists all", tripod.Count(c.left, "file")))
	}
}

// eachRestored lists what a dry run would do: as JSON one object per line.
func (a *app) eachRestored(path string, what restore.Action) {
	if a.JSON {
		a.PrintJSON(a.Out, restoreEntry{"restore_entry", 1, string(what), path, terminal.Raw(path)})
		return
	}
	a.Printf("%-8s %s\n", what, terminal.Printable(path))
}

type restoreEntry struct {
	Type    string `json:"type"`
	V       int    `json:"v"`
	Action  string `json:"action"`
	Path    string `json:"path"` // at the target
	PathRaw string `json:"path_raw,omitempty"`
}

type restoreResult struct {
	Snapshot  string        `json:"snapshot"`
	Host      string        `json:"host"`
	Paths     []string      `json:"paths"`
	Time      string        `json:"time"`
	To        string        `json:"to"`
	DryRun    bool          `json:"dry_run,omitempty"`
	Files     int64         `json:"files"`
	Folders   int64         `json:"folders"`
	Bytes     int64         `json:"bytes"`
	Reused    int64         `json:"reused_bytes"`
	Unchanged int64         `json:"unchanged"`
	Conflicts int64         `json:"conflicts"`
	Blocked   int64         `json:"blocked"`
	Failed    int64         `json:"failed"`
	Total     int64         `json:"snapshot_files,omitempty"` // when names of files are lost
	Unlisted  int64         `json:"unlisted_files,omitempty"`
	Unread    []jsonSpan    `json:"unread,omitempty"`
	Damaged   []string      `json:"damaged"`
	Raw       []string      `json:"damaged_raw,omitempty"`
	Partial   []jsonPartial `json:"partial"`
	Warnings  int64         `json:"warnings"`
	Seconds   float64       `json:"seconds"`
}

// jsonSpan is what the tree names from one path up to another, or to the end.
type jsonSpan struct {
	From     string `json:"from"`
	FromRaw  string `json:"from_raw,omitempty"`
	Until    string `json:"until,omitempty"`
	UntilRaw string `json:"until_raw,omitempty"`
}

func describeUnread(list []blobs.Span) (out []jsonSpan) {
	for _, s := range list {
		j := jsonSpan{From: "/" + s.From, FromRaw: terminal.Raw("/" + s.From)}
		if s.Until != "" {
			j.Until, j.UntilRaw = "/"+s.Until, terminal.Raw("/"+s.Until)
		}
		out = append(out, j)
	}
	return out
}

type jsonPartial struct {
	Path    string      `json:"path"`
	PathRaw string      `json:"path_raw,omitempty"`
	KeptAs  string      `json:"kept_as,omitempty"`
	KeptRaw string      `json:"kept_as_raw,omitempty"`
	Size    int64       `json:"size"`
	Lost    int64       `json:"missing_bytes"`
	Missing []jsonRange `json:"missing"`
}

type jsonRange struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func describePartial(list []restore.Partial) []jsonPartial {
	out := []jsonPartial{}
	for _, p := range list {
		j := jsonPartial{p.Path, terminal.Raw(p.Path), p.At, terminal.Raw(p.At), p.Size, p.Lost, nil}
		for _, m := range p.Missing {
			j.Missing = append(j.Missing, jsonRange(m))
		}
		out = append(out, j)
	}
	return out
}

func (a *app) printRestore(f *restoreFlags, s *catalog.Snapshot, r *restore.Report, took time.Duration) error {
	if f.to == stdout {
		return nil // the stream is all that belongs there
	}
	if a.JSON {
		d := listing.OfSnapshot(s)
		return a.Result("restore", restoreResult{
			s.ID, d.Host, d.Paths, d.Time, f.where(r), f.dryRun, r.Files, r.Folders, r.Bytes, r.Reused, r.Unchanged, r.Conflicts, r.Blocked, r.Failed,
			r.Total, r.Unlisted, describeUnread(r.Unread),
			append([]string{}, r.Damaged...), terminal.RawAll(r.Damaged), describePartial(r.Partial), r.Warnings, took.Seconds(),
		})
	}
	what := terminal.Size(r.Bytes)
	if s.Record.Type == tripod.Files {
		what = tripod.Count(r.Files, "file") + ", " + what
	}
	if f.dryRun {
		a.Printf("Would restore %s of snapshot %s to %s. Nothing was changed.\n", what, s.ID, terminal.Printable(f.where(r)))
	} else {
		a.Printf("Restored %s of snapshot %s to %s in %s\n", what, s.ID, terminal.Printable(f.where(r)), terminal.Duration(took))
	}
	a.printUnread(r)
	if r.Unchanged > 0 {
		a.Printf("  %s right already\n", were(r.Unchanged, "file"))
	}
	if n := r.Conflicts - r.Blocked; n > 0 {
		a.Printf("  %s in the way and kept; --overwrite changed replaces what differs\n", were(n, "file"))
	}
	if r.Blocked > 0 {
		a.Printf("  %s left out, folders with all below them: something of another type is in the way, see above\n", were(r.Blocked, "entry"))
	}
	if r.Failed > 0 {
		a.Printf("  %s could not be restored, see above\n", tripod.Count(r.Failed, "entry"))
	}
	for _, p := range r.Partial {
		if p.At != "" {
			a.Printf("  %s lacks %s of %d\n", terminal.Printable(p.At), blobs.RangesText(p.Missing), p.Size)
		}
	}
	return nil
}

// mostSpans of a tree that are named; as JSON all are.
const mostSpans = 20

// printUnread tells what damaged lists of folders cost.
func (a *app) printUnread(r *restore.Report) {
	if len(r.Unread) == 0 {
		return
	}
	files := "files whose number is not known"
	if r.Total > 0 {
		a.Printf("  %s in the snapshot, %s restored\n", tripod.Count(r.Total, "file"), tripod.Number(r.Files))
		files = "at least " + tripod.Count(r.Unlisted, "file")
	}
	a.Printf("  %s in damaged folders' lists, so not even the names are known:\n", files)
	for i, s := range r.Unread {
		if i == mostSpans {
			a.Printf("    and %s more\n", tripod.Number(len(r.Unread)-i))
			break
		}
		a.Printf("    %s\n", terminal.Printable(s.String()))
	}
}

// where is what was written: a folder, or the file or device of a disk or stream.
func (f *restoreFlags) where(r *restore.Report) string {
	switch {
	case len(r.Partial) == 1 && r.At != "" && r.Partial[0].At != "":
		return r.Partial[0].At
	case r.At != "":
		return r.At
	}
	return absolute(f.to)
}

// were is a number of things that something happened to.
func were(n int64, noun string) string {
	return tripod.Count(n, noun) + terminal.Plural(int(n), " was", " were")
}

// stdout is the target that stands for standard output.
const stdout = "-"

// target is where to restore to, for the engine.
func (f *restoreFlags) target() string {
	if f.to == stdout {
		return f.to
	}
	to := absolute(f.to)
	if os.IsPathSeparator(f.to[len(f.to)-1]) && !os.IsPathSeparator(to[len(to)-1]) {
		to += string(filepath.Separator) // a folder is meant
	}
	return to
}

// restoreStream writes a stream to standard output or to a file.
func (u *unlocked) restoreStream(ctx context.Context, s catalog.Snapshot, o restore.Options) (*restore.Report, error) {
	switch {
	case o.To != stdout:
		return restore.StreamTo(ctx, u, s, o)
	case o.DryRun:
		return restore.Stream(ctx, u, s, o, io.Discard)
	}
	return restore.Stream(ctx, u, s, o, u.app.Out)
}

// checkTarget refuses standard output for what is no stream.
func (f *restoreFlags) checkTarget(s *catalog.Snapshot, a *app) error {
	switch {
	case f.to != stdout:
		return nil
	case s.Record.Type != tripod.Stream:
		return tripod.Errorf(tripod.Invalid, "--to -: only a stream goes to standard output").
			WithHint("for one file: tripod cat %s:PATH", s.ID)
	case a.JSON:
		return tripod.Errorf(tripod.Invalid, "--to - and --json both want standard output")
	case terminal.IsTerminal(a.Out):
		return tripod.Errorf(tripod.Invalid, "--to -: standard output is a terminal").WithHint("send it to a file or a program: ... --to - | psql")
	}
	return nil
}
