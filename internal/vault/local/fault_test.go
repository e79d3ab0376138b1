package local_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable/crashfs"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	storefs "tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// script is what one machine does in one session. It can be run again after it
// failed anywhere, and keeps what was acknowledged.
type script struct {
	w       *vaulttest.World
	m       *vaulttest.Machine
	acked   []vaulttest.Blob
	records [][]byte // acknowledged
}

func newScript(seed uint64) *script {
	w := vaulttest.NewWorld(seed)
	return &script{w: w, m: w.Machine(1)}
}

// batches is what the nth snapshot puts, from the bottom up; the last is its root.
func (s *script) batches(n int) [][]vaulttest.Blob {
	a, b, c := s.w.Data(10*n, 300), s.w.Data(10*n+1, 5000), s.w.Data(10*n+2, 100)
	leaf := s.w.Node(tripod.Tree, a, b)
	root := s.w.Node(tripod.Tree, leaf, c)
	return [][]vaulttest.Blob{{a, b}, {c}, {leaf, root}}
}

// run makes two snapshots of one source, as far as it gets.
func (s *script) run(t *testing.T, st store.Store, indexDir string) (err error) {
	v, err := local.Open(t.Context(), st, local.Options{IndexDir: indexDir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	session, err := v.Begin(t.Context(), vault.Holder{Text: "a script"}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	err = session.PutDocument(t.Context(), vault.CertificateName(s.m.ID), s.m.Certificate)
	if err != nil && !errors.Is(err, tripod.Exists) {
		return err
	}
	for n := range 2 {
		if err := s.snapshot(t, session, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) snapshot(t *testing.T, session *local.Session, n int) error {
	batches := s.batches(n)
	for _, batch := range batches {
		var need []vaulttest.Blob
		sums, err := session.Have(t.Context(), vaulttest.IDs(batch...))
		if err != nil {
			return err
		}
		for i := range batch {
			if len(sums[i]) == 0 {
				need = append(need, batch[i])
			}
		}
		if _, err := session.Put(t.Context(), frame.ClassOf(batch[0].Kind), vaulttest.Frames(need...)); err != nil {
			return err
		}
		s.acked = append(s.acked, batch...)
	}
	var prev []byte
	if n > 0 {
		prev = s.records[n-1]
	}
	root := batches[len(batches)-1][1]
	record := s.m.Record(s.w.Source(1), prev, root.ID, nil)
	// Grants differ each time, as sealed ones do.
	err := session.Commit(t.Context(), record, [][]byte{s.m.Grant(record, s.w.Descriptor.Box, rand.Int())})
	if err == nil && len(s.records) == n {
		s.records = append(s.records, record)
	}
	return err
}

// check opens the vault anew and wants everything acknowledged to be there, and
// everything seen to be complete.
func (s *script) check(t *testing.T, what string, st store.Store) {
	t.Helper()
	v, err := local.Open(t.Context(), st, local.Options{IndexDir: t.TempDir()})
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	defer v.Close()
	if err := matches(t.Context(), v, s.acked...); err != nil {
		t.Errorf("%s: acknowledged: %v", what, err)
	}
	var records [][]byte
	err = v.Documents(t.Context(), vault.RecordPrefix, func(_ string, content []byte) error {
		records = append(records, content)
		return nil
	})
	if err != nil || len(records) < len(s.records) {
		t.Errorf("%s: %d records, acknowledged %d, %v", what, len(records), len(s.records), err)
	}
	for n, record := range records {
		if n < len(s.records) && !bytes.Equal(record, s.records[n]) {
			t.Errorf("%s: record %d is not the acknowledged one", what, n)
		}
		s.checkSnapshot(t, what, v, n, record)
	}
	if damaged := v.Damaged(); len(damaged) > 0 {
		t.Errorf("%s: damaged %v", what, damaged)
	}
}

// checkSnapshot wants all blobs of a visible snapshot, and its grant.
func (s *script) checkSnapshot(t *testing.T, what string, v *local.Vault, n int, record []byte) {
	t.Helper()
	for _, batch := range s.batches(n) {
		if err := matches(t.Context(), v, batch...); err != nil {
			t.Errorf("%s: snapshot %d is there, its blobs are not: %v", what, n+1, err)
		}
	}
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	grants := 0
	must(t, v.Documents(t.Context(), vault.GrantPrefix+vault.KeyPath(r.Key), func(string, []byte) error {
		grants++
		return nil
	}))
	if grants != 1 {
		t.Errorf("%s: snapshot %d has %d grants", what, n+1, grants)
	}
}

// TestFailAtEveryOperation: after a store failed at any operation, what was
// acknowledged is there, what is seen is complete, and the next run succeeds. The
// index survives or does not.
func TestFailAtEveryOperation(t *testing.T) {
	faults := map[string]faulty.Fault{
		"fails": faulty.Fail(tripod.Unavailable), "is full": faulty.Fail(tripod.Exhausted),
		"loses the answer": faulty.LoseAnswer(tripod.Unavailable),
	}
	count := func() int {
		s := newScript(1)
		st := faulty.New(newVault(t, s.w))
		must(t, s.run(t, st, t.TempDir()))
		return st.Count()
	}()
	if count < 20 {
		t.Fatalf("only %d operations", count)
	}
	for what, fault := range faults {
		for n := 1; n <= count; n++ {
			if testing.Short() && n%3 != 0 {
				continue
			}
			s := newScript(1)
			inner := newVault(t, s.w)
			st := faulty.New(inner, faulty.On(faulty.Nth(n), fault))
			dir := t.TempDir()
			name := "operation " + strconv.Itoa(n) + " " + what
			err := s.run(t, st, dir)
			s.check(t, name, inner)
			if err == nil {
				continue // a fault that was survived
			}
			if n%2 == 0 {
				dir = t.TempDir()
			}
			if err := s.run(t, inner, dir); err != nil || len(s.records) != 2 {
				t.Errorf("%s: the next run: %v", name, err)
			}
			s.check(t, name+", after the next run", inner)
		}
	}
}

// crashStates is how many crash states are looked at.
func crashStates() int {
	switch {
	case os.Getenv("TRIPOD_LONG") != "":
		return 100_000
	case testing.Short():
		return 50
	}
	return 500
}

// TestCrashStates: whatever a power cut leaves of the disk, what was
// acknowledged before it is there, what is seen is complete, and a next run on
// what is left succeeds.
func TestCrashStates(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for taken := 0; taken < crashStates() && !t.Failed(); {
		s := newScript(1)
		disk := crashfs.New()
		st := storefs.On(disk, "disk")
		must(t, local.Create(t.Context(), st, s.w.Encoded, s.w.Keyring))
		disk.SetHook(func(op crashfs.Op) error {
			if op.Verb == "read" || op.Verb == "stat" || r.IntN(8) != 0 || taken >= crashStates() {
				return nil
			}
			taken++
			after := *s // what is acknowledged at this moment
			left := storefs.On(disk.Crash(r), "after")
			after.check(t, "crash at "+op.Verb+" "+op.Name, left)
			if r.IntN(4) == 0 && !t.Failed() {
				if err := after.run(t, left, t.TempDir()); err != nil {
					t.Errorf("run after a crash at %s %s: %v", op.Verb, op.Name, err)
				}
				after.check(t, "after the run", left)
			}
			return nil
		})
		must(t, s.run(t, st, t.TempDir()))
		disk.SetHook(nil)
		must(t, st.Close())
	}
}

// TestIndexGoneOrDamaged: an index is rebuilt without a word, whichever of its
// files was damaged or deleted.
func TestIndexGoneOrDamaged(t *testing.T) {
	s := newScript(1)
	st := newVault(t, s.w)
	filled := t.TempDir()
	must(t, s.run(t, st, filled))
	damages := map[string]func(name string) error{
		"gone":   os.Remove,
		"zeroed": func(name string) error { return os.WriteFile(name, make([]byte, 5000), 0o600) },
		"empty":  func(name string) error { return os.Truncate(name, 0) },
	}
	must(t, fs.WalkDir(os.DirFS(filled), ".", func(rel string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for what, damage := range damages {
			if d.IsDir() {
				what, damage = "gone", os.RemoveAll
			}
			dir := filepath.Join(t.TempDir(), "index")
			must(t, os.CopyFS(dir, os.DirFS(filled)))
			must(t, damage(filepath.Join(dir, rel)))
			if err := s.run(t, st, dir); err != nil {
				t.Errorf("%s %s: %v", rel, what, err)
			}
			v := open(t, st, dir)
			readBack(t, v, s.acked...)
			must(t, v.Close())
		}
		return nil
	}))
}

// packsOf lists the packs of a store.
func packsOf(t *testing.T, s store.Store) (names []string) {
	t.Helper()
	must(t, s.List(t.Context(), vault.PackPrefix, func(i store.Info) error {
		names = append(names, i.Name)
		return nil
	}))
	return names
}

// TestDamagedPacks: whatever happens to a pack, the vault opens, never gives
// wrong bytes, gives what is whole, names what is not, and takes it in again.
func TestDamagedPacks(t *testing.T) {
	rounds := uint64(20)
	if testing.Short() {
		rounds = 4
	}
	changes := map[string]func(seed uint64) faulty.Change{
		"a bit flipped": faulty.FlipBit,
		"zeroed":        func(seed uint64) faulty.Change { return faulty.Zero(seed, 100) },
		"truncated":     faulty.Truncate,
		"removed":       func(uint64) faulty.Change { return faulty.Remove() },
		"a text":        func(uint64) faulty.Change { return faulty.Replace([]byte("a text")) },
		"a newer frame": func(uint64) faulty.Change { return func(b []byte) []byte { b[4]++; return b } },
		"a newer table": func(uint64) faulty.Change {
			return func(b []byte) []byte { b[len(b)-frame.TrailerLen+5]++; return b }
		},
		"empty": func(uint64) faulty.Change { return faulty.Replace([]byte{}) },
	}
	for what, change := range changes {
		for seed := range rounds {
			s := newScript(1)
			st := newVault(t, s.w)
			dir := t.TempDir()
			must(t, s.run(t, st, dir))
			packs := packsOf(t, st)
			hit := packs[seed%uint64(len(packs))]
			must(t, st.Damage(hit, change(seed)))
			name := what + ", seed " + strconv.Itoa(int(seed))
			for _, indexDir := range []string{dir, t.TempDir()} {
				checkDamaged(t, name, st, indexDir, s, hit, what == "removed")
				heal(t, name, st.Clone(), indexDir, s)
			}
		}
	}
}

// checkDamaged reads everything from a vault with one damaged pack.
func checkDamaged(t *testing.T, what string, st *mem.Store, indexDir string, s *script, hit string, removed bool) {
	t.Helper()
	v, err := local.Open(t.Context(), st, local.Options{IndexDir: indexDir})
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	defer func() { must(t, v.Close()) }()
	lost := 0
	for _, b := range s.acked {
		err := v.Get(t.Context(), vaulttest.IDs(b), func(_ int, encoded []byte) error {
			f, _, err := frame.Parse(encoded)
			if err == nil {
				err = f.Check()
			}
			if err == nil && !bytes.Equal(encoded, b.Frame) {
				t.Errorf("%s: another frame with a right sum", what)
			}
			return err
		}, nil)
		if err == nil {
			continue
		}
		lost++
		if !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.NotFound) {
			t.Errorf("%s: blob %.16s: %v", what, b.ID, err)
		}
		if text := err.Error(); !bytes.Contains([]byte(text), []byte(b.ID.String()[:16])) {
			t.Errorf("%s: the error does not name the blob: %v", what, err)
		}
	}
	found := 0
	must(t, v.CheckPacks(t.Context(), 1, nil, func(object string, _ tripod.ID, err error) error {
		found++
		if object != hit || !errors.Is(err, tripod.Corrupt) {
			t.Errorf("%s: told of %s: %v", what, object, err)
		}
		return nil
	}))
	if (found == 0) != removed || lost > 2 || (removed && lost == 0) {
		t.Errorf("%s: %d damages found, %d blobs lost", what, found, lost)
	}
}

// heal makes the same snapshots once more on a damaged vault that was checked,
// after which everything is there again.
func heal(t *testing.T, what string, st *mem.Store, indexDir string, old *script) {
	t.Helper()
	s := newScript(1)
	if err := s.run(t, st, indexDir); err != nil {
		t.Errorf("%s: run again: %v", what, err)
		return
	}
	v := open(t, st, indexDir)
	if err := matches(t.Context(), v, old.acked...); err != nil {
		t.Errorf("%s: after the next run: %v", what, err)
	}
	must(t, v.Close())
}
