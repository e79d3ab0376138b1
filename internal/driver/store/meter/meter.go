// Package meter is a store that counts what it is used for: for accounts,
// reports, and tests that a plan costs no more requests than it should.
package meter

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Count is the use of one method.
type Count struct {
	Calls  int64
	Errors int64         // calls that returned an error; io.EOF of Get is none
	Bytes  int64         // put or got; of calls that failed, those got before
	Took   time.Duration // in the store, added up over concurrent calls
}

// Usage is the use of a store since it was made.
type Usage struct {
	Put, Get, Head, List, Delete, Lock Count
	Listed                             int64 // objects that List told of
}

// Sub is the use since an earlier time.
func (u Usage) Sub(before Usage) Usage {
	return Usage{
		Put: u.Put.sub(before.Put), Get: u.Get.sub(before.Get), Head: u.Head.sub(before.Head),
		List: u.List.sub(before.List), Delete: u.Delete.sub(before.Delete), Lock: u.Lock.sub(before.Lock),
		Listed: u.Listed - before.Listed,
	}
}

// Calls is the number of calls of all methods.
func (u Usage) Calls() int64 {
	return u.Put.Calls + u.Get.Calls + u.Head.Calls + u.List.Calls + u.Delete.Calls + u.Lock.Calls
}

func (c Count) sub(before Count) Count {
	return Count{c.Calls - before.Calls, c.Errors - before.Errors, c.Bytes - before.Bytes, c.Took - before.Took}
}

// Store is a store.Store around another one.
type Store struct {
	inner store.Store
	mu    sync.Mutex
	usage Usage
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Exclusive = (*Store)(nil)
)

// New returns inner with a meter on it.
func New(inner store.Store) *Store { return &Store{inner: inner} }

// Usage returns what has been counted so far.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

// count adds one call that began at start to c, a field of s.usage.
func (s *Store) count(c *Count, start time.Time, n int, err error) {
	took := time.Since(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Calls++
	c.Bytes += int64(n)
	c.Took += took
	if err != nil && !errors.Is(err, io.EOF) {
		c.Errors++
	}
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	start, n := time.Now(), 0
	err := s.inner.Put(ctx, name, data)
	if err == nil {
		n = len(data)
	}
	s.count(&s.usage.Put, start, n, err)
	return err
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	start := time.Now()
	n, err := s.inner.Get(ctx, name, p, off)
	s.count(&s.usage.Get, start, n, err)
	return n, err
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, name string) (store.Info, error) {
	start := time.Now()
	info, err := s.inner.Head(ctx, name)
	s.count(&s.usage.Head, start, 0, err)
	return info, err
}

// List implements store.Store. The time spent in fn is the caller's, not counted;
// neither is fn's error.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	start := time.Now()
	var listed int64
	var fnErr error
	err := s.inner.List(ctx, prefix, func(i store.Info) error {
		listed++
		began := time.Now()
		fnErr = fn(i)
		start = start.Add(time.Since(began))
		return fnErr
	})
	failed := err
	if fnErr != nil {
		failed = nil
	}
	s.count(&s.usage.List, start, 0, failed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usage.Listed += listed
	return err
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	start := time.Now()
	err := s.inner.Delete(ctx, name)
	s.count(&s.usage.Delete, start, 0, err)
	return err
}

// Lock implements store.Store.
func (s *Store) Lock(ctx context.Context, name string, until time.Time) error {
	start := time.Now()
	err := s.inner.Lock(ctx, name, until)
	s.count(&s.usage.Lock, start, 0, err)
	return err
}

// Capabilities implements store.Store.
func (s *Store) Capabilities() store.Capabilities { return s.inner.Capabilities() }

// Exclusive implements store.Exclusive where the store inside does, and returns
// Invalid where not. It is not counted.
func (s *Store) Exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	x, ok := s.inner.(store.Exclusive)
	if !ok {
		return nil, tripod.Errorf(tripod.Invalid, "this store cannot keep other writers out")
	}
	return x.Exclusive(ctx, holder, waiting)
}
