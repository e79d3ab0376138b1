package backup

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/zeebo/blake3"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// assembler builds the file tree from steps in order and, beside it, the cache
// for the next run. Leaves of the last tree whose entries all come again are
// used whole, unread.
type assembler struct {
	ctx  context.Context // lint:context the assembler lives inside one call of Files
	s    *session
	old  *cache
	uses *bundles
	view leafView
	cut  *tree.Cutter
	b    *tree.Builder

	// A run of the last tree's rows that began with a leaf and has come
	// whole so far: leaf < 0 when there is none.
	leaf, next int

	leaves  []newLeaf
	reusing int // the old leaf being added, or -1
	inLeaf  int // entries in the leaf being filled
	chunks  []byte
	rows    []byte // of new entries
	order   []rowRun

	plains *plainFile
	fresh  newLeaf // made last
}

// newLeaf is a leaf of the new tree and where its plaintext is.
type newLeaf struct {
	leafInfo
	old    int // the old leaf it is, or -1
	chunks []byte
}

// rowRun is a run of cache rows, of the old cache or of the new rows.
type rowRun struct {
	fromOld  bool
	from, to int
}

func newAssembler(ctx context.Context, s *session, old *cache, uses *bundles) *assembler {
	a := &assembler{ctx: ctx, s: s, old: old, uses: uses, view: leafView{cache: old}, leaf: -1, reusing: -1}
	a.cut = tree.NewCutter(s.Keys.TreeKey())
	a.b = tree.NewBuilder(s.Keys.TreeKey(), a.emit)
	a.b.Finished = a.finished
	if path := s.cachePath(); path != "" && !s.DryRun {
		a.plains = &plainFile{dir: filepath.Dir(path)}
	}
	return a
}

func (a *assembler) emit(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
	ref, err := a.s.up.node(a.ctx, kind, refs, plain)
	if err == nil && a.plains != nil && plain[1] == 0 { // level 0
		a.fresh.sum, a.fresh.plainLen = shortSum(plain), len(plain)
		a.fresh.plainAt = a.plains.append(plain)
	}
	return ref, err
}

func (a *assembler) finished(l tree.Leaf) {
	n := newLeaf{leafInfo: a.fresh.leafInfo, old: a.reusing, chunks: a.chunks}
	if a.reusing >= 0 {
		n.leafInfo = a.old.leaf(a.reusing)
	}
	n.Leaf = l
	a.leaves = append(a.leaves, n)
	a.chunks, a.inLeaf = nil, 0
}

// add takes the next step.
func (a *assembler) add(st *step) error {
	if st.item == nil {
		return a.addOld(st.from, st.to)
	}
	it := st.item
	if it.link != nil && !it.drop {
		a.takeLink(it)
	}
	if it.drop {
		return nil
	}
	for _, n := range it.lists {
		if _, err := a.s.up.node(a.ctx, tripod.List, n.refs, n.plain); err != nil {
			return err
		}
	}
	if err := a.settle(it.entry.Parent, it.entry.Name); err != nil {
		return err
	}
	if err := a.b.Add(&it.entry); errors.Is(err, tripod.Invalid) {
		// No reader would take an entry like this one: too long a path, too
		// many attributes.
		it.drop = true
		a.s.Warnings.addEntry(it.src.Path(), err)
		return nil
	} else if err != nil {
		return err
	}
	a.note(it.chunks)
	a.uses.add(&it.entry, it.total)
	row := len(a.rows) / rowLen
	a.rows = append(append(a.rows, it.ident[:]...), it.sum[:]...)
	a.appendRows(rowRun{from: row, to: row + 1})
	return nil
}

// takeLink gives a further name of a file the content of its first.
func (a *assembler) takeLink(it *item) {
	first := it.link
	if first.drop {
		it.drop = true
		return
	}
	e, from := &it.entry, &first.entry
	e.Size, e.Content, e.Ranges, e.Torn, e.Xattrs = from.Size, from.Content, from.Ranges, from.Torn, from.Xattrs
	it.sum, it.chunks = first.sum, first.chunks
	if first.ident == (ident{}) {
		it.ident = ident{}
	}
}

