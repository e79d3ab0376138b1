package replicate_test

import (
	"bytes"
	"context"
	"errors"
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
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

func names(t *testing.T, s store.Store, prefix string) (all []string) {
	t.Helper()
	must(t, s.List(t.Context(), prefix, func(i store.Info) error {
		all = append(all, i.Name)
		return nil
	}))
	return all
}

// TestACopyIsWhole: the copy has every document and every blob, is grouped into
// few packs, and a second run fetches nothing.
func TestACopyIsWhole(t *testing.T) {
	s := newSite(t, 1)
	var records [][]byte
	for range 5 {
		records = append(records, s.backup(t, 1, nil), s.backup(t, 2, nil))
	}
	src := openVault(t, s.store, s.dir)
	to, dir := mem.New(), t.TempDir()
	report, err := copyTo(t.Context(), src, to, dir)
	must(t, err)
	must(t, report.Err())
	if report.Snapshots != len(records) {
		t.Errorf("%d snapshots taken, want %d", report.Snapshots, len(records))
	}
	s.whole(t, to, records...)
	for _, prefix := range []string{"vault", "keyring/", "machine/", "record/", "grant/"} {
		if a, b := names(t, s.store, prefix), names(t, to, prefix); !slices.Equal(a, b) {
			t.Errorf("%s: the source has %v, the copy %v", prefix, a, b)
		}
	}
	if packs := names(t, to, "pack/"); len(packs) != 2 {
		t.Errorf("%d packs for a few hundred kilobytes", len(packs))
	}
	if id, err := openVault(t, to, t.TempDir()).Document(t.Context(), vault.CopyName); err != nil || len(id) != 16 {
		t.Errorf("the copy has no id of its own: %v", err)
	}
	before := to.Clone()
	report, err = copyTo(t.Context(), src, to, dir)
	must(t, err)
	must(t, report.Err())
	if report.Bytes+report.Stored+report.Blobs > 0 || report.Snapshots+report.Documents > 0 || !slices.Equal(names(t, before, ""), names(t, to, "")) {
		t.Errorf("nothing was new: %+v", report)
	}
	must(t, src.Close())
}

// TestOnlyWhatIsNewIsFetched: subtrees that the copy has are not looked at again.
func TestOnlyWhatIsNewIsFetched(t *testing.T) {
	s := newSite(t, 2)
	first := s.backup(t, 1, nil)
	to, dir := mem.New(), t.TempDir()
	src := openVault(t, s.store, s.dir)
	_, err := copyTo(t.Context(), src, to, dir)
	must(t, err)
	must(t, src.Close())
	second := s.backup(t, 1, nil)
	src = openVault(t, s.store, s.dir)
	report, err := copyTo(t.Context(), src, to, dir)
	must(t, err)
	if report.Blobs != 4+2 { // four of data, a leaf and the root
		t.Errorf("%d blobs fetched", report.Blobs)
	}
	s.whole(t, to, first, second)
	must(t, src.Close())
}

// TestKilledRunsGoOn ends runs at every operation of the store, by an error and by
// an answer that is lost. The next run goes on, what is there is whole, and data
// that was put is not fetched again.
func TestKilledRunsGoOn(t *testing.T) {
	s := newSite(t, 3)
	var records [][]byte
	for range 3 {
		records = append(records, s.backup(t, 1, nil))
	}
	src := openVault(t, s.store, s.dir)
	for n := 1; ; n++ {
		to, dir := mem.New(), t.TempDir()
		dies := faulty.New(to, faulty.On(func(c faulty.Call) bool { return c.N >= n }, faulty.Fail(tripod.Internal)))
		_, err := copyTo(t.Context(), src, dies, dir)
		if err == nil {
			t.Logf("%d operations", n-1)
			break
		}
		var held []tripod.ID
		if _, err := local.Describe(t.Context(), to); err == nil {
			v := openVault(t, to, t.TempDir())
			session, err := v.Begin(t.Context(), vault.Holder{}, nil)
			must(t, err)
			for _, b := range s.all[keyOf(t, records[0])] {
				if have, err := session.Have(t.Context(), []tripod.ID{b.ID}); err == nil && len(have[0]) > 0 {
					held = append(held, b.ID)
				}
			}
			must(t, session.Close())
			must(t, v.Close())
		}
		spy := &spy{Source: src}
		report, err := copyTo(t.Context(), spy, to, dir)
		must(t, err)
		must(t, report.Err())
		s.whole(t, to, records...)
		for _, id := range held {
			if slices.Contains(spy.got, id) {
				t.Errorf("killed at %d: blob %.8s was there and is fetched again", n, id)
			}
		}
	}
	must(t, src.Close())
}

func keyOf(t *testing.T, record []byte) snapshot.Key {
	t.Helper()
	r, err := snapshot.ParseRecord(record)
	must(t, err)
	return r.Key
}

// spy notes which blobs are fetched.
type spy struct {
	vault.Source
	got []tripod.ID
	do  func()
}

func (s *spy) Get(ctx context.Context, ids []tripod.ID, use func(int, []byte) error, onError func(int, error) error) error {
	s.got = append(s.got, ids...)
	if s.do != nil {
		s.do()
	}
	return s.Source.Get(ctx, ids, use, onError)
}

// TestCancelled: a run that is cancelled ends with the context's error and leaves a
// copy that is good as far as it goes.
func TestCancelled(t *testing.T) {
	s := newSite(t, 4)
	record := s.backup(t, 1, nil)
	src := openVault(t, s.store, s.dir)
	for calls := 1; ; calls++ {
		to, dir := mem.New(), t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := copyTo(ctx, &spy{Source: src, do: func() {
			if n++; n == calls {
				cancel()
			}
		}}, to, dir)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at call %d: %v", calls, err)
		}
		_, err = copyTo(t.Context(), src, to, dir)
		must(t, err)
		s.whole(t, to, record)
	}
	must(t, src.Close())
}

