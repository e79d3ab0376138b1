package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// hostileNames are names that no store may take.
func hostileNames() []string {
	return []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "a/../b", "../a", "./a", "a/.", "a/.hidden", ".lock", ".incoming/x",
		"A", "a b", "a\x00b", "a\nb", "a\\b", "ä", "a:b", "a*", "a%2fb", "\xff", strings.Repeat("n", 256), strings.Repeat("n/", 127) + "nn",
	}
}

// checkHostileNames uses names outside the prefix, since each must be refused.
func checkHostileNames(ctx context.Context, e *env) error {
	for _, name := range hostileNames() {
		_, getErr := e.store.Get(ctx, name, make([]byte, 1), 0)
		_, headErr := e.store.Head(ctx, name)
		if err := errors.Join(
			wantKind("put", e.store.Put(ctx, name, []byte("x")), tripod.Invalid),
			wantKind("get", getErr, tripod.Invalid),
			wantKind("head", headErr, tripod.Invalid),
			wantKind("delete", e.store.Delete(ctx, name), tripod.Invalid),
			wantKind("lock", e.store.Lock(ctx, name, time.Time{}), tripod.Invalid),
		); err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
	}
	return nil
}

// listChecks are those about List.
func listChecks() []check {
	return []check{
		{"a list is in ascending byte order of whole names", func(ctx context.Context, e *env) error {
			// '-' and '.' sort before '/', digits and letters after it.
			names := []string{"b", "a/b", "a-b", "a.b", "a0", "a/c/d", "a/c-d", "aa/a", "a_b", "a/0", "z/z", "0"}
			for _, name := range names {
				if err := e.put(ctx, name, []byte(name)); err != nil {
					return err
				}
			}
			slices.Sort(names)
			return e.lists(ctx, "", names)
		}},
		{"a list holds what begins with the prefix, folder or not", func(ctx context.Context, e *env) error {
			names := []string{"pack", "pack-b", "packs/a", "p/ab/cd", "p/ab/ce", "p/abc", "p/b", "q/ab"}
			for _, name := range names {
				if err := e.put(ctx, name, nil); err != nil {
					return err
				}
			}
			slices.Sort(names)
			for _, prefix := range []string{"", "p", "pa", "pack", "pack/", "packs", "packs/", "p/", "p/a", "p/ab", "p/ab/", "p/ab/c", "p/ab/cd", "p/ab/cd/", "p/x", "x", "x/y/z"} {
				want := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, prefix) })
				if err := e.lists(ctx, prefix, want); err != nil {
					return err
				}
			}
			return nil
		}},
		{"a list tells the sizes", func(ctx context.Context, e *env) error {
			if err := e.put(ctx, "n", make([]byte, 12345)); err != nil {
				return err
			}
			return e.store.List(ctx, e.prefix, func(i store.Info) error {
				if i != (store.Info{Name: e.prefix + "n", Size: 12345}) {
					return fmt.Errorf("listed %+v", i)
				}
				return nil
			})
		}},
		{"a prefix that no name begins with lists nothing", func(ctx context.Context, e *env) error {
			for _, prefix := range []string{"..", "../", "/", "//", "./", "a/../", "A", ".incoming/", ".", "a\x00", e.prefix + "../", strings.Repeat("n", 300), strings.Repeat("n/", 200)} {
				err := e.store.List(ctx, prefix, func(i store.Info) error { return fmt.Errorf("listed %q", i.Name) })
				if err != nil && !errors.Is(err, tripod.Invalid) {
					return fmt.Errorf("prefix %q: %w", prefix, err)
				}
			}
			return nil
		}},
		{"a list stops at the caller's first error and returns it", func(ctx context.Context, e *env) error {
			for _, name := range []string{"a", "b/c", "d"} {
				if err := e.put(ctx, name, nil); err != nil {
					return err
				}
			}
			for stop := 1; stop <= 3; stop++ {
				// Of a kind that a decorator might take for the store's own.
				enough := tripod.Errorf(tripod.Unavailable, "enough")
				calls := 0
				err := e.store.List(ctx, e.prefix, func(store.Info) error {
					if calls++; calls == stop {
						return enough
					}
					return nil
				})
				if !errors.Is(err, enough) || calls != stop {
					return fmt.Errorf("stopped at call %d: %d calls, error %w", stop, calls, err)
				}
			}
			return nil
		}},
		{"a list's caller may use the store", func(ctx context.Context, e *env) error {
			for _, name := range []string{"a", "b", "c/d"} {
				if err := e.put(ctx, name, []byte("x")); err != nil {
					return err
				}
			}
			err := e.store.List(ctx, e.prefix, func(i store.Info) error {
				if _, err := e.store.Get(ctx, i.Name, make([]byte, 1), 0); err != nil {
					return err
				}
				return e.store.Delete(ctx, i.Name)
			})
			return errors.Join(err, e.lists(ctx, "", nil))
		}},
	}
}

// lists checks that exactly the names are listed under prefix, in order.
func (e *env) lists(ctx context.Context, prefix string, want []string) error {
	got, err := e.list(ctx, prefix)
	if err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("list %q: got %q, want %q", prefix, got, want)
	}
	return nil
}

// sharedChecks are those about several callers, locks and cancellation.
func sharedChecks() []check {
	return []check{
		{"of many who put one name, one wins", checkRace},
		{"methods may be called concurrently", checkConcurrent},
		{"a context that has ended ends every method", checkCancelled},
		{"a locked object cannot be deleted", checkLock},
		{"one writer at a time holds the store, others are told for whom they wait", checkExclusive},
		{"waiting for the writer ends with the context", checkExclusiveCancelled},
	}
}

