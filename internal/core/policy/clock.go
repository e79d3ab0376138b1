package policy

import (
	"fmt"
	"slices"
	"time"

	"tripod/internal/core/tripod"
)

// Tolerance is by how much clocks may disagree.
const Tolerance = time.Hour

// Clock is what a run of expiry knows of the time. A clock that is ahead would
// make snapshots expire early, so the wall clock alone is not believed: retention
// goes by the time that is proved to have passed.
type Clock struct {
	Wall time.Time // this machine's clock, now
	// Seen is the greatest time that the vault remembers: of its newest policy,
	// and of its expiries.
	Seen time.Time
	// Mine is what this machine noted at an earlier time; nil when it did not.
	Mine *Sight
	// Boot is the present boot of this machine, "" when that cannot be known, and
	// Up for how long it lasts, by a clock that nobody sets.
	Boot string
	Up   time.Duration
	// Others are the times of other machines' newest snapshots, by their clocks.
	Others []time.Time
	// Right tells that someone vouches for the wall clock.
	Right bool
}

// Sight is what a machine notes of the clock, for the next time.
type Sight struct {
	Wall      time.Time
	Proved    time.Time // what retention went by
	Boot      string
	Up        time.Duration
	Overruled time.Time // what the vault remembers up to here was vouched to be wrong
}

// Reading is the time by which retention may go.
type Reading struct {
	Now    time.Time
	Behind time.Duration // how much later the wall clock is, which nothing proves
	Note   *Sight        // to be kept for the next time
}

// Read gives the greatest time that is proved, never later than the wall clock.
// It returns Conflict when the wall clock contradicts what is known by more than
// Tolerance, unless someone vouches for it.
func (c *Clock) Read() (Reading, error) {
	seen := c.Seen
	note := &Sight{Wall: c.Wall, Boot: c.Boot, Up: c.Up}
	if c.Mine != nil {
		note.Overruled = c.Mine.Overruled
		if !seen.After(note.Overruled) {
			seen = time.Time{}
		}
	}
	if c.Right {
		note.Proved = c.Wall
		if c.Seen.After(c.Wall) {
			note.Overruled = c.Seen
		}
		return Reading{c.Wall, 0, note}, nil
	}
	proved := latest(seen, c.others())
	if c.Mine != nil {
		proved = latest(proved, c.Mine.Proved)
		if c.sameBoot() {
			passed := c.Up - c.Mine.Up
			if off := c.Wall.Sub(c.Mine.Wall) - passed; off.Abs() > Tolerance {
				return Reading{}, disagree("the clock went on by %s while %s passed", about(off+passed), about(passed))
			}
			proved = latest(proved, c.Mine.Proved.Add(passed))
		}
	}
	if proved.Sub(c.Wall) > Tolerance {
		return Reading{}, disagree("the clock says %s, but it was %s already", stamp(c.Wall), stamp(proved))
	}
	if proved.After(c.Wall) {
		proved = c.Wall
	}
	note.Proved = proved
	return Reading{proved, c.Wall.Sub(proved), note}, nil
}

func (c *Clock) sameBoot() bool { return c.Boot != "" && c.Boot == c.Mine.Boot && c.Up >= c.Mine.Up }

// others is the time that other machines prove: the second newest, because one
// clock alone may be wrong; the newest where there is but one.
func (c *Clock) others() time.Time {
	if len(c.Others) == 0 {
		return time.Time{}
	}
	sorted := slices.SortedFunc(slices.Values(c.Others), func(a, b time.Time) int { return b.Compare(a) })
	return sorted[min(1, len(sorted)-1)]
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// about is a duration for people, to the day or the minute.
func about(d time.Duration) string {
	if d.Abs() >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Round(24*time.Hour).Hours()/24))
	}
	return Span(d.Round(time.Minute))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func disagree(format string, args ...any) error {
	return tripod.Errorf(tripod.Conflict, "expiry stopped: %s", fmt.Sprintf(format, args...)).
		WithHint("nothing expired; set the clock right, or if it is right: tripod expire --clock-is-right")
}
