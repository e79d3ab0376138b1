package restore

import (
	"context"
	"runtime"
	"slices"
	"strings"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/engine/blobs"
)

// walker goes through a snapshot's tree in order, makes folders, links and
// special files at once, and puts files into windows.
type walker struct {
	*job
	contents bool            // what is in the entry goes into the target, not the entry
	whole    bool            // all of the snapshot is asked for
	blind    bool            // the entry itself is lost
	known    int64           // files that were met
	refused  map[string]bool // folders of lost entries that could not be made
	stack    []*folder
	win      *window
	send     func(*window) error
}

func (w *walker) run(ctx context.Context, top *folder, entry *tree.Entry, send func(*window) error) error {
	w.send = send
	w.stack = []*folder{top}
	top.hold() // the caller keeps one of its own
	if !w.contents {
		if err := w.entry(ctx, entry); err != nil {
			return err
		}
	}
	if entry.Type == tree.Dir {
		err := w.blobs.Walk(ctx, w.snap.Root, tree.Under(entry.Path()), func(entries []tree.Entry) error {
			for i := range entries {
				if err := w.entry(ctx, &entries[i]); err != nil {
					return err
				}
			}
			return ctx.Err()
		}, w.unread)
		if err != nil {
			return err
		}
	}
	for len(w.stack) > 0 {
		w.leave()
	}
	return w.flush()
}

// unread notes a stretch of the tree that is lost. What is in it is not known, so
// it cannot be named one by one.
func (w *walker) unread(what blobs.Span, err error) error {
	from := "/" + what.From
	w.count(func(r *Report) {
		if len(r.Unread) < mostListed {
			r.Unread = append(r.Unread, what)
		}
	})
	until := ""
	if what.Until != "" {
		until = " up to /" + what.Until
	}
	return w.fail(from, tripod.Errorf(tripod.Corrupt, "what follows%s is not known: %w", until, err))
}

// countUnlisted tells how many files the lost stretches of the tree hold.
func (w *walker) countUnlisted() {
	l := w.snap.Label
	w.count(func(r *Report) {
		if len(r.Unread) == 0 || !w.whole || l == nil {
			return
		}
		r.Total, r.Unlisted = l.Files, max(0, l.Files-w.known)
		r.Failed += max(0, r.Unlisted-int64(len(r.Unread))) // each of which counts as one
	})
}

// entry restores one entry or plans it.
func (w *walker) entry(ctx context.Context, e *tree.Entry) error {
	if e.Type != tree.Dir {
		w.known++
	}
	dir := w.enter(e.Parent)
	if dir == nil {
		return nil // its folder could not be made, and that was told
	}
	err := tree.ValidName(e.Name)
	if err == nil {
		err = badName(e.Name)
	}
	if err != nil {
		return w.fail(dir.inSnapshot(e.Name), err)
	}
	if e.Torn {
		w.warn(dir.inSnapshot(e.Name), tripod.Errorf(tripod.Conflict, "changed while it was backed up, so its content may be mixed").
			WithHint("an earlier or later snapshot may have it whole"))
	}
	there, err := w.look(dir, e.Name)
	if err != nil {
		return w.fail(dir.inSnapshot(e.Name), err)
	}
	switch e.Type {
	case tree.Dir:
		return w.folder(dir, e, there)
	case tree.Regular:
		return w.regular(ctx, dir, e, there)
	default:
		return w.other(dir, e, there)
	}
}

// look tells what has the name already, or nil.
func (w *walker) look(dir *folder, name string) (*info, error) {
	if dir.made || dir.missing {
		return nil, nil
	}
	p, err := w.table.use(dir)
	if err != nil {
		return nil, err
	}
	defer w.table.done(dir)
	i, err := p.look(name)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, durable.Classify(err, "look at", dir.at(name))
	}
	return &i, nil
}

// enter gives the folder of a path in the snapshot, nil when it is not being
// restored. Entries come in the order in which each folder is listed and then
// its subfolders are visited, so folders that the walk has passed are left.
func (w *walker) enter(path string) *folder {
	for !tree.Below(path, w.stack[len(w.stack)-1].tree) {
		if len(w.stack) == 1 {
			return nil
		}
		w.leave()
	}
	for {
		top := w.stack[len(w.stack)-1]
		if top.tree == path {
			return top
		}
		rest := strings.TrimPrefix(path[len(top.tree):], "/")
		name, _, _ := strings.Cut(rest, "/")
		for len(top.subs) > 0 && top.subs[0].name < name {
			w.release(top.subs[0])
			top.subs = top.subs[1:]
		}
		if len(top.subs) == 0 || top.subs[0].name != name {
			if !w.orphaned(top, name) {
				return nil
			}
		}
		w.stack = append(w.stack, top.subs[0])
		top.subs = top.subs[1:]
	}
}

