package replicate_test

import (
	"os"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// many fills two stores with the same vault of n snapshots, of 10 sources.
func many(b *testing.B, n int, stores ...store.Store) {
	b.Helper()
	ctx := b.Context()
	const sources = 10
	w := vaulttest.NewWorld(1)
	m := w.Machine(1)
	data := w.Data(1, 100)
	root := w.Node(tripod.Tree, data)
	for _, s := range stores {
		must(b, local.Create(ctx, s, w.Encoded, w.Keyring))
		v := openVault(b, s, b.TempDir())
		session, err := v.Begin(ctx, vault.Holder{}, nil)
		must(b, err)
		must(b, session.PutDocument(ctx, vault.CertificateName(m.ID), m.Certificate))
		_, err = session.Put(ctx, frame.DataClass, vaulttest.Frames(data))
		must(b, err)
		_, err = session.Put(ctx, frame.NodeClass, vaulttest.Frames(root))
		must(b, err)
		must(b, session.Close())
		must(b, v.Close())
	}
	for source := range sources {
		var last []byte
		for range n / sources {
			last = m.Record(w.Source(source), last, root.ID, nil)
			r, err := snapshot.ParseRecord(last)
			must(b, err)
			grant := m.Grants(last)[0]
			for _, s := range stores {
				must(b, s.Put(ctx, vault.GrantName(r.Key, snapshot.HashOf(w.Descriptor.Box)), grant))
				must(b, s.Put(ctx, vault.RecordName(r.Key), last))
			}
		}
	}
}

// BenchmarkUnchanged brings a copy up to date that is, of 100,000 snapshots.
func BenchmarkUnchanged(b *testing.B) {
	n := 100_000
	if testing.Short() {
		n = 1000
	}
	run := func(b *testing.B, from, to store.Store) {
		many(b, n, from, to)
		dir := b.TempDir()
		src := openVault(b, from, b.TempDir())
		for b.Loop() {
			report, err := copyTo(b.Context(), src, to, dir)
			must(b, err)
			must(b, report.Err())
			if report.Bytes > 0 || len(report.Chains) == 0 {
				b.Fatalf("%+v", report)
			}
		}
		must(b, src.Close())
	}
	b.Run("mem", func(b *testing.B) { run(b, mem.New(), mem.New()) })
	b.Run("fs", func(b *testing.B) {
		dirs := [2]store.Store{}
		for i := range dirs {
			dir, err := os.MkdirTemp("/dev/shm", "tripod-bench-")
			if err != nil {
				b.Skip("not proved: an unchanged copy in files, no /dev/shm")
			}
			b.Cleanup(func() { must(b, os.RemoveAll(dir)) })
			s, err := fs.Open(dir)
			must(b, err)
			b.Cleanup(func() { must(b, s.Close()) })
			dirs[i] = s
		}
		run(b, dirs[0], dirs[1])
	})
}
