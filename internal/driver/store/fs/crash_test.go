package fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable/crashfs"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/fs"
)

// errDead is what a process gets from the disk once it has been killed.
var errDead = errors.New("the process is dead")

// history is a random sequence of operations on a store on a simulated disk,
// with crash states taken at every operation of the disk.
type history struct {
	t      *testing.T
	r      *rand.Rand
	disk   *crashfs.Disk
	store  *fs.Store
	free   func() error
	states int // taken so far
	steps  int
	dieIn  int // operations of the disk until the process is killed; negative: never

	// may holds, for each name, what a reader may find after a crash; a nil
	// slice stands for no object. One outcome: the last operation on it was
	// acknowledged. More: one is under way, or ended unclear.
	may map[string][][]byte
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{t: t, r: rand.New(rand.NewPCG(seed, 0)), disk: crashfs.New(), dieIn: -1, may: map[string][][]byte{}}
	for _, name := range []string{"a", "b", "pack/ab/x", "pack/ab/y", "pack/cd/x", "record/m1/s1/0001", "record/m1/s1/0002", "z-1"} {
		h.may[name] = [][]byte{nil}
	}
	h.start()
	return h
}

// start is a new process on the disk. What it sees under the exclusive lock it
// may rely on: each object has now the one outcome that is seen.
func (h *history) start() {
	h.disk.SetHook(nil)
	h.disk.Kill()
	h.store = fs.On(h.disk, "disk")
	var err error
	if h.free, err = h.store.Exclusive(context.Background(), "tester", nil); err != nil {
		h.t.Fatal(err)
	}
	for name := range h.may {
		h.may[name] = [][]byte{h.verify(h.store, name)}
	}
	h.disk.SetHook(h.before)
}

// before sees every operation of the disk.
func (h *history) before(crashfs.Op) error {
	if h.dieIn == 0 {
		return errDead
	}
	if h.dieIn > 0 {
		h.dieIn--
	}
	h.crash()
	return nil
}

// crash takes one crash state and checks that the store keeps its word in it.
func (h *history) crash() *crashfs.Disk {
	h.states++
	after := h.disk.Crash(h.r)
	s := fs.On(after, "after")
	var present []string
	for name := range h.may {
		if h.verify(s, name) != nil {
			present = append(present, name)
		}
	}
	slices.Sort(present)
	if listed := listNames(h.t, s); !slices.Equal(listed, present) {
		h.t.Fatalf("step %d: listed %q, readable are %q", h.steps, listed, present)
	}
	return after
}

