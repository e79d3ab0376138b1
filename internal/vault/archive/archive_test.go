package archive_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/archive"
	"tripod/internal/vault/index"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

type entry = index.Entry

func inAnHour() time.Time { return time.Now().Add(time.Hour).Truncate(time.Second) }

// TestAnArchiveIsWhole: it has every document and blob of every snapshot, each
// object resists being overwritten and deleted, and a second run adds nothing.
func TestAnArchiveIsWhole(t *testing.T) {
	s := newSite(t, 1)
	var records [][]byte
	for range 5 {
		records = append(records, s.backup(t, 1, time.Unix(1, 0)), s.backup(t, 2, time.Unix(1, 0)))
	}
	to, dir := mem.New(), t.TempDir()
	report, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	must(t, report.Err())
	if report.Snapshots != len(records) || report.Segments < 3 {
		t.Errorf("%+v", report)
	}
	s.whole(t, to, records...)
	before := names(t, to, "")
	for _, name := range before {
		if err := to.Delete(t.Context(), name); !errors.Is(err, tripod.Denied) {
			t.Errorf("%s can be deleted: %v", name, err)
		}
		if err := to.Put(t.Context(), name, []byte("x")); !errors.Is(err, tripod.Exists) {
			t.Errorf("%s can be overwritten: %v", name, err)
		}
	}
	for _, prefix := range []string{"vault", "keyring/", "machine/", "record/", "grant/"} {
		if a, b := names(t, s.store, prefix), names(t, to, prefix); !slices.Equal(a, b) {
			t.Errorf("%s: the vault has %v, the archive %v", prefix, a, b)
		}
	}
	report, err = s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	if report.Snapshots+report.Segments > 0 || report.Held != len(records) || !slices.Equal(before, names(t, to, "")) {
		t.Errorf("nothing was new: %+v", report)
	}
}

// TestSegmentsAreFull: without need there is one segment of each class.
func TestSegmentsAreFull(t *testing.T) {
	s := newSite(t, 2)
	for range 20 {
		s.backup(t, 1, time.Unix(1, 0))
	}
	to := mem.New()
	report, err := s.archiveTo(t.Context(), t, to, t.TempDir(), archive.Options{Segment: archive.DefaultSegment})
	must(t, err)
	if report.Segments != 2 {
		t.Errorf("%d segments", report.Segments)
	}
	_, err = s.archiveTo(t.Context(), t, to, t.TempDir(), archive.Options{Segment: archive.DefaultSegment + 1})
	if !errors.Is(err, tripod.Invalid) {
		t.Errorf("segments that readers do not take: %v", err)
	}
}

// TestOnlyOldSnapshotsAreArchived: those of the age, and what comes before them in
// their chain.
func TestOnlyOldSnapshotsAreArchived(t *testing.T) {
	s := newSite(t, 3)
	now := time.Now()
	ago := func(days int) time.Time { return now.Add(-time.Duration(days) * 24 * time.Hour) }
	first := s.backup(t, 1, ago(60))
	wrong := s.backup(t, 1, ago(1)) // its clock was
	old := s.backup(t, 1, ago(31))
	s.backup(t, 1, ago(29))
	s.backup(t, 2, ago(0))
	to, dir := mem.New(), t.TempDir()
	o := archive.Options{Now: now, After: 30 * 24 * time.Hour, Until: inAnHour()}
	report, err := s.archiveTo(t.Context(), t, to, dir, o)
	must(t, err)
	s.whole(t, to, first, wrong, old)
	if report.Young != 2 {
		t.Errorf("%d are too young", report.Young)
	}
	o.Now = now.Add(5 * 24 * time.Hour)
	report, err = s.archiveTo(t.Context(), t, to, dir, o)
	must(t, err)
	if report.Snapshots != 1 || report.Held != 3 {
		t.Errorf("five days later: %+v", report)
	}
}

