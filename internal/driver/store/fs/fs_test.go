package fs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable/crashfs"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (*fs.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new", "store")
	s, err := fs.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, dir
}

func TestContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the wait for a lock's end is simulated
		storetest.Run(t, func(t *testing.T) store.Store {
			s, _ := open(t)
			if !s.Capabilities().Lock {
				t.Log("not proved: locks, which need CAP_LINUX_IMMUTABLE here")
			}
			return s
		})
	})
}

func TestContractOnSimulatedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storetest.Run(t, func(*testing.T) store.Store { return fs.On(crashfs.New(), "disk") })
	})
}

func names(t *testing.T, s store.Store) (found []string) {
	t.Helper()
	err := s.List(t.Context(), "", func(i store.Info) error {
		found = append(found, i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestForeignFilesAreUnseen(t *testing.T) {
	s, dir := open(t)
	if err := s.Put(t.Context(), "pack/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	for _, name := range []string{"README", "pack/.hidden", "pack/A", "pack/a b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("foreign"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		for link, target := range map[string]string{"link": filepath.Join(dir, "pack", "a"), "out": outside, "passwd": "/etc/passwd"} {
			if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := names(t, s); !slices.Equal(got, []string{"pack/a"}) {
		t.Errorf("listed %q", got)
	}
	for _, name := range []string{"link", "passwd", "pack"} {
		if _, err := s.Get(t.Context(), name, make([]byte, 1), 0); !errors.Is(err, tripod.NotFound) {
			t.Errorf("get %s: %v", name, err)
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, tripod.NotFound) {
			t.Errorf("delete %s: %v", name, err)
		}
		if err := s.Put(t.Context(), name, nil); !errors.Is(err, tripod.Conflict) || tripod.HintOf(err) == "" {
			t.Errorf("put %s: %v", name, err)
		}
	}
	if err := s.Put(t.Context(), "out/a", nil); !errors.Is(err, tripod.Denied) {
		t.Errorf("put through a link that leads out: %v", err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("written outside: %v", entries)
	}
}

func TestFilesAreThePlainTruth(t *testing.T) {
	s, dir := open(t)
	if err := s.Put(t.Context(), "pack/ab/cd", []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "pack", "ab", "cd")); err != nil || string(got) != "bytes" {
		t.Errorf("%q %v", got, err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, ".incoming")); err != nil || len(entries) != 0 {
		t.Errorf("left in .incoming: %v %v", entries, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "pack": 0o700, "pack/ab/cd": 0o400} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// Another process deletes an object and puts another one: an open handle must
// not go on giving the old bytes.
func TestReadersSeeDeletionsByOthers(t *testing.T) {
	ours, dir := open(t)
	other, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx := t.Context()
	p := make([]byte, 3)
	for i := range 3 {
		want := fmt.Sprintf("v%02d", i)
		if err := other.Put(ctx, "a", []byte(want)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Get(ctx, "a", p, 0); err != nil || string(p) != want {
			t.Errorf("got %q %v, want %q", p, err, want)
		}
		if err := other.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Get(ctx, "a", p, 0); !errors.Is(err, tripod.NotFound) {
			t.Errorf("deleted and still read: %v", err)
		}
	}
}

func TestReadersOfManyObjects(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	for i := range 200 {
		if err := s.Put(ctx, fmt.Sprintf("o/%03d", i), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	for g := range 8 {
		go func() {
			for i := range 1000 {
				k := (i*(2*g+1) + g) % 200
				p := []byte{0}
				if _, err := s.Get(ctx, fmt.Sprintf("o/%03d", k), p, 0); err != nil || p[0] != byte(k) {
					done <- fmt.Errorf("object %d: %v %w", k, p, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil && len(fds) > 64+30 {
		t.Errorf("%d files are open", len(fds))
	}
}

func TestOpenExplains(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]tripod.ErrorKind{filepath.Join(dir, "none"): tripod.NotFound, file: tripod.Invalid} {
		if _, err := fs.Open(name); !errors.Is(err, kind) || tripod.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q", name, err, tripod.HintOf(err))
		}
	}
	if _, err := fs.Create(filepath.Join(file, "below")); !errors.Is(err, tripod.Invalid) {
		t.Errorf("below a file: %v", err)
	}
}

func TestOpenSweepsWhatTheDeadLeft(t *testing.T) {
	s, dir := open(t)
	if err := s.Put(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	// A process that has ended for certain.
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Skip("not proved: needs a process to end:", err)
	}
	host := fs.TempPrefixOf(s)
	keep := []string{fmt.Sprintf("%s-%d-1", host, os.Getpid()), "00000000-1-2", "unknown"}
	lose := []string{fmt.Sprintf("%s-%d-3", host, cmd.Process.Pid), "00000000-1-4", "unknown-old"}
	for _, name := range slices.Concat(keep, lose) {
		if err := os.WriteFile(filepath.Join(dir, ".incoming", name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range lose[1:] {
		if err := os.Chtimes(filepath.Join(dir, ".incoming", name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	again, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	entries, err := os.ReadDir(filepath.Join(dir, ".incoming"))
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	slices.Sort(keep)
	if !slices.Equal(left, keep) {
		t.Errorf("left %q, want %q", left, keep)
	}
}

// A folder removed behind the store's back is made again.
func TestPutAfterAFolderVanished(t *testing.T) {
	s, dir := open(t)
	for i := range 2 {
		if err := s.Put(t.Context(), fmt.Sprintf("a/b/%d", i), nil); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, ".incoming")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImmutableHoldsAgainstOthers(t *testing.T) {
	s, dir := open(t)
	if !s.Capabilities().Lock {
		t.Skip("not proved: locks need CAP_LINUX_IMMUTABLE and a file system with the immutable attribute")
	}
	ctx := t.Context()
	if err := s.Put(ctx, "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Lock(ctx, "a/b", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Thaw(s, "a/b"); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "a", "b")
	for what, err := range map[string]error{
		"remove":   os.Remove(file),
		"rename":   os.Rename(file, file+"2"),
		"truncate": os.Truncate(file, 0),
		"chmod":    os.Chmod(file, 0o600),
	} {
		if err == nil {
			t.Errorf("%s worked on a locked object", what)
		}
	}
	if err := s.Delete(ctx, "a/b"); !errors.Is(err, tripod.Denied) {
		t.Errorf("delete: %v", err)
	}
}
