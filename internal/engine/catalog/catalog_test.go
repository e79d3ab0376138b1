package catalog_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, w *World) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func files() []File { return append(Parents("home/x"), Text("home/x", "1")) }

// world has three snapshots of /home and two of /etc.
func world(t testing.TB) (*World, []*snapshot.Record) {
	w := New(t)
	var rs []*snapshot.Record
	for _, path := range []string{"/home", "/etc", "/home", "/home", "/etc"} {
		rs = append(rs, w.Snapshot(path, files(), TinySizes()))
	}
	return w, rs
}

func name(r *snapshot.Record) string { return vault.RecordPrefix + vault.KeyPath(r.Key) }

func grant(w *World, r *snapshot.Record) string {
	return vault.GrantName(r.Key, snapshot.HashOf(w.Public.Box))
}

func TestSnapshotsComeOldestFirst(t *testing.T) {
	w, rs := world(t)
	c := open(t, w)
	got := c.Snapshots()
	if len(got) != 5 || len(c.Problems()) != 0 {
		t.Fatalf("%d snapshots, problems %v", len(got), c.Problems())
	}
	for i, s := range got {
		if s.Key != rs[i].Key || len(s.ID) != 8 || s.Root.ID() != rs[i].Root || s.Label.Host != "host" {
			t.Errorf("snapshot %d: %+v", i, s)
		}
	}
}

func TestWhatCannotBeTrustedIsNotUsed(t *testing.T) {
	flip := func(w *World, name string) { w.Vault.Docs[name][len(w.Vault.Docs[name])-1] ^= 1 }
	for _, x := range []struct {
		name     string
		spoil    func(w *World, rs []*snapshot.Record)
		left     int
		problems int
		kind     tripod.ErrorKind
	}{
		{"a forged record", func(w *World, rs []*snapshot.Record) { flip(w, name(rs[3])) }, 4, 1, tripod.Denied},
		{"a forged record in the middle", func(w *World, rs []*snapshot.Record) { flip(w, name(rs[2])) }, 4, 2, tripod.Denied},
		{"a missing record", func(w *World, rs []*snapshot.Record) { delete(w.Vault.Docs, name(rs[0])) }, 4, 1, tripod.Corrupt},
		{"a damaged record", func(w *World, rs []*snapshot.Record) { w.Vault.Docs[name(rs[3])] = []byte("x") }, 4, 1, tripod.Corrupt},
		{"a record under another name", func(w *World, rs []*snapshot.Record) { w.Vault.Docs[name(rs[4])] = w.Vault.Docs[name(rs[3])] }, 4, 1, tripod.Corrupt},
		{"a rolled back record", func(w *World, rs []*snapshot.Record) {
			r := *rs[3]
			r.Prev = snapshot.Hash{1}
			w.Vault.Docs[name(rs[3])] = r.Sign(w.Machine.Sign)
		}, 4, 1, tripod.Conflict},
		{"a forged grant", func(w *World, rs []*snapshot.Record) { flip(w, grant(w, rs[0])) }, 4, 1, tripod.Denied},
		{"another snapshot's grant", func(w *World, rs []*snapshot.Record) { w.Vault.Docs[grant(w, rs[0])] = w.Vault.Docs[grant(w, rs[2])] }, 4, 1, tripod.Corrupt},
		{"no grant", func(w *World, rs []*snapshot.Record) { delete(w.Vault.Docs, grant(w, rs[0])) }, 4, 1, tripod.NotFound},
		{"a forged certificate", func(w *World, _ []*snapshot.Record) { flip(w, vault.CertificatePrefix+w.Machine.Machine.String()) }, 0, 1, tripod.Denied},
		{"no certificate", func(w *World, _ []*snapshot.Record) {
			delete(w.Vault.Docs, vault.CertificatePrefix+w.Machine.Machine.String())
		}, 0, 1, tripod.Denied},
		{"a forged order", func(w *World, rs []*snapshot.Record) {
			other, err := seal.NewCompany()
			if err != nil {
				t.Fatal(err)
			}
			n, order := catalog.Order(other, catalog.Snapshot{Key: rs[0].Key}, time.Unix(1, 0))
			w.Vault.Docs[n] = order
		}, 5, 1, tripod.Denied},
		{"an order for another record", func(w *World, rs []*snapshot.Record) {
			n, order := catalog.Order(w.Keys, catalog.Snapshot{Key: rs[0].Key}, time.Unix(1, 0))
			w.Vault.Docs[n] = order
		}, 5, 1, tripod.Corrupt},
	} {
		t.Run(x.name, func(t *testing.T) {
			w, rs := world(t)
			x.spoil(w, rs)
			c := open(t, w)
			got := c.Problems()
			if len(c.Snapshots()) != x.left || len(got) != x.problems {
				t.Fatalf("%d snapshots are left, problems %v", len(c.Snapshots()), got)
			}
			found := false
			for _, p := range got {
				found = found || tripod.KindOf(p.Err) == x.kind
				if p.Document == "" {
					t.Errorf("problem without a document: %v", p.Err)
				}
			}
			if !found {
				t.Errorf("no problem is %v: %v", x.kind, got)
			}
		})
	}
}

