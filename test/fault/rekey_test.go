package fault

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestKillRotateKey kills the replacement of the company's key, and the shredding
// of a machine, at random moments: the passphrase and the printed code open what
// they should after each, and the next run does the rest.
func TestKillRotateKey(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 20))
	m := newMachine(t)
	code := m.init()
	root := m.path("source")
	folder(t, r, root, 20, 1, 1<<20)
	want := sumsOf(t, root)
	for range 8 {
		m.must("backup", root)
	}
	ids := m.snapshots()
	took := m.timed("vault", "rotate-key")
	kills, late := 0, 0
	for kills < size(4, 15, 500) {
		if _, dead := killed(m.command("vault", "rotate-key"), time.Duration(r.Int64N(int64(took*5/4)+1))); !dead {
			late++
			continue
		}
		kills++
		if now := m.snapshots(); !slices.Equal(now, ids) {
			t.Fatalf("TRIPOD_SEED=%d: kill %d: snapshots %v, want %v", s, kills, now, ids)
		}
		m.opinion(code, r.IntN(len(ids)), root, want)
	}
	m.must("vault", "rotate-key")
	m.must("backup", root)
	m.must("verify")
	m.restores(m.snapshots()[0], want)

	for range size(3, 8, 50) {
		killed(m.command("vault", "shred", hostname(t), "--yes-i-mean-it"), time.Duration(r.Int64N(int64(took*5/4)+1)))
		m.must("snapshots")
	}
	// Once its snapshots are forgotten the machine has no name but its id.
	m.must("vault", "shred", m.id(), "--yes-i-mean-it")
	if left := m.snapshots(); len(left) > 0 {
		t.Errorf("snapshots %v open", left)
	}
	t.Logf("%d kills, %d came too late", kills, late)
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// id is that of the one machine in the vault.
func (m *machine) id() string {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.vault, "machine"))
	if err != nil || len(entries) != 1 {
		m.t.Fatalf("%d machines, %v", len(entries), err)
	}
	return entries[0].Name()
}