// note counts an entry into the open leaf and keeps its chunks for the cache.
func (a *assembler) note(chunks []knownSum) {
	if len(chunks) > 0 {
		a.chunks = binary.LittleEndian.AppendUint32(a.chunks, uint32(a.inLeaf))
		a.chunks = binary.LittleEndian.AppendUint32(a.chunks, uint32(len(chunks)))
		for i := range chunks {
			a.chunks = append(a.chunks, chunks[i][:]...)
		}
	}
	a.inLeaf++
}

func (a *assembler) appendRows(r rowRun) {
	if n := len(a.order); n > 0 && a.order[n-1].fromOld == r.fromOld && a.order[n-1].to == r.from {
		a.order[n-1].to = r.to
		return
	}
	a.order = append(a.order, r)
}

// addOld takes rows of the last tree that come again unchanged.
func (a *assembler) addOld(from, to int) error {
	for from < to {
		k := a.old.leafOf(from)
		end := min(to, a.old.starts[k+1])
		if a.leaf == k && a.next == from {
			a.next, from = end, end
			continue
		}
		l := a.old.leaf(k)
		if err := a.settleBefore(k, from); err != nil {
			return err
		}
		if from == a.old.starts[k] && a.b.AtLeafStart(l.Parent, l.Name) {
			a.leaf, a.next, from = k, end, end
			continue
		}
		for ; from < end; from++ {
			if err := a.addOldRow(from); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleBefore ends the run at hand before row from of leaf k.
func (a *assembler) settleBefore(k, from int) error {
	if a.leaf < 0 {
		return nil
	}
	if a.next == from && k == a.leaf+1 {
		// The two leaves are neighbours again: whatever cut them cuts them now.
		return a.reuse()
	}
	e, err := a.view.entry(from)
	if err != nil {
		return err
	}
	return a.settle(e.Parent, e.Name)
}

// settle ends the run at hand before an entry with the given key: as a whole
// leaf when the run is one and the key begins another, else entry by entry.
func (a *assembler) settle(parent, name string) error {
	if a.leaf < 0 {
		return nil
	}
	if a.next == a.old.starts[a.leaf+1] && a.cut.Level(parent, name) > 0 {
		return a.reuse()
	}
	return a.dissolve()
}

func (a *assembler) reuse() error {
	k := a.leaf
	a.leaf = -1
	l := a.old.leaf(k)
	a.reusing = k
	// The open leaf, if any, is closed by AddLeaf before this one is added.
	if a.inLeaf > 0 {
		a.reusing = -1
		if err := a.b.CloseLeaf(); err != nil {
			return err
		}
		a.reusing = k
	}
	err := a.b.AddLeaf(l.Leaf)
	a.reusing = -1
	a.appendRows(rowRun{fromOld: true, from: a.old.starts[k], to: a.old.starts[k+1]})
	return err
}

// dissolve adds the run at hand entry by entry.
func (a *assembler) dissolve() error {
	from, to := a.old.starts[a.leaf], a.next
	a.leaf = -1
	for ; from < to; from++ {
		if err := a.addOldRow(from); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembler) addOldRow(row int) error {
	e, err := a.view.entry(row)
	if err != nil {
		return err
	}
	if err := a.b.Add(e); err != nil {
		return err
	}
	var chunks []knownSum
	if e.Content.List != nil {
		chunks = a.old.chunksOf(row)
	}
	a.note(chunks)
	a.appendRows(rowRun{fromOld: true, from: row, to: row + 1})
	return nil
}

// finish closes the tree and gives its root.
func (a *assembler) finish() (seal.Ref, error) {
	if a.leaf >= 0 {
		var err error
		if a.next == a.old.starts[a.leaf+1] {
			err = a.reuse()
		} else {
			err = a.dissolve()
		}
		if err != nil {
			return seal.Ref{}, err
		}
	}
	return a.b.Finish()
}

func (a *assembler) close() {
	if a.plains != nil {
		a.plains.discard()
	}
}

// unchanged reports whether the new tree is the last one, leaf by leaf.
func (a *assembler) unchanged() bool {
	if len(a.leaves) != a.old.leaves() {
		return false
	}
	for i := range a.leaves {
		if a.leaves[i].old != i {
			return false
		}
	}
	return true
}

// saveCache writes the cache for the next run. Losing it loses nothing but
// time, so it is not synced; checksums tell whether it is whole.
func (a *assembler) saveCache(path string, root seal.Ref, size int64) error {
	if path == "" || a.unchanged() {
		return nil
	}
	p := a.plains
	for i := range a.leaves {
		if err := a.copyOld(&a.leaves[i]); err != nil {
			return err
		}
	}
	bundles := a.uses.append(nil)
	bundlesAt, textAt := p.at, p.at+int64(len(bundles))
	var text, table []byte
	for i := range a.leaves {
		l := &a.leaves[i]
		table = appendLeafRow(table, &l.leafInfo, len(text))
		text = append(append(text, l.Parent...), l.Name...)
	}
	sum := blake3.New()
	rows := 0
	write := func(b []byte) {
		_, _ = sum.Write(b)
		p.append(b)
	}
	write(bundles)
	write(text)
	write(table)
	for _, r := range a.order {
		from := a.rows
		if r.fromOld {
			from = a.old.idents
		}
		write(from[r.from*rowLen : r.to*rowLen])
		rows += r.to - r.from
	}
	trailer := append([]byte(cacheMagic), seal.AppendRef(nil, &root)...)
	for _, v := range [...]int64{int64(rows), int64(len(a.leaves)), bundlesAt, textAt, size} {
		trailer = binary.LittleEndian.AppendUint64(trailer, uint64(v))
	}
	write(trailer)
	p.append(sum.Sum(nil))
	return p.commit(path)
}

// copyOld brings a leaf's plaintext and chunk sums into the new file.
func (a *assembler) copyOld(l *newLeaf) error {
	chunks := l.chunks
	if l.old >= 0 {
		plain, err := a.old.plain(&l.leafInfo)
		if err != nil {
			return err
		}
		chunks = a.old.slice(l.chunksAt, l.chunksLen)
		l.plainAt = a.plains.append(plain)
	}
	l.chunksLen = len(chunks)
	l.chunksAt = a.plains.append(chunks)
	return nil
}

func appendLeafRow(dst []byte, l *leafInfo, text int) []byte {
	dst = seal.AppendRef(dst, &l.Ref)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(l.Count))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(l.plainAt))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(l.plainLen))
	dst = append(dst, l.sum[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(l.chunksAt))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(l.chunksLen))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(text))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(l.Parent)))
	return binary.LittleEndian.AppendUint32(dst, uint32(len(l.Name)))
}

