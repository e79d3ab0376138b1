package fault

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// timed runs a command and tells how long it took.
func (m *machine) timed(args ...string) time.Duration {
	m.t.Helper()
	began := time.Now()
	m.must(args...)
	return time.Since(began)
}

// TestKillRestore kills restores; another one completes what is there.
func TestKillRestore(t *testing.T) {
	s := seed(t)
	m, r := newMachine(t), rand.New(rand.NewPCG(s, 60))
	m.init()
	dir, to := m.path("source"), m.path("back")
	folder(t, r, dir, 800, 6, 5<<20)
	m.must("backup", dir)
	want := sumsOf(t, dir)
	took := m.timed("restore", "latest", "--to", to)
	kills, count := 0, size(2, 20, 1000)
	for n := 0; kills < count && n < 20*count; n++ {
		must(t, os.RemoveAll(to))
		_, dead := killed(m.command("restore", "latest", "--to", to), time.Duration(r.Int64N(int64(took))))
		if !dead {
			continue
		}
		kills++
		m.must("restore", "latest", "--to", to, "--overwrite", "changed")
		got := sumsOf(t, to)
		for name := range got {
			// What was being written has a name that says so, and stays.
			if strings.HasPrefix(filepath.Base(name), ".tripod-") {
				delete(got, name)
			}
		}
		if err := want.differ(got); err != nil {
			t.Fatalf("TRIPOD_SEED=%d, kill %d: %v", s, kills, err)
		}
	}
	t.Logf("%d kills", kills)
}

// TestKillInit kills the making of a vault: it is there and opens by the
// passphrase, or making it again works.
func TestKillInit(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 61))
	m := newMachine(t)
	dir := m.path("source")
	folder(t, r, dir, 10, 0, 0)
	took := m.timed("vault", "init", "--yes")
	kills, made, count := 0, 0, size(3, 20, 1000)
	for n := 0; kills < count && n < 20*count; n++ {
		for _, name := range []string{m.vault, m.path("config"), m.path("cache")} {
			must(t, os.RemoveAll(name))
		}
		if _, dead := killed(m.command("vault", "init", "--yes"), time.Duration(r.Int64N(int64(took)))); !dead {
			continue
		}
		kills++
		switch again := m.run("vault", "init", "--yes"); again.code {
		case 0:
		case 7:
			made++ // it was complete
		default:
			t.Fatalf("TRIPOD_SEED=%d, kill %d: %v", s, kills, again)
		}
		m.must("backup", dir)
		m.restores("latest", sumsOf(t, dir))
		m.must("verify")
	}
	t.Logf("%d kills, %d after the vault was made", kills, made)
}

// TestKillPassphrase kills changes of the passphrase: the old or the new one
// opens the vault, and the recovery code always does.
func TestKillPassphrase(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 62))
	m := newMachine(t)
	code := m.init()
	dir := m.path("source")
	folder(t, r, dir, 10, 0, 0)
	m.must("backup", dir)
	want := sumsOf(t, dir)
	old, next := passphrase, "another good passphrase"
	with := func(args ...string) result {
		cmd := m.command(args...)
		cmd.Env = append(slices.Clone(m.env), "TRIPOD_PASSPHRASE="+old, "TRIPOD_NEW_PASSPHRASE="+next)
		return wait(cmd)
	}
	began := time.Now()
	if res := with("vault", "passphrase"); res.code != 0 {
		t.Fatal(res)
	}
	took := time.Since(began)
	old, next = next, old
	kills, changed, count := 0, 0, size(3, 20, 1000)
	for n := 0; kills < count && n < 20*count; n++ {
		cmd := m.command("vault", "passphrase")
		cmd.Env = append(slices.Clone(m.env), "TRIPOD_PASSPHRASE="+old, "TRIPOD_NEW_PASSPHRASE="+next)
		_, dead := killed(cmd, time.Duration(r.Int64N(int64(took))))
		if dead {
			kills++
		}
		if res := with("snapshots"); res.code == 4 {
			changed++
			old, next = next, old
		}
		if res := with("verify"); res.code != 0 {
			t.Fatalf("TRIPOD_SEED=%d, kill %d: neither passphrase: %v", s, kills, res)
		}
		m.opinion(code, 0, dir, want)
	}
	t.Logf("%d kills; the passphrase changed %d times", kills, changed)
}

// TestKillForget kills orders to forget: the snapshot is whole or forgotten, all
// others are there.
func TestKillForget(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 63))
	m := newMachine(t)
	m.init()
	dir := m.path("source")
	folder(t, r, dir, 20, 0, 0)
	m.must("backup", dir)
	took := time.Duration(0)
	kills, forgotten, count := 0, 0, size(2, 20, 1000)
	for n := 0; kills < count && n < 20*count; n++ {
		write(t, m.path("source", "more"), noise(r, 3000))
		m.must("backup", dir)
		ids := m.snapshots()
		victim := ids[r.IntN(len(ids))]
		if took == 0 {
			took = m.timed("forget", "--yes", victim)
			continue
		}
		if _, dead := killed(m.command("forget", "--yes", victim), time.Duration(r.Int64N(int64(took)))); dead {
			kills++
		}
		left := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == victim })
		if now := m.snapshots(); strings.Join(now, " ") == strings.Join(left, " ") {
			forgotten++
		} else if strings.Join(now, " ") != strings.Join(ids, " ") {
			t.Fatalf("TRIPOD_SEED=%d, kill %d: snapshots %v, were %v", s, kills, now, ids)
		} else {
			m.must("forget", "--yes", victim)
		}
		m.must("verify")
	}
	t.Logf("%d kills; %d came too late to keep the snapshot", kills, forgotten)
}
