package fault

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestKillCollect kills collections, some of them beside a backup: whatever
// stage they were in, every snapshot that was not given up restores, also by
// the second reader, and the next collection completes the work.
func TestKillCollect(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 64))
	m := newMachine(t)
	code := m.init()
	dir := m.path("source")
	folder(t, r, dir, 60, 2, 2<<20)
	want := map[string]sums{}
	save := func() string {
		write(t, m.path("source", fmt.Sprintf("new%d", r.IntN(4))), noise(r, 600_000))
		m.must("backup", dir)
		ids := m.snapshots()
		for _, id := range ids {
			if want[id] == nil {
				want[id] = sumsOf(t, dir)
				return id
			}
		}
		t.Fatal("a backup made no snapshot")
		return ""
	}
	kept := []string{save(), save(), save()}
	forget := func() {
		at := r.IntN(len(kept))
		m.must("forget", "--yes", kept[at])
		kept = slices.Delete(kept, at, at+1)
	}
	forget()
	took := m.timed("collect", "--unused", "0")
	kills, beside, count := 0, 0, size(2, 20, 1000)
	for n := 0; kills < count && n < 20*count; n++ {
		kept = append(kept, save(), save())
		for len(kept) > 2 {
			forget()
		}
		done := make(chan result, 1)
		if r.IntN(3) == 0 {
			beside++
			go func() { done <- m.run("backup", dir) }()
		} else {
			done <- result{}
		}
		_, dead := killed(m.command("collect", "--unused", "0"), time.Duration(r.Int64N(int64(took))))
		if res := <-done; res.code != 0 {
			t.Fatalf("TRIPOD_SEED=%d, kill %d: a backup beside a collection: %v", s, kills, res)
		}
		for _, id := range m.snapshots() {
			if want[id] == nil { // made beside
				want[id] = sumsOf(t, dir)
				kept = append(kept, id)
			}
		}
		if dead {
			kills++
		}
		m.must("verify")
		one := kept[r.IntN(len(kept))]
		m.restores(one, want[one])
		m.opinion(code, len(m.snapshots())-1, dir, want[kept[len(kept)-1]])
	}
	m.must("collect", "--unused", "0")
	before := m.stored()
	m.must("collect", "--unused", "0")
	if after := m.stored(); after != before {
		t.Errorf("TRIPOD_SEED=%d: a second collection in peace went from %d to %d bytes", s, before, after)
	}
	m.must("verify")
	t.Logf("%d kills, %d beside a backup", kills, beside)
}
