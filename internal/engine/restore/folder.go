package restore

import (
	"container/list"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// folder is a folder of the target. It is finished, its metadata set and its
// handle closed, as soon as nothing below it is pending: so the metadata of
// folders comes last, deepest first, and few are in memory at a time.
type folder struct {
	parent  *folder
	name    string
	path    string      // at the target, for people
	tree    string      // in the snapshot
	entry   *tree.Entry // the metadata to set; nil leaves it
	made    bool        // by this restore: it was empty
	missing bool        // dry run: would have been made
	subs    []*folder   // those to be visited, in order
	pending atomic.Int32

	place   place // guarded by table.mu, as the fields below
	open    bool
	users   int
	idle    *list.Element
	id      info // of what was opened first
	known   bool
	inherit bool // new files take its group, or its default ACL's mode
}

func (f *folder) hold() { f.pending.Add(1) }

// table holds the handles on folders, a bounded number at a time.
type table struct {
	mu   sync.Mutex
	idle list.List // of *folder, open and unused, longest unused first
	open int
}

// mostFolders open at a time; systems allow 1,024 files at least.
const mostFolders = 256

func newTable() *table { return &table{} }

func (t *table) adopt(f *folder, p place, i *info) {
	f.place, f.open, f.known, f.id, f.inherit = p, true, true, *i, p.inherits(i)
	f.idle = t.idle.PushBack(f)
	t.open++
}

// use gives the handle on a folder, opening it if need be, until done. A folder
// that is not the one that was opened first is Conflict.
func (t *table) use(f *folder) (place, error) {
	t.mu.Lock()
	if f.open {
		t.take(f)
		t.mu.Unlock()
		return f.place, nil
	}
	t.mu.Unlock()
	if f.parent == nil {
		return place{}, tripod.Errorf(tripod.Internal, "folder %s: was closed", f.path)
	}
	above, err := t.use(f.parent)
	if err != nil {
		return place{}, err
	}
	p, i, err := above.enter(f.name)
	t.done(f.parent)
	if err != nil {
		return place{}, folderErr(err, f.path)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case f.open: // another goroutine was faster
		p.close()
	case f.known && !f.id.same(&i):
		p.close()
		return place{}, tripod.Errorf(tripod.Conflict, "folder %s: was replaced while restoring", f.path).
			WithHint("someone else works in the target: restore into a folder of your own")
	default:
		f.place, f.open = p, true
		if !f.known {
			f.known, f.id, f.inherit = true, i, p.inherits(&i)
		}
		t.open++
		t.shrink()
	}
	t.take(f)
	return f.place, nil
}

func (t *table) take(f *folder) {
	if f.idle != nil {
		t.idle.Remove(f.idle)
		f.idle = nil
	}
	f.users++
}

func (t *table) done(f *folder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.users--; f.users == 0 {
		f.idle = t.idle.PushBack(f)
		t.shrink()
	}
}

// shrink closes the longest unused folders, except the top, which has no other
// name than one that may lead elsewhere by now.
func (t *table) shrink() {
	for e := t.idle.Front(); e != nil && t.open > mostFolders; {
		next := e.Next()
		if f, ok := e.Value.(*folder); ok && f.parent != nil {
			t.close(f)
		}
		e = next
	}
}

func (t *table) close(f *folder) {
	if !f.open {
		return
	}
	if f.idle != nil {
		t.idle.Remove(f.idle)
		f.idle = nil
	}
	f.place.close()
	f.open = false
	t.open--
}

func (t *table) forget(f *folder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.users == 0 {
		t.close(f)
	}
}

func (t *table) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.idle.Front(); e != nil; {
		next := e.Next()
		if f, ok := e.Value.(*folder); ok {
			t.close(f)
		}
		e = next
	}
}

func folderErr(err error, path string) error {
	if errors.Is(err, errLinkInWay) || errors.Is(err, errNoFolder) {
		return tripod.Errorf(tripod.Conflict, "folder %s: %w", path, err).
			WithHint("move it away or restore elsewhere")
	}
	return durable.Classify(err, "open folder", path)
}

// errLinkInWay and errNoFolder say what stands where a folder must be.
var (
	errLinkInWay = errors.New("a symbolic link is in the way and is not followed")
	errNoFolder  = errors.New("something that is no folder is in the way")
)

// release takes back one reason for a folder to be unfinished. The last one
// finishes it.
func (j *job) release(f *folder) {
	for ; f != nil && f.pending.Add(-1) == 0; f = f.parent {
		if f.missing || f.known && f.entry == nil {
			j.table.forget(f)
			continue
		}
		if f.entry == nil {
			continue
		}
		p, err := j.table.use(f)
		if err == nil {
			err = j.dress(p.self(), "/"+f.tree, f.entry, nil)
			j.table.done(f)
			j.table.forget(f)
		}
		if err != nil {
			j.warn("/"+f.tree, err)
		}
	}
}

// absent reports whether err says that nothing is there.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