// liar changes what a source says.
type liar struct {
	vault.Source
	document func(name string, content []byte) []byte // nil hides it
	frame    func(id tripod.ID, encoded []byte) []byte
}

func (l *liar) Document(ctx context.Context, name string) ([]byte, error) {
	content, err := l.Source.Document(ctx, name)
	if err == nil && l.document != nil {
		if content = l.document(name, bytes.Clone(content)); content == nil {
			err = tripod.Errorf(tripod.NotFound, "%s: there is none", name)
		}
	}
	return content, err
}

func (l *liar) Names(ctx context.Context, prefix string, fn func(string, int64) error) error {
	return l.Source.Names(ctx, prefix, func(name string, size int64) error {
		if l.document != nil {
			content := l.document(name, make([]byte, size))
			if content == nil {
				return nil
			}
			size = int64(len(content))
		}
		return fn(name, size)
	})
}

func (l *liar) Get(ctx context.Context, ids []tripod.ID, use func(int, []byte) error, onError func(int, error) error) error {
	return l.Source.Get(ctx, ids, func(i int, encoded []byte) error {
		if l.frame != nil {
			encoded = l.frame(ids[i], bytes.Clone(encoded))
		}
		return use(i, encoded)
	}, onError)
}

// TestALyingSource: every lie is refused with a name, and costs the copy nothing
// that it has.
func TestALyingSource(t *testing.T) {
	s := newSite(t, 5)
	var records [][]byte
	for range 4 {
		records = append(records, s.backup(t, 1, nil))
	}
	other := newSite(t, 6)
	other.backup(t, 1, nil)
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	at := func(seq int) string { return vault.RecordName(keyOf(t, records[seq-1])) }
	forged := s.Machine(2).Record(s.Source(1), records[2], tripod.ID{1}, nil)
	lies := map[string]struct {
		lie   *liar
		says  string
		kind  tripod.ErrorKind
		taken int // snapshots that the copy has afterwards; it began with two
	}{
		"a record is damaged":        {&liar{document: change(at(3), flip)}, "record is refused", tripod.Denied, 2},
		"a record is another's":      {&liar{document: change(at(3), func([]byte) []byte { return forged })}, "record is refused", tripod.Denied, 2},
		"a record is hidden":         {&liar{document: change(at(3), func([]byte) []byte { return nil })}, "does not show snapshot 3", tripod.Corrupt, 2},
		"a record is an older one":   {&liar{document: change(at(3), func([]byte) []byte { return records[1] })}, "another record lies in its place", tripod.Corrupt, 2},
		"the log was rolled back":    {&liar{document: cut(at(1))}, "rolled back, or hides", tripod.Corrupt, 2},
		"the last record is another": {&liar{document: func(name string, b []byte) []byte { return change(at(2), flip)(name, cut(at(2))(name, b)) }}, "is not the one that the copy has", tripod.Corrupt, 2},
		"frames are damaged":         {&liar{frame: func(_ tripod.ID, b []byte) []byte { return flip(b) }}, "not whole at the source", tripod.Corrupt, 2},
		"frames are others": {&liar{frame: func(tripod.ID, []byte) []byte {
			return s.Data(77, 100).Frame
		}}, "not whole at the source", tripod.Corrupt, 2},
		"frames have forged refs": {&liar{frame: func(id tripod.ID, b []byte) []byte {
			f, _, err := frame.Parse(b)
			must(t, err)
			if len(f.Refs) == 0 {
				return b
			}
			return s.Forge(vaulttest.Blob{ID: id, Frame: b}, f.Refs[1:])
		}}, "not whole at the source", tripod.Corrupt, 2},
	}
	for name, l := range lies {
		t.Run(name, func(t *testing.T) {
			to, dir := mem.New(), t.TempDir()
			src := openVault(t, s.store, t.TempDir())
			defer src.Close()
			_, err := copyTo(t.Context(), &liar{Source: src, document: cut(at(2))}, to, dir)
			must(t, err)
			s.whole(t, to, records[:2]...)
			before := names(t, to, "")
			l.lie.Source = src
			report, err := copyTo(t.Context(), l.lie, to, dir)
			must(t, err)
			if err := report.Err(); err == nil || !strings.Contains(err.Error(), l.says) || tripod.KindOf(err) != l.kind {
				t.Errorf("told %v, want %v: %s", err, l.kind, l.says)
			}
			for _, p := range report.Problems {
				if !strings.HasPrefix(p.Document, "record/") || p.Key.Seq == 0 {
					t.Errorf("names no snapshot: %+v", p)
				}
			}
			s.whole(t, to, records[:2]...)
			if n := len(names(t, to, "record/")); n != l.taken {
				t.Errorf("the copy has %d snapshots", n)
			}
			for _, name := range before {
				if !slices.Contains(names(t, to, ""), name) {
					t.Errorf("the copy lost %s", name)
				}
			}
			// With the truth it goes on.
			report, err = copyTo(t.Context(), src, to, dir)
			must(t, errors.Join(err, report.Err()))
			s.whole(t, to, records...)
		})
	}
	t.Run("another company's vault", func(t *testing.T) {
		to, dir := mem.New(), t.TempDir()
		src, foreign := openVault(t, s.store, t.TempDir()), openVault(t, other.store, t.TempDir())
		_, err := copyTo(t.Context(), src, to, dir)
		must(t, err)
		before := names(t, to, "")
		if _, err := copyTo(t.Context(), foreign, to, dir); tripod.KindOf(err) != tripod.Denied || !strings.Contains(err.Error(), "company") {
			t.Errorf("got %v", err)
		}
		if !slices.Equal(before, names(t, to, "")) {
			t.Error("something was copied")
		}
		must(t, errors.Join(src.Close(), foreign.Close()))
	})
}

