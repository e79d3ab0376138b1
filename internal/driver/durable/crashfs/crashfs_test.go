package crashfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"tripod/internal/driver/durable/crashfs"
)

// states takes many crash states of disk and returns what name held in each,
// by content, with "absent" for none.
func states(t *testing.T, disk *crashfs.Disk, name string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for seed := range uint64(400) {
		after := disk.Crash(rand.New(rand.NewPCG(seed, 7)))
		f, err := after.Open(name)
		if err != nil {
			found["absent"]++
			continue
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		f.ReadAt(got, 0)
		found[string(got)]++
	}
	return found
}

func TestOnlyWhatIsSyncedIsSure(t *testing.T) {
	disk := crashfs.New()
	f, err := disk.Create("a", 0)
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("x"), 3*4096)
	f.Write(text)
	if found := states(t, disk, "a"); found["absent"] == 0 || found[string(text)] == 0 || len(found) < 6 {
		t.Errorf("nothing synced: only %d outcomes", len(found))
	}
	disk.SyncDir(".")
	if found := states(t, disk, "a"); found["absent"] != 0 || found[""] == 0 {
		t.Error("name synced, bytes not: want it always there and sometimes empty")
	}
	f.Sync()
	if found := states(t, disk, "a"); found[string(text)] != 400 {
		t.Error("all synced: something was lost")
	}
	disk.Rename("a", "b", true)
	if a, b := states(t, disk, "a"), states(t, disk, "b"); a["absent"] == 0 || a["absent"] == 400 || b["absent"] == 0 || b["absent"] == 400 {
		t.Errorf("rename not synced: a %d, b %d times absent", a["absent"], b["absent"])
	}
	disk.SyncDir(".")
	if b := states(t, disk, "b"); b[string(text)] != 400 {
		t.Error("rename synced: b was lost")
	}
	disk.Remove("b")
	if b := states(t, disk, "b"); b["absent"] == 0 || b["absent"] == 400 {
		t.Error("removal not synced: want it there and gone")
	}
}

func TestHookFailsOperations(t *testing.T) {
	disk := crashfs.New()
	f, err := disk.Create("a", 0)
	if err != nil {
		t.Fatal(err)
	}
	disk.SetHook(func(op crashfs.Op) error {
		if op.Verb == "write" || op.Verb == "sync" {
			return syscall.ENOSPC
		}
		return nil
	})
	if n, err := f.Write([]byte("1234")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %d %v", n, err)
	}
	if err := f.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("sync: %v", err)
	}
	disk.SetHook(nil)
	if err := f.Sync(); err != nil {
		t.Errorf("second sync: %v", err)
	}
	disk.SyncDir(".")
	if found := states(t, disk, "a"); found[""] == 0 {
		t.Error("the second sync made good what the first lost")
	}
	if err := disk.Rename("none", "b", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename: %v", err)
	}
}

func TestOneSeedOneState(t *testing.T) {
	disk := crashfs.New()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		f, err := disk.Create(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(bytes.Repeat([]byte(name), 9000))
	}
	read := func() (all []byte) {
		after := disk.Crash(rand.New(rand.NewPCG(3, 4)))
		entries, _ := after.ReadDir(".")
		for _, e := range entries {
			f, _ := after.Open(e.Name())
			size, _ := f.Size()
			buf := make([]byte, size)
			f.ReadAt(buf, 0)
			all = append(append(all, e.Name()...), buf...)
		}
		return all
	}
	first := read()
	for range 20 {
		if !bytes.Equal(first, read()) {
			t.Fatal("the same seed gave another state")
		}
	}
}
