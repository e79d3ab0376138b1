package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

const day = 24 * time.Hour

func TestClock(t *testing.T) {
	noted := func(up time.Duration) *Sight { return &Sight{Wall: start, Proved: start, Boot: "a", Up: up} }
	for _, c := range []struct {
		name string
		c    Clock
		want time.Duration // after start
		err  string        // part of it
	}{
		{"nothing passed since the policy was made", Clock{Wall: start, Seen: start}, 0, ""},
		{"nothing proves a day", Clock{Wall: start.Add(day), Seen: start}, 0, ""},
		{"ten years ahead, and nothing proves them", Clock{Wall: start.Add(3650 * day), Seen: start}, 0, ""},
		{"a day of this boot", Clock{Wall: start.Add(day), Seen: start, Mine: noted(day), Boot: "a", Up: 2 * day}, day, ""},
		{"a day of this boot, with a clock that is a little slow", Clock{Wall: start.Add(day - time.Minute), Seen: start, Mine: noted(0), Boot: "a", Up: day}, day - time.Minute, ""},
		{"ahead within a boot", Clock{Wall: start.Add(3650 * day), Mine: noted(0), Boot: "a", Up: day}, 0, "the clock went on by 3650 days while 1d passed"},
		{"back within a boot", Clock{Wall: start.Add(-2 * time.Hour), Mine: noted(0), Boot: "a", Up: time.Hour}, 0, "the clock went on by -2h0m while 1h passed"},
		{"another boot proves nothing", Clock{Wall: start.Add(day), Mine: noted(0), Boot: "b", Up: day}, 0, ""},
		{"a boot that nobody knows proves nothing", Clock{Wall: start.Add(day), Mine: &Sight{Wall: start, Proved: start}, Up: day}, 0, ""},
		{"earlier than what the vault remembers", Clock{Wall: start.Add(-2 * time.Hour), Seen: start}, 0, "but it was 2026-03-01 12:00 UTC already"},
		{"a little earlier than what the vault remembers", Clock{Wall: start.Add(-time.Minute), Seen: start}, -time.Minute, ""},
		{"one other machine", Clock{Wall: start.Add(day), Seen: start, Others: []time.Time{start.Add(20 * time.Hour)}}, 20 * time.Hour, ""},
		{"the second newest of many", Clock{Wall: start.Add(9 * day), Seen: start, Others: []time.Time{start, start.Add(8 * day), start.Add(2 * day)}}, 2 * day, ""},
		{"one of many is wrong", Clock{Wall: start.Add(day), Seen: start, Others: []time.Time{start.Add(3650 * day), start.Add(time.Hour)}}, time.Hour, ""},
		{"two others are ahead", Clock{Wall: start, Seen: start, Others: []time.Time{start.Add(day), start.Add(day)}}, 0, "but it was 2026-03-02 12:00 UTC already"},
		{"someone vouches for a clock ahead", Clock{Wall: start.Add(30 * day), Seen: start, Mine: noted(0), Boot: "a", Right: true}, 30 * day, ""},
		{"someone vouches for a clock behind", Clock{Wall: start.Add(-30 * day), Seen: start, Right: true}, -30 * day, ""},
		{
			"what was vouched to be wrong is not remembered",
			Clock{Wall: start.Add(-29 * day), Seen: start, Mine: &Sight{Wall: start.Add(-30 * day), Proved: start.Add(-30 * day), Boot: "a", Overruled: start}, Boot: "a", Up: day},
			-29 * day, "",
		},
	} {
		got, err := c.c.Read()
		switch {
		case c.err != "":
			if err == nil || !errors.Is(err, tripod.Conflict) || !strings.Contains(err.Error(), c.err) || tripod.HintOf(err) == "" {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !got.Now.Equal(start.Add(c.want)) || got.Behind != c.c.Wall.Sub(got.Now) || got.Note == nil || !got.Note.Proved.Equal(got.Now):
			t.Errorf("%s: %s behind by %s, want %s", c.name, got.Now.Sub(start), got.Behind, c.want)
		}
	}
}

// Runs of expiry over months, with clocks that jump, drift and freeze, machines
// that reboot and notes that are lost. Of all clocks at most one at a time is
// ahead. Nothing expires that a right clock would have kept.
func TestNoClockMakesSnapshotsExpireEarly(t *testing.T) {
	histories, first := 1000, uint64(time.Now().UnixNano())
	if testing.Short() {
		histories = 100
	}
	if os.Getenv("TRIPOD_LONG") != "" {
		histories = 500_000
	}
	var expired, runs, stopped int
	for seed := first; seed < first+uint64(histories); seed++ {
		h := newHistory(seed)
		if err := h.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		expired, runs, stopped = expired+h.expired, runs+h.runs, stopped+h.stopped
	}
	t.Logf("%d histories from seed %d: %d runs, %d stopped, %d snapshots expired", histories, first, runs, stopped, expired)
	if expired < 50*histories || stopped == 0 {
		t.Error("too few expired, or none was stopped: this proves nothing")
	}
}

// history is a simulated vault: machines with clocks, of which the first applies
// the policy.
type history struct {
	r     *rand.Rand
	now   time.Time // true
	off   []time.Duration
	rules Rules
	live  []Snapshot
	heads map[byte]time.Time // newest snapshot of each other machine, by its clock
	seen  time.Time
	mine  *Sight
	boot  int
	up    time.Duration // at the last step of this boot, since it began

	expired, runs, stopped int
}

func newHistory(seed uint64) *history {
	r := rand.New(rand.NewPCG(seed, 1))
	h := &history{
		r: r, now: start, off: make([]time.Duration, 1+r.IntN(4)), heads: map[byte]time.Time{}, seen: start,
		rules: Rules{Last: uint32(r.IntN(2)), Daily: uint32(r.IntN(8)), Weekly: uint32(r.IntN(3)), Within: time.Duration(1+r.IntN(20)) * day},
	}
	h.mine = &Sight{Wall: start, Proved: start, Boot: "0"} // the policy was just made
	return h
}

// wall is what a machine's clock says.
func (h *history) wall(machine int) time.Time { return h.now.Add(h.off[machine]) }

func (h *history) run() error {
	for step := range uint64(100) {
		passed := time.Duration(h.r.Int64N(int64(day)))
		h.now, h.up = h.now.Add(passed), h.up+passed
		h.fault()
		for m := range h.off {
			if h.r.IntN(3) == 0 {
				continue
			}
			at := h.wall(m)
			h.live = append(h.live, Snapshot{Key: snapshot.Key{Machine: tripod.MachineID{byte(m)}, Seq: step + 1}, Time: at})
			if m > 0 {
				h.heads[byte(m)] = at
			}
		}
		if err := h.expire(); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

// fault disturbs a clock, reboots the machine, or loses its notes.
func (h *history) fault() {
	m := h.r.IntN(len(h.off))
	jump := []time.Duration{time.Minute, time.Hour, day, 30 * day, 3650 * day}[h.r.IntN(5)] * time.Duration(1+h.r.IntN(9))
	switch h.r.IntN(12) {
	case 0: // ahead, and no other is
		for i := range h.off {
			h.off[i] = min(h.off[i], 0)
		}
		// What a clock that is right now wrote while it was ahead is that clock's word.
		for other, at := range h.heads {
			if at.After(h.now) {
				h.heads[other] = h.now
			}
		}
		h.off[m] = jump
	case 1:
		h.off[m] = -jump
	case 2:
		h.off[m] = 0
	case 3:
		h.off[m] -= jump % (3 * time.Hour) // drifts behind, or froze
	case 4:
		h.boot, h.up = h.boot+1, 0
	case 5:
		h.mine = nil
	}
}

func (h *history) expire() error {
	c := Clock{Wall: h.wall(0), Seen: h.seen, Mine: h.mine, Boot: fmt.Sprint(h.boot), Up: h.up}
	for _, at := range h.heads {
		c.Others = append(c.Others, at)
	}
	if h.r.IntN(10) == 0 && h.off[0] == 0 {
		c.Right = true // and it is
	}
	h.runs++
	reading, err := c.Read()
	if err != nil {
		h.stopped++
		return nil
	}
	if reading.Now.After(c.Wall) {
		return fmt.Errorf("goes by %s, when even the clock says %s", reading.Now, c.Wall)
	}
	allowed := map[snapshot.Key]bool{}
	for _, d := range Keep(&h.rules, h.live, nil, h.now.Add(Tolerance)) {
		allowed[d.Key] = !d.Keep()
	}
	var left []Snapshot
	for _, d := range Keep(&h.rules, h.live, nil, reading.Now) {
		switch {
		case d.Keep():
			left = append(left, d.Snapshot)
		case !allowed[d.Key]:
			return fmt.Errorf("a snapshot of %s expired early: it is %s, the clock says %s, and retention went by %s", d.Time, h.now, c.Wall, reading.Now)
		default:
			h.expired++
			h.seen = latest(h.seen, reading.Now)
		}
	}
	h.live = left
	h.mine = reading.Note
	return nil
}
