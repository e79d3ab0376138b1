package faulty_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/bits"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/driver/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storetest.Run(t, func(*testing.T) store.Store { return faulty.New(mem.New()) })
	})
}

var good = bytes.Repeat([]byte("good bytes "), 1000)

// get reads the whole object through s.
func get(t *testing.T, s store.Store, name string) []byte {
	t.Helper()
	p := make([]byte, 20000)
	n, err := s.Get(t.Context(), name, p, 0)
	if !errors.Is(err, io.EOF) {
		t.Fatalf("get %s: %v", name, err)
	}
	return p[:n]
}

func TestTheNthOperationFails(t *testing.T) {
	ctx := t.Context()
	run := func(f *faulty.Store) (failed int) {
		_, headErr := f.Head(ctx, "a")
		for i, err := range []error{headErr, f.Put(ctx, "a", good), f.List(ctx, "", func(store.Info) error { return nil }), f.Delete(ctx, "a")} {
			if errors.Is(err, tripod.Exhausted) {
				failed = i + 1
			}
		}
		return failed
	}
	counted := faulty.New(mem.New())
	if run(counted); counted.Count() != 4 || counted.CountOf(faulty.Put) != 1 {
		t.Fatalf("counted %d", counted.Count())
	}
	for n := 1; n <= 4; n++ {
		if got := run(faulty.New(mem.New(), faulty.FailNth(n, tripod.Exhausted))); got != n {
			t.Errorf("to fail: %d, failed: %d", n, got)
		}
	}
	f := faulty.New(mem.New(), faulty.On(faulty.All(faulty.At(faulty.Put, 2), faulty.Names("pack/*")), faulty.Fail(tripod.Denied)))
	if err := f.Put(ctx, "pack/a", nil); err != nil {
		t.Error(err)
	}
	if err := f.Put(ctx, "pack/b", nil); !errors.Is(err, tripod.Denied) {
		t.Error(err)
	}
	f.Script()
	if err := f.Put(ctx, "pack/b", nil); err != nil || f.Count() != 1 {
		t.Error(err, f.Count())
	}
}

func TestPutsThatFailAndLie(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		fault  faulty.Fault
		kind   error
		stored []byte // nil: no object
	}{
		"fail":     {faulty.Fail(tripod.Unavailable), tripod.Unavailable, nil},
		"answer":   {faulty.LoseAnswer(tripod.Unavailable), tripod.Unavailable, good},
		"tear":     {faulty.Tear(tripod.Unavailable), tripod.Unavailable, good[:len(good)/2]},
		"silently": {faulty.TearSilently(), nil, good[:len(good)/2]},
		"lose":     {faulty.Lose(), nil, nil},
		"cached":   {faulty.LoseAtCrash(), nil, good},
		"hook":     {faulty.Delay(func(context.Context) error { return tripod.Conflict }), tripod.Conflict, nil},
	} {
		f := faulty.New(mem.New(), faulty.On(faulty.Every(faulty.Put), c.fault))
		if err := f.Put(ctx, "a", good); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := f.Head(ctx, "a"); errors.Is(err, tripod.NotFound) != (c.stored == nil) {
			t.Errorf("%s: head: %v", name, err)
		} else if c.stored != nil && !bytes.Equal(get(t, f, "a"), c.stored) {
			t.Errorf("%s: other bytes stored", name)
		}
		if err := f.Crash(ctx); err != nil {
			t.Errorf("%s: crash: %v", name, err)
		}
		if _, err := f.Head(ctx, "a"); errors.Is(err, tripod.NotFound) != (c.stored == nil || name == "cached") {
			t.Errorf("%s: head after a crash: %v", name, err)
		}
	}
}

func TestGetsThatLie(t *testing.T) {
	ctx := t.Context()
	f := faulty.New(mem.New())
	if err := errors.Join(f.Put(ctx, "a", good), f.Put(ctx, "b", []byte("other")), f.Delete(ctx, "b"), f.Put(ctx, "b", []byte("fresh"))); err != nil {
		t.Fatal(err)
	}
	f.Script(faulty.On(faulty.At(faulty.Get, 1), faulty.CorruptGet(faulty.FlipBit(3))),
		faulty.On(faulty.At(faulty.Get, 2), faulty.CorruptGet(faulty.Zero(3, 100))),
		faulty.On(faulty.At(faulty.Get, 3), faulty.ShortGet(10)),
		faulty.On(faulty.At(faulty.Get, 4), faulty.SwapGet("b")),
		faulty.On(faulty.At(faulty.Get, 6), faulty.StaleGet()))
	if n := differ(get(t, f, "a"), good); n != 1 {
		t.Errorf("flip: %d bits differ", n)
	}
	if got := get(t, f, "a"); len(got) != len(good) || differ(got, good) < 2 {
		t.Error("zero: nothing changed")
	}
	if got := get(t, f, "a"); !bytes.Equal(got, good[:10]) {
		t.Errorf("short: %q", got)
	}
	for _, c := range [][2]string{{"a", "fresh"}, {"b", "fresh"}, {"b", "other"}, {"b", "fresh"}} {
		if got := get(t, f, c[0]); string(got) != c[1] {
			t.Errorf("get %s: %q, want %q", c[0], got, c[1])
		}
	}
	if !bytes.Equal(get(t, f, "a"), good) {
		t.Error("the object at rest has changed")
	}
}

func differ(a, b []byte) (n int) {
	for i := range min(len(a), len(b)) {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

// Damage at rest works on objects in memory and on files alike.
func TestDamageAtRest(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	onDisk, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer onDisk.Close()
	inMemory := mem.New()
	for s, d := range map[store.Store]faulty.Damager{inMemory: inMemory, onDisk: faulty.Dir(dir)} {
		if err := errors.Join(s.Put(ctx, "p/a", good), s.Put(ctx, "p/b", []byte("other"))); err != nil {
			t.Fatal(err)
		}
		get(t, s, "p/a") // which fs keeps open
		if err := faulty.Swap(d, "p/a", "p/b"); err != nil || string(get(t, s, "p/a")) != "other" || !bytes.Equal(get(t, s, "p/b"), good) {
			t.Errorf("swap: %v", err)
		}
		if err := d.Damage("p/b", faulty.FlipBit(1)); err != nil || differ(get(t, s, "p/b"), good) != 1 {
			t.Errorf("flip: %v", err)
		}
		if err := d.Damage("p/b", faulty.Truncate(1)); err != nil || len(get(t, s, "p/b")) >= len(good) {
			t.Errorf("truncate: %v", err)
		}
		if err := d.Damage("p/b", faulty.Replace(good)); err != nil || !bytes.Equal(get(t, s, "p/b"), good) {
			t.Errorf("replace: %v", err)
		}
		if err := d.Damage("p/b", faulty.Remove()); err != nil {
			t.Errorf("remove: %v", err)
		}
		if _, err := s.Head(ctx, "p/b"); !errors.Is(err, tripod.NotFound) {
			t.Errorf("head of the removed: %v", err)
		}
		if err := d.Damage("none", faulty.Remove()); !errors.Is(err, tripod.NotFound) {
			t.Errorf("damage of nothing: %v", err)
		}
	}
}
