package files

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"tripod/internal/driver/source"
)

// BenchmarkWalk walks a real tree: TRIPOD_BENCH_TREE, or GOROOT.
func BenchmarkWalk(b *testing.B) {
	root := os.Getenv("TRIPOD_BENCH_TREE")
	if root == "" {
		root = runtime.GOROOT() //nolint:staticcheck // any large tree will do
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
