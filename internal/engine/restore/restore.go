// Package restore brings snapshots back to where they are needed: files with all their metadata, disks,
// streams. It plans first, in windows of bounded size, which bytes of which
// blob go where; then every goroutine that opens a blob writes it, out of
// order, straight to where it belongs.
//
// A snapshot's content is hostile input, and so is a target that others may
// write to: every name is checked, every step goes by a handle on the folder
// above, and no symbolic link is ever followed. What cannot be restored is
// left out, told as a warning and counted; everything else is restored. Of a
// long file, disk or stream that is damaged, what can be read is kept under a
// name that ends in .partial.
//
// Paths in warnings and reports are those of the snapshot, from the root, unless
// they say at the target.
//
// Where to start reading: Files in this file; walk.go makes the folders and
// decides what happens to each entry; window.go plans the reading; file.go
// writes; partial.go keeps what is not whole; handle_linux.go and handle_other.go do what differs by system.
package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/run"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
)

// Overwrite says what happens to files that are in the way.
type Overwrite uint8

// The rules. Never is the default: a restore changes nothing that it did not
// make. With Changed a file of the right size and modification time counts as
// restored already, and of large files that differ only the blocks that differ
// are read and written; it also continues an interrupted restore. Always
// replaces every file by a new one.
const (
	Never Overwrite = iota
	Changed
	Always
)

// Options say what to restore and where to.
type Options struct {
	// Path is the file or folder to restore, absolute or relative to the only
	// protected path; empty for everything. Files only.
	Path string
	// To is the folder to restore into, made if need be. A disk or stream may
	// name the file to make or the device to write; with a separator at its end
	// it is a folder then, too.
	To        string
	Overwrite Overwrite
	DryRun    bool // look, tell, change nothing
	// NumericOwner restores owners by number even where their names are known
	// here by another.
	NumericOwner bool
	Progress     run.Progress
	// Each, if set, is told what happens to each entry that is not simply made
	// anew, and in a dry run to all; at is its path at the target. Calls are
	// serialized.
	Each func(at string, what Action)
}

// Action is what becomes of an entry.
type Action string

// The actions.
const (
	Make    Action = "make"    // nothing was there
	Replace Action = "replace" // something else was there
	Update  Action = "update"  // differing blocks are rewritten in place
	Same    Action = "same"    // content is right already
	Keep    Action = "keep"    // something is in the way and is kept
)

// Report tells what a restore did, or in a dry run would do.
//
// A file is what a backup counts as one: every name that is no folder. Regular
// files, symbolic links, pipes, sockets and devices are, and a file with several
// names counts once for each. So a whole restore into a new folder has as many
// Files as the backup.
type Report struct {
	At        string // the file or device that a disk or stream was, or would be, restored to
	Files     int64  // made, replaced or updated
	Folders   int64  // made
	Bytes     int64  // of content written
	Reused    int64  // bytes of content that were right already
	Unchanged int64  // files that were right already
	Conflicts int64  // what was in the way and is kept
	Blocked   int64  // of Conflicts, what no rule replaces: a folder where a file belongs, or anything else where a folder does
	Failed    int64  // files and folders that could not be restored; damaged ones included
	Warnings  int64  // all that was told as a warning, conflicts and failures included
	// Unread are the stretches of the tree that cannot be read; the first. The
	// names in them are not known, only how many files a whole snapshot of Total
	// files has beyond those that are: Unlisted, counted in Failed. Both are 0
	// when only a part of the snapshot was asked for, or nothing is unread.
	Unread          []blobs.Span
	Total, Unlisted int64
	// Damaged are the first paths whose stored data is damaged or lost.
	Damaged []string
	// Partial are those of them of which a part could be read; the first.
	Partial []Partial
	// Problems are the first warnings.
	Problems []error
}

// most entries of a report's lists.
const mostListed = 1000

// Files restores a snapshot of files. What Path names is put into To under its
// own name; without Path, the content of the only protected folder goes
// directly into To, and several protected paths keep their absolute structure
// below it. The report is never nil. The error is Corrupt when stored data was
// damaged, and of the first failure's kind when something else could not be
// restored; everything that could be is there.
func Files(ctx context.Context, r vault.Reader, snap catalog.Snapshot, o Options) (*Report, error) {
	j := newJob(r, snap, o)
	err := j.files(ctx)
	return j.finish(err)
}

