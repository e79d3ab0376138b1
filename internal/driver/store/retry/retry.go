// Package retry is a store that tries again what a store out of reach refused.
// Only Unavailable is tried again; every other kind of error is an answer.
//
// A failed attempt may have done its work and lost only the answer. So when an
// earlier attempt failed, Exists on a Put is compared with the object's bytes
// and NotFound on a Delete counts as done.
package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Options says how patient the store is. Zero values take the defaults.
type Options struct {
	Attempts int           // in all; 8 by default
	First    time.Duration // longest wait before the second attempt; 100 ms by default
	Max      time.Duration // longest wait of all; 10 s by default
}

// Store is a store.Store around another one.
type Store struct {
	inner store.Store
	opts  Options
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Exclusive = (*Store)(nil)
)

// Do calls op with patience, for what comes before there is a store.
func Do(ctx context.Context, opts Options, op func() error) error {
	return New(nil, opts).do(ctx, func(int) error { return op() })
}

// New returns inner with patience.
func New(inner store.Store, opts Options) *Store {
	if opts.Attempts <= 0 {
		opts.Attempts = 8
	}
	if opts.First <= 0 {
		opts.First = 100 * time.Millisecond
	}
	if opts.Max <= 0 {
		opts.Max = 10 * time.Second
	}
	return &Store{inner: inner, opts: opts}
}

// do calls op until it succeeds, gives an answer, or patience ends. attempt
// counts from 0. The waits double, and each is cut at random to between half
// and all of it, lest many clients come back at the same moment.
func (s *Store) do(ctx context.Context, op func(attempt int) error) error {
	wait := s.opts.First
	for attempt := 0; ; attempt++ {
		err := op(attempt)
		if !errors.Is(err, tripod.Unavailable) {
			return err
		}
		if attempt+1 >= s.opts.Attempts {
			return fmt.Errorf("gave up after %d attempts: %w", s.opts.Attempts, err)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
		wait = min(2*wait, s.opts.Max)
	}
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	return s.do(ctx, func(attempt int) error {
		err := s.inner.Put(ctx, name, data)
		if attempt == 0 || !errors.Is(err, tripod.Exists) {
			return err
		}
		// Ours, from an attempt whose answer was lost, or somebody else's?
		switch same, readErr := s.holds(ctx, name, data); {
		case readErr != nil:
			return readErr
		case same:
			return nil
		}
		return err
	})
}

// holds reports whether the object has exactly these bytes.
func (s *Store) holds(ctx context.Context, name string, data []byte) (bool, error) {
	got := make([]byte, len(data)+1) // one more, to see that it ends there
	n, err := s.inner.Get(ctx, name, got, 0)
	switch {
	case errors.Is(err, io.EOF):
		return bytes.Equal(got[:n], data), nil
	case errors.Is(err, tripod.NotFound):
		// Deleted since: nothing of ours is left.
		return false, nil
	}
	return false, err
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	err = s.do(ctx, func(int) (err error) {
		n, err = s.inner.Get(ctx, name, p, off)
		return err
	})
	return n, err
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, name string) (info store.Info, err error) {
	err = s.do(ctx, func(int) (err error) {
		info, err = s.inner.Head(ctx, name)
		return err
	})
	return info, err
}

// List implements store.Store. A list that broke off is taken up behind the
// last name the caller has seen; the caller's own error ends it.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	var last string
	var fnErr error
	err := s.do(ctx, func(int) error {
		err := s.inner.List(ctx, prefix, func(i store.Info) error {
			if i.Name <= last { // no name is empty
				return nil
			}
			last = i.Name
			fnErr = fn(i)
			return fnErr
		})
		if fnErr != nil {
			return nil
		}
		return err
	})
	if fnErr != nil {
		return fnErr
	}
	return err
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	return s.do(ctx, func(attempt int) error {
		err := s.inner.Delete(ctx, name)
		if attempt > 0 && errors.Is(err, tripod.NotFound) {
			return nil
		}
		return err
	})
}

// Lock implements store.Store.
func (s *Store) Lock(ctx context.Context, name string, until time.Time) error {
	return s.do(ctx, func(int) error { return s.inner.Lock(ctx, name, until) })
}

// Capabilities implements store.Store.
func (s *Store) Capabilities() store.Capabilities { return s.inner.Capabilities() }

// Exclusive implements store.Exclusive where the store inside does, and returns
// Invalid where not.
func (s *Store) Exclusive(ctx context.Context, holder string, waiting func(string)) (release func() error, err error) {
	x, ok := s.inner.(store.Exclusive)
	if !ok {
		return nil, tripod.Errorf(tripod.Invalid, "this store cannot keep other writers out")
	}
	err = s.do(ctx, func(int) (err error) {
		release, err = x.Exclusive(ctx, holder, waiting)
		return err
	})
	return release, err
}
