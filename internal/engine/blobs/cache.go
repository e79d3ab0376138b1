package blobs

import (
	"container/list"
	"sync"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
)

// Cache keeps the most recently used values by capability. It may be used
// concurrently.
type Cache[V any] struct {
	mu    sync.Mutex
	limit int
	byRef map[seal.Ref]*list.Element
	used  list.List // of cached[V], most recent first
}

type cached[V any] struct {
	ref   seal.Ref
	value V
}

// NewCache makes a cache of at most limit values.
func NewCache[V any](limit int) *Cache[V] {
	return &Cache[V]{limit: limit, byRef: map[seal.Ref]*list.Element{}}
}

// Get gives the value kept under ref.
func (c *Cache[V]) Get(ref seal.Ref) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byRef[ref]
	if !ok {
		return v, false
	}
	c.used.MoveToFront(e)
	kept, ok := e.Value.(cached[V])
	return kept.value, ok
}

// Put keeps a value under ref, and forgets the least recently used.
func (c *Cache[V]) Put(ref seal.Ref, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byRef[ref]; ok {
		e.Value = cached[V]{ref, v}
		c.used.MoveToFront(e)
		return
	}
	c.byRef[ref] = c.used.PushFront(cached[V]{ref, v})
	if c.used.Len() <= c.limit {
		return
	}
	if last, ok := c.used.Remove(c.used.Back()).(cached[V]); ok {
		delete(c.byRef, last.ref)
	}
}

func checkSum(encoded []byte) error {
	f, _, err := frame.Parse(encoded)
	if err != nil {
		return err
	}
	return f.Check()
}