// TestTheArchiveKeepsWhatTheVaultLetGo: what was given up before is there as a bare
// record, so that the chain has no holes; what is given up later stays.
func TestTheArchiveKeepsWhatTheVaultLetGo(t *testing.T) {
	s := newSite(t, 4)
	first, second := s.backup(t, 1, time.Unix(1, 0)), s.backup(t, 1, time.Unix(2, 0))
	forget := func(record []byte) {
		s.write(t, func(session *local.Session) {
			name, order := s.Forget(record)
			must(t, session.PutDocument(t.Context(), name, order))
		})
	}
	forget(first)
	to, dir := mem.New(), t.TempDir()
	report, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	if report.Gone != 1 || len(names(t, to, vault.RecordPrefix)) != 2 {
		t.Errorf("%+v", report)
	}
	s.whole(t, to, second)
	s.write(t, func(session *local.Session) {
		must(t, session.PutPolicy(t.Context(), s.Policy(snapshot.Policy{Number: 1, Last: 1})))
		must(t, session.Expire(t.Context(), &snapshot.Expiry{
			Company: s.Descriptor.Company, Key: keyOf(t, second), Record: snapshot.HashOf(second), Time: time.Now(), Policy: 1, Reason: "no rule keeps it",
		}))
	})
	third := s.backup(t, 1, time.Unix(3, 0))
	_, err = s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	s.whole(t, to, second, third)
}

// TestKilledRunsGoOn ends runs at every operation of the archive's store. What is
// seen is whole, the next run finishes, and everything is locked.
func TestKilledRunsGoOn(t *testing.T) {
	s := newSite(t, 5)
	var records [][]byte
	for range 3 {
		records = append(records, s.backup(t, 1, time.Unix(1, 0)))
	}
	step := 1
	if testing.Short() {
		step = 11
	}
	for _, fault := range []faulty.Fault{faulty.Fail(tripod.Internal), faulty.LoseAnswer(tripod.Internal)} {
		for n := 1; ; n += step {
			to, dir := &locksOf{Store: mem.New(), until: map[string]time.Time{}}, t.TempDir()
			until := inAnHour()
			dies := faulty.New(to, faulty.On(func(c faulty.Call) bool { return c.N == n }, fault), faulty.On(faulty.From(n+1), faulty.Fail(tripod.Internal)))
			_, err := s.archiveTo(t.Context(), t, dies, dir, archive.Options{Until: until})
			if err == nil {
				t.Logf("%d operations", n-1)
				break
			}
			if _, err := local.Describe(t.Context(), to); err == nil {
				seen := names(t, to, vault.RecordPrefix)
				s.whole(t, to, records[:len(seen)]...)
			}
			report, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: until})
			if err != nil {
				t.Fatalf("killed at %d: %v", n, err)
			}
			must(t, report.Err())
			s.whole(t, to, records...)
			for _, name := range names(t, to, "") {
				if to.until[name].Before(until) && needed(t, to, name) {
					t.Errorf("killed at %d: %s is not locked", n, name)
				}
			}
		}
	}
}

// needed is false of a segment that a killed run left and no manifest names.
func needed(t *testing.T, s store.Store, name string) bool {
	id, ok := vault.ParsePackName(name)
	if !ok {
		return true
	}
	v := open(t, s, t.TempDir())
	defer v.Close()
	named := false
	must(t, v.Documents(t.Context(), vault.ManifestPrefix, func(_ string, content []byte) error {
		m, err := snapshot.ParseManifest(content, v.Descriptor())
		named = named || err == nil && slices.Contains(m.Segments, id)
		return err
	}))
	return named
}

// spy counts reads of the vault, and acts on them.
type spy struct {
	*local.Vault
	do func()
}

func (s *spy) Get(ctx context.Context, ids []tripod.ID, use func(int, []byte) error, onError func(int, error) error) error {
	s.do()
	return s.Vault.Get(ctx, ids, use, onError)
}