// change lies about one document.
func change(name string, how func([]byte) []byte) func(string, []byte) []byte {
	return func(n string, content []byte) []byte {
		if n == name && content != nil {
			return how(content)
		}
		return content
	}
}

// cut hides the records after one, and their grants.
func cut(last string) func(string, []byte) []byte {
	return func(n string, content []byte) []byte {
		path := strings.TrimPrefix(last, vault.RecordPrefix)
		for _, prefix := range []string{vault.RecordPrefix, vault.GrantPrefix} {
			if strings.HasPrefix(n, prefix) && n > prefix+path+"0" {
				return nil
			}
		}
		return content
	}
}

// TestVariantsAreCopied: which variant is right only readers know, so the copy gets
// all that the source has, also of a blob that it has already.
func TestVariantsAreCopied(t *testing.T) {
	s := newSite(t, 7)
	ctx := t.Context()
	poisoned := s.Data(500, 100)
	good := s.Variant(poisoned, 1)
	put := func(source int, b vaulttest.Blob, more ...vaulttest.Blob) []byte {
		var record []byte
		s.write(t, func(session *local.Session) {
			_, err := session.Put(ctx, frame.DataClass, vaulttest.Frames(append(more, b)...))
			must(t, err)
			root := s.Node(tripod.Tree, append(more, b)...)
			_, err = session.Put(ctx, frame.NodeClass, vaulttest.Frames(root))
			must(t, err)
			record = s.m.Record(s.Source(source), nil, root.ID, nil)
			must(t, session.Commit(ctx, record, s.m.Grants(record)))
			s.all[keyOf(t, record)] = append(more, b, root)
		})
		return record
	}
	first := put(1, poisoned)
	to, dir := mem.New(), t.TempDir()
	src := openVault(t, s.store, s.dir)
	_, err := copyTo(ctx, src, to, dir)
	must(t, err)
	must(t, src.Close())
	second := put(2, good, s.Data(501, 100))
	src = openVault(t, s.store, s.dir)
	report, err := copyTo(ctx, src, to, dir)
	must(t, errors.Join(err, report.Err(), src.Close()))
	s.whole(t, to, first, second)
}

