package local_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, what string, err error, kind tripod.ErrorKind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: got %v, want an error of kind %q", what, err, kind)
	}
}

// open opens a vault that closes with the test.
func open(t testing.TB, s store.Store, indexDir string) *local.Vault {
	t.Helper()
	v, err := local.Open(t.Context(), s, local.Options{IndexDir: indexDir})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

func begin(t testing.TB, v *local.Vault) *local.Session {
	t.Helper()
	s, err := v.Begin(t.Context(), vault.Holder{Text: "a test"}, nil)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func put(t testing.TB, s vault.Writer, blobs ...vaulttest.Blob) int64 {
	t.Helper()
	n, err := s.Put(t.Context(), frame.ClassOf(blobs[0].Kind), vaulttest.Frames(blobs...))
	must(t, err)
	return n
}

// readBack checks that the vault gives every blob as it was put.
func readBack(t testing.TB, v vault.Reader, blobs ...vaulttest.Blob) {
	t.Helper()
	if err := matches(t.Context(), v, blobs...); err != nil {
		t.Error(err)
	}
}

func matches(ctx context.Context, v vault.Reader, blobs ...vaulttest.Blob) error {
	var mu sync.Mutex
	got := make([]int, len(blobs))
	err := v.Get(ctx, vaulttest.IDs(blobs...), func(i int, encoded []byte) error {
		if !bytes.Equal(encoded, blobs[i].Frame) {
			return tripod.Errorf(tripod.Corrupt, "not the frame that was put")
		}
		mu.Lock()
		defer mu.Unlock()
		got[i]++
		return nil
	}, nil)
	for _, n := range got {
		if err == nil && n != 1 {
			err = tripod.Errorf(tripod.Internal, "a blob was delivered %d times", n)
		}
	}
	return err
}

func newVault(t testing.TB, w *vaulttest.World) *mem.Store {
	t.Helper()
	s := mem.New()
	must(t, local.Create(t.Context(), s, w.Encoded, w.Keyring))
	return s
}

func TestFirstSteps(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	dir := t.TempDir()
	v := open(t, s, dir)
	session := begin(t, v)
	a, b := w.Data(1, 1000), w.Data(2, 200_000)
	leaf := w.Node(tripod.Tree, a)
	root := w.Node(tripod.Tree, leaf, b)
	put(t, session, a, b)
	put(t, session, leaf, root)
	m := w.Machine(1)
	must(t, session.PutDocument(t.Context(), vault.CertificateName(m.ID), m.Certificate))
	record := m.Record(w.Source(1), nil, root.ID, nil)
	must(t, session.Commit(t.Context(), record, m.Grants(record)))
	readBack(t, v, a, b, leaf, root, a)

	other := open(t, s, t.TempDir())
	readBack(t, other, root, a)
	seq, head, err := other.Head(t.Context(), m.ID, w.Source(1))
	if err != nil || seq != 1 || !bytes.Equal(head, record) {
		t.Errorf("head: %x %v", head, err)
	}
	stats, err := other.Stats(t.Context())
	if err != nil || stats.Packs != 2 || stats.Blobs != 4 || stats.Records != 1 {
		t.Errorf("stats: %+v %v", stats, err)
	}
}

// A damaged newest record does not end its source's chain for good, and the next
// one takes its own number.
func TestAChainGoesOnBehindADamagedRecord(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"emptied":        func([]byte) []byte { return nil },
		"noise":          func([]byte) []byte { return []byte("noise") },
		"another's sign": func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
	} {
		t.Run(name, func(t *testing.T) {
			w := vaulttest.NewWorld(1)
			s := newVault(t, w)
			session := begin(t, open(t, s, t.TempDir()))
			root, m := w.Node(tripod.Tree), w.Machine(1)
			put(t, session, root)
			must(t, session.PutDocument(t.Context(), vault.CertificateName(m.ID), m.Certificate))
			commit := func(record []byte) error { return session.Commit(t.Context(), record, m.Grants(record)) }
			first := m.Record(w.Source(1), nil, root.ID, nil)
			must(t, commit(first))
			r, err := snapshot.ParseRecord(first)
			must(t, err)
			must(t, s.Delete(t.Context(), vault.RecordName(r.Key)))
			must(t, s.Put(t.Context(), vault.RecordName(r.Key), spoil(bytes.Clone(first))))
			second := m.Record(w.Source(1), first, root.ID, nil)
			wantKind(t, "in its place", commit(m.Record(w.Source(1), nil, root.ID, nil)), tripod.Corrupt)
			wantKind(t, "with a number left out", commit(m.Record(w.Source(1), second, root.ID, nil)), tripod.Corrupt)
			wantKind(t, "after nothing", commit(m.Record(w.Source(1), first, root.ID, func(r *snapshot.Record) { r.Prev = snapshot.Hash{} })), tripod.Corrupt)
			must(t, commit(second))
			must(t, commit(m.Record(w.Source(1), second, root.ID, nil)))
		})
	}
}