// TestCancelled: a run that is cancelled ends with the context's error, and the
// next one goes on.
func TestCancelled(t *testing.T) {
	s := newSite(t, 6)
	record := s.backup(t, 1, time.Unix(1, 0))
	src := open(t, s.store, s.dir)
	for calls := 1; ; calls++ {
		to, dir := mem.New(), t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := archiveOf(ctx, &spy{src, func() {
			if n++; n == calls {
				cancel()
			}
		}}, to, dir, archive.Options{Until: inAnHour()})
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at read %d: %v", calls, err)
		}
		_, err = archiveOf(t.Context(), src, to, dir, archive.Options{Until: inAnHour()})
		must(t, err)
		s.whole(t, to, record)
	}
	must(t, src.Close())
}

// lockless is a store that says that it has no locks, or keeps none.
type lockless struct {
	*mem.Store
	claims bool
}

func (l lockless) Capabilities() store.Capabilities { return store.Capabilities{Lock: l.claims} }
func (l lockless) Lock(ctx context.Context, name string, _ time.Time) error {
	if !l.claims {
		return tripod.Errorf(tripod.Invalid, "no locks")
	}
	_, err := l.Head(ctx, name)
	return err
}

// TestLocksAreTried: a store without locks is refused, and so is one that says yes
// to them and keeps none, before anything is archived.
func TestLocksAreTried(t *testing.T) {
	s := newSite(t, 7)
	record := s.backup(t, 1, time.Unix(1, 0))
	for _, claims := range []bool{false, true} {
		to := lockless{mem.New(), claims}
		_, err := s.archiveTo(t.Context(), t, to, t.TempDir(), archive.Options{Until: inAnHour()})
		if !errors.Is(err, tripod.Conflict) || tripod.HintOf(err) == "" {
			t.Errorf("claims %v: %v", claims, err)
		}
		if packs := names(t, to, vault.PackPrefix); len(packs) > 0 {
			t.Errorf("claims %v: it has %v", claims, packs)
		}
		_, err = s.archiveTo(t.Context(), t, to, t.TempDir(), archive.Options{})
		must(t, err)
		s.whole(t, to, record)
		s.backup(t, 1, time.Unix(2, 0))
		_, err = s.archiveTo(t.Context(), t, to, t.TempDir(), archive.Options{Until: inAnHour()})
		if !errors.Is(err, tripod.Conflict) {
			t.Errorf("claims %v: a later run trusts the locks: %v", claims, err)
		}
		s = newSite(t, 7)
		record = s.backup(t, 1, time.Unix(1, 0))
	}
}

// TestSharedSegmentsAreLockedAsLong: a snapshot that needs segments of an earlier
// one extends their locks, and no others.
func TestSharedSegmentsAreLockedAsLong(t *testing.T) {
	s := newSite(t, 8)
	first := s.backup(t, 1, time.Unix(1, 0))
	to, dir := &locksOf{Store: mem.New(), until: map[string]time.Time{}}, t.TempDir()
	soon, late := inAnHour(), inAnHour().Add(24*time.Hour)
	_, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: soon})
	must(t, err)
	second := s.backup(t, 1, time.Unix(2, 0))
	report, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: late})
	must(t, err)
	v := open(t, to, dir)
	a, b := manifestOf(t, v, keyOf(t, first)), manifestOf(t, v, keyOf(t, second))
	must(t, v.Close())
	shared := 0
	for _, p := range a.Segments {
		want := soon
		if slices.Contains(b.Segments, p) {
			want = late
			shared++
		}
		if !to.until[vault.PackName(p)].Equal(want) {
			t.Errorf("segment %.8s is locked until %s, want %s", p, to.until[vault.PackName(p)], want)
		}
	}
	for _, p := range b.Segments {
		if !to.until[vault.PackName(p)].Equal(late) {
			t.Errorf("segment %.8s is locked until %s, want %s", p, to.until[vault.PackName(p)], late)
		}
	}
	if shared == 0 || shared == len(a.Segments) || report.Extended != shared {
		t.Errorf("%d of %d segments are shared, %d extended", shared, len(a.Segments), report.Extended)
	}
	for _, name := range []string{"vault", "archive", "copy", vault.KeyringName(1), vault.CertificateName(s.m.ID), vault.RecordName(keyOf(t, second))} {
		if !to.until[name].Equal(late) {
			t.Errorf("%s is locked until %s, want %s", name, to.until[name], late)
		}
	}
	// A shorter lock shortens nothing.
	third := s.backup(t, 1, time.Unix(3, 0))
	_, err = s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: soon})
	must(t, err)
	for _, p := range b.Segments {
		if !to.until[vault.PackName(p)].Equal(late) {
			t.Errorf("segment %.8s was shortened", p)
		}
	}
	s.whole(t, to, first, second, third)
}

