package files

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"testing"

	"tripod/internal/driver/source"
)

// BenchmarkWalk walks a real tree: TRIPOD_BENCH_TREE, or /usr.
func BenchmarkWalk(b *testing.B) {
	root := os.Getenv("TRIPOD_BENCH_TREE")
	if root == "" {
		root = "/usr"
	}
	for _, workers := range []int{1, 2, 4} {
		b.Run("workers="+strconv.Itoa(workers), func(b *testing.B) {
			b.ReportAllocs()
			entries := 0
			for b.Loop() {
				entries = 0
				err := Walk(context.Background(), Options{Paths: []string{root}, Workers: workers}, func(batch []source.Entry) error {
					entries += len(batch)
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(entries), "entries")
		})
	}
	b.Run("WalkDir", func(b *testing.B) {
		for b.Loop() {
			err := filepath.WalkDir(root, func(_ string, d os.DirEntry, err error) error {
				if err == nil {
					_, err = d.Info()
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLargeFolder walks one folder of 300,000 files and reports the heap at
// its highest, which must not grow with the entries themselves.
func BenchmarkLargeFolder(b *testing.B) {
	root := os.Getenv("TRIPOD_BENCH_TMPFS")
	if root == "" {
		root = b.TempDir()
	}
	root, err := os.MkdirTemp(root, "large")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(root) // lint:errcheck of a benchmark
	const files = 300_000
	for i := range files {
		if err := os.WriteFile(filepath.Join(root, "file-"+strconv.Itoa(i)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	var highest uint64
	for b.Loop() {
		runtime.GC()
		err := Walk(context.Background(), Options{Paths: []string{root}, Workers: 2}, func([]source.Entry) error {
			metrics.Read(sample)
			highest = max(highest, sample[0].Value.Uint64())
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(highest)/(1<<20), "MiB-heap")
}

// BenchmarkOpen opens, reads and closes small files, as a first backup does.
func BenchmarkOpen(b *testing.B) {
	root := b.TempDir()
	for i := range 1000 {
		plant(b, root, strconv.Itoa(i%50)+"/"+strconv.Itoa(i)+"=small")
	}
	tree, err := New(Options{Paths: []string{root}})
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close() // lint:errcheck of a benchmark
	var files []source.Entry
	err = tree.Walk(context.Background(), func(batch []source.Entry) error {
		for _, e := range batch {
			if e.Type == source.Regular {
				files = append(files, e)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("content", func(b *testing.B) {
		b.ReportAllocs()
		p := make([]byte, 100)
		for i := 0; b.Loop(); i++ {
			f, err := tree.Open(&files[i%len(files)])
			if err != nil {
				b.Fatal(err)
			}
			_, _ = f.ReadAt(p, 0) // shorter than p: io.EOF
			if err := f.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("attributes", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := tree.Attributes(&files[i%len(files)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
