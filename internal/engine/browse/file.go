package browse

import (
	"context"
	"io"
	"slices"
	"sort"
	"sync"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
)

// File is a regular file, a disk or a stream of a snapshot, open for reading at
// any place. It may be used concurrently.
type File struct {
	b      *Browser
	size   int64
	inline []run          // of a file whose content lies in the tree
	table  []blobs.Extent // of a file or stream, ascending
	disk   *tree.DiskNode // of a disk: its map is read as needed
	mu     sync.Mutex     // held while reading blobs, so that no two readers read the same
	last   int64          // guarded by mu: the extent or block read last
}

type run struct {
	offset int64
	p      []byte
}

// Open opens a regular file by its path; path is empty for a disk or stream.
func (b *Browser) Open(ctx context.Context, s catalog.Snapshot, path string) (*File, error) {
	f := &File{b: b, last: -2}
	switch s.Record.Type {
	case tripod.DiskImage:
		root, err := b.blobs.Disk(ctx, s.Root)
		if err != nil {
			return nil, err
		}
		f.disk, f.size = root, root.Size
		return f, root.Fits(nil, 0)
	case tripod.Stream:
		root, err := b.blobs.List(ctx, s.Root)
		if err != nil {
			return nil, err
		}
		f.size = root.Size()
		return f, b.blobs.ListExtents(ctx, s.Root, f.size, f.add)
	}
	e, err := b.regular(ctx, s, path)
	if err != nil {
		return nil, err
	}
	return b.OpenEntry(ctx, e)
}

// OpenEntry opens the regular file that an entry describes.
func (b *Browser) OpenEntry(ctx context.Context, e *tree.Entry) (*File, error) {
	f := &File{b: b, size: e.Size, last: -2}
	err := blobs.Inline(e, func(offset int64, p []byte) error {
		f.inline = append(f.inline, run{offset, p})
		return nil
	})
	if err == nil {
		err = b.blobs.Extents(ctx, e, f.add)
	}
	if err != nil {
		return nil, tripod.Errorf(tripod.KindOf(err), "/%s: %w", e.Path(), err)
	}
	return f, nil
}

func (f *File) add(x *blobs.Extent) error {
	f.table = append(f.table, *x)
	return nil
}

// Size is the file's length in bytes.
func (f *File) Size() int64 { return f.size }

// ReaderAt gives the file as an io.ReaderAt whose reads end with ctx.
func (f *File) ReaderAt(ctx context.Context) io.ReaderAt {
	return readerAt(func(p []byte, offset int64) (int, error) { return f.ReadAt(ctx, p, offset) })
}

type readerAt func(p []byte, offset int64) (int, error)

func (r readerAt) ReadAt(p []byte, offset int64) (int, error) { return r(p, offset) }

// ReadAt reads len(p) bytes from offset on, holes as zeros; fewer only with an
// error, which is io.EOF at the end.
func (f *File) ReadAt(ctx context.Context, p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, tripod.Errorf(tripod.Invalid, "offset %d: is negative", offset)
	}
	if offset >= f.size {
		return 0, io.EOF
	}
	end := error(nil)
	if int64(len(p)) > f.size-offset {
		p, end = p[:f.size-offset], io.EOF
	}
	clear(p)
	for _, r := range f.inline {
		place(p, offset, r.p, r.offset)
	}
	var err error
	if f.disk != nil {
		err = f.readDisk(ctx, p, offset)
	} else {
		err = f.readTable(ctx, p, offset)
	}
	if err != nil {
		return 0, err
	}
	return len(p), end
}

// place copies what of src, at the offset from of the file, lies within dst,
// at the offset to.
func place(dst []byte, to int64, src []byte, from int64) {
	if skip := to - from; skip > 0 {
		if skip >= int64(len(src)) {
			return
		}
		src, from = src[skip:], to
	}
	if from-to < int64(len(dst)) {
		copy(dst[from-to:], src)
	}
}