// orphaned makes a folder whose own entry is lost but not all that is in it, for
// its owner alone, and puts it first among dir's. It reports whether it could.
func (w *walker) orphaned(dir *folder, name string) bool {
	path := tree.Join(dir.tree, name)
	w.mu.Lock()
	lost := slices.ContainsFunc(w.report.Unread, func(s blobs.Span) bool { return s.Has(path) })
	w.mu.Unlock()
	if !lost || w.refused[path] {
		return false
	}
	n := len(dir.subs)
	err := tree.ValidName(name)
	if err == nil {
		err = badName(name)
	}
	if err == nil {
		var there *info
		if there, err = w.look(dir, name); err == nil {
			err = w.folder(dir, &tree.Entry{Parent: dir.tree, Name: name, Type: tree.Dir}, there)
		}
	}
	if err != nil {
		_ = w.fail("/"+path, err) // when it must end the restore, what comes next does so too
	}
	if len(dir.subs) == n {
		if w.refused == nil {
			w.refused = map[string]bool{}
		}
		w.refused[path] = true
		return false
	}
	f := dir.subs[n]
	f.entry = nil
	dir.subs = slices.Insert(dir.subs[:n], 0, f)
	return true
}

// leave ends the walk's hold on the innermost folder and its unvisited ones.
func (w *walker) leave() {
	n := len(w.stack) - 1
	f := w.stack[n]
	w.stack = w.stack[:n]
	for _, s := range f.subs {
		w.release(s)
	}
	f.subs = nil
	w.release(f)
}

func (w *walker) folder(dir *folder, e *tree.Entry, there *info) error {
	f := &folder{parent: dir, name: e.Name, path: dir.at(e.Name), tree: e.Path()}
	switch {
	case there != nil && there.kind() == tree.Symlink:
		w.keep(dir, e.Name, "is a symbolic link in the way of a folder and is not followed; the folder is left out with all below it", true)
		return nil
	case there != nil && there.kind() != tree.Dir:
		w.keep(dir, e.Name, "is a file in the way of a folder, which is left out with all below it", true)
		return nil
	case there == nil && w.DryRun:
		f.missing = true
	case there == nil:
		if err := w.mkdir(f); err != nil {
			return w.fail("/"+f.tree, err)
		}
	}
	if there == nil {
		f.made = true
		w.count(func(r *Report) { r.Folders++ })
		w.tell(f.path, Make)
	}
	if (f.made || w.Overwrite != Never) && !w.DryRun {
		f.entry = e
	}
	f.pending.Store(1)
	dir.hold()
	dir.subs = append(dir.subs, f)
	return nil
}

func (w *walker) mkdir(f *folder) error {
	p, err := w.table.use(f.parent)
	if err != nil {
		return err
	}
	defer w.table.done(f.parent)
	return durable.Classify(p.mkdir(f.name), "make folder", f.path)
}