func listNames(t *testing.T, s store.Store) (found []string) {
	t.Helper()
	err := s.List(context.Background(), "", func(i store.Info) error {
		found = append(found, i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// verify reads an object and checks that it is an outcome that may be.
func (h *history) verify(s *fs.Store, name string) []byte {
	buf := make([]byte, 40000)
	n, err := s.Get(context.Background(), name, buf, 0)
	got := buf[:n:n]
	if errors.Is(err, tripod.NotFound) {
		got = nil
	}
	for _, want := range h.may[name] {
		if bytes.Equal(got, want) && (got == nil) == (want == nil) {
			return got
		}
	}
	h.t.Fatalf("step %d: %s holds %d bytes (%v), none of the %d outcomes that may be", h.steps, name, n, err, len(h.may[name]))
	return nil
}

// step does one random operation, now and then with a death in its midst.
func (h *history) step() {
	h.steps++
	names := []string{"a", "b", "pack/ab/x", "pack/ab/y", "pack/cd/x", "record/m1/s1/0001", "record/m1/s1/0002", "z-1"}
	name := names[h.r.IntN(len(names))]
	if h.r.IntN(8) == 0 {
		h.dieIn = h.r.IntN(14)
	}
	old := h.may[name]
	var err error
	if h.r.IntN(3) > 0 {
		data := make([]byte, []int{0, 1, 100, 4096, 9000, 30000}[h.r.IntN(6)])
		for i := range data {
			data[i] = byte(1 + h.steps%255)
		}
		h.may[name] = append(slices.Clone(old), data)
		err = h.store.Put(context.Background(), name, data)
		switch {
		case err == nil:
			h.may[name] = [][]byte{data}
		case errors.Is(err, tripod.Exists): // which one, is durable
			h.may[name] = slices.DeleteFunc(slices.Clone(old), func(b []byte) bool { return b == nil })
		}
	} else {
		h.may[name] = append(slices.Clone(old), nil)
		err = h.store.Delete(context.Background(), name)
		if err == nil || errors.Is(err, tripod.NotFound) {
			h.may[name] = [][]byte{nil}
		}
	}
	if h.dieIn == 0 {
		h.dieIn = -1
		h.start()
		return
	}
	h.dieIn = -1
	if err != nil && !errors.Is(err, tripod.Exists) && !errors.Is(err, tripod.NotFound) {
		h.t.Fatalf("step %d on %s: %v", h.steps, name, err)
	}
	switch h.r.IntN(20) {
	case 0: // the power is cut; the history goes on with what is left
		h.disk = h.crash()
		h.start()
	case 1: // a clean restart
		if err := h.free(); err != nil {
			h.t.Fatal(err)
		}
		h.start()
	}
}

// Acknowledged is present and whole, unacknowledged is absent or whole, at
// every operation of the disk.
func TestCrashStates(t *testing.T) {
	want := 5_000
	if testing.Short() {
		want = 200
	}
	if os.Getenv("TRIPOD_LONG") == "1" {
		want = 1_000_000
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TRIPOD_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("TRIPOD_SEED=%d", seed)
	states, histories, start := 0, 0, time.Now()
	for ; states < want; histories++ {
		h := newHistory(t, seed+uint64(histories))
		for h.steps < 60 && states+h.states < want {
			h.step()
		}
		states += h.states
		if t.Failed() {
			return
		}
	}
	t.Logf("%d crash states in %d histories, %.0f per second", states, histories, float64(states)/time.Since(start).Seconds())
}

// faultRun does a fixed sequence of operations and counts those of the disk.
type faultRun struct {
	t     *testing.T
	disk  *crashfs.Disk
	calls int
	at    int // the call to fail
	errno syscall.Errno
	hit   crashfs.Op
}

func (f *faultRun) before(op crashfs.Op) error {
	f.calls++
	if f.calls == f.at {
		f.hit = op
		return f.errno
	}
	return nil
}

// try runs op, and once more after the injected failure. after lists the kinds
// that are an answer the second time, when the first did more than it told.
func (f *faultRun) try(what string, kind tripod.ErrorKind, op func() error, after ...tripod.ErrorKind) {
	f.t.Helper()
	err := op()
	if err == nil {
		return
	}
	where := fmt.Sprintf("%s, call %d (%s %s) failing with %v", what, f.at, f.hit.Verb, f.hit.Name, f.errno)
	if f.calls < f.at {
		f.t.Fatalf("%s: before the failure: %v", where, err)
	}
	if !errors.Is(err, kind) || !errors.Is(err, f.errno) || tripod.HintOf(err) == "" {
		f.t.Errorf("%s: got %v (kind %v, hint %q), want kind %v", where, err, tripod.KindOf(err), tripod.HintOf(err), kind)
	}
	if err := op(); err != nil && !slices.ContainsFunc(after, func(k tripod.ErrorKind) bool { return errors.Is(err, k) }) {
		f.t.Errorf("%s: and the next time: %v", where, err)
	}
}

// Every call of the disk fails once with every error: the operation says so in
// the right kind, and everything works afterwards.
func TestEveryCallFailsOnce(t *testing.T) {
	kinds := map[syscall.Errno]tripod.ErrorKind{
		syscall.ENOSPC: tripod.Exhausted, syscall.EMFILE: tripod.Exhausted,
		syscall.EROFS: tripod.Denied, syscall.EIO: tripod.Unavailable,
	}
	total := 0
	for errno, kind := range kinds {
		for at := 1; ; at++ {
			f := &faultRun{t: t, disk: crashfs.New(), at: at, errno: errno}
			f.run(kind)
			if t.Failed() {
				return
			}
			if f.calls < f.at {
				break
			}
			total++
		}
	}
	t.Logf("%d failures injected", total)
}

func (f *faultRun) run(kind tripod.ErrorKind) {
	ctx := context.Background()
	f.disk.SetHook(f.before)
	s := fs.On(f.disk, "disk")
	var release func() error
	f.try("exclusive", kind, func() (err error) {
		release, err = s.Exclusive(ctx, "tester", nil)
		return err
	})
	data := bytes.Repeat([]byte("data"), 3000)
	for _, name := range []string{"pack/ab/x", "pack/ab/y", "z"} {
		f.try("put", kind, func() error { return s.Put(ctx, name, data) }, tripod.Exists)
	}
	got := make([]byte, len(data))
	f.try("get", kind, func() error {
		_, err := s.Get(ctx, "pack/ab/x", got, 0)
		return err
	})
	if !bytes.Equal(got, data) {
		f.t.Errorf("call %d failing: other bytes", f.at)
	}
	f.try("head", kind, func() error {
		_, err := s.Head(ctx, "pack/ab/x")
		return err
	})
	f.try("delete", kind, func() error { return s.Delete(ctx, "pack/ab/y") }, tripod.NotFound)
	var listed []string
	f.try("list", kind, func() error {
		listed = nil
		return s.List(ctx, "", func(i store.Info) error {
			listed = append(listed, i.Name)
			return nil
		})
	})
	if want := []string{"pack/ab/x", "z"}; !slices.Equal(listed, want) {
		f.t.Errorf("call %d failing: listed %q, want %q", f.at, listed, want)
	}
	if err := release(); err != nil {
		f.t.Error(err)
	}
	f.disk.SetHook(nil)
	for seed := range uint64(3) {
		after := fs.On(f.disk.Crash(rand.New(rand.NewPCG(seed, 1))), "after")
		if names := listNames(f.t, after); !slices.Equal(names, listed) {
			f.t.Errorf("call %d failing with %v, then a crash: %q left of %q", f.at, f.errno, names, listed)
		}
	}
	if left, err := f.disk.ReadDir(".incoming"); err != nil || len(left) > 1 {
		f.t.Errorf("call %d failing: left in .incoming: %v %v", f.at, left, err)
	}
}

// A reader who finds too many files open gives back those it keeps open itself.
func TestReaderFindsTooManyFilesOpen(t *testing.T) {
	disk := crashfs.New()
	s := fs.On(disk, "disk")
	ctx := t.Context()
	for _, name := range []string{"a", "b", "c"} {
		if err := s.Put(ctx, name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	open := 0
	disk.SetHook(func(op crashfs.Op) error {
		switch op.Verb {
		case "open":
			if open >= 2 {
				return syscall.EMFILE
			}
			open++
		case "close":
			open--
		}
		return nil
	})
	for _, name := range []string{"a", "b", "c", "a", "c"} {
		p := make([]byte, 1)
		if _, err := s.Get(ctx, name, p, 0); err != nil || string(p) != name {
			t.Errorf("get %s: %q %v", name, p, err)
		}
	}
}

// An empty folder is no object, and stays.
func TestDeleteOfAFolder(t *testing.T) {
	disk := crashfs.New()
	s := fs.On(disk, "disk")
	if err := errors.Join(s.Put(t.Context(), "a/b", nil), s.Delete(t.Context(), "a/b")); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, tripod.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := disk.Stat("a"); err != nil {
		t.Errorf("the folder is gone: %v", err)
	}
}

// After a holder's death everything is synced before the next one is let in,
// and stays to be done when that fails.
func TestSyncAfterADeathIsNotForgotten(t *testing.T) {
	disk := crashfs.New()
	ctx := t.Context()
	s := fs.On(disk, "disk")
	if _, err := s.Exclusive(ctx, "one who dies", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "p/a", nil); err != nil {
		t.Fatal(err)
	}
	disk.Kill()
	synced := 0
	var failing error
	disk.SetHook(func(op crashfs.Op) error {
		if op.Verb != "syncdir" {
			return nil
		}
		synced++
		return failing
	})
	for i, c := range []struct {
		failing error
		kind    error
		syncs   bool
	}{{syscall.EIO, tripod.Unavailable, true}, {nil, nil, true}, {nil, nil, false}} {
		synced, failing = 0, c.failing
		release, err := fs.On(disk, "disk").Exclusive(ctx, "next", nil)
		if !errors.Is(err, c.kind) || (synced > 0) != c.syncs {
			t.Errorf("attempt %d: %v after %d syncs", i, err, synced)
		}
		if err == nil {
			if err := release(); err != nil {
				t.Error(err)
			}
		}
	}
}
