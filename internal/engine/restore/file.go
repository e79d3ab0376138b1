package restore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/engine/blobs"
)

// file is a regular file on its way. Its modification time is set when all of
// its content is there, and not before: whatever ends early does not look
// complete.
type file struct {
	entry  *tree.Entry
	dir    *folder
	action Action
	single bool    // all content is one piece, written in one go
	master *master // if it has further names
	left   atomic.Int64

	mu     sync.Mutex // guards what follows
	h      handle
	open   bool
	users  int
	made   bool   // by this restore, under temp or its name
	temp   string // its name until it is complete
	id     info   // of what was made or opened first
	failed error
	wrote  bool // some content
	aside  bool // kept for keepParts

	gaps blobs.Gaps
}

// path is where the file goes.
func (f *file) path() string { return f.dir.at(f.entry.Name) }

func (f *file) inSnapshot() string { return f.dir.inSnapshot(f.entry.Name) }

// inFlight are the files that are neither complete nor given up.
type inFlight struct {
	mu    sync.Mutex
	files map[*file]struct{}
	open  atomic.Int64
}

func (p *inFlight) add(f *file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files[f] = struct{}{}
}

// mostFiles open at a time.
const mostFiles = 128

// temporary is a name that nothing else has, for what replaces another file.
func temporary() string { return fmt.Sprintf(".tripod-%016x", rand.Uint64()) } //nolint:gosec // O_EXCL guards against guesses

// birth tells with which mode to make a file, and what its metadata are then,
// nil when that is not known. A file that will be another's, or that needs
// work before it gets its mode, is nobody else's until then.
func (j *job) birth(f *file) (perm uint32, now *info) {
	e := f.entry
	want := j.owners.find(&e.Owner)
	perm = e.Mode & 0o777
	long := !f.single && (e.Content.List != nil || len(e.Content.Pieces) > 0)
	if want.uid != j.self.uid || want.gid != j.self.gid || len(e.Xattrs) > 0 || f.dir.inherit || long {
		perm = 0o600
	}
	if f.dir.inherit || !j.self.sure {
		return perm, nil
	}
	return perm, &info{uid: j.self.uid, gid: j.self.gid, mode: perm &^ j.self.umask}
}

// whole makes a file whose content is p, or inline when p is nil, in one go.
func (j *job) whole(f *file, p []byte) error {
	path := f.path()
	n, err := j.makeWhole(f, path, p)
	if err != nil {
		if err = j.fail(f.inSnapshot(), local(err)); err != nil {
			return err
		}
	} else {
		j.completed(f, n)
		j.meter.Add(0, n)
	}
	j.release(f.dir)
	return nil
}

func (j *job) makeWhole(f *file, path string, p []byte) (n int64, err error) {
	at, err := j.table.use(f.dir)
	if err != nil {
		return 0, err
	}
	defer j.table.done(f.dir)
	e, name := f.entry, f.entry.Name
	if f.action != Make {
		name = temporary()
	}
	perm, now := j.birth(f)
	h, err := at.create(name, perm)
	if err != nil {
		return 0, durable.Classify(err, "make", path)
	}
	if p != nil {
		n, err = int64(len(p)), h.writeAt(p, 0)
	} else {
		if e.Ranges != nil {
			err = h.truncate(e.Size)
		}
		if err == nil {
			n = int64(len(e.Content.Inline))
			err = blobs.Inline(e, func(offset int64, b []byte) error { return h.writeAt(b, offset) })
		}
	}
	if err == nil {
		err = j.dress(h, f.inSnapshot(), e, now)
	}
	if closeErr := h.close(); err == nil {
		err = closeErr
	}
	if err == nil && name != e.Name {
		err = at.rename(name, e.Name)
	}
	if err != nil {
		_ = at.remove(name)
		return 0, durable.Classify(err, "write", path)
	}
	return n, nil
}

func (j *job) completed(f *file, written int64) {
	if f.master != nil {
		f.master.ok.Store(true)
	}
	j.count(func(r *Report) {
		r.Files++
		r.Bytes += written
	})
	j.meter.Add(1, 0)
}

// part writes one piece of a file.
func (j *job) part(f *file, offset int64, p []byte) error {
	h, err := j.grab(f)
	if err == nil {
		err = durable.Classify(h.writeAt(p, offset), "write", f.path())
		j.drop(f, err == nil)
	}
	if err != nil {
		if err := j.spoil(f, local(err)); err != nil {
			return err
		}
	} else {
		j.count(func(r *Report) { r.Bytes += int64(len(p)) })
		j.meter.Add(0, int64(len(p)))
	}
	return j.settle(f, int64(len(p)))
}

// grab gives a file's handle until drop, making or opening the file first if
// need be. It gives the failure of a file that was given up.
func (j *job) grab(f *file) (handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return handle{}, f.failed
	}
	if !f.open {
		if err := j.start(f); err != nil {
			return handle{}, err
		}
		f.open = true
		j.pending.open.Add(1)
	}
	f.users++
	return f.h, nil
}

