package reader

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// child is a blob that a node names in its sealed part.
type child struct {
	ref          ref
	kind         byte
	parent, name string // first key below it, in inner nodes of a file tree
	length       int64  // in lists
	slot         byte   // in disk maps
}

// children reads a table of blobs: their number, their kinds, their refs.
func (f *fields) children(limit uint64) []child {
	n := f.upTo(limit)
	kinds, refs := f.take(n), f.take(n*refLen)
	if f.bad {
		return nil
	}
	out := make([]child, n)
	for i := range out {
		out[i] = child{ref: refFrom(refs[i*refLen:]), kind: kinds[i]}
	}
	return out
}

func allOf(kind byte, children []child) bool {
	return !slices.ContainsFunc(children, func(c child) bool { return c.kind != kind })
}

// node opens a node blob and checks version, level and that its public refs
// are the ids of the children read by parse. below is the level that the
// parent wants, -1 for a root.
func (v *Vault) node(kind byte, r *ref, below int, parse func(f *fields, level int) ([]child, error)) (level int, children []child, err error) {
	plain, refs, err := v.blob(kind, r)
	if err != nil {
		return 0, nil, err
	}
	f := &fields{b: plain}
	version, level := f.byte(), int(f.byte())
	if f.bad || version != 1 || level > 8 || (below >= 0 && level != below) {
		return 0, nil, errors.New("node: unknown version or wrong level")
	}
	if children, err = parse(f, level); err != nil {
		return 0, nil, err
	}
	ids := make([][32]byte, len(children))
	for i := range children {
		ids[i] = children[i].ref.id()
	}
	slices.SortFunc(ids, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	if ids = slices.Compact(ids); !slices.Equal(ids, refs) {
		return 0, nil, errors.New("node: its public refs are not the blobs it needs")
	}
	return level, children, nil
}

// walkList calls fn with the content of a list in order and returns its length.
func (v *Vault) walkList(r *ref, below int, fn func([]byte) error) (int64, error) {
	level, items, err := v.node(listBlob, r, below, func(f *fields, level int) ([]child, error) {
		kind := dataBlob
		if level > 0 {
			kind = listBlob
		}
		items := f.children(1024)
		for i := range items {
			items[i].length = int64(f.upTo(1<<62 - 1))
		}
		if !allOf(kind, items) {
			f.bad = true
		}
		return items, f.done("list node")
	})
	if err != nil {
		return 0, err
	}
	var total int64
	for i := range items {
		var n int64
		if level > 0 {
			n, err = v.walkList(&items[i].ref, level-1, fn)
		} else {
			var plain []byte
			if plain, err = v.data(&items[i].ref); err == nil {
				n, err = int64(len(plain)), fn(plain)
			}
		}
		if err == nil && n != items[i].length {
			err = errors.New("list: an item is not as long as stated")
		}
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// geometry is what every node of a disk map repeats.
type geometry struct{ size, block int64 }

func (g geometry) levels() int {
	level := 0
	for n := int64(256); n < (g.size+g.block-1)/g.block; n *= 256 {
		level++
	}
	return level
}

// walkDisk calls fn with each block that is not all zeros. first is the first
// block that the node spans; want is nil for the root.
func (v *Vault) walkDisk(r *ref, below int, first int64, want *geometry, fn func(at int64, block []byte) error) (geometry, error) {
	var g geometry
	level, slots, err := v.node(diskBlob, r, below, func(f *fields, level int) ([]child, error) {
		g = geometry{int64(f.upTo(1 << 60)), int64(f.upTo(4 << 20))}
		if f.bad || g.block < 64<<10 || g.block&(g.block-1) != 0 {
			return nil, errors.New("disk map: impossible header")
		}
		kind := dataBlob
		if level > 0 {
			kind = diskBlob
		}
		slots := f.children(256)
		for i := range slots {
			slots[i].slot = f.byte()
			if i > 0 && slots[i-1].slot >= slots[i].slot {
				f.bad = true
			}
		}
		if !allOf(kind, slots) || (want == nil && level != g.levels()) || (want != nil && g != *want) {
			f.bad = true
		}
		return slots, f.done("disk map")
	})
	if err != nil {
		return g, err
	}
	span := int64(1)
	for range level {
		span *= 256
	}
	for i := range slots {
		block := first + int64(slots[i].slot)*span
		if block*g.block >= g.size {
			return g, errors.New("disk map: a block beyond the disk's end")
		}
		if level > 0 {
			if _, err := v.walkDisk(&slots[i].ref, level-1, block, &g, fn); err != nil {
				return g, err
			}
			continue
		}
		plain, err := v.data(&slots[i].ref)
		if err != nil {
			return g, err
		}
		if int64(len(plain)) != min(g.block, g.size-block*g.block) {
			return g, errors.New("disk map: a block of the wrong length")
		}
		if err := fn(block*g.block, plain); err != nil {
			return g, err
		}
	}
	return g, nil
}

// walkTree calls fn with every entry of a file tree in order. want is what the
// node above says of the node, nil for the root.
func (v *Vault) walkTree(r *ref, below int, want *child, last *entry, fn func(*entry) error) error {
	var entries []entry
	level, children, err := v.node(treeBlob, r, below, func(f *fields, level int) (children []child, err error) {
		if level == 0 {
			entries, children, err = parseLeaf(f)
			return children, err
		}
		children = f.children(1 << 12)
		for i := range children {
			c := &children[i]
			c.parent, c.name = f.text(maxText), f.text(maxText)
			if i > 0 && compareKeys(children[i-1].parent, children[i-1].name, c.parent, c.name) >= 0 {
				f.bad = true
			}
		}
		if !allOf(treeBlob, children) || len(children) == 0 {
			f.bad = true
		}
		return children, f.done("tree node")
	})
	if err != nil {
		return err
	}
	if want != nil {
		first := child{parent: "\x00"} // no key of an empty leaf
		if level > 0 {
			first = children[0]
		} else if len(entries) > 0 {
			first = child{parent: entries[0].parent, name: entries[0].name}
		}
		if first.parent != want.parent || first.name != want.name {
			return errors.New("file tree: a node does not begin where its parent says")
		}
	}
	for i := range entries {
		e := &entries[i]
		if last.kind != 0 && compareKeys(last.parent, last.name, e.parent, e.name) >= 0 {
			return errors.New("file tree: entries out of order")
		}
		*last = entry{parent: e.parent, name: e.name, kind: e.kind}
		if err := fn(e); err != nil {
			return err
		}
	}
	for i := range children {
		if level == 0 {
			break
		}
		if err := v.walkTree(&children[i].ref, level-1, &children[i], last, fn); err != nil {
			return err
		}
	}
	return nil
}

// compareKeys orders parents byte by byte with '/' below all others, then names.
func compareKeys(parentA, nameA, parentB, nameB string) int {
	low := func(s string) string {
		// No path holds a zero byte, so it can stand for the lowest.
		return strings.ReplaceAll(s, "/", "\x00")
	}
	if c := strings.Compare(low(parentA), low(parentB)); c != 0 {
		return c
	}
	return strings.Compare(nameA, nameB)
}
