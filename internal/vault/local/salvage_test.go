package local_test

import (
	"bytes"
	"errors"
	"testing"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// TestSalvage: of a pack without a readable table of contents every whole blob
// is served, also behind a damaged one; the pack is told of, also by an index
// that knows it already; and it counts as whole again when it is.
func TestSalvage(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	blobs := []vaulttest.Blob{w.Data(1, 500), w.Data(2, 500), w.Data(3, 500), w.Data(4, 500)}
	session := begin(t, open(t, s, t.TempDir()))
	put(t, session, blobs...)
	must(t, session.Close())
	pack := packsOf(t, s)[0]
	var whole []byte
	must(t, s.Damage(pack, func(b []byte) []byte {
		whole = append(whole, b...)
		b[len(b)-30] ^= 1                 // in the table
		b[len(blobs[0].Frame)+10] ^= 0xff // in the second frame's head
		return b
	}))
	dir := t.TempDir()
	for range 2 {
		v := open(t, s, dir)
		readBack(t, v, blobs[0], blobs[2], blobs[3])
		wantKind(t, "the damaged one", matches(t.Context(), v, blobs[1]), tripod.NotFound)
		if d := v.Damaged(); len(d) != 1 || vault.PackName(d[0].Pack) != pack || !errors.Is(d[0].Err, tripod.Corrupt) || tripod.HintOf(d[0].Err) == "" {
			t.Errorf("damaged: %v", d)
		}
		must(t, v.Close())
	}
	must(t, s.Damage(pack, faulty.Replace(whole)))
	v := open(t, s, dir)
	readBack(t, v, blobs...)
	if d := v.Damaged(); len(d) != 0 {
		t.Errorf("healed, and yet damaged: %v", d)
	}
}

// TestALongTableOfContents: longer than what is read of a pack's end at first.
func TestALongTableOfContents(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	var blobs []vaulttest.Blob
	for i := range 3000 {
		blobs = append(blobs, w.Data(i, 16))
	}
	put(t, begin(t, open(t, s, t.TempDir())), blobs...)
	v := open(t, s, t.TempDir())
	readBack(t, v, blobs...)
	if d := v.Damaged(); len(d) != 0 {
		t.Errorf("damaged: %v", d)
	}
}

// TestPacksThatCannotBeReadNow: one that vanishes after the list is no damage; one
// out of reach is, until the next look.
func TestPacksThatCannotBeReadNow(t *testing.T) {
	w := vaulttest.NewWorld(1)
	inner := newVault(t, w)
	put(t, begin(t, open(t, inner, t.TempDir())), w.Data(1, 100))
	for kind, want := range map[tripod.ErrorKind]int{tripod.NotFound: 0, tripod.Unavailable: 1, tripod.Denied: 1} {
		s := faulty.New(inner, faulty.On(faulty.All(faulty.Every(faulty.Get), faulty.Names("pack/*/*")), faulty.Fail(kind)))
		v := open(t, s, t.TempDir())
		must(t, v.Sync(t.Context()))
		if d := v.Damaged(); len(d) != want {
			t.Errorf("%v: damaged: %v", kind, d)
		}
		s.Script()
		readBack(t, v, w.Data(1, 100))
		if d := v.Damaged(); len(d) != 0 {
			t.Errorf("%v: stays damaged: %v", kind, d)
		}
	}
}

func TestADocumentTooLongIsNotRead(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	must(t, s.Put(t.Context(), vault.KeyringName(2), make([]byte, snapshot.MaxDocument+1)))
	var got []int
	must(t, open(t, s, t.TempDir()).Documents(t.Context(), vault.KeyringPrefix, func(_ string, content []byte) error {
		got = append(got, len(content))
		return nil
	}))
	if len(got) != 2 || got[0] == 0 || got[1] != 0 {
		t.Errorf("documents of %v bytes, want the second to be empty", got)
	}
}

// TestAnotherPacksBytes: swapped packs are found out, with every blob named.
func TestAnotherPacksBytes(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	dir := t.TempDir()
	v := open(t, s, dir)
	session := begin(t, v)
	a, b := w.Data(1, 100), w.Data(2, 100)
	put(t, session, a)
	put(t, session, b)
	packs := packsOf(t, s)
	must(t, faulty.Swap(s, packs[0], packs[1]))
	for _, blob := range []vaulttest.Blob{a, b} {
		// The index, which knows both packs, leads to another blob.
		accept := func(int, []byte) error { return nil }
		wantKind(t, "swapped", v.Get(t.Context(), vaulttest.IDs(blob), accept, nil), tripod.Corrupt)
	}
	fresh := open(t, s, t.TempDir())
	readBack(t, fresh, a, b) // they are whole, wherever they lie
	if len(fresh.Damaged()) != 2 {
		t.Errorf("damaged: %v", fresh.Damaged())
	}
	told := 0
	must(t, fresh.CheckPacks(t.Context(), 1, nil, func(string, tripod.ID, error) error { told++; return nil }))
	if told != 2 {
		t.Errorf("told of %d", told)
	}
}

// TestANodeDamagedAfterItWasClosed, in a pack that is looked at again because of
// another node: what was built on it is open.
func TestANodeDamagedAfterItWasClosed(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	session := begin(t, open(t, s, t.TempDir()))
	d := w.Data(1, 100)
	put(t, session, d)
	dataPack := packsOf(t, s)[0]
	fine, over := w.Node(tripod.Tree), w.Node(tripod.List, d)
	put(t, session, fine, over)
	var nodePack string
	for _, name := range packsOf(t, s) {
		if name != dataPack {
			nodePack = name
		}
	}
	top, aside := w.Node(tripod.Tree, fine), w.Node(tripod.Tree, w.Node(tripod.Disk))
	put(t, session, top)
	put(t, session, w.Node(tripod.Disk))
	put(t, session, aside)
	must(t, session.Close())
	must(t, s.Delete(t.Context(), dataPack)) // so that the node pack stays open

	dir := t.TempDir()
	held := func(b vaulttest.Blob) bool {
		v, err := local.Open(t.Context(), s, local.Options{IndexDir: dir})
		must(t, err)
		session, err := v.Begin(t.Context(), vault.Holder{}, nil)
		must(t, err)
		sums, err := session.Have(t.Context(), vaulttest.IDs(b))
		must(t, errors.Join(err, session.Close(), v.Close()))
		return len(sums[0]) > 0
	}
	if !held(top) || held(over) {
		t.Fatal("before the damage")
	}
	must(t, s.Damage(nodePack, func(b []byte) []byte {
		b[len(fine.Frame)-1] ^= 1
		return b
	}))
	// Something others put makes the index look again.
	other := begin(t, open(t, s, t.TempDir()))
	put(t, other, w.Node(tripod.List))
	must(t, other.Close())
	if held(top) {
		t.Error("a node over a damaged one counts as closed")
	}
	if !held(aside) {
		t.Error("a tree that has nothing to do with it was opened for good")
	}
}

// TestRangesAreJoined: blobs side by side are read at once, what lies far between
// two is not read.
func TestRangesAreJoined(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := faulty.New(newVault(t, w))
	v := open(t, s, t.TempDir())
	blobs := []vaulttest.Blob{w.Data(1, 100), w.Data(2, 100), w.Data(3, 100_000), w.Data(4, 100)}
	put(t, begin(t, v), blobs...)
	for _, want := range []struct {
		reads int
		blobs []vaulttest.Blob
	}{{1, blobs[:2]}, {2, []vaulttest.Blob{blobs[0], blobs[3]}}, {1, blobs[2:3]}} {
		s.Script()
		readBack(t, v, want.blobs...)
		if n := s.CountOf(faulty.Get); n != want.reads {
			t.Errorf("%d blobs in %d reads, want %d", len(want.blobs), n, want.reads)
		}
	}
}

// TestAnInvalidCertificateIsReplaced: what nobody can use is no obstacle to what
// everyone can; what can be used stays, and so does what a newer program wrote.
func TestAnInvalidCertificateIsReplaced(t *testing.T) {
	w := vaulttest.NewWorld(1)
	m, other := w.Machine(1), w.Machine(2)
	name := vault.CertificateName(m.ID)
	newer := bytes.Clone(m.Certificate)
	newer[bytes.IndexByte(newer, '\n')+1]++
	flipped := bytes.Clone(m.Certificate)
	flipped[len(flipped)-1] ^= 1
	for what, x := range map[string]struct {
		there []byte
		want  error
	}{
		"noise": {[]byte("noise"), nil}, "nothing in it": {[]byte{}, nil}, "one bit": {flipped, nil}, "another machine's": {other.Certificate, nil},
		"the same": {m.Certificate, tripod.Exists}, "a newer format": {newer, tripod.Invalid},
	} {
		s := newVault(t, w)
		must(t, s.Put(t.Context(), name, x.there))
		if err := begin(t, open(t, s, t.TempDir())).PutDocument(t.Context(), name, m.Certificate); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", what, err, x.want)
		}
		if x.want != nil {
			continue
		}
		var got []byte
		must(t, open(t, s, t.TempDir()).Documents(t.Context(), name, func(_ string, content []byte) error { got = content; return nil }))
		if !bytes.Equal(got, m.Certificate) {
			t.Errorf("%s: stays", what)
		}
	}
}

// TestForeignObjectsAndCertificates: what has no document's name is no document,
// and a certificate under another machine's name certifies nobody.
func TestForeignObjectsAndCertificates(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	must(t, s.Put(t.Context(), "record/x", []byte("x")))
	v := open(t, s, t.TempDir())
	must(t, v.Documents(t.Context(), "", func(name string, _ []byte) error {
		if name == "record/x" {
			t.Error("a foreign object counts as a document")
		}
		return nil
	}))
	one, two := w.Machine(1), w.Machine(2)
	must(t, s.Put(t.Context(), vault.CertificateName(one.ID), two.Certificate))
	session := begin(t, v)
	root := w.Node(tripod.Tree)
	put(t, session, root)
	record := one.Record(w.Source(1), nil, root.ID, nil)
	wantKind(t, "commit", session.Commit(t.Context(), record, one.Grants(record)), tripod.Denied)
}
