package enginetest

import (
	"encoding/binary"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// Inner stores an inner node of a file tree that says of its children what it
// is told to say. Sealing it is what any machine with a key could do.
func (w *World) Inner(level int, children ...tree.Child) seal.Ref {
	text := func(b []byte, s string) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	refs := make([]seal.Ref, len(children))
	for i := range children {
		refs[i] = children[i].Ref
	}
	plain := table([]byte{1, byte(level)}, tripod.Tree, refs)
	for i := range children {
		plain = text(text(plain, children[i].Parent), children[i].Name)
	}
	return w.node(tripod.Tree, refs, plain)
}

// Leaf stores a leaf with empty files of these paths, in order.
func (w *World) Leaf(paths ...string) seal.Ref {
	w.TB.Helper()
	b := tree.NewBuilder(seal.Secret{}, w.Emit)
	for _, p := range paths {
		e := Text(p, "").Entry
		w.check(b.Add(&e))
	}
	root, err := b.Finish()
	w.check(err)
	return root
}

// Map stores a node of a disk map that says what it is told to say.
func (w *World) Map(n tree.DiskNode) seal.Ref {
	plain := binary.AppendUvarint([]byte{1, byte(n.Level)}, uint64(n.Size))
	plain = binary.AppendUvarint(plain, uint64(n.Block))
	refs := make([]seal.Ref, len(n.Slots))
	for i := range n.Slots {
		refs[i] = n.Slots[i].Ref
	}
	plain = table(plain, n.SlotKind(), refs)
	for i := range n.Slots {
		plain = append(plain, byte(n.Slots[i].Index))
	}
	return w.node(tripod.Disk, refs, plain)
}

// Lists stores an inner node of a list that says what it is told to say.
func (w *World) Lists(n tree.ListNode) seal.Ref {
	refs := make([]seal.Ref, len(n.Items))
	for i := range n.Items {
		refs[i] = n.Items[i].Ref
	}
	plain := table([]byte{1, byte(n.Level)}, n.ItemKind(), refs)
	for i := range n.Items {
		plain = binary.AppendUvarint(plain, uint64(n.Items[i].Length))
	}
	return w.node(tripod.List, refs, plain)
}

func table(b []byte, kind tripod.BlobKind, refs []seal.Ref) []byte {
	b = binary.AppendUvarint(b, uint64(len(refs)))
	for range refs {
		b = append(b, byte(kind))
	}
	for i := range refs {
		b = seal.AppendRef(b, &refs[i])
	}
	return b
}

func (w *World) node(kind tripod.BlobKind, refs []seal.Ref, plain []byte) seal.Ref {
	ids := make([]tripod.ID, len(refs))
	for i := range refs {
		ids[i] = refs[i].ID()
	}
	ref, err := w.Emit(kind, seal.SortRefs(ids), plain)
	w.check(err)
	return ref
}

// At is a child of an inner node that begins at a path.
func At(path string, ref seal.Ref) tree.Child {
	c := tree.Child{Ref: ref, Kind: tripod.Tree}
	c.Parent, c.Name = tree.SplitPath(path)
	return c
}

// HostileTrees are file trees whose nodes each decode, and which are none.
func (w *World) HostileTrees() map[string]seal.Ref {
	abc := w.Leaf("a", "b", "c")
	level1 := w.Inner(1, At("a", abc))
	return map[string]seal.Ref{
		"a level left out":                 w.Inner(2, At("a", abc)),
		"a child of the same level":        w.Inner(1, At("a", level1)),
		"begins after its first key":       w.Inner(1, At("a", w.Leaf("b"))),
		"begins before its first key":      w.Inner(1, At("b", abc)),
		"reaches its sibling":              w.Inner(1, At("a", abc), At("c", w.Leaf("c", "d"))),
		"reaches beyond its sibling":       w.Inner(1, At("a", abc), At("b", w.Leaf("b"))),
		"reaches its parent's sibling":     w.Inner(2, At("a", level1), At("c", w.Inner(1, At("c", w.Leaf("c"))))),
		"an inner node reaches too far":    w.Inner(2, At("a", w.Inner(1, At("a", w.Leaf("a")), At("x", w.Leaf("x")))), At("c", w.Inner(1, At("c", w.Leaf("c"))))),
		"the same node in two places":      w.Inner(1, At("a", abc), At("d", abc)),
		"once right and once with an end":  w.Inner(2, At("a", w.Inner(1, At("a", w.Leaf("a")), At("b", w.Leaf("b", "z")))), At("y", w.Inner(1, At("y", w.Leaf("y"))))),
		"an inner node of another's first": w.Inner(2, At("0", level1)),
	}
}

// HostileDisks are disk maps whose nodes each decode, and which are none.
func (w *World) HostileDisks() map[string]seal.Ref {
	const block, size = tree.MinBlock, 300 * tree.MinBlock
	data := w.Data(make([]byte, block))
	leaf := func(size int64, block int, at ...int) seal.Ref {
		n := tree.DiskNode{Size: size, Block: block}
		for _, i := range at {
			n.Slots = append(n.Slots, tree.Slot{Index: i, Ref: data})
		}
		return w.Map(n)
	}
	root := func(slots ...tree.Slot) seal.Ref {
		return w.Map(tree.DiskNode{Level: 1, Size: size, Block: block, Slots: slots})
	}
	return map[string]seal.Ref{
		"a root of too low a level":       leaf(size, block, 0),
		"a child of another size":         root(tree.Slot{Index: 0, Ref: leaf(size+block, block, 0)}),
		"a child of another block size":   root(tree.Slot{Index: 0, Ref: leaf(size, 2*block, 0)}),
		"a child of the same level":       root(tree.Slot{Index: 0, Ref: root()}),
		"a slot beyond the disk":          root(tree.Slot{Index: 2, Ref: leaf(size, block, 0)}),
		"a block beyond the disk":         root(tree.Slot{Index: 1, Ref: leaf(size, block, 44)}),
		"a node again, beyond the disk":   root(tree.Slot{Index: 0, Ref: leaf(size, block, 43, 44)}, tree.Slot{Index: 1, Ref: leaf(size, block, 43, 44)}),
		"a block of a disk without bytes": leaf(0, block, 0),
	}
}

// HostileLists are lists whose nodes each decode, and which are none.
func (w *World) HostileLists() map[string]seal.Ref {
	data := w.Data([]byte("data"))
	leaf := w.Lists(tree.ListNode{Items: []tree.ListItem{{Ref: data, Length: 4}}})
	return map[string]seal.Ref{
		"a blob of another length":                      w.Lists(tree.ListNode{Items: []tree.ListItem{{Ref: data, Length: 5}}}),
		"a list of another length":                      w.Lists(tree.ListNode{Level: 1, Items: []tree.ListItem{{Ref: leaf, Length: 5}}}),
		"the same list, another length the second time": w.Lists(tree.ListNode{Level: 1, Items: []tree.ListItem{{Ref: leaf, Length: 4}, {Ref: leaf, Length: 3}}}),
		"a level left out":                              w.Lists(tree.ListNode{Level: 2, Items: []tree.ListItem{{Ref: leaf, Length: 4}}}),
	}
}