// TestWhatWasGivenUp: of snapshots that were forgotten or have expired before the
// copy had them, it takes the records. What it has, it keeps until the company
// orders to forget; an expiry of the source is none of its.
func TestWhatWasGivenUp(t *testing.T) {
	s := newSite(t, 8)
	ctx := t.Context()
	var records [][]byte
	for range 4 {
		records = append(records, s.backup(t, 1, nil))
	}
	s.forget(t, records[0])
	s.expire(t, records[1])
	to, dir := mem.New(), t.TempDir()
	src := openVault(t, s.store, s.dir)
	report, err := copyTo(ctx, src, to, dir)
	must(t, errors.Join(err, report.Err(), src.Close()))
	if report.Snapshots != 2 || report.Gone != 2 {
		t.Errorf("%d taken, %d given up", report.Snapshots, report.Gone)
	}
	s.whole(t, to, records[2:]...)
	s.forget(t, records[2])
	s.expire(t, records[3])
	src = openVault(t, s.store, s.dir)
	report, err = copyTo(ctx, src, to, dir)
	must(t, errors.Join(err, report.Err(), src.Close()))
	if got := names(t, to, "forget/"); len(got) != 2 {
		t.Errorf("orders: %v", got)
	}
	if got := names(t, to, "expire/"); len(got) != 1 || got[0] != vault.ExpiryName(keyOf(t, records[1])) {
		t.Errorf("expiries: %v", got)
	}
	s.whole(t, to, records[3])
}

// expire lets a snapshot go, as the vault does by itself.
func (s *site) expire(t *testing.T, record []byte) {
	t.Helper()
	e := snapshot.Expiry{Company: s.Descriptor.Company, Key: keyOf(t, record), Record: snapshot.HashOf(record), Time: time.Unix(1_700_005_000, 0), Policy: 1, Newest: 9}
	must(t, s.store.Put(t.Context(), vault.ExpiryName(e.Key), e.Encode()))
}

// TestALockedSnapshotIsNotBelievedGone: an expiry before the lock's end is a lie.
func TestALockedSnapshotIsNotBelievedGone(t *testing.T) {
	s := newSite(t, 9)
	record := s.backup(t, 1, func(r *snapshot.Record) { r.LockUntil = time.Unix(1_900_000_000, 0) })
	s.expire(t, record)
	src := openVault(t, s.store, s.dir)
	to := mem.New()
	report, err := copyTo(t.Context(), src, to, t.TempDir())
	must(t, errors.Join(err, report.Err(), src.Close()))
	if report.Snapshots != 1 || len(names(t, to, "expire/")) > 0 {
		t.Errorf("%+v", report)
	}
	s.whole(t, to, record)
}

