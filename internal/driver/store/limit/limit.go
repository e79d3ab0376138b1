// Package limit is a store that takes no more than its share: so many bytes a
// second up and down, and so many operations at once.
package limit

import (
	"context"
	"sync"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Options says how much is allowed. Zero means without limit.
type Options struct {
	Up         int64 // bytes a second put
	Down       int64 // bytes a second got
	Concurrent int   // operations at once
}

// Store is a store.Store around another one.
type Store struct {
	inner    store.Store
	up, down *rate
	slots    chan struct{} // nil without limit
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Exclusive = (*Store)(nil)
)

// New returns inner within limits.
func New(inner store.Store, opts Options) *Store {
	s := &Store{inner: inner, up: &rate{perSecond: opts.Up}, down: &rate{perSecond: opts.Down}}
	if opts.Concurrent > 0 {
		s.slots = make(chan struct{}, opts.Concurrent)
	}
	return s
}

// rate lets one operation pass at a time, each as long after the one before as
// that one's bytes are worth. So an operation is never cut in pieces, needs not
// tell its size beforehand, and the average holds.
type rate struct {
	perSecond int64
	mu        sync.Mutex
	free      time.Time // when what has passed is paid for
}

// wait returns when all bytes passed so far are paid for, having charged n more.
func (r *rate) wait(ctx context.Context, n int) error {
	if r.perSecond <= 0 {
		return nil
	}
	d := time.Until(r.charge(n))
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		r.charge(-n)
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// charge adds the cost of n bytes and returns when those before are paid for.
// Time in which nothing passed is not saved up.
func (r *rate) charge(n int) (before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.free.Before(now) {
		r.free = now
	}
	before = r.free
	r.free = before.Add(time.Duration(float64(n) / float64(max(r.perSecond, 1)) * float64(time.Second)))
	return before
}

// enter waits for a slot.
func (s *Store) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.slots == nil {
		return func() {}, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	}
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := s.up.wait(ctx, len(data)); err != nil {
		return err
	}
	return s.inner.Put(ctx, name, data)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	if err := s.down.wait(ctx, len(p)); err != nil {
		return 0, err
	}
	n, err := s.inner.Get(ctx, name, p, off)
	if s.down.perSecond > 0 {
		s.down.charge(n - len(p)) // what was asked for and not there
	}
	return n, err
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, name string) (store.Info, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return store.Info{}, err
	}
	defer leave()
	return s.inner.Head(ctx, name)
}

// List implements store.Store. It takes no slot: its caller may use the store
// for each object listed, and would wait for itself.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	return s.inner.List(ctx, prefix, fn)
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return s.inner.Delete(ctx, name)
}

// Lock implements store.Store.
func (s *Store) Lock(ctx context.Context, name string, until time.Time) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return s.inner.Lock(ctx, name, until)
}

// Capabilities implements store.Store.
func (s *Store) Capabilities() store.Capabilities { return s.inner.Capabilities() }

// Exclusive implements store.Exclusive where the store inside does, and returns
// Invalid where not. It takes no slot, since waiting may be long.
func (s *Store) Exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	x, ok := s.inner.(store.Exclusive)
	if !ok {
		return nil, tripod.Errorf(tripod.Invalid, "this store cannot keep other writers out")
	}
	return x.Exclusive(ctx, holder, waiting)
}
