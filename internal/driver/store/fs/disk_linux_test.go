package fs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/fs"
)

// smallDisk mounts a file system of 256 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tripod", dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Skip("not proved: a full and a read-only disk need the right to mount:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := smallDisk(t)
	s, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	release, err := s.Exclusive(ctx, "tester", nil)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{7}, 30<<10)
	full := 0
	for ; err == nil && full < 100; full++ {
		err = s.Put(ctx, fmt.Sprintf("o/%d", full), data)
	}
	if !errors.Is(err, tripod.Exhausted) || tripod.HintOf(err) == "" || full < 3 {
		t.Fatalf("put number %d: %v", full, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, ".incoming")); err != nil || len(left) != 0 {
		t.Errorf("left in .incoming: %v %v", left, err)
	}
	if got := names(t, s); len(got) != full-1 {
		t.Errorf("%d objects after %d puts", len(got), full)
	}
	// A full disk keeps nobody from making space.
	if err := release(); err != nil {
		t.Error(err)
	}
	if release, err = s.Exclusive(ctx, "cleaner", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "o/0"); err != nil {
		t.Error(err)
	}
	if err := s.Put(ctx, "o/new", data); err != nil {
		t.Errorf("after making space: %v", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t)
	s, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := s.Put(ctx, "p/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if s, err = fs.Open(dir); err != nil {
		t.Fatalf("what cannot be written can still be read: %v", err)
	}
	defer s.Close()
	if n, err := s.Get(ctx, "p/a", make([]byte, 1), 0); n != 1 || err != nil {
		t.Errorf("get: %d %v", n, err)
	}
	if got := names(t, s); len(got) != 1 {
		t.Errorf("listed %q", got)
	}
	if err := s.Put(ctx, "p/a", nil); !errors.Is(err, tripod.Exists) {
		t.Errorf("put of a taken name: %v", err)
	}
	_, exclErr := s.Exclusive(ctx, "tester", nil)
	for what, err := range map[string]error{
		"put": s.Put(ctx, "p/b", nil), "put in a new folder": s.Put(ctx, "q/b", nil),
		"delete": s.Delete(ctx, "p/a"), "exclusive": exclErr,
	} {
		if !errors.Is(err, tripod.Denied) || tripod.HintOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s.Capabilities().Lock {
		t.Error("claims locks on a read-only disk")
	}
}
