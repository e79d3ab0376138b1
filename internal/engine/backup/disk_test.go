package backup_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/disk"
	"tripod/internal/driver/source/stream"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
)

func (w *world) backupDisk(path string) *backup.Report {
	w.t.Helper()
	d, err := disk.Open(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	r, err := backup.Disk(context.Background(), d, w.options(nil, path))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// image gives the content of the newest snapshot of a disk.
func (w *world) image() []byte {
	w.t.Helper()
	ctx := context.Background()
	c, err := catalog.Open(ctx, w.Vault, w.Keys)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := c.Find(catalog.Latest, catalog.Filter{})
	if err != nil {
		w.t.Fatal(err)
	}
	r := blobs.New(w.Vault, w.Keys.ID)
	root, err := r.Disk(ctx, s.Root)
	if err != nil {
		w.t.Fatal(err)
	}
	out := make([]byte, root.Size)
	err = r.Blocks(ctx, root, func(b *blobs.Block) error {
		return r.Fetch(ctx, []blobs.Want{{Ref: b.Ref, Kind: tripod.Data}}, func(_ int, plain []byte, _ []tripod.ID) error {
			if int64(len(plain)) != b.Length {
				return tripod.Errorf(tripod.Corrupt, "a block of %d bytes", len(plain))
			}
			copy(out[b.Offset:], plain)
			return nil
		}, nil)
	}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func TestADiskComesBackAndOnlyItsDirtyBlocksAreStored(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "disk.img")
	img := make([]byte, 300<<20+12345)
	copy(img, noise(3<<20, 1))
	copy(img[100<<20+700:], noise(5<<20, 2))
	copy(img[len(img)-100:], noise(100, 3))
	write := func() {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for i := 0; i < len(img); i += 1 << 20 {
			part := img[i:min(i+1<<20, len(img))]
			if !bytes.Equal(part, make([]byte, len(part))) {
				_, _ = f.WriteAt(part, int64(i))
			}
		}
		_ = f.Truncate(int64(len(img)))
	}
	write()
	first := w.backupDisk(path)
	if !bytes.Equal(w.image(), img) {
		t.Fatal("the disk came back different")
	}
	if first.Read > 15<<20 {
		t.Fatalf("%d bytes read of a disk that is mostly holes", first.Read)
	}
	puts := w.puts
	if r := w.backupDisk(path); r.Same != 1 || w.puts != puts {
		t.Fatalf("an unchanged image was read: %+v", r)
	}
	img[101<<20] ^= 1
	copy(img[200<<20:], "new")
	write()
	w.backupDisk(path)
	if !bytes.Equal(w.image(), img) {
		t.Fatal("the changed disk came back different")
	}
	// Two blocks, two nodes, their root.
	if w.puts-puts > 5 {
		t.Fatalf("%d blobs put for two dirty blocks", w.puts-puts)
	}
}

func TestAStreamComesBack(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int{0, 1, 700_000, 30 << 20} {
		data := noise(size, uint64(size))
		r, err := backup.Stream(context.Background(), dump(t, bytes.NewReader(data)), w.options(nil, "dump"))
		if err != nil || r.Bytes != int64(size) || (r.Skipped > 0) != (size == 0) { // an empty one is told
			t.Fatalf("%+v %v", r, err)
		}
		c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
		if err != nil {
			t.Fatal(err)
		}
		snap, err := c.Find(catalog.Latest, catalog.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		rd := blobs.New(w.Vault, w.Keys.ID)
		err = rd.Copy(context.Background(), &got, int64(size), func(ctx context.Context, fn func(*blobs.Extent) error) error {
			return rd.ListExtents(ctx, snap.Root, int64(size), fn)
		})
		if err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Fatalf("%d bytes: %d came back, %v", size, got.Len(), err)
		}
	}
}

func TestABrokenStreamMakesNoSnapshot(t *testing.T) {
	w := newWorld(t)
	broken := io.MultiReader(bytes.NewReader(noise(5<<20, 1)), brokenReader{})
	if _, err := backup.Stream(context.Background(), dump(t, broken), w.options(nil, "dump")); tripod.KindOf(err) != tripod.Unavailable {
		t.Fatal(err)
	}
	if seq, _, _ := w.Head(context.Background(), w.Machine.Machine, w.Machine.SourceID("stream\x00dump")); seq != 0 {
		t.Fatal("half a stream became a snapshot")
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) {
	return 0, tripod.Errorf(tripod.Unavailable, "the pipe broke")
}

func dump(t *testing.T, r io.Reader) source.Stream {
	s, err := stream.New(context.Background(), "dump", r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