// TestADamagedSourceHoldsNothingElseUp: a snapshot that the source has lost data of
// is named and left out; later ones are taken, and it follows when it is healed.
func TestADamagedSourceHoldsNothingElseUp(t *testing.T) {
	s := newSite(t, 10)
	first := s.backup(t, 1, nil)
	healthy := s.store.Clone()
	lost := names(t, s.store, "pack/")
	second := s.backup(t, 1, nil)
	var own []string // packs of the second snapshot
	for _, name := range names(t, s.store, "pack/") {
		if !slices.Contains(lost, name) {
			own = append(own, name)
		}
	}
	third := s.backup(t, 1, nil)
	whole := s.store.Clone()
	_ = healthy
	for _, name := range own {
		must(t, s.store.Damage(name, faulty.FlipBit(1)))
	}
	src := openVault(t, s.store, t.TempDir())
	to, dir := mem.New(), t.TempDir()
	report, err := copyTo(t.Context(), src, to, dir)
	must(t, errors.Join(err, src.Close()))
	if len(report.Problems) != 1 || report.Problems[0].Key != keyOf(t, second) || tripod.KindOf(report.Err()) != tripod.Corrupt {
		t.Errorf("problems: %+v", report.Problems)
	}
	s.whole(t, to, first, third)
	src = openVault(t, whole, t.TempDir())
	report, err = copyTo(t.Context(), src, to, dir)
	must(t, errors.Join(err, report.Err(), src.Close()))
	s.whole(t, to, first, second, third)
}

// TestFurtherGrants: grants that were made after their snapshot are copied, but not
// of snapshots that the copy has let go.
func TestFurtherGrants(t *testing.T) {
	s := newSite(t, 11)
	var records [][]byte
	for range 3 {
		records = append(records, s.backup(t, 1, nil))
	}
	to, dir := mem.New(), t.TempDir()
	src := openVault(t, s.store, s.dir)
	_, err := copyTo(t.Context(), src, to, dir)
	must(t, errors.Join(err, src.Close()))
	e := snapshot.Expiry{Company: s.Descriptor.Company, Key: keyOf(t, records[0]), Record: snapshot.HashOf(records[0]), Time: time.Unix(1_700_005_000, 0), Policy: 1, Newest: 3}
	must(t, to.Put(t.Context(), vault.ExpiryName(e.Key), e.Encode()))
	for _, name := range names(t, to, vault.GrantPrefix+vault.KeyPath(e.Key)) {
		must(t, to.Delete(t.Context(), name))
	}
	s.write(t, func(session *local.Session) {
		for _, record := range records {
			g := s.m.Grant(record, []byte("another holder"), 5)
			must(t, session.PutDocument(t.Context(), vault.GrantName(keyOf(t, record), snapshot.HashOf([]byte("another holder"))), g))
		}
	})
	src = openVault(t, s.store, s.dir)
	report, err := copyTo(t.Context(), src, to, dir)
	must(t, errors.Join(err, report.Err(), src.Close()))
	if got := names(t, to, vault.GrantPrefix); len(got) != 4 || report.Documents != 2 {
		t.Errorf("%d documents taken, grants %v", report.Documents, got)
	}
}

// TestKeyringsOfTheSourceCostTheCopyNone: whoever keeps the first vault cannot
// take the ways in from the second by handing out keyrings that nobody can open.
func TestKeyringsOfTheSourceCostTheCopyNone(t *testing.T) {
	s := newSite(t, 11)
	record := s.backup(t, 1, nil)
	to, dir := mem.New(), t.TempDir()
	src := openVault(t, s.store, s.dir)
	report, err := copyTo(t.Context(), src, to, dir)
	must(t, errors.Join(err, report.Err(), src.Close()))
	before := names(t, to, vault.KeyringPrefix)
	for n := 2; n < 7; n++ {
		must(t, s.store.Put(t.Context(), vault.KeyringName(n), []byte("not a keyring at all")))
	}
	src = openVault(t, s.store, s.dir)
	_, err = copyTo(t.Context(), src, to, dir)
	must(t, errors.Join(err, src.Close()))
	for _, name := range before {
		if _, err := to.Head(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.whole(t, to, record)
}