// TestDamageIsNamed: Check names a damaged segment and the snapshots that need it,
// and the next run archives again what is damaged, as the vault still has it.
func TestDamageIsNamed(t *testing.T) {
	s := newSite(t, 9)
	s.backup(t, 1, time.Unix(1, 0))
	s.backup(t, 1, time.Unix(2, 0))
	whole, dir := mem.New(), t.TempDir()
	_, err := s.archiveTo(t.Context(), t, whole, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	for i, name := range names(t, whole, vault.PackPrefix) {
		for what, change := range map[string]func([]byte) []byte{
			"a bit":   func(b []byte) []byte { b[len(b)/3] ^= 1; return b },
			"its end": func(b []byte) []byte { return b[:len(b)-3] },
			"all":     func([]byte) []byte { return nil },
		} {
			what := fmt.Sprintf("segment %d, %s", i, what)
			to := whole.Clone()
			must(t, to.Damage(name, change))
			dir := t.TempDir()
			v := open(t, to, dir)
			report, err := archive.Check(t.Context(), v, archive.CheckOptions{Now: time.Now(), Sample: 1})
			must(t, err)
			must(t, v.Close())
			if len(report.Findings) == 0 || !slices.ContainsFunc(report.Findings, func(p archive.Problem) bool {
				return p.Document == name && strings.Contains(p.Err.Error(), "needed by snapshot ") && strings.Contains(p.Err.Error(), fmt.Sprintf(" of machine %.8s", s.m.ID))
			}) {
				t.Errorf("%s: %v", what, report.Findings)
			}
			third := s.backup(t, 1, time.Unix(3, 0))
			_, err = s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
			must(t, err)
			v = open(t, to, dir)
			must(t, v.Get(t.Context(), vaulttest.IDs(s.all[keyOf(t, third)]...), func(int, []byte) error { return nil }, nil))
			must(t, v.Close())
		}
	}
}

// TestCheckTriesLocks: Check overwrites and deletes for real. A good archive resists;
// of one that does not, nothing is lost and the object is named.
func TestCheckTriesLocks(t *testing.T) {
	s := newSite(t, 10)
	records := [][]byte{s.backup(t, 1, time.Unix(1, 0)), s.backup(t, 1, time.Unix(2, 0))}
	to := mem.New()
	_, err := s.archiveTo(t.Context(), t, to, t.TempDir(), archive.Options{Until: inAnHour()})
	must(t, err)
	check := func(to store.Store) *archive.CheckReport {
		v := open(t, to, t.TempDir())
		defer v.Close()
		report, err := archive.Check(t.Context(), v, archive.CheckOptions{Now: time.Now(), Sample: 1, Tries: 1000})
		must(t, err)
		return report
	}
	objects := names(t, to, "")
	good := check(to)
	if len(good.Findings) > 0 || good.Tried != len(objects) || good.Snapshots != 2 || good.Unlocked != 0 || good.Last.IsZero() {
		t.Errorf("%+v", good)
	}
	for _, name := range objects {
		opened := mem.New() // in which one object is not locked
		for _, n := range objects {
			info, err := to.Head(t.Context(), n)
			must(t, err)
			p := make([]byte, info.Size)
			_, err = to.Get(t.Context(), n, p, 0)
			must(t, err)
			must(t, opened.Put(t.Context(), n, p))
			if n != name {
				must(t, opened.Lock(t.Context(), n, inAnHour()))
			}
		}
		report := check(opened)
		if len(report.Findings) != 1 || report.Findings[0].Document != name || !strings.Contains(report.Findings[0].Err.Error(), "could be deleted") {
			t.Errorf("%s is not locked: %v", name, report.Findings)
		}
		s.whole(t, opened, records...)
		if err := opened.Delete(t.Context(), name); !errors.Is(err, tripod.Denied) {
			t.Errorf("%s was put back without a lock: %v", name, err)
		}
	}
	bare := mem.New()
	_, err = s.archiveTo(t.Context(), t, bare, t.TempDir(), archive.Options{})
	must(t, err)
	if report := check(bare); report.Unlocked != 2 || report.Tried != 0 || len(report.Findings) > 0 {
		t.Errorf("without locks: %+v", report)
	}
	v := open(t, s.store, s.dir)
	defer v.Close()
	if _, err := archive.Check(t.Context(), v, archive.CheckOptions{}); !errors.Is(err, tripod.Invalid) {
		t.Errorf("a vault that is no archive: %v", err)
	}
}

// TestExtend: a snapshot can be locked for longer, with all that it needs, and
// never for less.
func TestExtend(t *testing.T) {
	s := newSite(t, 11)
	record := s.backup(t, 1, time.Unix(1, 0))
	s.backup(t, 2, time.Unix(1, 0))
	to, dir := &locksOf{Store: mem.New(), until: map[string]time.Time{}}, t.TempDir()
	soon, late := inAnHour(), inAnHour().Add(time.Hour)
	_, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: soon})
	must(t, err)
	v := open(t, to, dir)
	defer v.Close()
	k := keyOf(t, record)
	m, err := archive.Extend(t.Context(), v, k, time.Now(), late)
	must(t, err)
	objects := []string{vault.RecordName(k), vault.ManifestName(k, late), vault.DescriptorName, vault.ArchiveName, vault.KeyringName(1), vault.CertificateName(s.m.ID)}
	for _, p := range m.Segments {
		objects = append(objects, vault.PackName(p))
	}
	for _, name := range append(objects, names(t, to, vault.GrantPrefix+vault.KeyPath(k))...) {
		if !to.until[name].Equal(late) {
			t.Errorf("%s is locked until %s", name, to.until[name])
		}
	}
	if m := manifestOf(t, v, k); !m.Until.Equal(late) {
		t.Errorf("the manifest that counts says %s", m.Until)
	}
	if _, err := archive.Extend(t.Context(), v, k, time.Now(), soon); !errors.Is(err, tripod.Conflict) {
		t.Errorf("shortened: %v", err)
	}
	k.Seq = 9
	if _, err := archive.Extend(t.Context(), v, k, time.Now(), late); !errors.Is(err, tripod.NotFound) {
		t.Errorf("no such snapshot: %v", err)
	}
}

