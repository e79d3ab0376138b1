// Package storetest is the conformance suite of the store contract. Every check
// is one sentence of it. Check runs them on any store, a user's real one
// included, under a prefix of its own, and cleans up behind itself; Run does so
// in a test. The checks read as examples of how a store behaves.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Result tells how one check went.
type Result struct {
	Name    string // what the store should do, as a sentence
	OK      bool
	Skipped bool // the store does not claim what the check is about
	Took    time.Duration
	Err     error // what it did instead; nil when OK
}

// env is what a check works with.
type env struct {
	store  store.Store
	prefix string // this check's own names begin with it; ends in a slash
}

// check is one sentence of the contract, with what proves it.
type check struct {
	name string
	run  func(ctx context.Context, e *env) error
}

// errSkip is returned by a check about something the store does not claim.
var errSkip = errors.New("not claimed by this store")

// Check runs the suite on s under prefix, which must be a valid object name of
// at most 60 bytes under which nothing lies yet, and deletes what it put. It
// reports each check as it ends. The error tells that the suite could not run
// or, wrapping the first failure, that the store does not keep the contract.
func Check(ctx context.Context, s store.Store, prefix string, report func(Result)) error {
	if err := store.CheckName(prefix); err != nil {
		return err
	}
	if len(prefix) > 60 {
		return tripod.Errorf(tripod.Invalid, "prefix %q: must have at most 60 bytes", prefix)
	}
	occupied := tripod.Errorf(tripod.Exists, "prefix %q: objects lie under it", prefix)
	if err := s.List(ctx, prefix+"/", func(store.Info) error { return occupied }); err != nil {
		return fmt.Errorf("list under the prefix: %w", err)
	}
	failed := 0
	var first error
	for i, c := range checks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := &env{store: s, prefix: fmt.Sprintf("%s/%02d/", prefix, i)}
		start := time.Now()
		err, left := c.run(ctx, e), e.clean(ctx)
		if ctx.Err() != nil { // says nothing about the store
			return errors.Join(ctx.Err(), left)
		}
		err = errors.Join(err, left)
		skipped := errors.Is(err, errSkip)
		if skipped {
			err = nil
		}
		if err != nil {
			failed++
			if first == nil {
				first = fmt.Errorf("%s: %w", c.name, err)
			}
		}
		report(Result{Name: c.name, OK: err == nil, Skipped: skipped, Took: time.Since(start), Err: err})
	}
	if first != nil {
		return fmt.Errorf("%s failed, first %w", tripod.Count(failed, "check"), first)
	}
	return nil
}

// T is what Run needs of a *testing.T; this package is also part of the program.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Context() context.Context
}

// Run runs the suite in a test on a store that open makes.
func Run[TB T](t TB, open func(TB) store.Store) {
	t.Helper()
	ran := 0
	err := Check(t.Context(), open(t), "storetest/run", func(r Result) {
		ran++
		if !r.OK {
			t.Errorf("%s: %v", r.Name, r.Err)
		}
	})
	if err != nil && ran == 0 {
		t.Errorf("the suite could not run: %v", err)
	}
}

// checks lists the suite.
func checks() []check {
	return slices.Concat(objectChecks(), listChecks(), sharedChecks())
}

// clean deletes everything under the check's prefix, also after cancellation.
func (e *env) clean(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	names, err := e.list(ctx, "")
	for _, name := range names {
		err = errors.Join(err, e.store.Delete(ctx, e.prefix+name))
	}
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// list returns the names under the check's prefix followed by prefix, without
// the check's prefix, and checks the sizes' and the order's promise.
func (e *env) list(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := e.store.List(ctx, e.prefix+prefix, func(i store.Info) error {
		name, ok := strings.CutPrefix(i.Name, e.prefix)
		if !ok || !strings.HasPrefix(name, prefix) {
			return fmt.Errorf("listed %q under prefix %q", i.Name, e.prefix+prefix)
		}
		if len(names) > 0 && name <= names[len(names)-1] {
			return fmt.Errorf("listed %q after %q", name, names[len(names)-1])
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

func (e *env) put(ctx context.Context, name string, data []byte) error {
	if err := e.store.Put(ctx, e.prefix+name, data); err != nil {
		return fmt.Errorf("put %q: %w", name, err)
	}
	return nil
}

// holds checks that the object has exactly these bytes.
func (e *env) holds(ctx context.Context, name string, want []byte) error {
	info, err := e.store.Head(ctx, e.prefix+name)
	if err != nil {
		return fmt.Errorf("head %q: %w", name, err)
	}
	if info != (store.Info{Name: e.prefix + name, Size: int64(len(want))}) {
		return fmt.Errorf("head %q: got %+v, want %d bytes", name, info, len(want))
	}
	got := make([]byte, len(want))
	if n, err := e.store.Get(ctx, e.prefix+name, got, 0); err != nil || n != len(want) {
		return fmt.Errorf("get %q: %d of %d bytes, error %v, want none", name, n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("get %q: not the bytes that were put", name)
	}
	return nil
}

// wantKind checks that err is of a kind.
func wantKind(what string, err error, kind tripod.ErrorKind) error {
	if !errors.Is(err, kind) {
		return fmt.Errorf("%s: got %v, want an error of kind %q", what, err, kind)
	}
	return nil
}

// pattern returns n bytes that differ from place to place and by seed.
func pattern(seed byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ seed
	}
	return p
}

// longName returns a name of 255 bytes together with the check's prefix.
func (e *env) longName(last string) string {
	name := strings.Repeat("n", 255-len(e.prefix)-len(last)) + last
	return path.Clean(name)
}
