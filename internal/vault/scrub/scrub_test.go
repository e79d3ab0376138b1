package scrub_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
	"tripod/internal/vault/scrub"
	"tripod/internal/vault/vaulttest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a vault with some snapshots, each with packs of its own.
type site struct {
	*vaulttest.World
	m       *vaulttest.Machine
	store   *mem.Store
	dir     string
	records [][]byte
	data    [][]vaulttest.Blob
}

func newSite(t testing.TB, snapshots int) *site {
	t.Helper()
	w := vaulttest.NewWorld(1)
	s := &site{World: w, m: w.Machine(1), store: mem.New(), dir: t.TempDir()}
	must(t, local.Create(t.Context(), s.store, w.Encoded, w.Keyring))
	s.write(t, s.store, s.dir, func(session *local.Session) {
		must(t, session.PutDocument(t.Context(), vault.CertificateName(s.m.ID), s.m.Certificate))
		for n := range snapshots {
			s.backup(t, session, n, nil)
		}
	})
	return s
}

func (s *site) write(t testing.TB, at store.Store, dir string, fn func(*local.Session)) {
	t.Helper()
	v := openVault(t, at, dir)
	session, err := v.Begin(t.Context(), vault.Holder{Text: "test"}, nil)
	must(t, err)
	fn(session)
	must(t, errors.Join(session.Close(), v.Close()))
}

func (s *site) backup(t testing.TB, session *local.Session, n int, prev []byte) {
	t.Helper()
	data := []vaulttest.Blob{s.Data(10*n, 5000), s.Data(10*n+1, 6000)}
	_, err := session.Put(t.Context(), frame.DataClass, vaulttest.Frames(data...))
	must(t, err)
	leaf := s.Node(tripod.Tree, data...)
	root := s.Node(tripod.Tree, leaf)
	_, err = session.Put(t.Context(), frame.NodeClass, vaulttest.Frames(leaf, root))
	must(t, err)
	if len(s.records) > 0 {
		prev = s.records[len(s.records)-1]
	}
	record := s.m.Record(s.Source(1), prev, root.ID, nil)
	must(t, session.Commit(t.Context(), record, s.m.Grants(record)))
	s.records, s.data = append(s.records, record), append(s.data, data)
}

func openVault(t testing.TB, s store.Store, dir string) *local.Vault {
	t.Helper()
	v, err := local.Open(t.Context(), s, local.Options{IndexDir: dir})
	must(t, err)
	return v
}

// run scrubs, as one process does.
func run(t testing.TB, at store.Store, dir string, other vault.Source, change func(*scrub.Options)) *scrub.Report {
	t.Helper()
	v := openVault(t, at, dir)
	o := scrub.Options{
		Other: other, Dir: dir, Now: time.Unix(1_800_000_000, 0),
		Begin: func(ctx context.Context) (*local.Session, error) {
			return v.Begin(ctx, vault.Holder{Text: "scrub"}, nil)
		},
	}
	if change != nil {
		change(&o)
	}
	report, err := scrub.Run(t.Context(), v, at, o)
	must(t, errors.Join(err, v.Close()))
	return report
}

// second gives a copy of the vault, open.
func (s *site) second(t testing.TB) (*mem.Store, *local.Vault) {
	t.Helper()
	to, src := mem.New(), openVault(t, s.store, t.TempDir())
	must(t, replicate.Create(t.Context(), src, to))
	s.write(t, to, t.TempDir(), func(session *local.Session) {
		v := openVault(t, to, t.TempDir())
		report, err := replicate.Run(t.Context(), src, v, session, replicate.Options{Now: time.Now()})
		must(t, errors.Join(err, report.Err(), v.Close()))
	})
	must(t, src.Close())
	v := openVault(t, to, t.TempDir())
	t.Cleanup(func() { must(t, v.Close()) })
	return to, v
}

func names(t testing.TB, s store.Store, prefix string) (all []string) {
	t.Helper()
	must(t, s.List(t.Context(), prefix, func(i store.Info) error {
		all = append(all, i.Name)
		return nil
	}))
	return all
}