// job is one restore.
type job struct {
	Options
	blobs   *blobs.Reader
	snap    catalog.Snapshot
	meter   *blobs.Meter
	report  Report
	mu      sync.Mutex // guards report, failed and Each
	failed  error      // the first failure
	owners  owners
	self    self
	table   *table
	pending inFlight
	links   []hardLink
	aside   []*file // damaged, for keepParts; guarded by mu
	groups  map[uint64]*master
	once    map[string]bool // warnings that are told once
}

func newJob(r vault.Reader, snap catalog.Snapshot, o Options) *job {
	j := &job{
		Options: o, blobs: blobs.New(r, snap.Record.Company), snap: snap, self: whoAmI(), table: newTable(),
		groups: map[uint64]*master{}, once: map[string]bool{},
	}
	j.owners.numeric = o.NumericOwner
	j.pending.files = map[*file]struct{}{}
	var files, bytes int64
	if snap.Label != nil && o.Path == "" {
		files, bytes = snap.Label.Files, snap.Label.Bytes
	}
	j.meter = blobs.NewMeter(o.Progress, run.Reading, files, bytes)
	return j
}

// fetchers is how many windows are worked on at a time: one hides the other's
// beginning and end.
const fetchers = 2

func (j *job) files(ctx context.Context) error {
	entry, located := catalog.Locate(ctx, j.blobs, &j.snap, j.Path)
	base, single := j.snap.Base()
	if located != nil {
		if j.Path != "" || !blobs.Damage(located) || ctx.Err() != nil {
			return located
		}
		// The entry of the protected folder is lost, which need not cost what is in it.
		entry = &tree.Entry{Type: tree.Dir}
		entry.Parent, entry.Name = tree.SplitPath(base)
	}
	w := &walker{job: j, win: newWindow(), blind: located != nil}
	w.whole = entry.Path() == "" || single && entry.Path() == base
	top, err := j.openTop(entry, w)
	if err != nil {
		return err
	}
	defer j.table.closeAll()
	g, gctx := errgroup.WithContext(ctx)
	windows := make(chan *window)
	g.Go(func() error {
		defer close(windows)
		return w.run(gctx, top, entry, func(win *window) error {
			select {
			case windows <- win:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		})
	})
	for range fetchers {
		g.Go(func() error {
			for win := range windows {
				if err := j.write(gctx, win); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	if err == nil && located != nil && len(j.report.Unread) == 0 {
		err = located // it is no damage: the snapshot does not have what it should
	}
	w.countUnlisted()
	if err == nil {
		j.meter.Phase(run.Finish)
		err = j.makeLinks(ctx)
	}
	if err == nil {
		err = j.keepParts(ctx)
	}
	j.pending.abandon(j)
	if err == nil {
		j.release(top) // what the walk held; its folders are finished by now
	}
	return err
}

// openTop makes and opens the target folder.
func (j *job) openTop(entry *tree.Entry, w *walker) (*folder, error) {
	top := &folder{path: j.To}
	if j.To == "" {
		return nil, tripod.Errorf(tripod.Invalid, "restore: no folder to restore into").WithHint("name one with --to")
	}
	switch {
	case (j.Path != "" && entry.Name != "") || entry.Type != tree.Dir:
		top.tree = entry.Parent
	default:
		top.tree, w.contents = entry.Path(), true
	}
	_, err := os.Stat(j.To)
	top.missing = err != nil && j.DryRun
	if err != nil && !j.DryRun {
		if err := os.MkdirAll(j.To, 0o700); err != nil {
			return nil, durable.Classify(err, "make folder", j.To)
		}
		top.made = true
		if w.contents && entry.Name != "" && !w.blind {
			top.entry = entry
		}
		if top.entry == nil { // ours to choose: as any new folder
			if err := os.Chmod(j.To, 0o777&^os.FileMode(j.self.umask)); err != nil { //nolint:gosec // the user's own umask
				return nil, durable.Classify(err, "make folder", j.To)
			}
		}
	}
	top.pending.Store(1)
	if top.missing {
		return top, nil
	}
	h, info, err := openPlace(j.To)
	if err != nil {
		return nil, durable.Classify(err, "open folder", j.To)
	}
	j.table.adopt(top, h, &info)
	return top, nil
}

func (j *job) finish(err error) (*Report, error) {
	j.meter.Done()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return &j.report, err
	}
	if n := len(j.report.Damaged); n > 0 {
		return &j.report, tripod.Errorf(tripod.Corrupt, "restore: %s damaged in the vault, first %s", tripod.Count(j.report.Failed, "entry"), j.report.Damaged[0]).
			WithHint("%s", j.report.nextStep())
	}
	if j.failed != nil {
		return &j.report, tripod.Errorf(tripod.KindOf(j.failed), "restore: %s could not be restored, first: %w", tripod.Count(j.report.Failed, "entry"), j.failed).
			WithHint("%s", tripod.HintOf(j.failed))
	}
	return &j.report, nil
}

// nextStep tells what to do about damage.
func (r *Report) nextStep() string {
	hint := "all else was restored; another snapshot or another copy of the vault may have it whole"
	if slices.ContainsFunc(r.Partial, func(p Partial) bool { return strings.HasSuffix(p.At, partialSuffix) }) {
		hint += "; until then a " + partialSuffix + " holds what could be read"
	}
	return hint
}

// named puts the path that an error is about before it.
func named(path string, err error) error {
	return tripod.Errorf(tripod.KindOf(err), "%s: %w", path, err)
}

// warn tells what is not as it was. path is in the snapshot.
func (j *job) warn(path string, err error) {
	if _, told := errors.AsType[*Kept](err); !told {
		err = named(path, err)
	}
	j.mu.Lock()
	j.report.Warnings++
	if len(j.report.Problems) < mostListed {
		j.report.Problems = append(j.report.Problems, err)
	}
	j.mu.Unlock()
	j.meter.Warn(path, err)
}

// warnOnce is warn for what would otherwise be told of every file.
func (j *job) warnOnce(key, path string, err error) {
	j.mu.Lock()
	known := j.once[key]
	j.once[key] = true
	j.mu.Unlock()
	if !known {
		j.warn(path, err)
	}
}

// fail counts an entry, by its path in the snapshot, that could not be restored.
// It gives err back when the
// whole restore must end: everything after it would fail as well.
func (j *job) fail(path string, err error) error {
	kind := tripod.KindOf(err)
	if kind == tripod.Exhausted || kind == tripod.Unavailable || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	j.mu.Lock()
	j.report.Failed++
	if j.failed == nil {
		j.failed = named(path, err)
	}
	if kind == tripod.Corrupt && len(j.report.Damaged) < mostListed {
		j.report.Damaged = append(j.report.Damaged, path)
	}
	j.mu.Unlock()
	j.warn(path, err)
	return nil
}

// keep tells that something is in the way. blocked says that no rule would
// replace it.
func (j *job) keep(dir *folder, name, what string, blocked bool) {
	j.count(func(r *Report) {
		r.Conflicts++
		if blocked {
			r.Blocked++
		}
	})
	j.tell(dir.at(name), Keep)
	path := dir.inSnapshot(name)
	j.warn(path, &Kept{named(path, tripod.Errorf(tripod.Conflict, "%s %s", dir.at(name), what))})
}

// Kept warns of what was in the way of an entry and is kept.
type Kept struct{ err error }

// Error tells what was kept.
func (k *Kept) Error() string { return k.err.Error() }

// Unwrap gives the Conflict.
func (k *Kept) Unwrap() error { return k.err }

func (j *job) tell(path string, what Action) {
	if j.Each == nil || (what == Make && !j.DryRun) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Each(path, what)
}

// count changes the report.
func (j *job) count(fn func(*Report)) {
	j.mu.Lock()
	fn(&j.report)
	j.mu.Unlock()
}

// at is the name of an entry at the target, for people.
func (f *folder) at(name string) string { return filepath.Join(f.path, name) }

// inSnapshot is the path of an entry in the snapshot, as people give it.
func (f *folder) inSnapshot(name string) string { return "/" + tree.Join(f.tree, name) }
