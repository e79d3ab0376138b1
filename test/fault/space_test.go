package fault

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// disk mounts a small file system in memory at dir, or skips the test.
func (m *machine) disk(dir, size string) {
	m.t.Helper()
	if os.Geteuid() != 0 {
		m.t.Skip("not proved: a disk that is really full: needs root to mount one")
	}
	must(m.t, os.MkdirAll(dir, 0o755))
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tripod-fault", dir).CombinedOutput(); err != nil {
		m.t.Skipf("not proved: a disk that is really full: mount: %v %s", err, out)
	}
	m.t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			m.t.Errorf("umount: %v %s", err, out)
		}
	})
}

func (m *machine) remount(dir, option string) {
	m.t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,"+option, dir).CombinedOutput(); err != nil {
		m.t.Fatalf("remount: %v %s", err, out)
	}
}

// full checks that a run ended because of the disk, and says so.
func full(t *testing.T, r result) {
	t.Helper()
	if r.code != 1 || !strings.Contains(strings.ToLower(r.err), "space") || strings.Contains(r.err, "goroutine ") {
		t.Errorf("want exit 1 and a word about space: %v", r)
	}
}

// TestVaultDiskIsFull fills the disk of the vault by a backup, makes room, and
// goes on.
func TestVaultDiskIsFull(t *testing.T) {
	m := newMachine(t)
	m.disk(m.vault, "40m")
	m.init()
	r := rand.New(rand.NewPCG(1, 50))
	small, large := m.path("small"), m.path("large")
	folder(t, r, small, 50, 1, 4<<20)
	folder(t, r, large, 50, 10, 5<<20)
	m.must("backup", small)
	full(t, m.run("backup", large))
	if ids := m.snapshots(); len(ids) != 1 {
		t.Errorf("snapshots %v", ids)
	}
	m.must("verify")
	m.restores("latest", sumsOf(t, small))
	m.remount(m.vault, "size=120m")
	m.must("backup", large)
	m.must("verify")
	m.restores("latest", sumsOf(t, large), "--path", large)
	if stored := m.stored(); stored > 60<<20 {
		t.Errorf("%d bytes stored of 54 MiB: what was there was stored again", stored)
	}
	m.remount(m.vault, "ro")
	m.must("verify")
	m.restores("latest", sumsOf(t, large), "--path", large)
	if res := m.run("backup", small); res.code == 0 || res.err == "" || strings.Contains(res.err, "goroutine ") {
		t.Errorf("a backup to a read-only disk: %v", res)
	}
}

// TestTargetDiskIsFull restores to a disk that is too small, makes room, and
// goes on.
func TestTargetDiskIsFull(t *testing.T) {
	m := newMachine(t)
	m.init()
	dir, to := m.path("source"), m.path("target")
	folder(t, rand.New(rand.NewPCG(1, 51)), dir, 50, 6, 5<<20)
	m.must("backup", dir)
	m.disk(to, "12m")
	inside := filepath.Join(to, "restored")
	full(t, m.run("restore", "latest", "--to", inside))
	m.remount(to, "size=80m")
	m.must("restore", "latest", "--to", inside, "--overwrite", "changed")
	if err := sumsOf(t, dir).differ(sumsOf(t, inside)); err != nil {
		t.Error(err)
	}
}

// TestCacheDiskIsFull runs everything with no room for caches and indexes: they
// are never the reason why something does not work.
func TestCacheDiskIsFull(t *testing.T) {
	m := newMachine(t)
	m.disk(m.path("cache"), "64k")
	m.init()
	dir := m.path("source")
	folder(t, rand.New(rand.NewPCG(1, 52)), dir, 800, 2, 5<<20)
	for range 2 {
		if res := m.run("backup", dir); res.code != 0 && res.code != 3 {
			t.Fatalf("backup: %v", res)
		}
	}
	m.must("verify")
	m.restores("latest", sumsOf(t, dir))
	m.remount(m.path("cache"), "ro")
	if res := m.run("backup", dir); res.code != 0 && res.code != 3 {
		t.Fatalf("backup with a read-only cache: %v", res)
	}
	m.restores("latest", sumsOf(t, dir))
}
