package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func genRules(t *rapid.T) Rules {
	count := func(name string) uint32 {
		if rapid.Bool().Draw(t, name+"?") {
			return 0
		}
		return rapid.Uint32Range(1, 5).Draw(t, name)
	}
	zones := []*time.Location{nil, time.UTC, time.FixedZone("east", 5*3600+1800), time.FixedZone("west", -8*3600)}
	return Rules{
		count("last"), count("hourly"), count("daily"), count("weekly"), count("monthly"), count("yearly"),
		time.Duration(count("within")) * 50 * time.Hour, rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b"}), 0, 2, rapid.ID).Draw(t, "tags"),
		rapid.SampledFrom(zones).Draw(t, "zone"),
	}
}

func genSnapshots(t *rapid.T) (all []Snapshot) {
	n := rapid.IntRange(0, 25).Draw(t, "snapshots")
	for i := range n {
		// Many a close pair, and years between some.
		back := rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour}).Draw(t, "unit") *
			time.Duration(rapid.IntRange(-3, 40).Draw(t, "back"))
		s := Snapshot{
			Key:     snapshot.Key{Source: tripod.SourceID{byte(rapid.IntRange(0, 1).Draw(t, "source"))}, Seq: uint64(i + 1)},
			Time:    start.Add(-back),
			Damaged: rapid.IntRange(0, 9).Draw(t, "damaged") == 0,
			Tags:    rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 2).Draw(t, "tags"),
			Sealed:  rapid.IntRange(0, 9).Draw(t, "sealed") == 0,
		}
		if rapid.IntRange(0, 9).Draw(t, "locked") == 0 {
			s.LockUntil = start.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "until")) * time.Hour)
		}
		if s.Sealed {
			s.Tags = nil
		}
		all = append(all, s)
	}
	return all
}

// kept gives the keys that are kept.
func kept(all []Decision) map[snapshot.Key]bool {
	out := map[snapshot.Key]bool{}
	for i := range all {
		if all[i].Keep() {
			out[all[i].Key] = true
		}
	}
	return out
}

func within(t *rapid.T, what string, small, large map[snapshot.Key]bool) {
	for k := range small {
		if !large[k] {
			t.Fatalf("%s: %d is lost", what, k.Seq)
		}
	}
}

func TestTheLastGoodSnapshotOfASourceNeverExpires(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, all := genRules(t), genSnapshots(t)
		keep := kept(Keep(&rules, all, nil, start))
		for source := range byte(2) {
			var newest, made *Snapshot
			for i := range all {
				s := &all[i]
				if s.Key.Source[0] != source {
					continue
				}
				if (s.Damaged || s.Time.After(start)) && !keep[s.Key] {
					t.Fatalf("%d expires, though damaged or dated in the future", s.Key.Seq)
				}
				if !s.Damaged && !s.Time.After(start) && (newest == nil || !s.Time.Before(newest.Time)) {
					newest = s
				}
			}
			for i := range all {
				s := &all[i]
				if s.Key.Source[0] == source && !s.Damaged && !s.Time.After(start) {
					made = s // sequences ascend
				}
			}
			if made != nil && !keep[made.Key] {
				t.Fatalf("%d was made last, and expires", made.Key.Seq)
			}
			if newest != nil && !keep[newest.Key] {
				t.Fatalf("%d is the last good one of its source, and expires", newest.Key.Seq)
			}
		}
	})
}

func TestLocksAndHoldsStandAboveEveryRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, all := genRules(t), genSnapshots(t)
		keep := kept(Keep(&rules, all, nil, start))
		for i := range all {
			if start.Before(all[i].LockUntil) && !keep[all[i].Key] {
				t.Fatalf("%d is locked, and expires", all[i].Key.Seq)
			}
		}
		if n := len(kept(Keep(&rules, all, []string{"court"}, start))); n != len(all) {
			t.Fatalf("%d of %d kept under a hold", n, len(all))
		}
	})
}

