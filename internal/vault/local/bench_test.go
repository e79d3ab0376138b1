package local_test

import (
	"os"
	"sync/atomic"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// stores to measure on: memory shows this package's cost, a directory in memory
// that of the fs adapter, a directory on disk what a user gets.
func benchStores(b *testing.B, run func(b *testing.B, s store.Store)) {
	b.Run("mem", func(b *testing.B) { run(b, mem.New()) })
	for name, dir := range map[string]string{"fs": "", "fs-tmpfs": "/dev/shm"} {
		b.Run(name, func(b *testing.B) {
			dir, err := os.MkdirTemp(dir, "vault-bench-")
			if err != nil {
				b.Skip("not proved: no such place:", err)
			}
			defer os.RemoveAll(dir)
			s, err := fs.Open(dir)
			must(b, err)
			defer s.Close()
			run(b, s)
		})
	}
}

// packsFull makes n batches of 15 data blobs of 1 MiB.
func packsFull(w *vaulttest.World, n int) (batches [][][]byte, ids []tripod.ID) {
	for p := range n {
		var blobs []vaulttest.Blob
		for i := range 15 {
			blobs = append(blobs, w.Data(p*15+i, 1<<20))
		}
		batches = append(batches, vaulttest.Frames(blobs...))
		ids = append(ids, vaulttest.IDs(blobs...)...)
	}
	return batches, ids
}

func BenchmarkPut(b *testing.B) {
	w := vaulttest.NewWorld(1)
	batches, _ := packsFull(w, 12)
	benchStores(b, func(b *testing.B, s store.Store) {
		must(b, local.Create(b.Context(), s, w.Encoded, w.Keyring))
		session := begin(b, open(b, s, b.TempDir()))
		b.SetBytes(15 << 20)
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			if n == len(batches) {
				b.StopTimer()
				must(b, session.Close())
				must(b, s.List(b.Context(), vault.PackPrefix, func(i store.Info) error { return s.Delete(b.Context(), i.Name) }))
				session = begin(b, open(b, s, b.TempDir()))
				n = 0
				b.StartTimer()
			}
			_, err := session.Put(b.Context(), frame.DataClass, batches[n])
			must(b, err)
			n++
		}
	})
}

func BenchmarkGet(b *testing.B) {
	w := vaulttest.NewWorld(1)
	batches, ids := packsFull(w, 12)
	benchStores(b, func(b *testing.B, s store.Store) {
		must(b, local.Create(b.Context(), s, w.Encoded, w.Keyring))
		v := open(b, s, b.TempDir())
		session := begin(b, v)
		for i := range batches {
			_, err := session.Put(b.Context(), frame.DataClass, batches[i])
			must(b, err)
		}
		b.SetBytes(int64(len(ids)) << 20)
		b.ReportAllocs()
		for b.Loop() {
			var n atomic.Int64
			must(b, v.Get(b.Context(), ids, func(int, []byte) error {
				n.Add(1)
				return nil
			}, nil))
			if int(n.Load()) != len(ids) {
				b.Fatal("blobs are missing")
			}
		}
	})
}

// BenchmarkOpen opens a vault of 300 packs whose index is there, lists them and
// begins a session: what every backup begins with.
func BenchmarkOpen(b *testing.B) {
	w := vaulttest.NewWorld(1)
	benchStores(b, func(b *testing.B, s store.Store) {
		must(b, local.Create(b.Context(), s, w.Encoded, w.Keyring))
		dir := b.TempDir()
		v := open(b, s, dir)
		session := begin(b, v)
		for i := range 300 {
			put(b, session, w.Data(i, 100))
		}
		must(b, session.Close())
		must(b, v.Close())
		for b.Loop() {
			v, err := local.Open(b.Context(), s, local.Options{IndexDir: dir})
			must(b, err)
			session, err := v.Begin(b.Context(), vault.Holder{}, nil)
			must(b, err)
			must(b, session.Close())
			must(b, v.Close())
		}
	})
}

// BenchmarkHave asks for ids of which half are there, 1,000 at a time.
func BenchmarkHave(b *testing.B) {
	w := vaulttest.NewWorld(1)
	s := newVault(b, w)
	session := begin(b, open(b, s, b.TempDir()))
	var ids []tripod.ID
	const each = 2000
	for p := range 50 {
		var blobs []vaulttest.Blob
		for i := range each {
			blobs = append(blobs, w.Data(p*each+i, 16))
		}
		put(b, session, blobs...)
		ids = append(ids, vaulttest.IDs(blobs...)...)
	}
	for i := range ids {
		if i%2 == 0 {
			ids[i][7] ^= 1
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		at := n * 1000 % len(ids)
		n++
		_, err := session.Have(b.Context(), ids[at:at+1000])
		must(b, err)
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "ids/s")
}
