package files

import (
	"errors"
	"strings"
	"sync"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// maxHandles is how many folders stay open for opening files in them. Files come in
// tree order, so few serve nearly all.
const maxHandles = 64

// handles keeps folders open, so that opening a small file does not look up its
// whole path.
type handles struct {
	system system
	mu     sync.Mutex
	open   map[string]*handle
	clock  uint64
}

type handle struct {
	directory
	users   int
	used    uint64
	dropped bool // close it with its last user
}

func newHandles(s system) *handles { return &handles{system: s, open: make(map[string]*handle)} }

func (h *handles) acquire(path string) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	if d := h.open[path]; d != nil {
		d.users++
		d.used = h.clock
		return d, nil
	}
	h.mu.Unlock()
	// On the way to a file that was protected by name may be links.
	d, err := h.system.opendir(path, false, true)
	h.mu.Lock()
	if err != nil {
		return nil, err
	}
	if other := h.open[path]; other != nil { // another was quicker
		d.close()
		other.users++
		return other, nil
	}
	if len(h.open) >= maxHandles {
		h.evict()
	}
	n := &handle{directory: d, users: 1, used: h.clock}
	h.open[path] = n
	return n, nil
}

func (h *handles) evict() {
	oldest, found := "", false
	for path, d := range h.open {
		if d.users == 0 && (!found || d.used < h.open[oldest].used) {
			oldest, found = path, true
		}
	}
	if found {
		h.open[oldest].close()
		delete(h.open, oldest)
	}
}

func (h *handles) release(d *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.users--
	if d.users == 0 && d.dropped {
		d.close()
	}
}

// drop forgets the folder at path: another has taken its place.
func (h *handles) drop(path string, d *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open[path] == d {
		delete(h.open, path)
		d.dropped = true
	}
}

func (h *handles) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for path, d := range h.open {
		delete(h.open, path)
		d.dropped = true
		if d.users == 0 {
			d.close()
		}
	}
}

// in calls fn with the open folder that holds e. A folder may have been replaced
// since it was opened, so what fails in one kept open is tried once more in the
// one that has its name now.
func (t *Tree) in(e *source.Entry, fn func(directory) error) error {
	for again := false; ; again = true {
		d, err := t.handles.acquire(e.Parent)
		if err != nil {
			return err
		}
		err = fn(d.directory)
		gone := err != nil && (kindOf(err) == tripod.NotFound || errors.Is(err, errChanged))
		if gone {
			t.handles.drop(e.Parent, d)
		}
		t.handles.release(d)
		if !gone || again {
			return err
		}
	}
}

// Open implements source.Tree.
func (t *Tree) Open(e *source.Entry) (source.File, error) {
	if e.Type != source.Regular {
		return nil, tripod.Errorf(tripod.Invalid, "content of %s: it is a %v", show(e.Path()), e.Type)
	}
	var f source.File
	err := t.in(e, func(d directory) (err error) {
		f, err = d.open(e)
		return err
	})
	if err != nil {
		return nil, failure("file", e.Path(), err)
	}
	return f, nil
}

// Attributes implements source.Tree.
func (t *Tree) Attributes(e *source.Entry) (source.Attributes, error) {
	var a source.Attributes
	err := t.in(e, func(d directory) (err error) {
		a, err = d.attributes(e)
		return err
	})
	return a, failure("attributes of", e.Path(), err)
}

// Close implements source.Tree.
func (t *Tree) Close() error {
	t.handles.forget()
	return nil
}

// split cuts a path into that of its folder and its name.
func split(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}
