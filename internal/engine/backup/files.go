package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"

	"tripod/internal/core/chunk"
	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/engine/catalog"
)

// Limits of the pipeline. A walk runs ahead of the tree that is built behind
// it by at most aheadMax entries. A small job is closed when it spans half of
// that, so that the tree never waits for a job the walk has not closed.
const (
	aheadMax    = 16 << 10
	smallSpan   = aheadMax / 2
	smallJobMax = 1024 // items
)

// filesRun is one backup of a file tree. The walk's goroutine matches entries
// with the cache of the last run and hands what must be read to workers, in
// jobs; the same goroutine builds the tree from entries in order as they
// become ready.
type filesRun struct {
	*session
	tree   source.Tree
	roots  []string // the protected paths, as the tree names them
	old    *cache   // of the last run; empty when there is none
	cursor cursor
	owners source.Owners
	hash   *blake3.Hasher // of idents; the walk's goroutine only
	dir    string         // parent of the entries at hand
	dirSum ident          // its hash

	jobs    chan *job
	small   *job // being filled
	opened  int64
	walked  int64
	below   int64 // folders below the protected paths
	bundler *chunk.Bundler
	links   map[[2]uint64]*item // first name of each file with several

	pending []step // in order, not yet in the tree
	head    int
	out     *assembler
	cut     *splitTools
	content *contentIndex
	bundles *bundles
}

// step is what the tree gets next: a run of entries of the last tree, or one
// item when that is set.
type step struct {
	item     *item
	from, to int
}

// item is an entry that is new or changed.
type item struct {
	src   source.Entry
	ident ident
	sum   contentSum // of small content, for the next run's cache
	prev  *tree.Entry
	prevC int // its place in the cache
	entry tree.Entry
	link  *item // the first name of the same file, which has the content
	job   *job  // nil: ready at once
	drop  bool  // could not be read
	renew bool  // unchanged, but to be bundled anew
	total int   // length of the new bundle it is in

	chunks    []knownSum // of a long file, for the next run's cache
	lists     []listNode // of a long file, children first
	bytesRead int64
}

// job is work for one worker: items, and whether they share a bundle.
type job struct {
	items []*item
	large bool
	done  chan struct{}
}

// Files backs up a file tree.
func Files(ctx context.Context, t source.Tree, o Options) (*Report, error) {
	_, o.Paths = source.Roots(o.Paths)
	if l := o.label(); l.Check() != nil {
		return new(Report), l.Check()
	}
	r, err := files(ctx, t, o)
	if !errors.Is(err, errCache) {
		return r, err
	}
	// The cache promised what it does not hold. Without it nothing is lost
	// but time.
	removeStale(begin(ctx, tripod.Files, o).cachePath())
	return files(ctx, t, o)
}

func files(ctx context.Context, t source.Tree, o Options) (*Report, error) {
	s := begin(ctx, tripod.Files, o)
	f := &filesRun{
		session: s, tree: t, hash: keyedHasher(o.Keys.CacheKey()), bundler: chunk.NewBundler(o.Keys.BundleKey()),
		links: map[[2]uint64]*item{}, jobs: make(chan *job, 2*workers()), cut: newSplitTools(o.Keys.ChunkKey()),
	}
	for _, p := range o.Paths {
		f.roots = append(f.roots, catalog.TreePath(p))
	}
	err := f.run(ctx)
	return s.finish(), err
}

// workers read and seal. More than cores, so that some read while others seal.
func workers() int { return 2 * runtime.GOMAXPROCS(0) }

