package backup_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source/disk"
	"tripod/internal/driver/source/files"
	"tripod/internal/engine/backup"
)

// sink is a vault that checks frames and keeps only their ids.
type sink struct {
	mu    sync.Mutex
	ids   map[tripod.ID]tripod.Sum
	bytes int64
	packs sync.Pool
	head  []byte
}

func newSink() *sink {
	return &sink{ids: map[tripod.ID]tripod.Sum{}, packs: sync.Pool{New: func() any { return new(frame.Pack) }}}
}

func (s *sink) Have(_ context.Context, ids []tripod.ID) ([][]tripod.Sum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]tripod.Sum, len(ids))
	for i, id := range ids {
		if sum, ok := s.ids[id]; ok {
			out[i] = []tripod.Sum{sum}
		}
	}
	return out, nil
}

func (s *sink) Put(_ context.Context, class frame.Class, frames [][]byte) (int64, error) {
	p := s.packs.Get().(*frame.Pack)
	defer s.packs.Put(p)
	p.Reset(class)
	for _, f := range frames {
		if err := p.Add(f); err != nil {
			return 0, err
		}
	}
	_, b := p.Finish()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range p.TOC().Rows {
		s.ids[r.ID] = r.Sum
	}
	s.bytes += int64(len(b))
	return int64(len(b)), nil
}

func (s *sink) Commit(_ context.Context, record []byte, _ [][]byte) error {
	s.head = record
	return nil
}

func (s *sink) Documents(context.Context, string, func(string, []byte) error) error { return nil }

func (s *sink) PutDocument(context.Context, string, []byte) error { return nil }

func (s *sink) RemoveDocument(context.Context, string) error { return nil }

func (s *sink) Head(context.Context, tripod.MachineID, tripod.SourceID) (seq uint64, record []byte, err error) {
	if r, err := snapshot.ParseRecord(s.head); err == nil {
		seq = r.Key.Seq
	}
	return seq, s.head, nil
}

func machineKeys(tb testing.TB) *seal.MachineKeys {
	company, err := seal.NewCompany()
	if err != nil {
		tb.Fatal(err)
	}
	keys, err := company.NewMachine()
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// BenchmarkFiles backs up the tree at TRIPOD_BENCH_TREE, or the Go source
// tree, first whole and then unchanged.
func BenchmarkFiles(b *testing.B) {
	path := os.Getenv("TRIPOD_BENCH_TREE")
	if path == "" {
		path = "/usr/local/go/src"
	}
	keys := machineKeys(b)
	once := func(b *testing.B, v *sink, cache string) {
		w := new(backup.Warnings)
		t, err := files.New(files.Options{Paths: []string{path}, Watcher: w.Watcher()})
		if err != nil {
			b.Fatal(err)
		}
		defer t.Close()
		r, err := backup.Files(context.Background(), t, backup.Options{
			Keys: keys, Vault: v, CacheDir: cache, Paths: []string{path}, Now: time.Now(), Warnings: w,
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(r.Stored), "stored-B")
		b.ReportMetric(float64(r.Same), "same")
		b.SetBytes(r.Bytes)
	}
	b.Run("full", func(b *testing.B) {
		for b.Loop() {
			once(b, newSink(), b.TempDir())
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		v, dir := newSink(), b.TempDir()
		once(b, v, dir)
		for b.Loop() {
			once(b, v, dir)
		}
	})
}

// BenchmarkDisk backs up the image at TRIPOD_BENCH_IMAGE.
func BenchmarkDisk(b *testing.B) {
	path := os.Getenv("TRIPOD_BENCH_IMAGE")
	if path == "" {
		b.Skip("not proved: no image at TRIPOD_BENCH_IMAGE")
	}
	keys := machineKeys(b)
	for b.Loop() {
		d, err := disk.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		r, err := backup.Disk(context.Background(), d, backup.Options{Keys: keys, Vault: newSink(), Now: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(r.Read)
		b.ReportMetric(float64(r.Stored), "stored-B")
		_ = d.Close()
	}
}
