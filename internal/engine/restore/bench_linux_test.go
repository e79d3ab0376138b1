package restore_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/restore"
)

// BenchmarkFiles restores a source tree. TRIPOD_BENCH_TREE names a folder to
// measure with instead of generated files, TRIPOD_BENCH_DIR where to.
func BenchmarkFiles(b *testing.B) {
	w := New(b)
	all := FolderOr(b, "TRIPOD_BENCH_TREE", func() []File { return SourceTree(8000) })
	w.Snapshot("/", all, DefaultSizes())
	n := len(all)
	all = nil
	snap := latest(b, w)
	runtime.GC()
	b.ReportAllocs()
	var used time.Duration
	for b.Loop() {
		b.StopTimer()
		dir, err := os.MkdirTemp(os.Getenv("TRIPOD_BENCH_DIR"), "restore")
		if err != nil {
			b.Fatal(err)
		}
		before := cpu(b)
		b.StartTimer()
		r, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: filepath.Join(dir, "new")})
		b.StopTimer()
		used += cpu(b) - before
		if err != nil || r.Warnings > 0 || r.Files < int64(n)/2 {
			b.Fatalf("%+v: %v", r, err)
		}
		b.SetBytes(r.Bytes)
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(used.Seconds()/float64(b.N), "cpu-s/op")
}

// cpu is the processor time this process has used, which other load on the
// machine changes less than the time on the wall.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDisk restores an image, half of it holes.
func BenchmarkDisk(b *testing.B) {
	const block, blocks = 1 << 20, 512
	w := New(b)
	image := make([]byte, blocks*block)
	text := SourceTree(1200)
	r := rand.New(rand.NewPCG(3, 3))
	for i := 0; i < blocks; i += 2 {
		p := image[i*block : (i+1)*block]
		for at := 0; at < len(p); {
			at += copy(p[at:], text[r.IntN(len(text))].Data)
			at++
		}
	}
	w.Commit("sda", tripod.DiskImage, w.Disk(image, block), snapshot.Label{Host: "h", Paths: []string{"/dev/sda"}, Bytes: int64(len(image))})
	snap := latest(b, w)
	b.ReportAllocs()
	dir, err := os.MkdirTemp(os.Getenv("TRIPOD_BENCH_DIR"), "restore")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	before := cpu(b)
	for b.Loop() {
		r, err := restore.Disk(context.Background(), w.Vault, snap, restore.Options{To: dir, Overwrite: restore.Always})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(r.Bytes)
	}
	b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N), "cpu-s/op")
}