// Who looks for the snapshots of a machine learns how many there are, and how
// they come back.
func TestALostCertificateIsToldWithWhatItCosts(t *testing.T) {
	w, rs := world(t)
	n, order := catalog.Order(w.Keys, open(t, w).Snapshots()[1], time.Unix(1, 0))
	w.Vault.Docs[n] = order
	name := vault.CertificateName(w.Machine.Machine)
	kept := w.Vault.Docs[name]
	delete(w.Vault.Docs, name)
	for _, spoiled := range [][]byte{nil, {}, []byte("noise")} {
		if spoiled != nil {
			w.Vault.Docs[name] = spoiled
		}
		got := open(t, w).Problems()
		if len(got) != 1 || got[0].Document != name {
			t.Fatalf("problems %v", got)
		}
		text := got[0].Err.Error()
		if !strings.Contains(text, "4 snapshots of machine "+w.Machine.Machine.String()[:8]+" cannot be used: its certificate "+name) ||
			!strings.Contains(tripod.HintOf(got[0].Err), "next backup on that machine") {
			t.Errorf("%s: %s", text, tripod.HintOf(got[0].Err))
		}
	}
	w.Vault.Docs[name] = kept
	if c := open(t, w); len(c.Problems()) != 0 || len(c.Snapshots()) != len(rs)-1 {
		t.Errorf("put back: %d snapshots, problems %v", len(c.Snapshots()), c.Problems())
	}
}

// A machine that was copied signs two records of one number. What builds on
// the one that was not accepted is not used either.
func TestAForkIsNotFollowed(t *testing.T) {
	w, rs := world(t)
	r := *rs[2]
	r.Prev = snapshot.Hash{9}
	forked := r.Sign(w.Machine.Sign)
	w.Vault.Docs[name(rs[2])] = forked
	next := *rs[3]
	next.Prev = snapshot.HashOf(forked)
	w.Vault.Docs[name(rs[3])] = next.Sign(w.Machine.Sign)
	if c := open(t, w); len(c.Snapshots()) != 3 || len(c.Problems()) != 2 {
		t.Fatalf("%d snapshots, problems %v", len(c.Snapshots()), c.Problems())
	}
}

func TestForgottenSnapshotsAreGone(t *testing.T) {
	w, rs := world(t)
	s := open(t, w).Snapshots()[1]
	n, order := catalog.Order(w.Keys, s, time.Unix(1, 0))
	if err := w.Vault.PutDocument(context.Background(), n, order); err != nil {
		t.Fatal(err)
	}
	delete(w.Vault.Docs, grant(w, rs[1])) // collected along with it
	c := open(t, w)
	if len(c.Snapshots()) != 4 || len(c.Forgotten()) != 1 || len(c.Problems()) != 0 || !c.Forgotten()[0].Forgotten {
		t.Fatalf("%d live, %d forgotten, problems %v", len(c.Snapshots()), len(c.Forgotten()), c.Problems())
	}
	if _, err := c.Find(s.ID, catalog.Filter{}); !errors.Is(err, tripod.NotFound) || !strings.Contains(err.Error(), "forgotten") {
		t.Errorf("finding it: %v", err)
	}
}

func TestWho(t *testing.T) {
	w, rs := world(t)
	w.Commit("many", tripod.Stream, w.List([]byte("x"), 1), snapshot.Label{Host: "host", Paths: []string{"/a", "/b", "/c", "/d"}})
	c := open(t, w)
	many := c.Snapshots()[5].Key
	m := w.Machine.Machine
	for _, x := range []struct {
		machine tripod.MachineID
		source  tripod.SourceID
		want    string
	}{
		{m, rs[0].Key.Source, "host (/home)"},
		{m, rs[1].Key.Source, "host (/etc)"},
		{m, many.Source, "host (/a, /b, /c, ...)"},
		{m, tripod.SourceID{1}, "host (source 01000000)"},
		{tripod.MachineID{2}, tripod.SourceID{1}, "machine 02000000 (source 01000000)"},
	} {
		if got := c.Who(x.machine, x.source); got != x.want {
			t.Errorf("%s, not %s", got, x.want)
		}
	}
}