func TestAGoodVault(t *testing.T) {
	s := newSite(t, 3)
	before := s.store.Clone()
	report := run(t, s.store, s.dir, nil, nil)
	must(t, report.Err())
	if report.Packs != 6 || report.Left != 0 || report.Healed() || report.Oldest.Unix() != 1_800_000_000 {
		t.Errorf("%+v", report)
	}
	if !slices.Equal(names(t, before, ""), names(t, s.store, "")) {
		t.Error("something was written")
	}
}

// TestRunsGoOn: a run that is cut short is gone on with: packs that were never
// checked come first, then those that were longest ago; damaged ones stay first.
func TestRunsGoOn(t *testing.T) {
	s := newSite(t, 30) // 60 packs
	must(t, openVault(t, s.store, s.dir).Sync(t.Context()))
	// read scrubs until so many packs are read, and tells which.
	read := func(at int64, most int) (packs []string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		spy := faulty.New(s.store, faulty.On(func(c faulty.Call) bool {
			if _, pack := vault.ParsePackName(c.Name); c.Verb == faulty.Get && pack && !slices.Contains(packs, c.Name) {
				if packs = append(packs, c.Name); len(packs) == most {
					cancel()
				}
			}
			return false
		}, faulty.Fail(tripod.Internal)))
		v := openVault(t, spy, s.dir)
		_, err := scrub.Run(ctx, v, spy, scrub.Options{
			Dir: s.dir, Now: time.Unix(at, 0), Begin: func(ctx context.Context) (*local.Session, error) { return v.Begin(ctx, vault.Holder{}, nil) },
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		must(t, v.Close())
		return packs
	}
	first := read(1_800_000_000, 40) // the last round is not remembered: 32 are
	second := read(1_800_000_100, 0)
	if len(second) != 60 {
		t.Fatalf("%d packs in all", len(second))
	}
	checked := map[string]bool{}
	for _, name := range first[:32] {
		checked[name] = true
	}
	early := 0
	for _, name := range second[:16] {
		if checked[name] {
			early++
		}
	}
	if early > 0 {
		t.Errorf("%d packs that were checked come before such that were not", early)
	}
	third := read(1_800_000_200, 16)
	for _, name := range third[:16] {
		if !checked[name] {
			t.Errorf("%s comes first and was not the longest ago", name)
		}
	}
	report := run(t, s.store, s.dir, nil, func(o *scrub.Options) { o.MaxTime = time.Nanosecond })
	if report.Packs != 0 || report.Left != 60 || report.Oldest.Unix() != 1_800_000_000 && report.Oldest.Unix() != 1_800_000_100 {
		t.Errorf("no time: %+v", report)
	}
	must(t, s.store.Damage(second[59], faulty.FlipBit(3)))
	run(t, s.store, s.dir, nil, nil)
	if damaged := read(1_800_000_300, 2); !slices.Contains(damaged, second[59]) {
		t.Errorf("the damaged one does not come first: %v", damaged)
	}
}

// TestHealedFromTheOther: whatever is done to a pack, the other copy heals it, and
// nothing of the damage is left in the vault.
func TestHealedFromTheOther(t *testing.T) {
	s := newSite(t, 3)
	_, other := s.second(t)
	stale := names(t, s.store, "pack/")[0]
	for i, name := range names(t, s.store, "pack/") {
		for how, change := range map[string]faulty.Change{
			"bit": faulty.FlipBit(uint64(i)), "zeros": faulty.Zero(uint64(i), 3000), "cut": faulty.Truncate(uint64(i)), "gone": faulty.Remove(),
			"noise at the end": func(b []byte) []byte { return append(b, "noise"...) },
			"stale": func([]byte) []byte {
				info, err := s.store.Head(t.Context(), stale)
				must(t, err)
				b := make([]byte, info.Size)
				_, _ = s.store.Get(t.Context(), stale, b, 0)
				return b
			},
		} {
			if how == "stale" && name == stale {
				continue
			}
			damaged := s.store.Clone()
			must(t, damaged.Damage(name, change))
			dir := t.TempDir()
			report := run(t, damaged, dir, other, nil)
			if err := report.Err(); err != nil || !report.Healed() {
				t.Errorf("%s of %s: %v, %+v", how, name, err, report)
			}
			report = run(t, damaged, dir, nil, nil)
			if err := report.Err(); err != nil || len(report.Damaged) > 0 {
				t.Errorf("%s of %s, again: %v, %+v", how, name, err, report)
			}
			report = run(t, damaged, t.TempDir(), nil, nil)
			must(t, report.Err())
		}
	}
}

// TestWhatCannotBeHealedIsNamed: without another copy the snapshots are named that
// are not whole; the next backup that has the data heals them, and the next scrub
// takes the damaged pack away.
func TestWhatCannotBeHealedIsNamed(t *testing.T) {
	s := newSite(t, 3)
	pack := names(t, s.store, "pack/")
	for _, name := range pack {
		damaged := s.store.Clone()
		dir := t.TempDir()
		run(t, damaged, dir, nil, nil)
		whole, err := content(damaged, name)
		must(t, err)
		first, _, err := frame.Parse(whole)
		must(t, err)
		nodes := first.Kind.Node()
		must(t, damaged.Damage(name, func(b []byte) []byte { b[200] ^= 1; return b }))
		report := run(t, damaged, dir, nil, nil)
		if tripod.KindOf(report.Err()) != tripod.Corrupt || len(report.Lost) != 1 {
			t.Fatalf("%s: %v, lost %+v", name, report.Err(), report.Lost)
		}
		key := report.Lost[0].Key
		if key.Machine != s.m.ID || key.Seq == 0 || !bytes.Contains([]byte(report.Lost[0].Err.Error()), []byte("of machine "+s.m.ID.String()[:8])) {
			t.Errorf("%s: %+v", name, report.Lost[0])
		}
		if !slices.Contains(names(t, damaged, "pack/"), name) {
			t.Errorf("%s: the damaged pack is gone, with what may be left of it", name)
		}
		// A machine that has the data stores what the vault lacks.
		s.write(t, damaged, dir, func(session *local.Session) {
			data := s.data[key.Seq-1]
			leaf := s.Node(tripod.Tree, data...)
			root := s.Node(tripod.Tree, leaf)
			if _, err := session.Put(t.Context(), frame.DataClass, vaulttest.Frames(data...)); err != nil || !nodes {
				must(t, err) // the nodes above are those of another snapshot, and not put again
				return
			}
			_, err := session.Put(t.Context(), frame.NodeClass, vaulttest.Frames(leaf, root))
			must(t, err)
		})
		report = run(t, damaged, dir, nil, nil)
		if err := report.Err(); err != nil || !report.Healed() || slices.Contains(names(t, damaged, "pack/"), name) {
			t.Errorf("%s, after a backup: %v, %+v", name, err, report)
		}
		must(t, run(t, damaged, t.TempDir(), nil, nil).Err())
	}
}

// TestDocumentsAreHealed: each document that can be checked without a key is healed
// from the other copy, damaged or gone.
func TestDocumentsAreHealed(t *testing.T) {
	s := newSite(t, 3)
	name, order := s.Forget(s.records[0])
	s.write(t, s.store, s.dir, func(session *local.Session) { must(t, session.PutDocument(t.Context(), name, order)) })
	_, other := s.second(t)
	for _, prefix := range []string{"machine/", "record/", "grant/", "forget/"} {
		for _, name := range names(t, s.store, prefix) {
			for how, change := range map[string]faulty.Change{"bit": faulty.FlipBit(7), "cut": faulty.Truncate(3), "empty": func([]byte) []byte { return []byte{} }, "gone": faulty.Remove()} {
				damaged := s.store.Clone()
				must(t, damaged.Damage(name, change))
				forgotten := prefix == "grant/" && bytes.Contains([]byte(name), []byte("/00000000000000000001/"))
				if report := run(t, damaged, t.TempDir(), nil, nil); report.Err() == nil && !(how == "gone" && (prefix == "forget/" || forgotten || name == vault.RecordName(keyOf(t, s.records[2])))) {
					t.Errorf("%s of %s: not found", how, name)
				}
				report := run(t, damaged, t.TempDir(), other, nil)
				must(t, report.Err())
				want, err := content(s.store, name)
				must(t, err)
				if got, err := content(damaged, name); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s of %s: not healed: %v", how, name, err)
				}
				must(t, run(t, damaged, t.TempDir(), nil, nil).Err())
			}
		}
	}
}

func keyOf(t *testing.T, record []byte) snapshot.Key {
	t.Helper()
	r, err := snapshot.ParseRecord(record)
	must(t, err)
	return r.Key
}

func content(s store.Store, name string) ([]byte, error) {
	info, err := s.Head(context.Background(), name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size)
	_, err = s.Get(context.Background(), name, b, 0)
	return b, err
}

// TestTheDescriptor heals what says whose vault it is, and only in a place that is a
// copy of the same vault.
func TestTheDescriptor(t *testing.T) {
	ctx := t.Context()
	s := newSite(t, 1)
	_, other := s.second(t)
	if healed, err := scrub.Descriptor(ctx, s.store, other); healed || err != nil {
		t.Errorf("a good one: %v, %v", healed, err)
	}
	for how, change := range map[string]faulty.Change{
		"bit": faulty.FlipBit(1), "gone": faulty.Remove(), "empty": func([]byte) []byte { return []byte{} },
		"zeros": func(b []byte) []byte { clear(b[20:]); return b },
	} {
		damaged := s.store.Clone()
		must(t, damaged.Damage(vault.DescriptorName, change))
		if healed, err := scrub.Descriptor(ctx, damaged, other); !healed || err != nil {
			t.Errorf("%s: %v, %v", how, healed, err)
		}
		got, err := content(damaged, vault.DescriptorName)
		if err != nil || !bytes.Equal(got, s.Encoded) {
			t.Errorf("%s: it is not back: %v", how, err)
		}
	}
	stranger := vaulttest.NewWorld(2)
	place := mem.New()
	must(t, local.Create(ctx, place, stranger.Encoded, stranger.Keyring))
	m := stranger.Machine(1)
	must(t, place.Put(ctx, vault.CertificateName(m.ID), m.Certificate))
	must(t, place.Delete(ctx, vault.DescriptorName))
	if healed, err := scrub.Descriptor(ctx, place, other); healed || tripod.KindOf(err) != tripod.Denied {
		t.Errorf("another company's: %v, %v", healed, err)
	}
}

// TestAnotherCompanysVaultHealsNothing: before anything is read from it.
func TestAnotherCompanysVaultHealsNothing(t *testing.T) {
	s := newSite(t, 1)
	stranger := vaulttest.NewWorld(2)
	place := mem.New()
	must(t, local.Create(t.Context(), place, stranger.Encoded, stranger.Keyring))
	v, other := openVault(t, s.store, t.TempDir()), openVault(t, place, t.TempDir())
	_, err := scrub.Run(t.Context(), v, s.store, scrub.Options{Other: other})
	if tripod.KindOf(err) != tripod.Denied {
		t.Errorf("got %v", err)
	}
	must(t, errors.Join(v.Close(), other.Close()))
}

// TestALostPosition: what was remembered may be lost or damaged; then all is checked.
func TestALostPosition(t *testing.T) {
	s := newSite(t, 2)
	run(t, s.store, s.dir, nil, nil)
	must(t, faulty.Dir(s.dir).Damage("scrubbed", faulty.Zero(1, 4000)))
	report := run(t, s.store, s.dir, nil, func(o *scrub.Options) { o.MaxTime = time.Nanosecond })
	if report.Packs != 0 || !report.Oldest.IsZero() {
		t.Errorf("%+v", report)
	}
	must(t, faulty.Dir(s.dir).Damage("scrubbed", faulty.Remove()))
	must(t, run(t, s.store, s.dir, nil, func(o *scrub.Options) { o.Dir = filepath.Join(s.dir, "new") }).Err())
}
