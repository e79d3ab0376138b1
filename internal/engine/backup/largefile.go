package backup

import (
	"bytes"
	"context"
	"errors"
	"io"

	"tripod/internal/core/chunk"
	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// largeFile reads one file into blobs of its own.
func (r *reader) largeFile(ctx context.Context, it *item) error {
	defer func() { r.f.meter.done(1, 0, it.src.Path()) }()
	return r.readLarge(ctx, it)
}

func (r *reader) readLarge(ctx context.Context, it *item) error {
	now := r.f.clock()
	file, err := r.f.tree.Open(&it.src)
	if err != nil {
		r.dropped(it, err)
		return nil
	}
	defer file.Close() // lint:errcheck only read from
	r.xattrs(it, file)
	content, err := r.largeContent(it, file)
	if err != nil {
		r.dropped(it, err)
		return nil
	}
	pieces, err := r.chunks(ctx, it, content)
	if err != nil {
		var fault readFault
		if errors.As(err, &fault) {
			r.dropped(it, fault.error)
			return nil
		}
		return err
	}
	after, err := file.Stat()
	if err != nil {
		r.dropped(it, err)
		return nil
	}
	if sameContent(&it.src, &after) {
		r.settle(it, now)
	} else {
		r.moved(it, &after)
		r.torn(it)
	}
	return r.keepChunks(ctx, it, pieces)
}

// largeContent gives the bytes that hold data and notes the ranges of a sparse file.
func (r *reader) largeContent(it *item, file source.File) (io.Reader, error) {
	if it.src.Blocks*512 >= it.src.Size {
		return io.NewSectionReader(file, 0, it.src.Size), nil
	}
	ranges := []tree.Range{}
	var parts []io.Reader
	for data, err := range source.DataRanges(file) {
		if err != nil {
			return nil, err
		}
		end := min(data.End(), it.src.Size)
		if data.Offset >= end {
			break
		}
		ranges = append(ranges, tree.Range{Offset: data.Offset, Length: end - data.Offset})
		parts = append(parts, io.NewSectionReader(file, data.Offset, end-data.Offset))
	}
	if len(ranges) == 1 && ranges[0] == (tree.Range{Length: it.src.Size}) || len(ranges) > maxRanges {
		return io.NewSectionReader(file, 0, it.src.Size), nil
	}
	it.entry.Ranges = ranges
	return io.MultiReader(parts...), nil
}

// maxRanges is how many ranges a sparse file may have to be kept sparse.
const maxRanges = 4096

// readFault marks an error of reading the source, which spoils one file, not
// the run.
type readFault struct{ error }

func (f readFault) Unwrap() error { return f.error }

type faultReader struct{ io.Reader }

func (r faultReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = readFault{err}
	}
	return n, err
}

// chunks cuts content and stores the chunks, several at a time.
func (r *reader) chunks(ctx context.Context, it *item, content io.Reader) (out []sealed, err error) {
	known := r.f.knownChunks(it)
	if it.src.Size <= chunk.SingleMax {
		buf, err := readUpTo(r.buf[:0], faultReader{content}, chunk.SingleMax)
		if err != nil {
			return nil, err
		}
		r.buf = buf[:0]
		if len(buf) < chunk.SingleMax {
			r.f.read(it, int64(len(buf)))
			r.f.meter.done(0, int64(len(buf)), "")
			if len(buf) == 0 {
				return nil, nil
			}
			ref, err := r.f.up.blob(ctx, buf, known)
			return []sealed{{ref, len(buf)}}, err
		}
		content = io.MultiReader(bytes.NewReader(buf), content)
	}
	err = r.f.cut.split(ctx, faultReader{content}, func(ctx context.Context, c []byte) (seal.Ref, error) {
		r.f.meter.done(0, int64(len(c)), it.src.Path())
		return r.f.up.blob(ctx, c, known)
	}, func(part sealed) error {
		r.f.read(it, int64(part.length))
		out = append(out, part)
		return nil
	})
	return out, err
}

func readUpTo(dst []byte, r io.Reader, limit int) ([]byte, error) {
	if cap(dst) < limit {
		dst = make([]byte, 0, limit)
	}
	n, err := io.ReadFull(r, dst[:limit])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return dst[:n], err
}

// keepChunks puts a large file's chunks into its entry, by a list when there
// are many.
func (r *reader) keepChunks(ctx context.Context, it *item, chunks []sealed) error {
	e := &it.entry
	var total int64
	for _, c := range chunks {
		total += int64(c.length)
	}
	if e.Ranges == nil {
		e.Size = total
	} else if total != e.Stored() {
		// It shrank while it was read: what is missing reads as zeros.
		trimRanges(e, total)
	}
	if len(chunks) < tree.ListFrom {
		for _, c := range chunks {
			e.Content.Pieces = append(e.Content.Pieces, tree.Piece{Ref: c.ref, Length: uint32(c.length)})
		}
		return nil
	}
	it.chunks = make([]knownSum, len(chunks))
	list := tree.NewListBuilder(func(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
		// Lists are put with the tree, which comes later, in order.
		n := listNode{refs: append([]tripod.ID(nil), refs...), plain: append([]byte(nil), plain...)}
		it.lists = append(it.lists, n)
		return r.f.nodeRef(ctx, kind, refs, plain)
	})
	for i, c := range chunks {
		it.chunks[i] = sumOfRef(&c.ref)
		if err := list.Add(c.ref, int64(c.length)); err != nil {
			return err
		}
	}
	root, err := list.Finish()
	if err != nil {
		return err
	}
	e.Content.List = &root
	return nil
}

// nodeRef computes a node's capability without storing it.
func (f *filesRun) nodeRef(ctx context.Context, kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
	select {
	case w := <-f.up.sealers:
		defer func() { f.up.sealers <- w }()
		return w.Ref(kind, refs, plain), nil
	case <-ctx.Done():
		return seal.Ref{}, ctx.Err()
	}
}

// listNode is a node of a long file's list, waiting to be put.
type listNode struct {
	refs  []tripod.ID
	plain []byte
}

// trimRanges cuts a sparse file's ranges to the bytes there are.
func trimRanges(e *tree.Entry, total int64) {
	for i := range e.Ranges {
		if total < e.Ranges[i].Length {
			e.Ranges[i].Length = total
		}
		total -= e.Ranges[i].Length
	}
}