func TestFind(t *testing.T) {
	w, rs := world(t)
	c := open(t, w)
	s, err := c.Find(catalog.Latest, catalog.Filter{})
	if err != nil || s.Key != rs[4].Key || c.Sources(catalog.Filter{}) != 2 {
		t.Errorf("latest of two sources: %+v, %v", s, err)
	}
	if s, err = c.FindOnly(catalog.Latest, catalog.Filter{}); !errors.Is(err, tripod.Invalid) ||
		!strings.Contains(tripod.HintOf(err), "files of host: /home") || !strings.Contains(tripod.HintOf(err), "files of host: /etc") {
		t.Errorf("latest of two sources, where it must be clear: %+v, %v", s, err)
	}
	for path, want := range map[string]*snapshot.Record{"/etc": rs[4], "/home/x/y": rs[3], "/": rs[4], "x": rs[4], "": rs[4]} {
		if s, err = c.FindFor(catalog.Latest, path, catalog.Filter{}); err != nil || s.Key != want.Key {
			t.Errorf("latest for %q: %+v, %v", path, s, err)
		}
	}
	if s, err = c.Find(catalog.Latest, catalog.Filter{Path: "/home/x"}); err != nil || s.Key != rs[3].Key {
		t.Errorf("latest of a path below: %+v, %v", s, err)
	}
	if _, err = c.Find(catalog.Latest, catalog.Filter{Host: "other"}); !errors.Is(err, tripod.NotFound) {
		t.Errorf("latest of another host: %v", err)
	}
	for _, x := range c.Snapshots() {
		if got, err := c.Find(strings.ToUpper(x.ID), catalog.Filter{}); err != nil || got.Key != x.Key {
			t.Errorf("%s: %+v, %v", x.ID, got, err)
		}
	}
	for spec, kind := range map[string]tripod.ErrorKind{"": tripod.Invalid, "xyz": tripod.Invalid, "00000000000000": tripod.NotFound} {
		if _, err := c.Find(spec, catalog.Filter{}); !errors.Is(err, kind) || tripod.HintOf(err) == "" {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

// The newest snapshot is meant where all that fit are of one source, or hold
// the path that is asked for.
func TestFindOnlyNeverChoosesBetweenSources(t *testing.T) {
	label := func(host string, paths ...string) snapshot.Label { return snapshot.Label{Host: host, Paths: paths} }
	w := New(t)
	root := w.Tree(files(), TinySizes())
	stream := w.List([]byte("x"), 1)
	w.Commit("a", tripod.Files, root, label("h", "/home", "/etc"))
	if _, err := open(t, w).FindOnly(catalog.Latest, catalog.Filter{}); err != nil {
		t.Fatal(err)
	}
	w.Enrol() // the same host, set up again
	last := w.Commit("b", tripod.Files, root, label("h", "/etc", "/home"))
	if s, err := open(t, w).FindOnly(catalog.Latest, catalog.Filter{}); err != nil || s.Key != last.Key {
		t.Fatalf("one source by two machine keys: %+v, %v", s, err)
	}
	for name, x := range map[string]struct {
		kind  tripod.SourceType
		root  seal.Ref
		label snapshot.Label
		fits  catalog.Filter // what tells the first from it
	}{
		"a stream":    {tripod.Stream, stream, label("h", "db.sql"), catalog.Filter{Path: "/home"}},
		"other paths": {tripod.Files, root, label("h", "/srv"), catalog.Filter{Path: "/home"}},
		"a host":      {tripod.Files, root, label("g", "/etc", "/home"), catalog.Filter{Host: "h"}},
	} {
		w := New(t)
		first := w.Commit("a", tripod.Files, w.Tree(files(), TinySizes()), label("h", "/home", "/etc"))
		w.List([]byte("x"), 1)
		w.Commit("b", x.kind, x.root, x.label)
		c := open(t, w)
		if s, err := c.FindOnly(catalog.Latest, catalog.Filter{}); !errors.Is(err, tripod.Invalid) || tripod.HintOf(err) == "" {
			t.Errorf("%s: chose %+v, %v", name, s, err)
		}
		if s, err := c.FindOnly(catalog.Latest, x.fits); err != nil || s.Key != first.Key {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func TestAnAmbiguousIDListsTheCandidates(t *testing.T) {
	w := New(t)
	for range 17 { // 16 first digits
		w.Commit("s", tripod.Stream, w.List([]byte("x"), 1), snapshot.Label{Host: "h"})
	}
	c := open(t, w)
	count := map[byte]int{}
	for _, s := range c.Snapshots() {
		count[s.ID[0]]++
	}
	for digit, n := range count {
		if n < 2 {
			continue
		}
		_, err := c.Find(string(digit), catalog.Filter{})
		if !errors.Is(err, tripod.Invalid) || strings.Count(tripod.HintOf(err), "(stream of h: ") < 2 {
			t.Errorf("%v, hint %q", err, tripod.HintOf(err))
		}
		return
	}
}

func TestAnotherCompanysVaultIsDenied(t *testing.T) {
	w, _ := world(t)
	other, err := seal.NewCompany()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Open(context.Background(), w.Vault, other); !errors.Is(err, tripod.Denied) {
		t.Errorf("%v", err)
	}
	delete(w.Vault.Docs, vault.DescriptorName)
	if _, err := catalog.Open(context.Background(), w.Vault, w.Keys); !errors.Is(err, tripod.NotFound) {
		t.Errorf("no vault: %v", err)
	}
}

func TestTreePath(t *testing.T) {
	for in, want := range map[string]string{
		"/home/me": "home/me", "/": "", "": "", "/a//b/": "a/b", "/a/../b": "b", "../../x": "x",
		`C:\Users\me`: "C/Users/me", `c:`: "C", `\\server\share\f`: "UNC/server/share/f",
	} {
		if got := catalog.TreePath(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}

// A clock may be wrong for a while: what came after what is told by the chain.
func TestTheChainOrdersASourceNotTheClock(t *testing.T) {
	for name, back := range map[string]time.Duration{"ahead once": -10 * 365 * 24 * time.Hour, "back for good": -time.Hour} {
		w, rs := world(t)
		w.Sleep(back)
		last := w.Snapshot("/home", files(), TinySizes())
		c := open(t, w)
		if s, err := c.Find(catalog.Latest, catalog.Filter{Path: "/home"}); err != nil || s.Key != last.Key {
			t.Errorf("%s: latest is number %d, not %d (%v)", name, s.Key.Seq, last.Key.Seq, err)
		}
		seen := map[tripod.SourceID]uint64{}
		for _, s := range c.Snapshots() {
			if s.Key.Seq != seen[s.Key.Source]+1 {
				t.Errorf("%s: snapshot %d comes after %d", name, s.Key.Seq, seen[s.Key.Source])
			}
			seen[s.Key.Source] = s.Key.Seq
		}
		if len(seen) != 2 || seen[last.Key.Source] != last.Key.Seq || last.Key.Seq != 4 || len(rs) != 5 {
			t.Errorf("%s: %v", name, seen)
		}
	}
}

func TestAMissingRecordIsCounted(t *testing.T) {
	for _, x := range []struct {
		gone int // how many of the first ones
		want string
	}{{1, "snapshot 1 of machine "}, {2, "snapshots 1 to 2 of machine "}} {
		w, rs := world(t)
		for _, r := range []*snapshot.Record{rs[0], rs[2]}[:x.gone] {
			delete(w.Vault.Docs, name(r))
		}
		if p := open(t, w).Problems(); len(p) != 1 || !strings.HasPrefix(p[0].Err.Error(), x.want) {
			t.Errorf("%d missing: %v", x.gone, p)
		}
	}
}

// That nothing can be used is no lack of snapshots.
func TestALogWithoutOneUsableSnapshotIsDamaged(t *testing.T) {
	w, rs := world(t)
	for _, r := range rs {
		delete(w.Vault.Docs, grant(w, r))
	}
	_, err := open(t, w).Find(catalog.Latest, catalog.Filter{})
	if !errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound) && tripod.KindOf(err) != tripod.Corrupt ||
		!strings.Contains(err.Error(), "has no grant to the company (and 4 more problems)") || tripod.HintOf(err) == "" {
		t.Errorf("%v: %s", err, tripod.HintOf(err))
	}
	if _, err := open(t, New(t)).Find(catalog.Latest, catalog.Filter{}); tripod.KindOf(err) != tripod.NotFound {
		t.Errorf("an empty vault: %v", err)
	}
}
