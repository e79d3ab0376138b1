package backup

import (
	"context"
	"crypto/cipher"
	"errors"
	"io"
	"time"

	"tripod/internal/core/chunk"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// reader is one worker's tools.
type reader struct {
	f   *filesRun
	buf []byte
	mac cipher.AEAD
}

func (f *filesRun) work(ctx context.Context) error {
	r := &reader{f: f, mac: contentMAC(f.Keys.CacheKey())}
	for j := range f.jobs {
		var err error
		if j.large {
			err = r.largeFile(ctx, j.items[0])
		} else {
			err = r.smallFiles(ctx, j.items)
		}
		if err != nil {
			return err
		}
		close(j.done)
	}
	return nil
}

// smallFiles reads the items of one job and puts the content of those too
// long for their tree entry into one bundle.
func (r *reader) smallFiles(ctx context.Context, items []*item) error {
	bundle := r.buf[:0]
	var inBundle []*item
	for _, it := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		before := len(bundle)
		bundle, err = r.smallFile(ctx, it, bundle)
		if err != nil {
			return err
		}
		if len(bundle) > before {
			inBundle = append(inBundle, it)
			it.entry.Content.Pieces = []tree.Piece{{Offset: uint32(before), Length: uint32(len(bundle) - before)}}
		}
	}
	if cap(bundle) <= 4<<20 {
		r.buf = bundle
	}
	if len(bundle) == 0 {
		return nil
	}
	ref, err := r.f.up.blob(ctx, bundle, nil)
	if err != nil {
		return err
	}
	for _, it := range inBundle {
		it.entry.Content.Pieces[0].Ref, it.total = ref, len(bundle)
	}
	return nil
}

// smallFile reads one item and returns the bundle, longer by its content when
// that is new and not short enough for the entry itself.
func (r *reader) smallFile(ctx context.Context, it *item, bundle []byte) ([]byte, error) {
	defer func() { r.f.meter.done(1, it.entry.Size, it.src.Path()) }()
	if it.src.Type != source.Regular {
		r.attributes(it)
		return bundle, nil
	}
	start := len(bundle)
	out, err := r.readSmall(it, bundle)
	if err != nil {
		r.dropped(it, err)
		return bundle, nil
	}
	content := out[start:]
	it.entry.Size = int64(len(content))
	r.f.read(it, int64(len(content)))
	switch {
	case len(content) <= chunk.InlineMax:
		it.entry.Content.Inline = append([]byte(nil), content...)
		return bundle, nil
	case len(content) >= chunk.SingleMax:
		// It grew out of its bundle since the walk.
		return bundle, r.readLarge(ctx, it)
	}
	it.sum = r.sum(content)
	if it.renew {
		return out, nil
	}
	pieces, err := r.f.content.find(it, len(content))
	if err != nil {
		return bundle, err
	}
	if pieces != nil {
		it.entry.Content.Pieces = pieces
		return bundle, nil
	}
	return out, nil
}

// readSmall appends the file's content to dst. A file that changed since the
// walk is taken as it is now; one that changes while it is read is read once
// more, and then kept with a warning.
func (r *reader) readSmall(it *item, dst []byte) ([]byte, error) {
	now := r.f.clock()
	file, err := r.f.tree.Open(&it.src)
	if err != nil {
		return dst, err
	}
	defer file.Close() // lint:errcheck only read from
	r.xattrs(it, file)
	for try := 0; ; try++ {
		out, err := readAll(file, dst, it.src.Size)
		if err != nil {
			return dst, err
		}
		after, err := file.Stat()
		if err != nil {
			return dst, err
		}
		if sameContent(&it.src, &after) {
			r.settle(it, now)
			return out, nil
		}
		r.moved(it, &after)
		if try == 1 {
			r.torn(it)
			return out, nil
		}
		now = r.f.clock()
	}
}

// readAll reads from the file's beginning to its end, at most SingleMax bytes.
func readAll(f io.ReaderAt, dst []byte, size int64) ([]byte, error) {
	start := len(dst)
	want := min(size+1, chunk.SingleMax)
	for {
		if need := start + int(want); cap(dst) < need {
			grown := make([]byte, len(dst), max(need, 2*cap(dst)))
			copy(grown, dst)
			dst = grown
		}
		n, err := f.ReadAt(dst[len(dst):start+int(want)], int64(len(dst)-start))
		dst = dst[:len(dst)+n]
		switch {
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst, err
		case want == chunk.SingleMax:
			return dst, nil
		}
		want = min(2*want, chunk.SingleMax)
	}
}

func sameContent(a, b *source.Entry) bool {
	return a.Size == b.Size && a.MTime == b.MTime && a.CTime == b.CTime
}

// settle makes the item's ident useless when the file changed too shortly
// before it was read.
func (r *reader) settle(it *item, read time.Time) {
	if racy(&it.src, read) {
		it.ident = ident{}
	}
}

// moved takes over the metadata of a file that changed since the walk.
func (r *reader) moved(it *item, now *source.Entry) {
	it.src.Size, it.src.MTime, it.src.CTime = now.Size, now.MTime, now.CTime
	it.entry.Sec, it.entry.Nsec = now.MTime.Sec, uint32(now.MTime.Nsec)
	it.ident = ident{}
}

// addEntry warns of an entry, which people know by its path in the snapshot.
func (w *Warnings) addEntry(path string, err error) { w.add("/"+path, err) }

func (r *reader) torn(it *item) {
	it.entry.Torn = true
	r.f.Warnings.addEntry(it.src.Path(), tripod.Errorf(tripod.Conflict, "changed while it was read; kept as it was read").
		WithHint("stop what writes to it, or back up a file-system snapshot"))
}

func (r *reader) dropped(it *item, err error) {
	it.drop = true
	r.f.Warnings.addEntry(it.src.Path(), err)
}

// attributes reads where a link points and the extended attributes of what has
// no content. Only a link without its target is left out.
func (r *reader) attributes(it *item) {
	a, err := r.f.tree.Attributes(&it.src)
	if err != nil {
		if it.src.Type == source.Symlink && a.Target == "" || source.Vanished(err) {
			r.dropped(it, err)
			return
		}
		r.f.Warnings.addEntry(it.src.Path(), err)
	}
	it.entry.Link = a.Target
	keepXattrs(it, a.Xattrs)
	r.settle(it, r.f.clock())
}

// xattrs reads the extended attributes of an open file.
func (r *reader) xattrs(it *item, file source.File) {
	xattrs, err := file.Xattrs()
	if err != nil {
		r.f.Warnings.addEntry(it.src.Path(), err)
	}
	keepXattrs(it, xattrs)
}

func keepXattrs(it *item, xattrs []source.Xattr) {
	it.entry.Xattrs = nil
	for _, x := range xattrs {
		it.entry.Xattrs = append(it.entry.Xattrs, tree.Xattr{Name: x.Name, Value: string(x.Value)})
	}
}

// read counts content that was read. Only the item's worker calls it.
func (f *filesRun) read(it *item, n int64) { it.bytesRead += n }
