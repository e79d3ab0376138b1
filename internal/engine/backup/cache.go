package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"sort"

	"github.com/zeebo/blake3"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/driver/source"
)

// A cache remembers a run for the next one, in a file that is mapped, not
// read: an unchanged tree touches 32 bytes per entry. It is disposable.
//
//	plaintext of leaves, in any order; chunk sums of long files
//	bundles: 24 bytes per bundle: its sum 16, length 4, bytes used 4
//	strings: first keys of leaves
//	leaf table: a row of leafRow bytes per leaf, in order
//	rows: 32 bytes per entry, in tree order: ident 16, content sum 16
//	trailer of trailerLen bytes
//
// The trailer holds a checksum of all but the plaintexts, each of which has
// its own in its leaf's row. Integers are little-endian.
type cache struct {
	data    []byte
	unmap   func() error
	root    seal.Ref
	bytes   int64 // content of the tree's files
	bundles []byte
	text    []byte
	table   []byte
	idents  []byte
	starts  []int // row at which each leaf begins, and the number of rows
}

const (
	cacheMagic = "tripod cache 03\n"
	rowLen     = 32
	leafRow    = seal.RefLen + 4 + 8 + 4 + 16 + 8 + 4 + 8 + 4 + 4
	trailerLen = len(cacheMagic) + seal.RefLen + 5*8 + 32
)

// leafInfo is a decoded row of the leaf table.
type leafInfo struct {
	tree.Leaf
	plainAt   int64
	plainLen  int
	sum       [16]byte // of the plaintext
	chunksAt  int64
	chunksLen int
}

var errCache = errors.New("backup cache: damaged")

func readCache(path string) (*cache, error) {
	data, unmap, err := mapFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return new(cache), nil
	}
	if err != nil {
		return nil, err
	}
	c := &cache{data: data, unmap: unmap}
	if !c.parse() {
		c.close()
		return nil, errCache
	}
	return c, nil
}

func (c *cache) parse() bool {
	if len(c.data) < trailerLen {
		return false
	}
	end := len(c.data) - trailerLen
	t := c.data[end:]
	if string(t[:len(cacheMagic)]) != cacheMagic {
		return false
	}
	t = t[len(cacheMagic):]
	c.root = seal.RefFrom(t)
	t = t[seal.RefLen:]
	var n [5]uint64
	for i := range n {
		n[i] = binary.LittleEndian.Uint64(t[8*i:])
	}
	rows, leaves, bundlesAt, textAt := n[0], n[1], n[2], n[3]
	c.bytes = int64(n[4])
	if rows > uint64(end)/rowLen || leaves > uint64(end)/uint64(leafRow) || textAt > uint64(end) || bundlesAt > textAt {
		return false
	}
	identsAt := end - int(rows)*rowLen
	tableAt := identsAt - int(leaves)*leafRow
	if tableAt < int(textAt) {
		return false
	}
	sum := blake3.Sum256(c.data[bundlesAt : len(c.data)-32])
	if !bytes.Equal(sum[:], c.data[len(c.data)-32:]) {
		return false
	}
	c.bundles = c.data[bundlesAt:textAt]
	c.text, c.table, c.idents = c.data[textAt:tableAt], c.data[tableAt:identsAt], c.data[identsAt:end]
	c.starts = make([]int, 1, leaves+1)
	for k := range int(leaves) {
		count := binary.LittleEndian.Uint32(c.table[k*leafRow+seal.RefLen:])
		c.starts = append(c.starts, c.starts[k]+int(count))
	}
	return c.starts[leaves] == int(rows)
}

func (c *cache) close() {
	if c.unmap != nil {
		_ = c.unmap() // nothing can be done, and nothing is lost
		c.unmap = nil
	}
}

// rows is the number of entries.
func (c *cache) rows() int { return len(c.idents) / rowLen }

// leaves is the number of leaves.
func (c *cache) leaves() int { return len(c.table) / leafRow }

func (c *cache) row(i int) []byte { return c.idents[i*rowLen : (i+1)*rowLen] }

func (c *cache) identAt(i int) ident { return ident(c.row(i)[:16]) }

func (c *cache) contentAt(i int) contentSum { return contentSum(c.row(i)[16:]) }

// leafOf is the leaf that holds a row.
func (c *cache) leafOf(row int) int {
	return sort.Search(c.leaves(), func(k int) bool { return c.starts[k+1] > row })
}