// each runs n goroutines and joins their errors.
func each(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func checkRace(ctx context.Context, e *env) error {
	for round := range 5 {
		name := fmt.Sprintf("race/%d", round)
		var mu sync.Mutex
		var won []int
		err := each(16, func(i int) error {
			err := e.store.Put(ctx, e.prefix+name, pattern(byte(i), 8000))
			if err == nil {
				mu.Lock()
				won = append(won, i)
				mu.Unlock()
				return nil
			}
			return wantKind("put", err, tripod.Exists)
		})
		if err != nil {
			return err
		}
		if len(won) != 1 {
			return fmt.Errorf("%d of 16 concurrent puts of one name succeeded", len(won))
		}
		if err := e.holds(ctx, name, pattern(byte(won[0]), 8000)); err != nil {
			return fmt.Errorf("not the winner's bytes: %w", err)
		}
	}
	return nil
}

func checkConcurrent(ctx context.Context, e *env) error {
	if err := e.put(ctx, "shared", pattern(99, 20000)); err != nil {
		return err
	}
	return each(8, func(g int) error {
		for i := range 12 {
			name, data := fmt.Sprintf("g%d/%d", g, i), pattern(byte(g*16+i), 100+g*1000+i)
			if err := errors.Join(e.put(ctx, name, data), e.holds(ctx, name, data), e.holds(ctx, "shared", pattern(99, 20000))); err != nil {
				return err
			}
			if _, err := e.list(ctx, ""); err != nil {
				return err
			}
			if err := e.store.Delete(ctx, e.prefix+name); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkCancelled(ctx context.Context, e *env) error {
	if err := e.put(ctx, "there", []byte("x")); err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	name := e.prefix + "there"
	_, getErr := e.store.Get(ended, name, make([]byte, 1), 0)
	_, headErr := e.store.Head(ended, name)
	for method, err := range map[string]error{
		"put": e.store.Put(ended, e.prefix+"new", nil), "get": getErr, "head": headErr,
		"list":   e.store.List(ended, e.prefix, func(store.Info) error { return nil }),
		"delete": e.store.Delete(ended, name),
	} {
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: got %w, want the context's error", method, err)
		}
	}
	return e.lists(ctx, "", []string{"there"})
}

func checkLock(ctx context.Context, e *env) error {
	if err := e.put(ctx, "locked", []byte("x")); err != nil {
		return err
	}
	name := e.prefix + "locked"
	// Long enough for what follows, short enough to wait for: the object is
	// to be deleted in the end. Some stores count locks in whole seconds.
	until := time.Now().Add(4 * time.Second).Truncate(time.Second)
	err := e.store.Lock(ctx, name, until)
	if !e.store.Capabilities().Lock {
		return errors.Join(wantKind("lock", err, tripod.Invalid), errSkip)
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer func() { // also when the check is given up: nothing may stay behind
		_ = wait(context.WithoutCancel(ctx), time.Until(until)+10*time.Millisecond)
	}()
	_ = e.store.Lock(ctx, name, until.Add(-2*time.Second)) // may be refused, must not shorten
	for time.Until(until) > time.Second/2 {
		if err := wantKind("delete while locked", e.store.Delete(ctx, name), tripod.Denied); err != nil {
			return err
		}
		if err := wait(ctx, time.Second/2); err != nil {
			return err
		}
	}
	if err := e.holds(ctx, "locked", []byte("x")); err != nil {
		return err
	}
	if err := wantKind("lock of a missing object", e.store.Lock(ctx, e.prefix+"none", until), tripod.NotFound); err != nil {
		return err
	}
	if err := wait(ctx, time.Until(until)+10*time.Millisecond); err != nil {
		return err
	}
	if err := e.store.Delete(ctx, name); err != nil {
		return fmt.Errorf("delete after the lock's end: %w", err)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// exclusive takes the store, or returns errSkip when it does not offer that.
func (e *env) exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	x, ok := e.store.(store.Exclusive)
	if !ok {
		return nil, errSkip
	}
	release, err := x.Exclusive(ctx, holder, waiting)
	if errors.Is(err, tripod.Invalid) { // a decorator of a store that does not
		return nil, errSkip
	}
	return release, err
}

func checkExclusive(ctx context.Context, e *env) error {
	release, err := e.exclusive(ctx, "first", nil)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	writers := 1
	told := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- each(4, func(i int) error {
			free, err := e.exclusive(ctx, "second", func(holder string) { told <- holder })
			if err != nil {
				return err
			}
			mu.Lock()
			if writers++; writers != 1 {
				err = errors.New("two writers at once")
			}
			mu.Unlock()
			err = errors.Join(err, e.put(ctx, fmt.Sprintf("w%d", i), nil))
			mu.Lock()
			writers--
			mu.Unlock()
			return errors.Join(err, free())
		})
	}()
	holder := ""
	select {
	case holder = <-told:
	case err = <-done:
		return errors.Join(errors.New("the store was not held"), err, release())
	}
	mu.Lock()
	writers--
	mu.Unlock()
	err = errors.Join(release(), <-done)
	if holder != "first" {
		err = errors.Join(err, fmt.Errorf("told to wait for %q", holder))
	}
	return err
}

func checkExclusiveCancelled(ctx context.Context, e *env) error {
	release, err := e.exclusive(ctx, "first", nil)
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err = e.exclusive(ended, "second", func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("wait: got %w, want the context's error", err)
	} else {
		err = nil
	}
	if err := errors.Join(err, release()); err != nil {
		return err
	}
	// What was given up must not have been taken all the same.
	release, err = e.exclusive(ctx, "third", nil)
	if err != nil {
		return err
	}
	return release()
}