// A rule more, or a larger number in one, never loses a snapshot.
func TestMoreRulesKeepMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, all := genRules(t), genSnapshots(t)
		if rules.None() {
			return
		}
		before := kept(Keep(&rules, all, nil, start))
		more := rules
		for _, n := range []*uint32{&more.Last, &more.Hourly, &more.Daily, &more.Weekly, &more.Monthly, &more.Yearly} {
			*n += rapid.Uint32Range(0, 3).Draw(t, "more")
		}
		more.Within += time.Duration(rapid.IntRange(0, 3).Draw(t, "longer")) * time.Hour
		more.Tags = append(slices.Clone(more.Tags), "c")
		within(t, "more rules", before, kept(Keep(&more, all, nil, start)))
	})
}

// This is why a retention clock that is behind does no harm, and why a reader
// that counts too many snapshots as live accuses nobody wrongly.
func TestAnEarlierTimeAndFewerSnapshotsKeepMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, all := genRules(t), genSnapshots(t)
		now := kept(Keep(&rules, all, nil, start))
		earlier := start.Add(-time.Duration(rapid.IntRange(0, 5000).Draw(t, "minutes")) * 11 * time.Minute)
		within(t, "earlier", now, kept(Keep(&rules, all, nil, earlier)))
		fewer := slices.DeleteFunc(slices.Clone(all), func(Snapshot) bool { return rapid.IntRange(0, 3).Draw(t, "gone") == 0 })
		keepFewer := kept(Keep(&rules, fewer, nil, start))
		for _, s := range fewer {
			if now[s.Key] && !keepFewer[s.Key] {
				t.Fatalf("%d expires where others are gone", s.Key.Seq)
			}
		}
	})
}

// What a rule is said to keep it keeps alone; and what is left without the rules
// that are said to keep it expires.
func TestReasonsExplain(t *testing.T) {
	only := func(r *Rules, rule Rule) Rules {
		out := Rules{In: r.In}
		switch rule {
		case Last:
			out.Last = r.Last
		case Hourly:
			out.Hourly = r.Hourly
		case Daily:
			out.Daily = r.Daily
		case Weekly:
			out.Weekly = r.Weekly
		case Monthly:
			out.Monthly = r.Monthly
		case Yearly:
			out.Yearly = r.Yearly
		case Within:
			out.Within = r.Within
		case Tag, Sealed:
			out.Tags = r.Tags
		}
		return out
	}
	without := func(r *Rules, rules []Reason) Rules {
		// A rule that keeps nothing here, so that there still are rules.
		out := *r
		for _, reason := range rules {
			switch reason.Rule {
			case Last:
				out.Last = 0
			case Hourly:
				out.Hourly = 0
			case Daily:
				out.Daily = 0
			case Weekly:
				out.Weekly = 0
			case Monthly:
				out.Monthly = 0
			case Yearly:
				out.Yearly = 0
			case Within:
				out.Within = 0
			case Tag, Sealed:
				out.Tags = nil
			}
		}
		if out.None() {
			out.Last = 1 // the newest is kept anyway
		}
		return out
	}
	ofPolicy := []Rule{Last, Hourly, Daily, Weekly, Monthly, Yearly, Within, Tag, Sealed}
	rapid.Check(t, func(t *rapid.T) {
		rules, all := genRules(t), genSnapshots(t)
		for _, d := range Keep(&rules, all, nil, start) {
			fixed := false
			for _, r := range d.Reasons {
				if !slices.Contains(ofPolicy, r.Rule) {
					fixed = true
					continue
				}
				alone := only(&rules, r.Rule)
				for _, again := range Keep(&alone, all, nil, start) {
					if again.Key == d.Key && !slices.ContainsFunc(again.Reasons, func(x Reason) bool { return x == r }) {
						t.Fatalf("%d: %q alone does not keep it", d.Key.Seq, r.Text)
					}
				}
			}
			rest := without(&rules, d.Reasons)
			if !fixed && d.Keep() && kept(Keep(&rest, all, nil, start))[d.Key] {
				t.Fatalf("%d: kept without %q", d.Key.Seq, d.Because())
			}
		}
	})
}

func TestTheOrderOfSnapshotsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, all := genRules(t), genSnapshots(t)
		shuffled := slices.Clone(all)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		r.Shuffle(len(all), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		reasons := map[snapshot.Key]string{}
		for _, d := range Keep(&rules, all, nil, start) {
			reasons[d.Key] = d.Because()
		}
		for _, d := range Keep(&rules, shuffled, nil, start) {
			if reasons[d.Key] != d.Because() {
				t.Fatalf("%d: %q, %q", d.Key.Seq, reasons[d.Key], d.Because())
			}
		}
	})
}

// A calendar that everyone can check by hand.
func TestKeep(t *testing.T) {
	at := func(text string) time.Time {
		tm, err := time.Parse("2006-01-02 15:04", text)
		if err != nil {
			t.Fatal(err)
		}
		return tm
	}
	berlin := time.FixedZone("berlin", 3600)
	times := []string{
		"2025-12-31 22:30", "2025-12-31 23:30", "2026-01-15 01:00", "2026-02-22 10:00", "2026-02-23 10:00", "2026-02-28 09:10",
		"2026-02-28 09:50", "2026-03-01 08:00", "2026-03-01 11:00", "2026-03-01 13:00", // the last is in the future
	}
	var all []Snapshot
	for i, text := range times {
		all = append(all, Snapshot{Key: snapshot.Key{Seq: uint64(i + 1)}, Time: at(text), Tags: []string{fmt.Sprint("t", i+1)}})
	}
	for _, c := range []struct {
		rules Rules
		want  string
	}{
		{Rules{}, "1 2 3 4 5 6 7 8 9 10"},
		{Rules{Last: 1}, "9 10"},
		{Rules{Last: 3}, "7 8 9 10"},
		{Rules{Hourly: 3}, "7 8 9 10"},
		{Rules{Daily: 2}, "7 9 10"},
		{Rules{Daily: 100}, "2 3 4 5 7 9 10"},
		{Rules{Daily: 100, In: berlin}, "1 2 3 4 5 7 9 10"}, // 23:30 UTC is the next day there
		{Rules{Weekly: 2}, "4 9 10"},                        // Sunday 22 ends a week, Monday 23 to Sunday 1 is one
		{Rules{Monthly: 2}, "7 9 10"},
		{Rules{Yearly: 2}, "2 9 10"},
		{Rules{Yearly: 2, In: berlin}, "1 9 10"},
		{Rules{Within: 27 * time.Hour}, "6 7 8 9 10"}, // 9:10 the day before is 26:50 ago
		{Rules{Within: 26 * time.Hour}, "8 9 10"},
		{Rules{Tags: []string{"t2", "t5"}}, "2 5 9 10"},
	} {
		var got []string
		for _, d := range Keep(&c.rules, all, nil, start) {
			if d.Keep() {
				got = append(got, fmt.Sprint(d.Key.Seq))
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", c.rules.String(), strings.Join(got, " "), c.want)
		}
	}
}

func TestRulesInWords(t *testing.T) {
	for want, r := range map[string]Rules{
		"keep everything":                            {In: time.UTC},
		"keep daily 7, within 30d (east)":            {Daily: 7, Within: 720 * time.Hour, In: time.FixedZone("east", 1)},
		"keep last 1, yearly 2, within 1h30m, tag a": {Last: 1, Yearly: 2, Within: 90 * time.Minute, Tags: []string{"a"}},
		"keep within 25h":                            {Within: 25 * time.Hour},
		"keep within 10s":                            {Within: 10 * time.Second},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Snapshots that cannot be relied on take no good one's place.
func TestDamagedAndFutureSnapshotsDoNotCount(t *testing.T) {
	at := func(seq uint64, ago time.Duration, damaged bool) Snapshot {
		return Snapshot{Key: snapshot.Key{Seq: seq}, Time: start.Add(-ago), Damaged: damaged}
	}
	all := []Snapshot{at(1, 4*time.Hour, false), at(2, 3*time.Hour, false), at(3, 2*time.Hour, true), at(4, -time.Hour, false)}
	for _, rules := range []Rules{{Last: 1}, {Daily: 1}, {Tags: []string{"none"}}} {
		got := kept(Keep(&rules, all, nil, start))
		if len(got) != 3 || got[all[0].Key] {
			t.Errorf("%s: %v", rules.String(), got)
		}
	}
}
