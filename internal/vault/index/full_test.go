package index_test

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/vault/index"
)

// fullDisk is a file system with room for so many bytes.
type fullDisk struct {
	vfs.FS
	room *atomic.Int64
}

func (d fullDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if d.room.Load() <= 0 {
		return nil, syscall.ENOSPC
	}
	f, err := d.FS.Create(name, c)
	return fullFile{f, d.room}, err
}

func (d fullDisk) Unwrap() vfs.FS { return d.FS }

type fullFile struct {
	vfs.File
	room *atomic.Int64
}

func (f fullFile) Write(p []byte) (int, error) {
	if f.room.Add(-int64(len(p))) < 0 {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(p)
}

// TestDiskFull: wherever the disk of an index fills up, the index says so, at
// the latest when it is closed, and neither hangs nor ends the process.
func TestDiskFull(t *testing.T) {
	rooms := []int64{0, 100, 1000, 3000, 10_000, 100_000, 1 << 20, 3 << 20, 5 << 20}
	if testing.Short() {
		rooms = []int64{100, 3000, 1 << 20}
	}
	for _, room := range rooms {
		left := new(atomic.Int64)
		left.Store(room)
		x, err := index.OpenOn(fullDisk{vfs.NewMem(), left})
		for p := 0; err == nil && p < 200; p++ {
			err = x.Add(packOf(p, frame.DataClass), entries(p*1000, 1000, tripod.Data), nil)
			if err == nil {
				err = x.Find([]tripod.ID{idOf(p * 500)}, func(int, *index.Entry) error { return nil })
			}
		}
		if x != nil {
			err = errors.Join(err, x.Close())
		}
		if !errors.Is(err, tripod.Exhausted) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
	}
}
