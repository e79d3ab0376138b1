package storetest_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/mem"
	"tripod/internal/driver/store/storetest"
)

// liar is a store that breaks one sentence of the contract.
type liar struct {
	store.Store
	put    func(inner store.Store, ctx context.Context, name string, data []byte) error
	delete func(inner store.Store, ctx context.Context, name string) error
	list   func(inner store.Store, ctx context.Context, prefix string, fn func(store.Info) error) error
}

func (l liar) Put(ctx context.Context, name string, data []byte) error {
	if l.put != nil {
		return l.put(l.Store, ctx, name, data)
	}
	return l.Store.Put(ctx, name, data)
}

func (l liar) Delete(ctx context.Context, name string) error {
	if l.delete != nil {
		return l.delete(l.Store, ctx, name)
	}
	return l.Store.Delete(ctx, name)
}

func (l liar) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if l.list != nil {
		return l.list(l.Store, ctx, prefix, fn)
	}
	return l.Store.List(ctx, prefix, fn)
}

// The suite finds those who break the contract.
func TestLiarsAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, s := range map[string]store.Store{
			"overwrites": liar{Store: mem.New(), put: func(in store.Store, ctx context.Context, name string, data []byte) error {
				if err := in.Put(ctx, name, data); !errors.Is(err, tripod.Exists) {
					return err
				}
				return errors.Join(in.Delete(ctx, name), in.Put(ctx, name, data))
			}},
			"puts nothing when taken, and says nothing": liar{Store: mem.New(), put: func(in store.Store, ctx context.Context, name string, data []byte) error {
				if err := in.Put(ctx, name, data); !errors.Is(err, tripod.Exists) {
					return err
				}
				return nil
			}},
			"deletes what is not there": liar{Store: mem.New(), delete: func(in store.Store, ctx context.Context, name string) error {
				if err := in.Delete(ctx, name); !errors.Is(err, tripod.NotFound) {
					return err
				}
				return nil
			}},
			"lists folders only": liar{Store: mem.New(), list: func(in store.Store, ctx context.Context, prefix string, fn func(store.Info) error) error {
				return in.List(ctx, prefix[:strings.LastIndexByte(prefix, '/')+1], fn)
			}},
			"swallows the caller's error": liar{Store: mem.New(), list: func(in store.Store, ctx context.Context, prefix string, fn func(store.Info) error) error {
				in.List(ctx, prefix, fn)
				return ctx.Err()
			}},
		} {
			failed := 0
			err := storetest.Check(t.Context(), s, "check", func(r storetest.Result) {
				if !r.OK {
					failed++
				}
			})
			if err == nil || failed == 0 {
				t.Errorf("a store that %s passed", name)
			}
		}
	})
}

func TestCheckLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		if err := s.Put(t.Context(), "users/own", []byte("x")); err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		err := storetest.Check(t.Context(), s, "check", func(r storetest.Result) {
			if !r.OK || r.Skipped || names[r.Name] {
				t.Errorf("%+v", r)
			}
			names[r.Name] = true
		})
		if err != nil || len(names) < 20 {
			t.Errorf("%d checks, %v", len(names), err)
		}
		s.List(t.Context(), "", func(i store.Info) error {
			if i.Name != "users/own" {
				t.Errorf("left behind: %s", i.Name)
			}
			return nil
		})
		if err := storetest.Check(t.Context(), s, "users", func(storetest.Result) {}); !errors.Is(err, tripod.Exists) {
			t.Errorf("under a prefix in use: %v", err)
		}
		if err := storetest.Check(t.Context(), s, "../x", func(storetest.Result) {}); !errors.Is(err, tripod.Invalid) {
			t.Errorf("under an invalid prefix: %v", err)
		}
	})
}

// interrupted is a store during whose n-th operation the context ends.
type interrupted struct {
	store.Store
	left   *atomic.Int64
	cancel func()
}

func (i interrupted) count() {
	if i.left.Add(-1) == 0 {
		i.cancel()
	}
}

func (i interrupted) Put(ctx context.Context, name string, data []byte) error {
	defer i.count()
	return i.Store.Put(ctx, name, data)
}

func (i interrupted) Delete(ctx context.Context, name string) error {
	defer i.count()
	return i.Store.Delete(ctx, name)
}

func (i interrupted) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	defer i.count()
	return i.Store.List(ctx, prefix, fn)
}

func (i interrupted) Lock(ctx context.Context, name string, until time.Time) error {
	defer i.count()
	return i.Store.Lock(ctx, name, until)
}

// Whenever the suite is interrupted, nothing of it stays behind, no locked object
// either, and the check under way is not called broken.
func TestInterruptedNothingStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for n, ended := int64(1), false; !ended; n += 1 + n/20 {
			ctx, cancel := context.WithCancel(t.Context())
			inner, left := mem.New(), new(atomic.Int64)
			left.Store(n)
			err := storetest.Check(ctx, interrupted{inner, left, cancel}, "check", func(r storetest.Result) {
				if !r.OK {
					t.Errorf("interrupted at operation %d: %s: %v", n, r.Name, r.Err)
				}
			})
			ended = ctx.Err() == nil
			if !ended && !errors.Is(err, context.Canceled) {
				t.Errorf("interrupted at operation %d: %v", n, err)
			}
			err = inner.List(t.Context(), "", func(i store.Info) error { return errors.New(i.Name) })
			if err != nil {
				t.Errorf("interrupted at operation %d: %v stays behind", n, err)
			}
			cancel()
		}
	})
}