func (c *cache) leaf(k int) (l leafInfo) {
	b := c.table[k*leafRow : (k+1)*leafRow]
	l.Ref = seal.RefFrom(b)
	b = b[seal.RefLen:]
	l.Count = int(binary.LittleEndian.Uint32(b))
	l.plainAt, l.plainLen = int64(binary.LittleEndian.Uint64(b[4:])), int(binary.LittleEndian.Uint32(b[12:]))
	copy(l.sum[:], b[16:])
	l.chunksAt, l.chunksLen = int64(binary.LittleEndian.Uint64(b[32:])), int(binary.LittleEndian.Uint32(b[40:]))
	at := binary.LittleEndian.Uint64(b[44:])
	parent, name := uint64(binary.LittleEndian.Uint32(b[52:])), uint64(binary.LittleEndian.Uint32(b[56:]))
	if at+parent+name <= uint64(len(c.text)) {
		l.Parent, l.Name = string(c.text[at:at+parent]), string(c.text[at+parent:at+parent+name])
	}
	return l
}

// slice gives a stretch of the file, nil when it does not lie before the tables.
func (c *cache) slice(at int64, n int) []byte {
	limit := int64(len(c.data) - len(c.bundles) - len(c.text) - len(c.table) - len(c.idents) - trailerLen)
	if at < 0 || n < 0 || at+int64(n) > limit {
		return nil
	}
	return c.data[at : at+int64(n)]
}

// plain gives a leaf's plaintext after checking it.
func (c *cache) plain(l *leafInfo) ([]byte, error) {
	p := c.slice(l.plainAt, l.plainLen)
	if shortSum(p) != l.sum {
		return nil, errCache
	}
	return p, nil
}

func shortSum(p []byte) [16]byte {
	sum := blake3.Sum256(p)
	return [16]byte(sum[:16])
}

// chunksOf gives the sums of a long file's chunks.
func (c *cache) chunksOf(row int) []knownSum {
	k := c.leafOf(row)
	l := c.leaf(k)
	b := c.slice(l.chunksAt, l.chunksLen)
	for len(b) >= 8 {
		at, n := int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint32(b[4:]))
		b = b[8:]
		if n > len(b)/16 {
			return nil
		}
		if at == row-c.starts[k] {
			out := make([]knownSum, n)
			for i := range out {
				copy(out[i][:], b[16*i:])
			}
			return out
		}
		b = b[16*n:]
	}
	return nil
}

// leafView decodes one leaf of a cache at a time.
type leafView struct {
	cache   *cache
	start   int
	entries []tree.Entry
}

// entry decodes the entry of a row. It stays valid.
func (v *leafView) entry(row int) (*tree.Entry, error) {
	if row < v.start || row >= v.start+len(v.entries) {
		k := v.cache.leafOf(row)
		l := v.cache.leaf(k)
		plain, err := v.cache.plain(&l)
		if err != nil {
			return nil, err
		}
		// The entries' inline content must outlive the mapping.
		node, err := tree.ParseNode(bytes.Clone(plain))
		if err != nil || len(node.Entries) != l.Count {
			return nil, errCache
		}
		v.start, v.entries = v.cache.starts[k], node.Entries
	}
	return &v.entries[row-v.start], nil
}

// cursor walks over a cache beside a walk of the file system.
type cursor struct {
	view leafView
	next int
	gone func(*tree.Entry) // told of entries that are in the cache alone
}

// match finds a walked entry in the cache: at is its row; same says that
// nothing about it changed; old is the cached entry when something did, and
// nil when the entry is new. Entries must come in tree order.
func (c *cursor) match(e *source.Entry, id *ident) (at int, old *tree.Entry, same bool, err error) {
	n := c.view.cache.rows()
	for c.next < n {
		if c.view.cache.identAt(c.next) == *id {
			c.next++
			return c.next - 1, nil, true, nil
		}
		old, err := c.view.entry(c.next)
		if err != nil {
			return 0, nil, false, err
		}
		switch order := tree.Compare(old.Parent, old.Name, e.Parent, e.Name); {
		case order == 0:
			c.next++
			return c.next - 1, old, false, nil
		case order > 0:
			return 0, nil, false, nil
		}
		c.gone(old)
		c.next++
	}
	return 0, nil, false, nil
}

// finish tells of the entries behind the last one walked.
func (c *cursor) finish() error {
	for ; c.next < c.view.cache.rows(); c.next++ {
		old, err := c.view.entry(c.next)
		if err != nil {
			return err
		}
		c.gone(old)
	}
	return nil
}

// mapFile maps a file for reading, or reads it where that is not possible.
func mapFile(path string) (data []byte, unmap func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // lint:errcheck only read from
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	return mapOpen(f, info.Size())
}
