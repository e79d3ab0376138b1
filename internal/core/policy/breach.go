package policy

import (
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

// Log is what a reader knows of a source in whose name snapshots expired.
type Log struct {
	Policies  map[uint32]*snapshot.Policy
	Records   []Snapshot           // all of the source, live or not
	Forgotten map[uint64]time.Time // by sequence, when that was ordered
	Expired   map[uint64]time.Time
	Holds     []*snapshot.Hold // open ones
	Now       time.Time        // the reader's
}

// Check returns Denied when the company's policy did not allow an expiry. It
// repeats the decision as of then, giving the benefit of the doubt: what may
// have been live counts as live, because more snapshots never keep another one.
// Tags are not checked, which go with the grants of what expired.
func (l *Log) Check(e *snapshot.Expiry) error {
	not := func(format string, args ...any) error {
		return tripod.Errorf(tripod.Denied, "expired against the company's policy: %w", tripod.Errorf(tripod.Denied, format, args...))
	}
	p := l.Policies[e.Policy]
	if p == nil {
		return not("by policy %d, which the vault does not show", e.Policy)
	}
	before := e.Time.Add(-Tolerance)
	for n, other := range l.Policies {
		if n > e.Policy && other.Time.Before(before) {
			return not("by policy %d, when policy %d was in force", e.Policy, n)
		}
	}
	for _, h := range l.Holds {
		if h.Time.Before(before) {
			return not("while the hold %s was open", h.Name)
		}
	}
	switch {
	case e.Time.After(l.Now.Add(Tolerance)):
		return not("on %s, which is yet to come", stamp(e.Time))
	case p.Time.After(e.Time.Add(Tolerance)):
		return not("by policy %d, which was made later", e.Policy)
	}
	in, err := Zone(p.Zone)
	if err != nil {
		return tripod.Errorf(tripod.Invalid, "expiry cannot be checked: policy %d: %w", p.Number, err)
	}
	rules := RulesOf(p, in)
	tagged := len(rules.Tags) > 0
	rules.Tags = nil
	for _, d := range Keep(&rules, l.then(e), nil, e.Time) {
		if d.Key != e.Key {
			continue
		}
		for _, r := range d.Reasons {
			if r.Rule != NoRule || !tagged {
				return not("policy %d keeps it (%s)", p.Number, r.Text)
			}
		}
	}
	return nil
}

// then gives what may have been live at the time of an expiry.
func (l *Log) then(e *snapshot.Expiry) (live []Snapshot) {
	for _, s := range l.Records {
		forgotten, expired := l.Forgotten[s.Key.Seq], l.Expired[s.Key.Seq]
		gone := !forgotten.IsZero() && forgotten.Before(e.Time.Add(-Tolerance)) || !expired.IsZero() && expired.Before(e.Time)
		if s.Key == e.Key || s.Key.Seq <= e.Newest && !gone {
			live = append(live, s)
		}
	}
	return live
}