// TestVariantsAreArchived: of a blob that the vault holds twice, by different
// encoders, both come along: only readers know which one is right.
func TestVariantsAreArchived(t *testing.T) {
	s := newSite(t, 12)
	record := s.backup(t, 1, time.Unix(1, 0))
	b := s.all[keyOf(t, record)][0]
	other := s.Variant(b, 1)
	s.write(t, func(session *local.Session) {
		_, err := session.Put(t.Context(), frame.DataClass, vaulttest.Frames(other))
		must(t, err)
	})
	to, dir := mem.New(), t.TempDir()
	_, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	v := open(t, to, dir)
	defer v.Close()
	copies, err := v.Copies(t.Context(), []tripod.ID{b.ID})
	must(t, err)
	if len(copies[0]) != 2 {
		t.Errorf("%d variants", len(copies[0]))
	}
}

// TestWhatTheVaultHasLostIsLeftOut: a snapshot that is not whole is named and not
// archived, the others are; when it is healed the next run takes it.
func TestWhatTheVaultHasLostIsLeftOut(t *testing.T) {
	s := newSite(t, 13)
	records := [][]byte{s.backup(t, 1, time.Unix(1, 0)), s.backup(t, 1, time.Unix(2, 0)), s.backup(t, 1, time.Unix(3, 0))}
	blobs := s.all[keyOf(t, records[1])]
	lost := blobs[8] // new in the second
	v := open(t, s.store, s.dir)
	x, err := v.Index(t.Context())
	must(t, err)
	var pack string
	must(t, x.Find([]tripod.ID{lost.ID}, func(_ int, e *entry) error {
		p, _ := x.Pack(e.Pack)
		pack = vault.PackName(p.Name)
		return nil
	}))
	must(t, v.Close())
	healthy := s.store.Clone()
	must(t, s.store.Damage(pack, func(b []byte) []byte { b[50] ^= 1; return b }))
	to, dir := mem.New(), t.TempDir()
	report, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	if len(report.Problems) != 1 || report.Problems[0].Document != vault.RecordName(keyOf(t, records[1])) || !errors.Is(report.Err(), tripod.Corrupt) {
		t.Errorf("%+v", report.Problems)
	}
	s.whole(t, to, records[0], records[2])
	s.store = healthy
	report, err = s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: inAnHour()})
	must(t, err)
	must(t, report.Err())
	s.whole(t, to, records...)
}