func (j *job) start(f *file) error {
	at, err := j.table.use(f.dir)
	if err != nil {
		return err
	}
	defer j.table.done(f.dir)
	if f.made || f.action == Update {
		err := j.reopen(f, at)
		if err == nil {
			j.pending.add(f)
		}
		return err
	}
	// A name of its own until it is whole: a restore that is killed must not
	// leave what looks like the file.
	f.temp = temporary()
	perm, _ := j.birth(f)
	if f.h, err = at.create(f.temp, perm); err != nil {
		f.temp = ""
		return durable.Classify(err, "make", f.path())
	}
	f.made = true
	j.pending.add(f)
	if f.id, err = f.h.stat(); err == nil && f.entry.Ranges != nil {
		err = f.h.truncate(f.entry.Size)
	}
	if err != nil {
		_ = f.h.close()
	}
	return durable.Classify(err, "make", f.path())
}

func (j *job) reopen(f *file, at place) error {
	name := f.entry.Name
	if f.temp != "" {
		name = f.temp
	}
	h, err := at.update(name)
	if err != nil {
		return durable.Classify(err, "open", f.path())
	}
	i, err := h.stat()
	known := f.id != info{}
	if err == nil && (i.kind() != tree.Regular || known && !f.id.same(&i) || !f.made && i.nlink != 1) {
		err = tripod.Errorf(tripod.Conflict, "%s: was replaced while restoring", f.path()).
			WithHint("someone else works in the target: restore into a folder of your own")
	}
	if err != nil {
		_ = h.close()
		return durable.Classify(err, "open", f.path())
	}
	f.h, f.id = h, i
	return nil
}

// drop gives a handle back; it stays open unless too many are.
func (j *job) drop(f *file, wrote bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote = f.wrote || wrote
	if f.users--; f.users == 0 && f.open && j.pending.open.Load() > mostFiles {
		_ = j.shut(f) // a failure to write shows again when it is completed
	}
}

func (j *job) shut(f *file) error {
	if !f.open {
		return nil
	}
	f.open = false
	j.pending.open.Add(-1)
	return f.h.close()
}

// spoil gives a file up. It gives err back when the whole restore must end.
func (j *job) spoil(f *file, err error) error {
	f.mu.Lock()
	first := f.failed == nil
	if first {
		f.failed = err
	}
	f.mu.Unlock()
	if !first {
		return nil
	}
	if blobs.Damage(err) {
		err = tripod.Errorf(tripod.Corrupt, "%w", err)
		if f.master != nil {
			f.master.lost.Store(true)
		}
		if f.action == Update {
			return j.inPart(f.inSnapshot(), "", f.path()+" is left as it is", f.entry.Size, &f.gaps)
		}
	}
	return j.fail(f.inSnapshot(), err)
}

// local keeps what is missing at the target apart from what is lost in the vault.
func local(err error) error {
	if !blobs.Damage(err) {
		return err
	}
	return tripod.Errorf(tripod.Conflict, "%w", err).WithHint("someone else works in the target: restore into a folder of your own")
}

// settle says that n bytes of a file are written or given up; the last ones
// complete it.
func (j *job) settle(f *file, n int64) error {
	if f.left.Add(-n) != 0 {
		return nil
	}
	path := f.path()
	err := j.complete(f, path)
	if f.aside {
		return nil // keepParts goes on with it
	}
	j.pending.remove(f)
	if err != nil {
		if err := j.fail(f.inSnapshot(), err); err != nil {
			return err
		}
	}
	j.release(f.dir)
	return nil
}

func (j *job) complete(f *file, path string) error {
	lost := f.gaps.First()
	if lost != nil && !f.wrote {
		if err := j.spoil(f, lost); err != nil {
			return err
		}
	}
	_, err := j.grab(f) // what was right already may not be open; no one else uses it any more
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		j.undo(f)
		return nil // told already
	}
	if err == nil && lost != nil {
		if err = j.setAside(f); err == nil {
			return nil
		}
	}
	if err == nil && f.action == Update {
		err = f.h.truncate(f.entry.Size)
	}
	if err == nil && f.open {
		err = j.dress(f.h, f.inSnapshot(), f.entry, nil)
	}
	if closeErr := j.shut(f); err == nil {
		err = closeErr
	}
	if err == nil && f.temp != "" {
		err = j.renameTemp(f)
	}
	if err != nil {
		f.failed = err
		j.undo(f)
		return local(durable.Classify(err, "write", path))
	}
	j.completed(f, 0)
	return nil
}

func (j *job) renameTemp(f *file) error {
	at, err := j.table.use(f.dir)
	if err != nil {
		return err
	}
	defer j.table.done(f.dir)
	if f.action == Make {
		return f.renameTo(at, f.temp, f.entry.Name, false)
	}
	return at.rename(f.temp, f.entry.Name)
}

// undo removes what there is of a file that this restore made. One that was
// updated in place stays, with a modification time that tells it is not done.
func (j *job) undo(f *file) {
	_ = j.shut(f)
	if !f.made {
		return
	}
	at, err := j.table.use(f.dir)
	if err != nil {
		return
	}
	defer j.table.done(f.dir)
	name := f.entry.Name
	if f.temp != "" {
		name = f.temp
	}
	if i, err := at.look(name); err == nil && f.id.same(&i) {
		_ = at.remove(name)
	}
	f.made = false
}

// abandon removes the files that an ended restore left incomplete.
func (p *inFlight) abandon(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.files {
		f.mu.Lock()
		j.undo(f)
		f.mu.Unlock()
	}
	clear(p.files)
}