func (w *walker) regular(ctx context.Context, dir *folder, e *tree.Entry, there *info) error {
	path := dir.at(e.Name)
	if e.Group != 0 && hardLinks {
		if m := w.groups[e.Group]; m != nil {
			w.hardLink(m, dir, e, there)
			return nil
		}
	}
	f := &file{entry: e, dir: dir, action: Make}
	if there != nil {
		if f.action = w.decide(e, there); f.action == Keep {
			w.keep(dir, e.Name, "is there already and is kept", there.kind() == tree.Dir)
			return nil
		}
	}
	if e.Group != 0 && hardLinks {
		m := &master{dir: dir, name: e.Name}
		if f.action == Same {
			m.same = there
		}
		dir.hold()
		w.groups[e.Group], f.master = m, m
	}
	w.tell(path, f.action)
	switch {
	case w.DryRun || f.action == Same:
		return w.settled(f)
	case w.win.full() && !w.win.reads(e):
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.plan(ctx, f)
}

// decide tells what becomes of a file whose name is taken.
func (w *walker) decide(e *tree.Entry, there *info) Action {
	if w.Overwrite == Never || there.kind() == tree.Dir {
		return Keep
	}
	if w.Overwrite == Always || there.kind() != tree.Regular {
		return Replace
	}
	if there.size == e.Size && there.sec == e.Sec && there.nsec == e.Nsec {
		return Same
	}
	// In place only where no other name shows the same file, and where whole
	// blobs may be right already.
	whole := e.Content.List != nil || (len(e.Content.Pieces) > 0 && e.Content.Pieces[0].Length >= wholeFrom)
	if whole && there.nlink == 1 {
		return Update
	}
	return Replace
}

// wholeFrom is the length from which files have blobs of their own, bytes.
const wholeFrom = 128 << 10

// settled counts a file whose content needs no writing and, but for a dry run,
// sets its metadata.
func (w *walker) settled(f *file) error {
	e := f.entry
	w.meter.Add(1, e.Size)
	w.count(func(r *Report) {
		if f.action == Same {
			r.Unchanged++
			r.Reused += e.Stored()
		} else {
			r.Files++
			r.Bytes += e.Stored()
		}
	})
	if f.master != nil {
		f.master.ok.Store(true)
	}
	if w.DryRun {
		return nil
	}
	return w.gripped(f.dir, e)
}

// gripped sets the metadata of what has an entry's name.
func (w *walker) gripped(dir *folder, e *tree.Entry) error {
	at, path := dir.at(e.Name), dir.inSnapshot(e.Name)
	p, err := w.table.use(dir)
	if err != nil {
		return w.fail(path, err)
	}
	defer w.table.done(dir)
	h, err := p.grip(e.Name)
	if err != nil {
		return w.fail(path, durable.Classify(err, "open", at))
	}
	defer func() { _ = h.close() }()
	i, err := h.stat()
	if err == nil && i.kind() != e.Type {
		err = tripod.Errorf(tripod.Conflict, "%s: was replaced while restoring", at)
	}
	if err == nil {
		err = w.dress(h, path, e, &i)
	}
	if err != nil {
		return w.fail(path, durable.Classify(err, "metadata of", at))
	}
	return nil
}

// other restores symbolic links, devices, pipes and sockets.
func (w *walker) other(dir *folder, e *tree.Entry, there *info) error {
	action := Make
	if there != nil {
		if action = w.decideOther(dir, e, there); action == Keep {
			w.keep(dir, e.Name, "is there already and is kept", there.kind() == tree.Dir)
			return nil
		}
	}
	w.tell(dir.at(e.Name), action)
	if action != Same && !w.DryRun {
		if err := w.makeOther(dir, e, action); err != nil {
			return w.fail(dir.inSnapshot(e.Name), err)
		}
	}
	w.count(func(r *Report) {
		if action == Same {
			r.Unchanged++
		} else {
			r.Files++
		}
	})
	if w.DryRun {
		return nil
	}
	w.meter.Add(1, 0)
	return w.gripped(dir, e)
}

func (w *walker) decideOther(dir *folder, e *tree.Entry, there *info) Action {
	switch {
	case w.Overwrite == Never || there.kind() == tree.Dir:
		return Keep
	case w.Overwrite == Changed && e.Type == tree.Symlink && there.kind() == tree.Symlink:
		p, err := w.table.use(dir)
		if err != nil {
			return Replace
		}
		defer w.table.done(dir)
		if target, err := p.readlink(e.Name); err == nil && target == e.Link {
			return Same
		}
	case w.Overwrite == Changed && e.Type == there.kind() && e.Type == tree.Fifo:
		return Same
	}
	return Replace
}

func (w *walker) makeOther(dir *folder, e *tree.Entry, action Action) error {
	path := dir.at(e.Name)
	p, err := w.table.use(dir)
	if err != nil {
		return err
	}
	defer w.table.done(dir)
	name := e.Name
	if action == Replace {
		name = temporary()
	}
	if e.Type == tree.Symlink {
		err = durable.Classify(p.symlink(e.Link, name), "make symbolic link", path)
	} else if err = p.node(name, e); err != nil {
		err = tripod.Errorf(tripod.Denied, "make device, pipe or socket %s: %w", path, err).
			WithHint("only root may make devices, and not every file system or container allows them")
	}
	if err == nil && action == Replace {
		if err = durable.Classify(p.rename(name, e.Name), "replace", path); err != nil {
			_ = p.remove(name)
		}
	}
	return err
}

// badName tells why a name cannot be used on this system.
func badName(name string) error {
	if runtime.GOOS == "windows" && !tree.WindowsName(name) {
		return tripod.Errorf(tripod.Invalid, "name %q: is not allowed on Windows", name).
			WithHint("restore it on another system, or look at it with tripod cat")
	}
	return nil
}
