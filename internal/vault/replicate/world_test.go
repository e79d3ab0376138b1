package replicate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
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

func openVault(t testing.TB, s store.Store, dir string) *local.Vault {
	t.Helper()
	v, err := local.Open(t.Context(), s, local.Options{IndexDir: dir})
	must(t, err)
	return v
}

func (s *site) write(t testing.TB, fn func(*local.Session)) {
	t.Helper()
	v := openVault(t, s.store, s.dir)
	session, err := v.Begin(t.Context(), vault.Holder{Text: "test"}, nil)
	must(t, err)
	fn(session)
	must(t, session.Close())
	must(t, v.Close())
}

// backup makes the next snapshot of a source: a tree of two levels, of which some
// blobs are new and some were there. change may be nil.
func (s *site) backup(t testing.TB, source int, change func(*snapshot.Record)) (record []byte) {
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
		root := s.Node(tripod.Tree, leaves...)
		_, err := session.Put(ctx, frame.NodeClass, vaulttest.Frames(append(leaves, root)...))
		must(t, err)
		record = s.m.Record(s.Source(source), s.heads[source], root.ID, change)
		must(t, session.Commit(ctx, record, s.m.Grants(record)))
		s.heads[source] = record
		r, err := snapshot.ParseRecord(record)
		must(t, err)
		s.all[r.Key] = append(append(all, leaves...), root)
	})
	return record
}

func (s *site) forget(t testing.TB, record []byte) {
	t.Helper()
	s.write(t, func(session *local.Session) {
		name, order := s.Forget(record)
		must(t, session.PutDocument(t.Context(), name, order))
	})
}

// copyTo makes or updates a copy, as one process does.
func copyTo(ctx context.Context, src vault.Source, to store.Store, dir string) (report *replicate.Report, err error) {
	if _, err := local.Describe(ctx, to); errors.Is(err, tripod.NotFound) {
		if err := replicate.Create(ctx, src, to); err != nil {
			return nil, err
		}
	}
	v, err := local.Open(ctx, to, local.Options{IndexDir: dir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	session, err := v.Begin(ctx, vault.Holder{Text: "copy"}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	return replicate.Run(ctx, src, v, session, replicate.Options{Now: time.Unix(1_800_000_000, 0)})
}

// whole checks that a copy holds all of some snapshots, and that what it holds is
// good.
func (s *site) whole(t testing.TB, to store.Store, records ...[]byte) {
	t.Helper()
	ctx := t.Context()
	v := openVault(t, to, t.TempDir())
	for _, record := range records {
		r, err := snapshot.ParseRecord(record)
		must(t, err)
		content, err := v.Document(ctx, vault.RecordName(r.Key))
		must(t, err)
		if snapshot.HashOf(content) != snapshot.HashOf(record) {
			t.Errorf("snapshot %d: the copy has another record", r.Key.Seq)
		}
		grants := 0
		must(t, v.Documents(ctx, vault.GrantPrefix+vault.KeyPath(r.Key)+"/", func(string, []byte) error {
			grants++
			return nil
		}))
		if grants == 0 {
			t.Errorf("snapshot %d: no grant", r.Key.Seq)
		}
		blobs := s.all[r.Key]
		must(t, v.Get(ctx, vaulttest.IDs(blobs...), func(i int, encoded []byte) error {
			_, err := replicate.CheckFrame(encoded, blobs[i].ID, blobs[i].Sum, s.Descriptor.Company)
			return err
		}, nil))
	}
	must(t, v.CheckPacks(ctx, 1, nil, func(object string, _ tripod.ID, err error) error { return err }))
	must(t, v.Close())
}
