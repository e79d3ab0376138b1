package local_test

import (
	"bytes"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/vaulttest"
)

// copyInto copies the packs of one store that another lacks, as a second writer
// on a store without locks would leave them.
func copyInto(t *testing.T, to, from *mem.Store) {
	t.Helper()
	must(t, from.List(t.Context(), "pack/", func(i store.Info) error {
		b := make([]byte, i.Size)
		if _, err := from.Get(t.Context(), i.Name, b, 0); err != nil {
			return err
		}
		_ = to.Put(t.Context(), i.Name, b) // some are there
		return nil
	}))
}

// TestCopies: the same blob in two packs counts once, and either is enough.
func TestCopies(t *testing.T) {
	w := vaulttest.NewWorld(1)
	one := newVault(t, w)
	two := one.Clone()
	a, b, c := w.Data(1, 100), w.Data(2, 100), w.Data(3, 100)
	put(t, begin(t, open(t, one, t.TempDir())), a, b)
	put(t, begin(t, open(t, two, t.TempDir())), a, c)
	copyInto(t, one, two)
	one = one.Clone() // nobody holds it
	v := open(t, one, t.TempDir())
	session := begin(t, v)
	sums, err := session.Have(t.Context(), vaulttest.IDs(a))
	if err != nil || len(sums[0]) != 1 {
		t.Errorf("sums of a blob in two packs: %v %v", sums, err)
	}
	stats, err := v.Stats(t.Context())
	if err != nil || stats.Blobs != 3 || stats.Packs != 2 {
		t.Errorf("stats %+v %v", stats, err)
	}
	for _, pack := range packsOf(t, one) {
		damaged := one.Clone()
		must(t, damaged.Damage(pack, faulty.Zero(3, 150)))
		probe := open(t, damaged, t.TempDir())
		err := probe.Get(t.Context(), vaulttest.IDs(a), func(_ int, encoded []byte) error {
			f, _, err := frame.Parse(encoded)
			if err == nil {
				err = f.Check()
			}
			return err
		}, nil)
		if err != nil {
			t.Errorf("with one copy damaged: %v", err)
		}
	}
}

// TestNothingIsBuiltOnAnOpenNode: a node over an open one is refused; a batch
// that closes the open one first is taken, and both are closed then.
func TestNothingIsBuiltOnAnOpenNode(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	session := begin(t, open(t, s, t.TempDir()))
	d := w.Data(1, 100)
	put(t, session, d)
	dataPack := packsOf(t, s)[0]
	node := w.Node(tripod.Tree, d)
	put(t, session, node)
	must(t, session.Close())
	must(t, s.Delete(t.Context(), dataPack))

	dir := t.TempDir()
	session = begin(t, open(t, s, dir))
	above := w.Node(tripod.Tree, node)
	_, err := session.Put(t.Context(), frame.NodeClass, vaulttest.Frames(above))
	wantKind(t, "over an open node", err, tripod.NotFound)
	m := w.Machine(1)
	must(t, session.PutDocument(t.Context(), "machine/"+m.ID.String(), m.Certificate))
	record := m.Record(w.Source(1), nil, node.ID, nil)
	wantKind(t, "a snapshot of an open root", session.Commit(t.Context(), record, m.Grants(record)), tripod.NotFound)

	put(t, session, d)
	if n := put(t, session, node, above); n >= int64(len(node.Frame)+len(above.Frame)) {
		t.Errorf("stored %d bytes, the open node's again", n)
	}
	sums, err := session.Have(t.Context(), vaulttest.IDs(node, above))
	if err != nil || len(sums[0]) != 1 || len(sums[1]) != 1 {
		t.Errorf("closed: %v %v", sums, err)
	}
	must(t, session.Commit(t.Context(), record, m.Grants(record)))
}

// TestAGrantOfARecordThatNeverWas gives way to the one of the record that is.
func TestAGrantOfARecordThatNeverWas(t *testing.T) {
	w := vaulttest.NewWorld(1)
	inner := newVault(t, w)
	s := faulty.New(inner)
	session := begin(t, open(t, s, t.TempDir()))
	m := w.Machine(1)
	must(t, session.PutDocument(t.Context(), vault.CertificateName(m.ID), m.Certificate))
	one, two := w.Node(tripod.Tree), w.Node(tripod.Tree, w.Node(tripod.Tree))
	put(t, session, one, two)
	lost := m.Record(w.Source(1), nil, one.ID, nil)
	s.Script(faulty.On(faulty.Names("record/*/*/*"), faulty.Fail(tripod.Unavailable)))
	wantKind(t, "a commit", session.Commit(t.Context(), lost, m.Grants(lost)), tripod.Unavailable)
	s.Script(faulty.On(faulty.All(faulty.Every(faulty.Put), faulty.Names("record/*/*/*")), faulty.Fail(tripod.Unavailable)))
	wantKind(t, "a commit", session.Commit(t.Context(), lost, m.Grants(lost)), tripod.Unavailable)
	s.Script()
	record := m.Record(w.Source(1), nil, two.ID, nil)
	grant := m.Grant(record, w.Descriptor.Box, 77)
	must(t, session.Commit(t.Context(), record, [][]byte{grant}))
	n := 0
	must(t, open(t, inner, t.TempDir()).Documents(t.Context(), vault.GrantPrefix, func(_ string, content []byte) error {
		if n++; !bytes.Equal(content, grant) {
			t.Error("the grant opens a snapshot that never was")
		}
		return nil
	}))
	if n != 1 {
		t.Errorf("%d grants", n)
	}
}
