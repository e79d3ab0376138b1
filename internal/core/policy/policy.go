// Package policy decides which snapshots retention keeps, and says why. Keep is
// the decision; Clock (clock.go) says what time it may go by; Breaks (breach.go)
// checks afterwards that what expired was allowed to.
//
// Rules only ever keep: a snapshot expires when no reason is left to keep it, so
// a rule more never loses one. Neither does a clock that is behind.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

// Rules say what to keep of each machine's source. Without any, everything is
// kept.
type Rules struct {
	Last    uint32 // the newest so many; 0 for no such rule, in all of them
	Hourly  uint32 // the newest of each of the newest so many hours that have one
	Daily   uint32
	Weekly  uint32 // weeks begin on Monday
	Monthly uint32
	Yearly  uint32
	Within  time.Duration  // all that are no older
	Tags    []string       // all that bear one of them
	In      *time.Location // in which hours, days and so on begin; nil for UTC
}

// RulesOf are the rules of a signed policy. in is the time zone that it names.
func RulesOf(p *snapshot.Policy, in *time.Location) Rules {
	return Rules{p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly, p.Within, p.Tags, in}
}

// Zone gives a time zone by its name in the database of package time, "" for UTC.
// The zone of whoever asks is none: everybody has to come to the same decision.
func Zone(name string) (*time.Location, error) {
	in, err := time.LoadLocation(name)
	if err != nil || in == time.Local {
		return nil, tripod.Errorf(tripod.Invalid, "time zone %q is not known", name).WithHint("give one like Europe/Berlin, or UTC")
	}
	return in, nil
}

// None reports that there are no rules.
func (r *Rules) None() bool {
	return r.Last|r.Hourly|r.Daily|r.Weekly|r.Monthly|r.Yearly == 0 && r.Within <= 0 && len(r.Tags) == 0
}

// String is the rules in words.
func (r *Rules) String() string {
	var parts []string
	for _, c := range []struct {
		name string
		n    uint32
	}{{"last", r.Last}, {"hourly", r.Hourly}, {"daily", r.Daily}, {"weekly", r.Weekly}, {"monthly", r.Monthly}, {"yearly", r.Yearly}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", c.name, c.n))
		}
	}
	if r.Within > 0 {
		parts = append(parts, "within "+Span(r.Within))
	}
	for _, t := range r.Tags {
		parts = append(parts, "tag "+t)
	}
	if len(parts) == 0 {
		return "keep everything"
	}
	text := "keep " + strings.Join(parts, ", ")
	if r.In != nil && r.In != time.UTC {
		text += " (" + r.In.String() + ")"
	}
	return text
}

// Snapshot is what the decision needs to know of a snapshot. A provider knows all
// of it but the tags, which are sealed.
type Snapshot struct {
	Key       snapshot.Key
	Time      time.Time // when it was begun, by its machine's clock
	LockUntil time.Time
	Damaged   bool     // the vault does not hold all of it
	Tags      []string // nil where Sealed
	Sealed    bool     // the tags are not known
}

// Rule names what keeps a snapshot.
type Rule string

// What keeps a snapshot: first the rules of a policy, then those that no policy
// can change.
const (
	Last    Rule = "last"
	Hourly  Rule = "hourly"
	Daily   Rule = "daily"
	Weekly  Rule = "weekly"
	Monthly Rule = "monthly"
	Yearly  Rule = "yearly"
	Within  Rule = "within"
	Tag     Rule = "tag"

	Newest  Rule = "newest"  // the last good one of its source, by its time or its sequence
	Locked  Rule = "locked"  // its lock has not ended
	Future  Rule = "future"  // it is dated later than now
	Damaged Rule = "damaged" // it may be healed
	Sealed  Rule = "sealed"  // its tags are not known, and might keep it
	Held    Rule = "held"    // a hold is open
	NoRule  Rule = "no-rule" // there are no rules
)

// Reason is why a snapshot is kept.
type Reason struct {
	Rule Rule
	Text string // for people, with the particulars
}

// Decision is what becomes of a snapshot: it is kept for all of the reasons, and
// expires when there are none.
type Decision struct {
	Snapshot
	Reasons []Reason
}

// Keep reports whether the snapshot is kept.
func (d *Decision) Keep() bool { return len(d.Reasons) > 0 }

