package archive_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/archive"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
	"tripod/internal/vault/vaulttest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a vault in a store, and what a machine of the company puts there.
type site struct {
	*vaulttest.World
	m     *vaulttest.Machine
	store *mem.Store
	dir   string
	heads map[int][]byte // records by source
	all   map[snapshot.Key][]vaulttest.Blob
	next  int
}

func newSite(t testing.TB, seed uint64) *site {
	t.Helper()
	w := vaulttest.NewWorld(seed)
	s := &site{World: w, m: w.Machine(1), store: mem.New(), dir: t.TempDir(), heads: map[int][]byte{}, all: map[snapshot.Key][]vaulttest.Blob{}}
	must(t, local.Create(t.Context(), s.store, w.Encoded, w.Keyring))
	s.write(t, func(session *local.Session) {
		must(t, session.PutDocument(t.Context(), vault.CertificateName(s.m.ID), s.m.Certificate))
	})
	return s
}

func open(t testing.TB, s store.Store, dir string) *local.Vault {
	t.Helper()
	v, err := local.Open(t.Context(), s, local.Options{IndexDir: dir})
	must(t, err)
	return v
}

func (s *site) write(t testing.TB, fn func(*local.Session)) {
	t.Helper()
	v := open(t, s.store, s.dir)
	session, err := v.Begin(t.Context(), vault.Holder{Text: "test"}, nil)
	must(t, err)
	fn(session)
	must(t, session.Close())
	must(t, v.Close())
}

// backup makes the next snapshot of a source, of some blobs that were there and
// some that are new: two leaves below a node that the root needs too.
func (s *site) backup(t testing.TB, source int, at time.Time) (record []byte) {
	t.Helper()
	ctx := t.Context()
	s.write(t, func(session *local.Session) {
		var all, leaves []vaulttest.Blob
		for leaf := range 3 {
			var data []vaulttest.Blob
			for n := range 4 {
				number := leaf*4 + n
				if leaf == 2 {
					s.next++
					number = 1000*source + s.next
				}
				data = append(data, s.Data(number, 300+number%7))
			}
			_, err := session.Put(ctx, frame.DataClass, vaulttest.Frames(data...))
			must(t, err)
			leaves = append(leaves, s.Node(tripod.Tree, data...))
			all = append(all, data...)
		}
		middle := s.Node(tripod.Tree, leaves[:2]...)
		root := s.Node(tripod.Tree, middle, leaves[0], leaves[2])
		nodes := append(leaves, middle, root)
		_, err := session.Put(ctx, frame.NodeClass, vaulttest.Frames(nodes...))
		must(t, err)
		record = s.m.Record(s.Source(source), s.heads[source], root.ID, func(r *snapshot.Record) { r.Time = at.UTC() })
		must(t, session.Commit(ctx, record, s.m.Grants(record)))
		s.heads[source] = record
		s.all[keyOf(t, record)] = append(all, nodes...)
	})
	return record
}

func keyOf(t testing.TB, record []byte) snapshot.Key {
	t.Helper()
	r, err := snapshot.ParseRecord(record)
	must(t, err)
	return r.Key
}

// archiveTo makes or continues an archive, as one process does.
func (s *site) archiveTo(ctx context.Context, t testing.TB, to store.Store, dir string, o archive.Options) (report *archive.Report, err error) {
	src := open(t, s.store, s.dir)
	defer func() { err = errors.Join(err, src.Close()) }()
	return archiveOf(ctx, src, to, dir, o)
}

func archiveOf(ctx context.Context, src vault.Source, to store.Store, dir string, o archive.Options) (report *archive.Report, err error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Segment == 0 {
		o.Segment = 2 << 10
	}
	if _, err := local.Describe(ctx, to); errors.Is(err, tripod.NotFound) {
		if err := archive.Create(ctx, src, to, o.Now, o.Until); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	v, err := local.Open(ctx, to, local.Options{IndexDir: dir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	session, err := v.Begin(ctx, vault.Holder{Text: "archive"}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	return archive.Run(ctx, src, v, session, o)
}

// whole checks that an archive has exactly some snapshots, and all of them.
func (s *site) whole(t testing.TB, to store.Store, records ...[]byte) {
	t.Helper()
	ctx := t.Context()
	v := open(t, to, t.TempDir())
	live := 0
	must(t, v.Live(ctx, func(string) bool { return false }, func(string, *snapshot.Record) error {
		live++
		return nil
	}))
	if live != len(records) {
		t.Errorf("%d snapshots in the archive, want %d", live, len(records))
	}
	for _, record := range records {
		s.has(t, v, record)
	}
	must(t, v.CheckPacks(ctx, 1, nil, func(object string, _ tripod.ID, err error) error { return err }))
	must(t, v.Close())
}

// has checks one snapshot: record, grants, blobs, manifest.
func (s *site) has(t testing.TB, v *local.Vault, record []byte) {
	t.Helper()
	ctx := t.Context()
	k := keyOf(t, record)
	content, err := v.Document(ctx, vault.RecordName(k))
	must(t, err)
	if snapshot.HashOf(content) != snapshot.HashOf(record) {
		t.Errorf("snapshot %d: the archive has another record", k.Seq)
	}
	grants := 0
	must(t, v.Names(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(string, int64) error {
		grants++
		return nil
	}))
	if grants == 0 {
		t.Errorf("snapshot %d: no grant", k.Seq)
	}
	blobs := s.all[k]
	must(t, v.Get(ctx, vaulttest.IDs(blobs...), func(i int, encoded []byte) error {
		_, err := replicate.CheckFrame(encoded, blobs[i].ID, blobs[i].Sum, s.Descriptor.Company)
		return err
	}, nil))
	m := manifestOf(t, v, k)
	need := map[tripod.PackID]bool{}
	for _, p := range m.Segments {
		need[p] = true
	}
	x, err := v.Index(ctx)
	must(t, err)
	for _, b := range blobs {
		found := false
		must(t, x.Find([]tripod.ID{b.ID}, func(_ int, e *entry) error {
			p, _ := x.Pack(e.Pack)
			found = found || need[p.Name]
			return nil
		}))
		if !found {
			t.Errorf("snapshot %d: blob %.8s lies in no segment of its manifest", k.Seq, b.ID)
		}
	}
}

func manifestOf(t testing.TB, v *local.Vault, k snapshot.Key) (m *snapshot.Manifest) {
	t.Helper()
	must(t, v.Documents(t.Context(), vault.ManifestPrefix+vault.KeyPath(k)+"/", func(_ string, content []byte) (err error) {
		m, err = snapshot.ParseManifest(content, v.Descriptor())
		return err
	}))
	if m == nil {
		t.Fatalf("snapshot %d: no manifest", k.Seq)
	}
	return m
}

func names(t testing.TB, s store.Store, prefix string) (all []string) {
	t.Helper()
	must(t, s.List(t.Context(), prefix, func(i store.Info) error {
		all = append(all, i.Name)
		return nil
	}))
	return all
}

// locksOf is a store that notes until when objects are locked.
type locksOf struct {
	store.Store
	mu    sync.Mutex
	until map[string]time.Time
}

func (l *locksOf) Lock(ctx context.Context, name string, until time.Time) error {
	err := l.Store.Lock(ctx, name, until)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && until.After(l.until[name]) {
		l.until[name] = until
	}
	return err
}

func (l *locksOf) Exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	return l.Store.(store.Exclusive).Exclusive(ctx, holder, waiting)
}