func (f *filesRun) run(ctx context.Context) error {
	old, err := f.openCache(ctx)
	if err != nil {
		return err
	}
	defer old.close()
	f.old, f.base, f.bundles = old, old.root, newBundles(old)
	f.cursor = cursor{view: leafView{cache: old}, gone: f.bundles.remove}
	f.content = &contentIndex{cache: old, view: leafView{cache: old}}
	f.meter.filesTotal.Store(int64(old.rows()))
	f.meter.bytesTotal.Store(old.bytes)
	f.meter.phase(run.Saving)

	group, gctx := errgroup.WithContext(ctx)
	f.out = newAssembler(ctx, f.session, old, f.bundles)
	defer f.out.close()
	if !f.DryRun {
		for range workers() {
			group.Go(func() error { return f.work(gctx) })
		}
	}
	group.Go(func() error {
		defer close(f.jobs)
		return f.walk(gctx)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if f.DryRun {
		return nil
	}
	if err := f.nothing(); err != nil {
		return err
	}
	root, err := f.out.finish()
	if err != nil {
		return err
	}
	if err := f.up.flush(ctx); err != nil {
		return err
	}
	if err := f.commit(ctx, root); err != nil {
		return err
	}
	if err := f.out.saveCache(f.cachePath(), root, f.report.Bytes); err != nil {
		f.Warnings.add(f.cachePath(), err)
	}
	return nil
}

// nothing refuses a snapshot that would hold nothing because nothing of what was
// named could be read: it would stand in front of those that do.
func (f *filesRun) nothing() error {
	cause := f.Warnings.first.Load()
	if f.report.Files > 0 || f.below > 0 || cause == nil {
		return nil
	}
	return tripod.Errorf(tripod.KindOf(*cause), "nothing of what was named could be read: there is no new snapshot").
		WithHint("%s", tripod.HintOf(*cause))
}

// openCache opens the last run's cache if the vault still holds what it
// speaks of, else an empty one.
func (f *filesRun) openCache(ctx context.Context) (*cache, error) {
	path := f.cachePath()
	if path == "" {
		return new(cache), nil
	}
	c, err := readCache(path)
	if err != nil {
		removeStale(path)
		return new(cache), nil
	}
	if c.rows() == 0 {
		return c, nil
	}
	held, err := f.holdsRoot(ctx, &c.root)
	if err != nil || !held {
		c.close()
		return new(cache), err
	}
	return c, nil
}

func (f *filesRun) walk(ctx context.Context) error {
	err := f.tree.Walk(ctx, func(batch []source.Entry) error {
		for i := range batch {
			if err := f.visit(ctx, &batch[i]); err != nil {
				return err
			}
		}
		return f.drain(ctx, aheadMax)
	})
	if err != nil {
		return err
	}
	if err := f.cursor.finish(); err != nil {
		return err
	}
	if err := f.dispatchSmall(ctx); err != nil {
		return err
	}
	return f.drain(ctx, 0)
}

// visit takes the next entry of the walk.
func (f *filesRun) visit(ctx context.Context, e *source.Entry) error {
	f.walked++
	above := f.timeless(e)
	if e.Type == source.Directory {
		f.report.Dirs++
	} else {
		f.report.Files++
	}
	f.report.Bytes += e.Size
	id := f.identOf(e)
	at, prev, same, err := f.cursor.match(e, &id)
	if err != nil {
		return err
	}
	renew := false
	if same && len(f.bundles.sparse) > 0 && e.Size > chunk.InlineMax && e.Size < chunk.BundleFileMax && !f.DryRun {
		old, err := f.cursor.view.entry(at)
		if err != nil {
			return err
		}
		if renew = f.bundles.renew(old); renew {
			prev = old
		}
	}
	if same && !above {
		f.report.Same++
	}
	if same && !renew {
		f.meter.done(1, e.Size, "")
		f.keep(at)
		return f.closeWideJob(ctx)
	}
	switch {
	case above:
	case prev == nil:
		f.report.New++
	case !same:
		f.report.Changed++
	}
	if prev != nil {
		f.bundles.remove(prev)
	}
	if f.DryRun {
		f.report.Read += e.Size
		f.meter.done(1, e.Size, e.Path())
		return nil
	}
	it := &item{src: *e, ident: id, prev: prev, prevC: at, renew: renew}
	f.describe(it)
	f.pending = append(f.pending, step{item: it})
	return f.assign(ctx, it)
}

// uncount takes back what visit counted of an entry that could not be read: a
// report and a label count what the snapshot holds.
func (f *filesRun) uncount(it *item) {
	r := &f.report
	r.Bytes -= it.src.Size
	if it.src.Type == source.Directory {
		r.Dirs--
	} else {
		r.Files--
	}
	switch {
	case it.src.Type == source.Directory && f.above(it.src.Path()):
	case it.renew:
		r.Same--
	case it.prev == nil:
		r.New--
	default:
		r.Changed--
	}
}

// timeless takes the times of a folder above the protected paths away: what
// happens beside them changes those, and no restore needs them. It reports
// whether the entry is one.
func (f *filesRun) timeless(e *source.Entry) (above bool) {
	if e.Type != source.Directory {
		return false
	}
	path := e.Path()
	if !f.above(path) {
		if !slices.Contains(f.roots, path) {
			f.below++
		}
		return false
	}
	e.MTime, e.CTime, e.Nlink = source.Time{}, source.Time{}, 0
	return true
}

// above reports whether a folder lies above a protected path.
func (f *filesRun) above(path string) bool {
	return slices.ContainsFunc(f.roots, func(root string) bool { return path != root && tree.Below(root, path) })
}

// keep says that entry at of the last tree comes next, unchanged.
func (f *filesRun) keep(at int) {
	if n := len(f.pending); n > f.head {
		if last := &f.pending[n-1]; last.item == nil && last.to == at {
			last.to++
			return
		}
	}
	f.pending = append(f.pending, step{from: at, to: at + 1})
}

// describe fills in what the walk knows of an entry.
func (f *filesRun) describe(it *item) {
	e := &it.src
	it.entry = tree.Entry{
		Parent: e.Parent, Name: e.Name, Type: tree.FileType(e.Type), Mode: e.Mode & 0o7777,
		Owner: tree.Owner{UID: e.UID, GID: e.GID, User: f.owners.User(e.UID), Group: f.owners.Group(e.GID)},
		Sec:   e.MTime.Sec, Nsec: uint32(e.MTime.Nsec), Major: e.Major, Minor: e.Minor,
	}
	if e.Type == source.Regular {
		it.entry.Size = e.Size
		if e.Nlink > 1 {
			var key [16]byte
			binary.LittleEndian.PutUint64(key[:], e.Dev)
			binary.LittleEndian.PutUint64(key[8:], e.Inode)
			sum := f.sum(key[:])
			it.entry.Group = binary.LittleEndian.Uint64(sum[:]) | 1
		}
	}
}

// assign gives an item to the job that will read it.
func (f *filesRun) assign(ctx context.Context, it *item) error {
	e := &it.src
	if e.Type == source.Regular && e.Nlink > 1 {
		key := [2]uint64{e.Dev, e.Inode}
		if first := f.links[key]; first != nil {
			it.link = first
			return nil
		}
		f.links[key] = it
	}
	if e.Type == source.Regular && e.Size >= chunk.BundleFileMax {
		it.job = &job{items: []*item{it}, large: true, done: make(chan struct{})}
		return f.dispatch(ctx, it.job)
	}
	bundled := e.Type == source.Regular && e.Size > chunk.InlineMax
	if bundled && f.bundler.CutBefore(e.Name, int(e.Size)) {
		if err := f.dispatchSmall(ctx); err != nil {
			return err
		}
		// The new bundle begins with this file.
		f.bundler.Reset()
		f.bundler.CutBefore(e.Name, int(e.Size))
	}
	if f.small == nil {
		f.small, f.opened = &job{done: make(chan struct{})}, f.walked
	}
	it.job = f.small
	f.small.items = append(f.small.items, it)
	if len(f.small.items) >= smallJobMax {
		return f.dispatchSmall(ctx)
	}
	return f.closeWideJob(ctx)
}

// closeWideJob dispatches the small job when the walk is too far beyond its
// first item.
func (f *filesRun) closeWideJob(ctx context.Context) error {
	if f.small != nil && f.walked-f.opened >= smallSpan {
		return f.dispatchSmall(ctx)
	}
	return nil
}

func (f *filesRun) dispatchSmall(ctx context.Context) error {
	j := f.small
	f.small = nil
	f.bundler.Reset()
	if j == nil {
		return nil
	}
	return f.dispatch(ctx, j)
}

func (f *filesRun) dispatch(ctx context.Context, j *job) error {
	select {
	case f.jobs <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain moves what is ready from the front of pending into the tree, and waits
// until no more than ahead steps are left.
func (f *filesRun) drain(ctx context.Context, ahead int) error {
	for f.head < len(f.pending) {
		st := &f.pending[f.head]
		if st.item != nil && st.item.job != nil {
			select {
			case <-st.item.job.done:
			default:
				if len(f.pending)-f.head <= ahead {
					f.compact()
					return nil
				}
				select {
				case <-st.item.job.done:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		if err := f.out.add(st); err != nil {
			return err
		}
		if it := st.item; it != nil {
			f.report.Read += it.bytesRead
			if it.drop {
				f.uncount(it)
			}
		}
		*st = step{}
		f.head++
	}
	f.pending, f.head = f.pending[:0], 0
	return nil
}

// compact forgets steps that are in the tree.
func (f *filesRun) compact() {
	if f.head > len(f.pending)/2 {
		n := copy(f.pending, f.pending[f.head:])
		clear(f.pending[n:])
		f.pending, f.head = f.pending[:n], 0
	}
}

// ident is a keyed hash of all that lstat tells of an entry, path included.
// Equal idents mean: the same file, unchanged.
type ident [16]byte

func keyedHasher(key seal.Secret) *blake3.Hasher {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	return h
}

func (f *filesRun) sum(p []byte) (id ident) {
	f.hash.Reset()
	_, _ = f.hash.Write(p)
	var out [32]byte
	f.hash.Sum(out[:0])
	return ident(out[:16])
}

func (f *filesRun) identOf(e *source.Entry) ident {
	if e.Parent != f.dir || f.walked == 1 {
		f.dir, f.dirSum = e.Parent, f.sum([]byte(e.Parent))
	}
	b := make([]byte, 0, 256)
	b = append(b, f.dirSum[:]...)
	b = append(b, byte(e.Type))
	for _, v := range [...]uint64{
		uint64(e.Size), uint64(e.MTime.Sec), uint64(e.CTime.Sec), uint64(e.MTime.Nsec)<<32 | uint64(e.CTime.Nsec),
		e.Dev, e.Inode, uint64(e.Mode)<<32 | uint64(e.Nlink), uint64(e.UID)<<32 | uint64(e.GID),
		uint64(e.Major)<<32 | uint64(e.Minor),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return f.sum(append(b, e.Name...))
}

// racyWindow is how fresh a file's last change may be, at the time it is read,
// for its timestamps to be trusted by the next run: a second change within the
// clock's grain would leave them as they are.
const racyWindow = 100 * time.Millisecond

// racy reports whether an entry changed so shortly before now that it must be
// read again next time.
func racy(e *source.Entry, now time.Time) bool {
	edge := now.Add(-racyWindow)
	after := func(t source.Time) bool { return time.Unix(t.Sec, t.Nsec).After(edge) }
	return after(e.CTime) || after(e.MTime)
}
