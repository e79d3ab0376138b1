package durable_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/driver/durable/crashfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openRoot(t *testing.T) (*durable.Root, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, dir
}

func TestWriteNewRefusesATakenName(t *testing.T) {
	r, dir := openRoot(t)
	if err := durable.WriteNew(r, "tmp", "a", 0o400, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteNew(r, "tmp", "a", 0o400, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: %v, want fs.ErrExist", err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "a"))
	if err != nil || string(got) != "one" {
		t.Errorf("a holds %q, %v", got, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

func TestLinkInPlaceOfRename(t *testing.T) {
	r, _ := openRoot(t)
	for _, name := range []string{"x", "y"} {
		if err := durable.WriteNew(r, "tmp", name, 0o600, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.LinkAndRemove(r, "x", "y"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a taken name: %v", err)
	}
	if err := durable.LinkAndRemove(r, "x", "z"); err != nil {
		t.Error(err)
	}
	if _, err := r.Stat("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("old name: %v", err)
	}
}

func TestReplaceFileAndMakeDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	if err := durable.MakeDir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.MakeDir(dir, 0o700); err != nil {
		t.Errorf("again: %v", err)
	}
	name := filepath.Join(dir, "conf")
	for _, text := range []string{"old", "new"} {
		if err := durable.ReplaceFile(name, 0o600, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("holds %q, %v, want %q", got, err, text)
		}
	}
	if err := durable.MakeDir(filepath.Join(name, "x"), 0o700); !errors.Is(err, tripod.Invalid) {
		t.Errorf("below a file: %v", err)
	}
}

// Whatever the moment of the power cut, a replaced file holds one whole version
// and not an older one than the last acknowledged.
func TestReplaceSurvivesCrashes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	disk := crashfs.New()
	versions := [][]byte{nil}
	acknowledged, states := 0, 0
	check := func() {
		after := disk.Crash(r)
		states++
		f, err := after.Open("conf")
		if err != nil {
			if acknowledged > 0 {
				t.Fatalf("version %d is gone: %v", acknowledged, err)
			}
			return
		}
		size, _ := f.Size()
		got := make([]byte, size)
		f.ReadAt(got, 0)
		for _, v := range versions[max(acknowledged, 1):] {
			if bytes.Equal(got, v) {
				return
			}
		}
		t.Fatalf("torn or old after version %d: %d bytes", acknowledged, len(got))
	}
	disk.SetHook(func(crashfs.Op) error { check(); return nil })
	for range 50 {
		next := make([]byte, 1+r.IntN(20000))
		for i := range next {
			next[i] = byte(len(versions))
		}
		versions = append(versions, next)
		if err := durable.Replace(disk, "conf", 0o600, next); err != nil {
			t.Fatal(err)
		}
		acknowledged = len(versions) - 1
		check()
	}
	t.Logf("%d states", states)
}

// A directory that an earlier process made and did not sync is not taken for
// durable because it is there.
func TestDirsSyncsWhatAnotherMade(t *testing.T) {
	disk := crashfs.New()
	for _, dir := range []string{"a", "a/b"} {
		if err := disk.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.NewDirs(disk, 0o700).Make("a/b/c"); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(50) {
		if _, err := disk.Crash(rand.New(rand.NewPCG(seed, 0))).Stat("a/b/c"); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestRemoveAnswersWhenAbsenceIsDurable(t *testing.T) {
	disk := crashfs.New()
	if err := durable.WriteNew(disk, "tmp", "a", 0o600, []byte("x")); err != nil {
		t.Fatal(err)
	}
	disk.SetHook(func(op crashfs.Op) error {
		if op.Verb == "syncdir" {
			return syscall.EIO
		}
		return nil
	})
	if err := durable.Remove(disk, "a"); !errors.Is(err, syscall.EIO) {
		t.Fatalf("failed sync: %v", err)
	}
	disk.SetHook(nil)
	if err := durable.Remove(disk, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("again: %v", err)
	}
	for seed := range uint64(50) {
		if _, err := disk.Crash(rand.New(rand.NewPCG(seed, 0))).Stat("a"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("seed %d: it is back: %v", seed, err)
		}
	}
}

// A sync that failed is never tried again on the same file: the simulated disk
// reports success then, and has lost the bytes.
func TestFailedSyncIsNotRetried(t *testing.T) {
	disk := crashfs.New()
	syncs := 0
	disk.SetHook(func(op crashfs.Op) error {
		if op.Verb == "sync" {
			syncs++
			return syscall.EIO
		}
		return nil
	})
	if err := durable.WriteNew(disk, "tmp", "a", 0o600, []byte("x")); !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %v", err)
	}
	if syncs != 1 {
		t.Errorf("%d syncs", syncs)
	}
	if entries, err := disk.ReadDir("."); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func TestLockNamesTheHolderAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := openRoot(t)
		ctx := t.Context()
		release, left, err := durable.Lock(ctx, r, ".lock", "backup of alpha", nil)
		if err != nil || left != "" {
			t.Fatalf("first: %q %v", left, err)
		}
		told := make(chan string, 10)
		got := make(chan error)
		go func() {
			second, left, err := durable.Lock(ctx, r, ".lock", "check", func(holder string) { told <- holder })
			if left != "" {
				t.Errorf("after a clean release something was left: %q", left)
			}
			if err == nil {
				err = second(true)
			}
			got <- err
		}()
		if holder := <-told; holder != "backup of alpha" {
			t.Errorf("told %q", holder)
		}
		time.Sleep(time.Minute) // simulated: the waiter polls on
		if len(told) != 0 {
			t.Error("told twice about one holder")
		}
		if err := release(true); err != nil {
			t.Error(err)
		}
		if err := release(true); err != nil {
			t.Errorf("second release: %v", err)
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

func TestLockEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := openRoot(t)
		release, _, err := durable.Lock(t.Context(), r, ".lock", "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer release(true)
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err = durable.Lock(ctx, r, ".lock", "b", func(string) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled wait: %v", err)
		}
	})
}

func TestLockTellsOfADeadHolder(t *testing.T) {
	r, dir := openRoot(t)
	if err := os.WriteFile(filepath.Join(dir, ".lock"), []byte("a very long name of someone who died\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	release, left, err := durable.Lock(t.Context(), r, ".lock", "next", nil)
	if err != nil || left != "a very long name of someone who died" {
		t.Errorf("left %q, %v", left, err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, ".lock")); string(text) != "next\n" {
		t.Errorf("lock file holds %q", text)
	}
	release(true)
	release, left, err = durable.Lock(t.Context(), r, ".lock", "third", nil)
	if err != nil || left != "" {
		t.Errorf("after a release: left %q, %v", left, err)
	}
	release(true)
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind tripod.ErrorKind
	}{
		{syscall.ENOSPC, tripod.Exhausted},
		{syscall.EDQUOT, tripod.Exhausted},
		{syscall.EMFILE, tripod.Exhausted},
		{syscall.ENFILE, tripod.Exhausted},
		{syscall.EROFS, tripod.Denied},
		{syscall.EACCES, tripod.Denied},
		{syscall.EPERM, tripod.Denied},
		{syscall.EIO, tripod.Unavailable},
		{syscall.ESTALE, tripod.Unavailable},
		{syscall.ENOENT, tripod.NotFound},
		{syscall.EEXIST, tripod.Exists},
		{syscall.ENOTDIR, tripod.Conflict},
		{syscall.EISDIR, tripod.Conflict},
		{syscall.ENOTEMPTY, tripod.Conflict},
		{errors.New("?"), tripod.Internal},
	} {
		err := durable.Classify(&fs.PathError{Op: "openat", Path: "rel", Err: c.err}, "put", "/srv/vault/pack")
		if tripod.KindOf(err) != c.kind || !errors.Is(err, c.err) {
			t.Errorf("%v: kind %v, want %v", c.err, tripod.KindOf(err), c.kind)
		}
		if c.kind != tripod.Internal && err.Error() != "put /srv/vault/pack: "+c.err.Error() {
			t.Errorf("message %q", err)
		}
		if hint := tripod.HintOf(err); hint == "" && c.kind != tripod.NotFound && c.kind != tripod.Exists && c.kind != tripod.Internal {
			t.Errorf("%v: no hint", c.err)
		}
	}
	if err := durable.Classify(context.Canceled, "put", "x"); err != context.Canceled { //nolint:errorlint // unchanged is the point
		t.Errorf("context's error became %v", err)
	}
}

func TestOpenRootExplains(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]tripod.ErrorKind{file: tripod.Invalid, filepath.Join(dir, "none"): tripod.NotFound} {
		if _, err := durable.OpenRoot(name); !errors.Is(err, kind) || tripod.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q", name, err, tripod.HintOf(err))
		}
	}
}

func TestLinked(t *testing.T) {
	r, _ := openRoot(t)
	if err := durable.WriteNew(r, "tmp", "a", 0o600, []byte("x")); err != nil {
		t.Fatal(err)
	}
	f, err := r.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if runtime.GOOS != "windows" && !f.Linked() {
		t.Error("not linked")
	}
	if err := durable.Remove(r, "a"); err != nil {
		t.Fatal(err)
	}
	if f.Linked() {
		t.Error("linked after its removal")
	}
}
