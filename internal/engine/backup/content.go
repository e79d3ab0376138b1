package backup

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/chunk"
	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// contentSum is a keyed hash of a small file's content. It stays in this
// machine's cache and tells a file that was moved, or whose metadata alone
// changed, from one with new content.
type contentSum [16]byte

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

// contentMAC gives GMAC under a key of its own: a universal hash that is
// several times faster here than BLAKE3. Its tags never leave the machine, so
// that one nonce may serve for all of them: a tag hides the hash key from
// nobody who could not read the cache, and with it the key itself.
func contentMAC(key seal.Secret) cipher.AEAD {
	k := seal.Derive("tripod 1 cache content", key)
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only a wrong block size fails
	}
	return mac
}

func (r *reader) sum(content []byte) (s contentSum) {
	var nonce [12]byte
	r.mac.Seal(s[:0], nonce[:], nil, content)
	return s
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
	r.attributes(it)
	if it.drop || it.src.Type != source.Regular {
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

func (r *reader) torn(it *item) {
	it.entry.Torn = true
	r.f.Warnings.add(it.src.Path(), tripod.Errorf(tripod.Conflict, "changed while it was read; kept as it was read").
		WithHint("stop what writes to it, or back up a file-system snapshot"))
}

func (r *reader) dropped(it *item, err error) {
	it.drop = true
	r.f.Warnings.add(it.src.Path(), err)
}

// attributes reads where a link points and the extended attributes. Only a
// link without its target is left out.
func (r *reader) attributes(it *item) {
	a, err := r.f.tree.Attributes(&it.src)
	if err != nil {
		if it.src.Type == source.Symlink && a.Target == "" || source.Vanished(err) {
			r.dropped(it, err)
			return
		}
		r.f.Warnings.add(it.src.Path(), err)
	}
	it.entry.Link = a.Target
	for _, x := range a.Xattrs {
		it.entry.Xattrs = append(it.entry.Xattrs, tree.Xattr{Name: x.Name, Value: string(x.Value)})
	}
	if it.src.Type != source.Regular && racy(&it.src, r.f.clock()) {
		it.ident = ident{}
	}
}

// largeFile reads one file into blobs of its own.
func (r *reader) largeFile(ctx context.Context, it *item) error {
	defer func() { r.f.meter.done(1, 0, it.src.Path()) }()
	r.attributes(it)
	if it.drop {
		return nil
	}
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

// sealed is one chunk on its way.
type sealed struct {
	ref    seal.Ref
	length int
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

// split cuts a stream into chunks, has several stored at a time, and hands
// them to done in order, in the caller's goroutine.
func (t *splitTools) split(ctx context.Context, content io.Reader,
	store func(context.Context, []byte) (seal.Ref, error), done func(sealed) error,
) error {
	var s *chunk.Splitter
	select {
	case s = <-t.splitters:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { t.splitters <- s }()
	group, gctx := errgroup.WithContext(ctx)
	var queue []chan sealed
	deliver := func(keep int) error {
		for len(queue) > keep {
			select {
			case part := <-queue[0]:
				queue = queue[1:]
				if err := done(part); err != nil {
					return err
				}
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	}
	err := s.Split(content, func(c []byte) error {
		if err := gctx.Err(); err != nil {
			return err
		}
		part := make(chan sealed, 1)
		queue = append(queue, part)
		var buf []byte
		select {
		case buf = <-t.buffers:
		case <-gctx.Done():
			return gctx.Err()
		}
		buf = append(buf[:0], c...)
		group.Go(func() error {
			defer func() { t.buffers <- buf }()
			ref, err := store(gctx, buf)
			if err == nil {
				part <- sealed{ref, len(buf)}
			}
			return err
		})
		return deliver(chunksAhead)
	})
	if err == nil {
		err = deliver(0)
	}
	if werr := group.Wait(); werr != nil {
		return werr
	}
	return err
}

// chunksAhead is how many chunks may be stored before the first of them is.
const chunksAhead = 64

// splitTools are what cutting streams takes, shared by a run's workers: together
// they bound the memory it needs, however many long files there are at once.
type splitTools struct {
	splitters chan *chunk.Splitter
	buffers   chan []byte // hold chunks while they are sealed
}

func newSplitTools(key seal.Secret) *splitTools {
	n := runtime.GOMAXPROCS(0)
	t := &splitTools{splitters: make(chan *chunk.Splitter, n), buffers: make(chan []byte, n+1)}
	for range n {
		t.splitters <- chunk.NewSplitter(key)
	}
	for range n + 1 {
		t.buffers <- nil
	}
	return t
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

// read counts content that was read. Only the item's worker calls it.
func (f *filesRun) read(it *item, n int64) { it.bytesRead += n }

// knownSum stands for a chunk in the cache's table of what long files hold.
type knownSum [16]byte

func sumOfRef(r *seal.Ref) (k knownSum) {
	copy(k[:], r.H[:16])
	return k
}

// knownChunks gives a test for chunks that the file held in the last snapshot.
func (f *filesRun) knownChunks(it *item) func(*seal.Ref) bool {
	if it.prev == nil {
		return nil
	}
	c := &it.prev.Content
	if c.List == nil {
		return func(r *seal.Ref) bool {
			for i := range c.Pieces {
				if c.Pieces[i].Ref == *r {
					return true
				}
			}
			return false
		}
	}
	held := map[knownSum]bool{}
	for _, k := range f.old.chunksOf(it.prevC) {
		held[k] = true
	}
	return func(r *seal.Ref) bool { return held[sumOfRef(r)] }
}

// contentIndex finds small content of the last snapshot by its sum.
type contentIndex struct {
	cache *cache
	once  sync.Once
	rows  map[uint64]uint32
	mu    sync.Mutex // guards view
	view  leafView
}

// find gives the pieces that hold an item's content already, nil when none do.
func (x *contentIndex) find(it *item, length int) ([]tree.Piece, error) {
	if it.prev != nil && len(it.prev.Content.Pieces) > 0 && x.cache.contentAt(it.prevC) == it.sum {
		return it.prev.Content.Pieces, nil
	}
	x.once.Do(x.build)
	row, ok := x.rows[binary.LittleEndian.Uint64(it.sum[:])]
	if !ok || x.cache.contentAt(int(row)) != it.sum {
		return nil, nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e, err := x.view.entry(int(row))
	if err != nil || e.Size != int64(length) {
		return nil, err
	}
	return e.Content.Pieces, nil
}

func (x *contentIndex) build() {
	n := x.cache.rows()
	x.rows = make(map[uint64]uint32, n)
	for i := range n {
		if s := x.cache.contentAt(i); s != (contentSum{}) {
			x.rows[binary.LittleEndian.Uint64(s[:])] = uint32(i)
		}
	}
}