// plainFile is a cache file being written. It is made when something is
// first written to it, and becomes the cache by commit alone. Its errors never
// stop a backup: the first one is kept and told by commit.
type plainFile struct {
	dir  string
	file *os.File
	w    *bufio.Writer
	at   int64
	err  error
}

func (p *plainFile) open() {
	if p.err = os.MkdirAll(p.dir, 0o700); p.err != nil {
		return
	}
	if p.file, p.err = os.CreateTemp(p.dir, ".new-*"); p.err == nil {
		p.w = bufio.NewWriterSize(p.file, 256<<10)
	}
}

// append writes b and tells where it begins.
func (p *plainFile) append(b []byte) (at int64) {
	at = p.at
	p.at += int64(len(b))
	if p.file == nil && p.err == nil {
		p.open()
	}
	if p.err == nil {
		_, p.err = p.w.Write(b)
	}
	return at
}

func (p *plainFile) commit(path string) error {
	defer p.discard()
	err := p.err
	if err == nil {
		err = p.w.Flush()
	}
	if err == nil {
		err = os.Rename(p.file.Name(), path)
	}
	if err != nil {
		return tripod.Errorf(tripod.Exhausted, "backup cache: %w", err).
			WithHint("the snapshot is complete, but the next run will read everything again")
	}
	return nil
}

// discard closes the file and removes it where it did not become the cache.
func (p *plainFile) discard() {
	if p.file != nil {
		_ = p.file.Close()
		_ = os.Remove(p.file.Name()) // gone already after a rename
		p.file = nil
	}
}
