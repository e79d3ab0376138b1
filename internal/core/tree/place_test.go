package tree_test

import (
	"errors"
	"testing"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

func placeLeaf(names ...string) *tree.Node {
	n := new(tree.Node)
	for _, name := range names {
		n.Entries = append(n.Entries, tree.Entry{Name: name})
	}
	return n
}

func placeInner(level int, names ...string) *tree.Node {
	n := &tree.Node{Level: level}
	for _, name := range names {
		n.Children = append(n.Children, tree.Child{Kind: tripod.Tree, Name: name})
	}
	return n
}

func TestPlaces(t *testing.T) {
	var root tree.Place
	for _, n := range []*tree.Node{placeLeaf(), placeLeaf("x"), placeInner(3, "q", "r")} {
		if err := root.Check(n); err != nil {
			t.Errorf("a root: %v", err)
		}
	}
	upper := root.Below(placeInner(2, "a", "m"), nil)
	// The second child of the first: its end is what follows the first.
	lower := upper[0].Place.Below(placeInner(1, "a", "f"), nil)
	for _, c := range []struct {
		place tree.Place
		node  *tree.Node
		good  bool
	}{
		{upper[0].Place, placeInner(1, "a", "f"), true},
		{upper[0].Place, placeInner(2, "a", "f"), false},
		{upper[0].Place, placeInner(1, "b"), false},
		{upper[0].Place, placeInner(1, "a", "m"), false},
		{upper[0].Place, placeLeaf("a"), false},
		{upper[1].Place, placeInner(1, "m", "z"), true},
		{lower[0].Place, placeLeaf("a", "e"), true},
		{lower[0].Place, placeLeaf("a", "f"), false},
		{lower[0].Place, placeLeaf(), false},
		{lower[1].Place, placeLeaf("f", "l"), true},
		{lower[1].Place, placeLeaf("f", "m"), false},
		{lower[1].Place, placeLeaf("f", "z"), false},
	} {
		err := c.place.Check(c.node)
		if (err == nil) != c.good || (err != nil && !errors.Is(err, tripod.Corrupt)) {
			t.Errorf("%+v in %+v: %v", c.node, c.place, err)
		}
	}
	// Some of the children have the places that they have among all.
	n := placeInner(1, "a", "f", "k")
	all := upper[0].Place.Below(n, nil)
	if some := upper[0].Place.Below(n, n.Children[1:2]); len(some) != 1 || some[0] != all[1] {
		t.Errorf("%+v, not %+v", some, all[1])
	}
	if none := upper[0].Place.Below(n, n.Children[:0]); len(none) != 0 {
		t.Errorf("%+v below nothing", none)
	}
}

func TestDiskNodesFit(t *testing.T) {
	const block, size = tree.MinBlock, 300*tree.MinBlock + 1
	root := &tree.DiskNode{Level: 1, Size: size, Block: block, Slots: []tree.Slot{{Index: 1}}}
	child := func(level int, size int64, block int, last int) *tree.DiskNode {
		return &tree.DiskNode{Level: level, Size: size, Block: block, Slots: []tree.Slot{{Index: last}}}
	}
	for name, c := range map[string]struct {
		n, parent *tree.DiskNode
		first     int64
		good      bool
	}{
		"root": {root, nil, 0, true}, "root of a low level": {child(0, size, block, 0), nil, 0, false},
		"child": {child(0, size, block, 255), root, 0, true}, "last block": {child(0, size, block, 44), root, 256, true},
		"beyond": {child(0, size, block, 45), root, 256, false}, "level": {child(1, size, block, 0), root, 0, false},
		"size": {child(0, size+1, block, 0), root, 0, false}, "block": {child(0, size, 2*block, 0), root, 0, false},
		"no blocks": {&tree.DiskNode{Size: size, Block: block}, root, 512, true}, "slot beyond": {child(1, size, block, 2), nil, 0, false},
	} {
		if err := c.n.Fits(c.parent, c.first); (err == nil) != c.good || (err != nil && !errors.Is(err, tripod.Corrupt)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
