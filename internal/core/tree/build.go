package tree

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// Emit seals and stores one finished node and returns its capability. refs are
// the blobs the node needs, in the order frames want. plain is valid until it
// returns.
type Emit func(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error)

// Leaf is a finished leaf: what a later run needs to use it again whole.
type Leaf struct {
	Ref          seal.Ref
	Parent, Name string // its first key
	Count        int    // its entries
}

const (
	leafBits = 10 // a leaf holds 1,024 entries on average
	fanBits  = 7  // an inner node 128 children

	leafMaxBytes = 1 << 20
	leafMaxText  = 8 << 20
	leafMax      = 8192    // entries
	leafMaxParts = 1 << 17 // pieces, xattrs and ranges
	innerMax     = 2048    // children
	innerMaxText = 4 << 20 // of the children's keys, bytes
)

// Cutter decides where file trees are cut: by a keyed hash of each key.
type Cutter struct{ hash *blake3.Hasher }

// NewCutter makes a cutter.
func NewCutter(key seal.Secret) *Cutter {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	return &Cutter{hash: h}
}

// Level tells how many levels of nodes begin anew at a key: 0 for most keys,
// 1 where a leaf begins, 2 where an inner node above it begins too.
func (c *Cutter) Level(parent, name string) int {
	c.hash.Reset()
	_, _ = c.hash.WriteString(parent)
	_, _ = c.hash.Write([]byte{0})
	_, _ = c.hash.WriteString(name)
	var sum [32]byte
	c.hash.Sum(sum[:0])
	v := binary.LittleEndian.Uint64(sum[:])
	if v&(1<<leafBits-1) != 0 {
		return 0
	}
	level := 1
	for v >>= leafBits; level < maxLevel-1 && v&(1<<fanBits-1) == 0; v >>= fanBits {
		level++
	}
	return level
}

// Builder makes a file tree from entries in ascending order of keys. Leaves
// of an earlier tree can be added whole.
type Builder struct {
	cutter *Cutter
	emit   Emit
	leaf   leafWriter
	first  Entry // of the open leaf
	last   Child // the newest key
	begun  bool
	levels [][]Child
	texts  []int // bytes of the keys at each of levels
	plain  []byte
	ids    []tripod.ID
	// Finished is called with every leaf in order, if set.
	Finished func(Leaf)
}

// NewBuilder makes a builder that hands finished nodes to emit.
func NewBuilder(key seal.Secret, emit Emit) *Builder {
	b := &Builder{cutter: NewCutter(key), emit: emit}
	b.leaf.reset()
	return b
}

// Add adds one entry. It returns Invalid, and adds nothing, for an entry that
// no reader would accept: what is written must be readable.
func (b *Builder) Add(e *Entry) error {
	if err := e.check(b.last.Parent); err != nil {
		return err
	}
	if err := b.follow(e.Parent, e.Name); err != nil {
		return err
	}
	if b.leaf.n > 0 {
		level := b.cutter.Level(e.Parent, e.Name)
		if level > 0 || b.leaf.full() {
			if err := b.cut(level); err != nil {
				return err
			}
		}
	} else if err := b.cutAbove(b.cutter.Level(e.Parent, e.Name)); err != nil {
		return err
	}
	if b.leaf.n == 0 {
		b.first.Parent, b.first.Name = e.Parent, e.Name
	}
	b.leaf.add(e)
	return nil
}

// follow takes note of the next key, which must be above the last.
func (b *Builder) follow(parent, name string) error {
	if b.begun && Compare(b.last.Parent, b.last.Name, parent, name) >= 0 {
		return tripod.Errorf(tripod.Invalid, "file tree: %q does not come after %q", Join(parent, name), Join(b.last.Parent, b.last.Name))
	}
	b.last.Parent, b.last.Name, b.begun = parent, name, true
	return nil
}

func (w *leafWriter) full() bool {
	return w.n >= leafMax || w.size() >= leafMaxBytes || w.text >= leafMaxText || w.parts >= leafMaxParts
}

