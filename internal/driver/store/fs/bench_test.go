package fs_test

import (
	"fmt"
	"testing"

	"tripod/internal/driver/store/fs"
)

func openBench(b *testing.B) *fs.Store {
	b.Helper()
	s, err := fs.Create(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// BenchmarkPut is a durable Put of one object, syncs included.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := openBench(b)
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if err := s.Put(b.Context(), fmt.Sprintf("pack/%02x/%d", i%256, i), data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGet reads 4 KiB ranges of objects kept open.
func BenchmarkGet(b *testing.B) {
	s := openBench(b)
	for i := range 32 {
		if err := s.Put(b.Context(), fmt.Sprint("pack/", i), make([]byte, 1<<20)); err != nil {
			b.Fatal(err)
		}
	}
	p := make([]byte, 4096)
	b.SetBytes(4096)
	for i := 0; b.Loop(); i++ {
		if _, err := s.Get(b.Context(), fmt.Sprint("pack/", i%32), p, int64(i%200)*4096); err != nil {
			b.Fatal(err)
		}
	}
}
