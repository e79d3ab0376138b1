package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

// What Keep lets go stands the check, whatever was forgotten or expired before.
func TestWhatThePolicyAllowedIsNoBreach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := genRules(t)
		rules.In = time.UTC
		if rules.None() {
			return
		}
		p := &snapshot.Policy{
			Number: 1, Time: start.Add(-9000 * time.Hour), Last: rules.Last, Hourly: rules.Hourly, Daily: rules.Daily, Weekly: rules.Weekly,
			Monthly: rules.Monthly, Yearly: rules.Yearly, Within: rules.Within, Tags: rules.Tags,
		}
		l := &Log{
			Policies: map[uint32]*snapshot.Policy{1: p}, Forgotten: map[uint64]time.Time{}, Expired: map[uint64]time.Time{},
			Now: start.Add(2000 * time.Hour),
		}
		var live []Snapshot
		for _, s := range genSnapshots(t) {
			s.Key.Source = tripod.SourceID{}
			live = append(live, s)
		}
		now := start
		var done []snapshot.Expiry
		for n := range 3 {
			newest := uint64(0)
			for _, s := range live {
				newest = max(newest, s.Key.Seq)
			}
			var left []Snapshot
			for _, d := range Keep(&rules, live, nil, now) {
				switch {
				case d.Keep() && rapid.IntRange(0, 9).Draw(t, "forget") == 0:
					l.Forgotten[d.Key.Seq] = now.Add(time.Minute)
				case d.Keep():
					left = append(left, d.Snapshot)
				default:
					l.Expired[d.Key.Seq] = now
					done = append(done, snapshot.Expiry{Key: d.Key, Time: now, Policy: 1, Newest: newest})
				}
				s := d.Snapshot
				s.Damaged = false // a later reader does not know
				l.Records = append(l.Records, s)
			}
			live = left
			for range rapid.IntRange(0, 5).Draw(t, "more") {
				live = append(live, Snapshot{Key: snapshot.Key{Seq: uint64(1000*(n+1) + len(live))}, Time: now.Add(time.Duration(len(live)) * time.Minute)})
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "hours")) * time.Hour)
		}
		l.Records = append(l.Records, live...)
		for i := range done {
			if err := l.Check(&done[i]); err != nil {
				t.Fatalf("%d: %v", done[i].Key.Seq, err)
			}
		}
	})
}

func TestBreaches(t *testing.T) {
	policy := func(n uint32, made time.Time) *snapshot.Policy {
		return &snapshot.Policy{Number: n, Time: made, Last: 2}
	}
	for _, c := range []struct {
		name   string
		change func(*Log, *snapshot.Expiry)
		err    string
	}{
		{"allowed", func(*Log, *snapshot.Expiry) {}, ""},
		{"kept by the policy", func(_ *Log, e *snapshot.Expiry) { e.Key.Seq = 3 }, "policy 1 keeps it (last 2 of 2)"},
		{"the newest", func(_ *Log, e *snapshot.Expiry) { e.Key.Seq = 4 }, "policy 1 keeps it (the newest)"},
		{"kept as of then", func(_ *Log, e *snapshot.Expiry) { e.Newest = 2 }, "policy 1 keeps it (the newest)"},
		{"others were forgotten before", func(l *Log, e *snapshot.Expiry) { l.Forgotten[3] = e.Time.Add(-2 * time.Hour) }, "policy 1 keeps it (last 2 of 2)"},
		{"others were forgotten after", func(l *Log, e *snapshot.Expiry) { l.Forgotten[3] = e.Time.Add(time.Minute) }, ""},
		{"others expired before", func(l *Log, e *snapshot.Expiry) { l.Expired[4] = e.Time.Add(-1) }, "policy 1 keeps it (last 2 of 2)"},
		{"no such policy", func(_ *Log, e *snapshot.Expiry) { e.Policy = 2 }, "by policy 2, which the vault does not show"},
		{"an old policy", func(l *Log, e *snapshot.Expiry) { l.Policies[2] = policy(2, e.Time.Add(-2*time.Hour)) }, "by policy 1, when policy 2 was in force"},
		{"a policy that came later", func(l *Log, e *snapshot.Expiry) { l.Policies[2] = policy(2, e.Time.Add(time.Minute)) }, ""},
		{"a policy made afterwards", func(l *Log, e *snapshot.Expiry) { l.Policies[1].Time = e.Time.Add(2 * time.Hour) }, "by policy 1, which was made later"},
		{"a hold was open", func(l *Log, e *snapshot.Expiry) {
			l.Holds = []*snapshot.Hold{{Name: "court", Time: e.Time.Add(-2 * time.Hour)}}
		}, "while the hold court was open"},
		{"a hold that came later", func(l *Log, e *snapshot.Expiry) { l.Holds = []*snapshot.Hold{{Name: "court", Time: e.Time}} }, ""},
		{"in the future", func(l *Log, e *snapshot.Expiry) { e.Time = l.Now.Add(2 * time.Hour) }, "which is yet to come"},
		{"locked", func(l *Log, e *snapshot.Expiry) { l.Records[1].LockUntil = e.Time.Add(1) }, "policy 1 keeps it (locked until 2026-03-01 12:00 UTC)"},
		{"no rules", func(l *Log, _ *snapshot.Expiry) { l.Policies[1].Last = 0 }, "policy 1 keeps it (no rules)"},
		{"tags, which nobody can check", func(l *Log, _ *snapshot.Expiry) { l.Policies[1].Last, l.Policies[1].Tags = 0, []string{"a"} }, ""},
	} {
		l := &Log{
			Policies: map[uint32]*snapshot.Policy{1: policy(1, start.Add(-100*time.Hour))}, Forgotten: map[uint64]time.Time{},
			Expired: map[uint64]time.Time{}, Now: start,
		}
		for i := range 4 {
			l.Records = append(l.Records, Snapshot{Key: snapshot.Key{Seq: uint64(i + 1)}, Time: start.Add(time.Duration(i-50) * time.Hour)})
		}
		e := &snapshot.Expiry{Key: snapshot.Key{Seq: 2}, Time: start, Policy: 1, Newest: 4}
		c.change(l, e)
		err := l.Check(e)
		if c.err == "" && err != nil || c.err != "" && (!errors.Is(err, tripod.Denied) || !strings.HasSuffix(err.Error(), c.err)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