// Because is the reasons as one text.
func (d *Decision) Because() string {
	if !d.Keep() {
		return "no rule keeps it"
	}
	var texts []string
	for _, r := range d.Reasons {
		texts = append(texts, r.Text)
	}
	return strings.Join(texts, ", ")
}

// Keep decides for each of the snapshots, in their order. They are those that are
// live. holds are the names of open ones. Of each source rules count those
// that are neither damaged nor dated later than now, newest first.
func Keep(rules *Rules, snapshots []Snapshot, holds []string, now time.Time) []Decision {
	out := make([]Decision, len(snapshots))
	type source struct {
		m tripod.MachineID
		s tripod.SourceID
	}
	sources := map[source][]*Decision{}
	for i := range snapshots {
		d := &out[i]
		d.Snapshot = snapshots[i]
		rules.always(d, holds, now)
		if !d.Damaged && !d.Time.After(now) {
			of := source{d.Key.Machine, d.Key.Source}
			sources[of] = append(sources[of], d)
		}
	}
	for _, counted := range sources {
		slices.SortFunc(counted, func(a, b *Decision) int {
			return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.Key.Seq, a.Key.Seq))
		})
		counted[0].because(Newest, "the newest")
		// A machine whose clock went back makes snapshots that look old.
		made := slices.MaxFunc(counted, func(a, b *Decision) int { return cmp.Compare(a.Key.Seq, b.Key.Seq) })
		if made != counted[0] {
			made.because(Newest, "the last that was made")
		}
		rules.count(counted)
	}
	return out
}

func (d *Decision) because(rule Rule, format string, args ...any) {
	d.Reasons = append(d.Reasons, Reason{rule, fmt.Sprintf(format, args...)})
}

// always finds the reasons that lie in the snapshot itself.
func (r *Rules) always(d *Decision, holds []string, now time.Time) {
	if len(holds) > 0 {
		d.because(Held, "hold %s", strings.Join(holds, ", "))
	}
	if now.Before(d.LockUntil) {
		d.because(Locked, "locked until %s", d.LockUntil.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if d.Time.After(now) {
		d.because(Future, "dated in the future")
	}
	if d.Damaged {
		d.because(Damaged, "damaged, might be healed")
	}
	if r.None() {
		d.because(NoRule, "no rules")
	}
	if r.Within > 0 && !d.Time.Before(now.Add(-r.Within)) {
		d.because(Within, "within %s", Span(r.Within))
	}
	switch {
	case len(r.Tags) > 0 && d.Sealed:
		d.because(Sealed, "its tags are sealed")
	case !d.Sealed:
		for _, t := range r.Tags {
			if slices.Contains(d.Tags, t) {
				d.because(Tag, "tag %s", t)
			}
		}
	}
}

// count applies the rules that count to one source's snapshots, newest first.
func (r *Rules) count(newestFirst []*Decision) {
	in := r.In
	if in == nil {
		in = time.UTC
	}
	for i, d := range newestFirst[:min(uint64(r.Last), uint64(len(newestFirst)))] {
		d.because(Last, "last %d of %d", i+1, r.Last)
	}
	for _, c := range []struct {
		rule Rule
		most uint32
		of   func(time.Time) period
	}{
		// The offset tells the two hours apart that have one name when summer time ends.
		{Hourly, r.Hourly, func(t time.Time) period {
			_, offset := t.Zone()
			return period{t.Year(), t.YearDay(), t.Hour(), offset}
		}},
		{Daily, r.Daily, func(t time.Time) period { return period{t.Year(), t.YearDay()} }},
		{Weekly, r.Weekly, func(t time.Time) period { y, w := t.ISOWeek(); return period{y, w} }},
		{Monthly, r.Monthly, func(t time.Time) period { return period{t.Year(), int(t.Month())} }},
		{Yearly, r.Yearly, func(t time.Time) period { return period{t.Year()} }},
	} {
		var n uint32
		var last period
		for _, d := range newestFirst {
			if n == c.most {
				break
			}
			if of := c.of(d.Time.In(in)); n == 0 || of != last {
				n, last = n+1, of
				d.because(c.rule, "%s %d of %d", c.rule, n, c.most)
			}
		}
	}
}

// period names an hour, a day and so on.
type period [4]int

// Span is a duration for people, in the largest unit that divides it: "30d".
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return strings.TrimSuffix(d.String(), "0s")
	}
	return d.String()
}