func (f *File) readTable(ctx context.Context, p []byte, offset int64) error {
	first := sort.Search(len(f.table), func(i int) bool { return f.table[i].Offset+int64(f.table[i].Length) > offset })
	for i := first; i < len(f.table) && f.table[i].Offset < offset+int64(len(p)); i++ {
		x := &f.table[i]
		plain, err := f.blob(ctx, x.Ref, int64(i), func(n int64) (seal.Ref, bool) {
			if n >= int64(len(f.table)) {
				return seal.Ref{}, false
			}
			return f.table[n].Ref, true
		})
		if err != nil {
			return err
		}
		bytes, err := x.Of(plain)
		if err != nil {
			return err
		}
		place(p, offset, bytes, x.Offset)
	}
	return nil
}

func (f *File) readDisk(ctx context.Context, p []byte, offset int64) error {
	block := int64(f.disk.Block)
	for at := offset / block; at*block < offset+int64(len(p)); at++ {
		ref, ok, err := f.block(ctx, at)
		if err != nil {
			return err
		}
		if !ok {
			continue // a hole
		}
		plain, err := f.blob(ctx, ref, at, func(n int64) (seal.Ref, bool) {
			if n*block >= f.size {
				return seal.Ref{}, false
			}
			ref, ok, err := f.block(ctx, n)
			return ref, ok && err == nil
		})
		if err != nil {
			return err
		}
		if int64(len(plain)) != min(block, f.size-at*block) {
			return tripod.Errorf(tripod.Corrupt, "blob %.16s: is a block of %d bytes", ref.ID(), len(plain))
		}
		place(p, offset, plain, at*block)
	}
	return nil
}

// block finds a block in the disk's map; ok is false for a hole.
func (f *File) block(ctx context.Context, at int64) (ref seal.Ref, ok bool, err error) {
	n := f.disk
	for first := int64(0); ; {
		span := n.SlotBlocks()
		index := int(at / span % tree.DiskFan)
		i, found := slices.BinarySearchFunc(n.Slots, index, func(s tree.Slot, index int) int { return s.Index - index })
		if !found || at/span/tree.DiskFan > 0 && n == f.disk {
			return ref, false, nil
		}
		if n.Level == 0 {
			return n.Slots[i].Ref, true, nil
		}
		below, err := f.b.blobs.Disk(ctx, n.Slots[i].Ref)
		if err != nil {
			return ref, false, err
		}
		first += int64(index) * span
		if err := below.Fits(n, first); err != nil {
			return ref, false, tripod.Errorf(tripod.Corrupt, "blob %.16s: %w", n.Slots[i].Ref.ID(), err)
		}
		n = below
	}
}

// ahead is how many blobs are read in one go by whoever reads front to back.
const ahead = 4

// blob gives a blob's plaintext, which must not be changed. When the one before
// it was read last, the next ones are read along with it.
func (f *File) blob(ctx context.Context, ref seal.Ref, at int64, next func(int64) (seal.Ref, bool)) ([]byte, error) {
	if plain, ok := f.b.data.Get(ref); ok {
		return plain, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if plain, ok := f.b.data.Get(ref); ok {
		return plain, nil
	}
	wants := []blobs.Want{{Ref: ref, Kind: tripod.Data}}
	if at == f.last+1 {
		for n := at + 1; n < at+ahead; n++ {
			r, ok := next(n)
			if _, kept := f.b.data.Get(r); ok && !kept && !slices.ContainsFunc(wants, func(w blobs.Want) bool { return w.Ref == r }) {
				wants = append(wants, blobs.Want{Ref: r, Kind: tripod.Data})
			}
		}
	}
	var got []byte
	err := f.b.blobs.Fetch(ctx, wants, func(i int, plain []byte, _ []tripod.ID) error {
		kept := append([]byte(nil), plain...)
		f.b.data.Put(wants[i].Ref, kept)
		if i == 0 {
			got = kept
		}
		return nil
	}, func(i int, err error) error {
		if i == 0 {
			return err
		}
		return nil // it is told when it is asked for
	})
	if err != nil {
		return nil, err
	}
	f.last = at + int64(len(wants)) - 1
	return got, nil
}