// TestOnlyAnArchiveOfTheVault: a place that holds something else is refused.
func TestOnlyAnArchiveOfTheVault(t *testing.T) {
	s, other := newSite(t, 14), newSite(t, 15)
	s.backup(t, 1, time.Unix(1, 0))
	o := archive.Options{Until: inAnHour()}
	for what, to := range map[string]store.Store{"the vault itself": s.store.Clone(), "another vault": other.store} {
		if _, err := s.archiveTo(t.Context(), t, to, t.TempDir(), o); !errors.Is(err, tripod.Conflict) && !errors.Is(err, tripod.Denied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	full := mem.New()
	must(t, full.Put(t.Context(), "mine", nil))
	if _, err := s.archiveTo(t.Context(), t, full, t.TempDir(), o); !errors.Is(err, tripod.Exists) {
		t.Errorf("a place in use: %v", err)
	}
}

// TestWhatOpensSnapshotsIsLockedAsLong: a keyring and a grant that come later are
// locked as long as what they open, also when there is nothing else to archive.
func TestWhatOpensSnapshotsIsLockedAsLong(t *testing.T) {
	s := newSite(t, 16)
	record := s.backup(t, 1, time.Unix(1, 0))
	k := keyOf(t, record)
	to, dir := &locksOf{Store: mem.New(), until: map[string]time.Time{}}, t.TempDir()
	soon, late := inAnHour(), inAnHour().Add(time.Hour)
	_, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: soon})
	must(t, err)
	v := open(t, to, dir)
	_, err = archive.Extend(t.Context(), v, k, time.Now(), late)
	must(t, err)
	must(t, v.Close())
	holder := []byte("a further holder")
	grant := vault.GrantName(k, snapshot.HashOf(holder))
	s.write(t, func(session *local.Session) {
		must(t, session.PutDocument(t.Context(), vault.KeyringName(2), []byte("another keyring")))
		must(t, session.PutDocument(t.Context(), grant, s.m.Grant(record, holder, 1)))
	})
	report, err := s.archiveTo(t.Context(), t, to, dir, archive.Options{Until: soon})
	must(t, err)
	must(t, report.Err())
	for _, name := range []string{vault.KeyringName(1), vault.KeyringName(2), grant} {
		if !to.until[name].Equal(late) {
			t.Errorf("%s is locked until %s, want %s", name, to.until[name], late)
		}
	}
}