// AtLeafStart reports whether the next entry, with this key, begins a leaf.
// Only then may AddLeaf follow.
func (b *Builder) AtLeafStart(parent, name string) bool {
	return b.leaf.n == 0 || b.cutter.Level(parent, name) > 0
}

// AddLeaf adds a whole leaf of an earlier tree of the same key, unread. The
// caller vouches that its entries are unchanged and that the next entry added
// begins a leaf of its own.
func (b *Builder) AddLeaf(l Leaf) error {
	if err := b.follow(l.Parent, l.Name); err != nil {
		return err
	}
	level := b.cutter.Level(l.Parent, l.Name)
	if b.leaf.n > 0 {
		if err := b.cut(level); err != nil {
			return err
		}
	} else if err := b.cutAbove(level); err != nil {
		return err
	}
	return b.push(l)
}

// cut closes the open leaf, then as many inner nodes as the key that comes
// next says.
func (b *Builder) cut(level int) error {
	if err := b.CloseLeaf(); err != nil {
		return err
	}
	return b.cutAbove(level)
}

func (b *Builder) cutAbove(level int) error {
	for l := 1; l < level && l <= len(b.levels); l++ {
		if err := b.closeInner(l); err != nil {
			return err
		}
	}
	return nil
}

// CloseLeaf ends the open leaf, if there is one. AddLeaf does so by itself.
func (b *Builder) CloseLeaf() error {
	if b.leaf.n == 0 {
		return nil
	}
	b.plain = b.leaf.encode(b.plain[:0])
	b.ids = b.ids[:0]
	for i := range b.leaf.refs {
		b.ids = append(b.ids, b.leaf.refs[i].ID())
	}
	ref, err := b.emit(tripod.Tree, seal.SortRefs(b.ids), b.plain)
	if err != nil {
		return err
	}
	l := Leaf{Ref: ref, Parent: b.first.Parent, Name: b.first.Name, Count: b.leaf.n}
	b.leaf.reset()
	return b.push(l)
}

func (b *Builder) push(l Leaf) error {
	if b.Finished != nil {
		b.Finished(l)
	}
	return b.pushChild(1, Child{Ref: l.Ref, Kind: tripod.Tree, Parent: l.Parent, Name: l.Name})
}

func (b *Builder) pushChild(level int, c Child) error {
	for len(b.levels) < level {
		b.levels, b.texts = append(b.levels, nil), append(b.texts, 0)
	}
	if len(b.levels[level-1]) >= innerMax || b.texts[level-1] >= innerMaxText {
		if err := b.closeInner(level); err != nil {
			return err
		}
	}
	b.levels[level-1] = append(b.levels[level-1], c)
	b.texts[level-1] += len(c.Parent) + len(c.Name)
	return nil
}

func (b *Builder) closeInner(level int) error {
	children := b.levels[level-1]
	if len(children) == 0 {
		return nil
	}
	b.plain = appendInner(b.plain[:0], level, children)
	b.ids = b.ids[:0]
	for i := range children {
		b.ids = append(b.ids, children[i].Ref.ID())
	}
	ref, err := b.emit(tripod.Tree, seal.SortRefs(b.ids), b.plain)
	if err != nil {
		return err
	}
	first := children[0]
	b.levels[level-1], b.texts[level-1] = children[:0], 0
	return b.pushChild(level+1, Child{Ref: ref, Kind: tripod.Tree, Parent: first.Parent, Name: first.Name})
}

// Finish closes all nodes and returns the root's capability. A tree without
// entries is Invalid.
func (b *Builder) Finish() (seal.Ref, error) {
	if err := b.CloseLeaf(); err != nil {
		return seal.Ref{}, err
	}
	for level := 1; level <= len(b.levels); level++ {
		children := b.levels[level-1]
		if level == len(b.levels) && len(children) == 1 {
			return children[0].Ref, nil
		}
		if err := b.closeInner(level); err != nil {
			return seal.Ref{}, err
		}
	}
	return seal.Ref{}, tripod.Errorf(tripod.Invalid, "file tree: nothing to put in it")
}
