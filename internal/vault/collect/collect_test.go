package collect_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/collect"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a vault with one machine enrolled.
type place struct {
	testing.TB
	w     *vaulttest.World
	m     *vaulttest.Machine
	store store.Store
	dir   string
	v     *local.Vault
}

func newPlace(t testing.TB, s store.Store) *place {
	t.Helper()
	w := vaulttest.NewWorld(1)
	p := &place{TB: t, w: w, m: w.Machine(1), store: s, dir: t.TempDir()}
	must(t, local.Create(t.Context(), s, w.Encoded, w.Keyring))
	p.open()
	b := p.begin()
	must(t, b.PutDocument(t.Context(), vault.CertificateName(p.m.ID), p.m.Certificate))
	must(t, b.Close())
	return p
}

func (p *place) open() {
	p.Helper()
	v, err := local.Open(p.Context(), p.store, local.Options{IndexDir: p.dir})
	must(p, err)
	p.v = v
	p.Cleanup(func() { must(p, v.Close()) })
}

func (p *place) begin() *local.Session {
	p.Helper()
	s, err := p.v.Begin(p.Context(), vault.Holder{Text: "a test"}, nil)
	must(p, err)
	return s
}

func (p *place) put(s *local.Session, blobs ...vaulttest.Blob) {
	p.Helper()
	_, err := s.Put(p.Context(), frame.ClassOf(blobs[0].Kind), vaulttest.Frames(blobs...))
	must(p, err)
}

// commit makes a snapshot of root, after prev.
func (p *place) commit(s *local.Session, prev []byte, root vaulttest.Blob) []byte {
	p.Helper()
	record := p.m.Record(p.w.Source(1), prev, root.ID, nil)
	must(p, s.Commit(p.Context(), record, p.m.Grants(record)))
	return record
}

func (p *place) forget(record []byte) {
	p.Helper()
	s := p.begin()
	must(p, s.PutDocument(p.Context(), orderName(record), order(p.w, record)))
	must(p, s.Close())
}

func orderName(record []byte) string {
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		panic(err)
	}
	return vault.OrderName(r.Key)
}

func order(w *vaulttest.World, record []byte) []byte {
	_, o := w.Forget(record)
	return o
}

func (p *place) collect(o collect.Options) *collect.Report {
	p.Helper()
	o.TempDir = p.TempDir()
	r, err := collect.Run(p.Context(), p.v, o)
	must(p, err)
	return r
}

// holds checks which blobs the vault gives.
func holds(t testing.TB, v vault.Reader, want bool, blobs ...vaulttest.Blob) {
	t.Helper()
	for _, b := range blobs {
		err := v.Get(t.Context(), []tripod.ID{b.ID}, func(_ int, encoded []byte) error {
			if !bytes.Equal(encoded, b.Frame) {
				return errors.New("other bytes")
			}
			return nil
		}, nil)
		if want && err != nil {
			t.Errorf("blob %.8s: %v", b.ID, err)
		}
		if !want && !errors.Is(err, tripod.NotFound) {
			t.Errorf("blob %.8s, which nothing needs: %v", b.ID, err)
		}
	}
}

func TestWhatNoSnapshotNeedsGoes(t *testing.T) {
	p := newPlace(t, mem.New())
	shared, old, young := p.w.Data(1, 5000), p.w.Data(2, 5000), p.w.Data(3, 5000)
	tree1, tree2 := p.w.Node(tripod.Tree, shared, old), p.w.Node(tripod.Tree, shared, young)
	s := p.begin()
	p.put(s, shared, old)
	p.put(s, tree1)
	first := p.commit(s, nil, tree1)
	p.put(s, young)
	p.put(s, tree2)
	p.commit(s, first, tree2)
	must(t, s.Close())
	if r := p.collect(collect.Options{}); r.Freed != 0 || r.Dead != 0 || r.Snapshots != 2 {
		t.Errorf("nothing to collect: %+v", r)
	}
	p.forget(first)
	if r := p.collect(collect.Options{DryRun: true}); r.Freed != 0 || r.Dead == 0 || r.Snapshots != 1 {
		t.Errorf("dry run: %+v", r)
	}
	holds(t, p.v, true, old, tree1)
	r := p.collect(collect.Options{})
	if r.Condemned != 2 || r.Freed == 0 {
		t.Errorf("%+v", r)
	}
	holds(t, p.v, false, old, tree1)
	holds(t, p.v, true, shared, young, tree2)
	// Who opens the vault anew finds the same.
	p.dir = t.TempDir()
	p.open()
	holds(t, p.v, false, old, tree1)
	holds(t, p.v, true, shared, young, tree2)
	if r := p.collect(collect.Options{}); r.Freed != 0 {
		t.Errorf("a second run: %+v", r)
	}
}

func TestRunningBackupsKeepWhatTheyCountOn(t *testing.T) {
	p := newPlace(t, mem.New())
	a, b, c := p.w.Data(1, 100), p.w.Data(2, 100), p.w.Data(3, 100)
	old := p.w.Node(tripod.Tree, a, b)
	s := p.begin()
	p.put(s, a, b)
	p.put(s, old)
	first := p.commit(s, nil, old)
	must(t, s.Close())
	p.forget(first)

	s = p.begin()
	have, err := s.Have(t.Context(), vaulttest.IDs(a, old))
	if err != nil || len(have[0]) != 1 || len(have[1]) != 1 {
		t.Fatalf("%v, %v", have, err)
	}
	p.put(s, c)
	root := p.w.Node(tripod.Tree, a, c)
	waited := false
	p.collect(collect.Options{Progress: func(e run.Event) {
		if e.Phase != run.Waiting {
			return
		}
		waited = true
		holds(t, p.v, true, a, b, old)
		p.put(s, root) // a is condemned by now, and promised
		p.commit(s, first, root)
		must(t, s.Close())
	}})
	if !waited {
		t.Error("nothing was condemned beside the session")
	}
	holds(t, p.v, true, a, b, c, root, old)
	p.collect(collect.Options{})
	holds(t, p.v, true, a, c, root)
	holds(t, p.v, false, old, b)
}

func TestDamageEndsARun(t *testing.T) {
	p := newPlace(t, mem.New())
	a, b := p.w.Data(1, 100), p.w.Data(2, 100)
	s := p.begin()
	p.put(s, a)
	p.put(s, b)
	tree1, tree2 := p.w.Node(tripod.Tree, a), p.w.Node(tripod.Tree, b)
	p.put(s, tree1)
	p.put(s, tree2)
	first := p.commit(s, nil, tree1)
	p.commit(s, first, tree2)
	must(t, s.Close())
	p.forget(first)
	names := packs(t, p.store)
	for _, name := range names {
		data := make([]byte, 1<<20)
		n, _ := p.store.Get(t.Context(), name, data, 0)
		data = data[:n]
		must(t, p.store.Delete(t.Context(), name))
		p.open() // its index drops the pack
		r, err := collect.Run(t.Context(), p.v, collect.Options{TempDir: t.TempDir(), DryRun: true})
		needed := bytes.Contains(data, b.Frame) || bytes.Contains(data, tree2.Frame)
		if needed != errors.Is(err, tripod.Corrupt) {
			t.Errorf("a lost pack that is needed %v: %+v, %v", needed, r, err)
		}
		must(t, p.store.Put(t.Context(), name, data))
	}
}

func packs(t testing.TB, s store.Store) (names []string) {
	t.Helper()
	must(t, s.List(context.Background(), vault.PackPrefix, func(i store.Info) error {
		names = append(names, i.Name)
		return nil
	}))
	return names
}
