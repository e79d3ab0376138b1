package fs

import (
	"container/list"
	"errors"
	"sync"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// handles keeps the most recently read objects open, since readers come back
// to the same packs and opening a path costs a system call per part of it.
type handles struct {
	disk durable.FS
	max  int

	mu     sync.Mutex
	byName map[string]*handle
	recent *list.List // of *handle, the last used in front
}

// handle is an open object. It is closed when it has left the cache and its
// last reader has put it back.
type handle struct {
	name string
	file durable.File

	// Under handles.mu:
	readers int
	place   *list.Element // nil once it has left the cache
}

func newHandles(disk durable.FS, limit int) *handles {
	return &handles{disk: disk, max: limit, byName: map[string]*handle{}, recent: list.New()}
}

// get returns an open handle on the object name, to be put back by put.
func (c *handles) get(name string) (*handle, error) {
	if h := c.cached(name); h != nil {
		// Another process may have deleted the object, and put another one.
		if h.file.Linked() {
			return h, nil
		}
		c.drop(func(n string) bool { return n == name })
		c.put(h)
	}
	file, err := c.disk.Open(name)
	if errors.Is(durable.Classify(err, "", ""), tripod.Exhausted) {
		// Too many open files: give ours back and try once more.
		c.drop(func(string) bool { return true })
		file, err = c.disk.Open(name)
	}
	if err != nil {
		return nil, err
	}
	return c.add(&handle{name: name, file: file, readers: 1}), nil
}

func (c *handles) cached(name string) *handle {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.byName[name]
	if h != nil {
		h.readers++
		c.recent.MoveToFront(h.place)
	}
	return h
}

// add puts h in the cache unless it cannot be told from a deleted file or
// another reader was faster; it is good for its reader in any case.
func (c *handles) add(h *handle) *handle {
	if !h.file.Linked() {
		return h
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName[h.name] != nil {
		return h
	}
	for c.recent.Len() >= c.max {
		c.evict(c.recent.Back().Value.(*handle)) //nolint:forcetypeassert // the list holds nothing else
	}
	c.byName[h.name] = h
	h.place = c.recent.PushFront(h)
	return h
}

// put gives back a handle that get returned.
func (c *handles) put(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.readers--
	if h.place == nil && h.readers == 0 {
		_ = h.file.Close() // of a file only read
	}
}

// drop takes the handles out of the cache whose names match.
func (c *handles) drop(match func(name string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, h := range c.byName {
		if match(name) {
			c.evict(h)
		}
	}
}

func (c *handles) evict(h *handle) {
	c.recent.Remove(h.place)
	h.place = nil
	delete(c.byName, h.name)
	if h.readers == 0 {
		_ = h.file.Close() // of a file only read
	}
}
