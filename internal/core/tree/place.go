package tree

import (
	"sort"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// Place is where a node of a file tree stands, by what the nodes above it say:
// its level, its first key, and the key that it ends before. Decoding cannot
// check that, so every walker does: else a hostile tree could hide from lookups
// what a walk shows, or run deeper than a tree can.
type Place struct {
	below       bool // a root may have any level and begin anywhere
	level       int
	parent      string
	name        string
	bounded     bool // the last node of each level has no end
	untilParent string
	untilName   string
}

// Placed is a child of an inner node and the place it has to fill.
type Placed struct {
	Ref   seal.Ref
	Place Place
}

// From is the path at which the place begins, "" for a root.
func (p *Place) From() string { return Join(p.parent, p.name) }

// Until is the path that the place ends before, "" when it has no end.
func (p *Place) Until() string { return Join(p.untilParent, p.untilName) }

// Below gives children of n, which stands in place p and is an inner node, with
// their places. They are some that Next gave, without a gap; all when nil.
func (p *Place) Below(n *Node, children []Child) []Placed {
	if children == nil {
		children = n.Children
	}
	if len(children) == 0 {
		return nil
	}
	at := sort.Search(len(n.Children), func(i int) bool {
		c := &n.Children[i]
		return Compare(c.Parent, c.Name, children[0].Parent, children[0].Name) >= 0
	})
	out := make([]Placed, len(children))
	for i := range children {
		c := &children[i]
		o := Place{
			below: true, level: n.Level - 1, parent: c.Parent, name: c.Name,
			bounded: p.bounded, untilParent: p.untilParent, untilName: p.untilName,
		}
		if at+i+1 < len(n.Children) {
			next := &n.Children[at+i+1]
			o.bounded, o.untilParent, o.untilName = true, next.Parent, next.Name
		}
		out[i] = Placed{c.Ref, o}
	}
	return out
}

// Check returns Corrupt unless n fits into the place.
func (p *Place) Check(n *Node) error {
	if p.below && n.Level != p.level {
		return tripod.Errorf(tripod.Corrupt, "tree node: is of level %d, not %d", n.Level, p.level)
	}
	var first, last [2]string
	switch {
	case n.Level > 0:
		k := len(n.Children) - 1 // decoding saw to one at least
		first = [2]string{n.Children[0].Parent, n.Children[0].Name}
		last = [2]string{n.Children[k].Parent, n.Children[k].Name}
	case len(n.Entries) > 0:
		k := len(n.Entries) - 1
		first = [2]string{n.Entries[0].Parent, n.Entries[0].Name}
		last = [2]string{n.Entries[k].Parent, n.Entries[k].Name}
	case p.below:
		return tripod.Errorf(tripod.Corrupt, "tree node: is empty, and should begin at %q", p.From())
	default:
		return nil
	}
	if p.below && first != [2]string{p.parent, p.name} {
		return tripod.Errorf(tripod.Corrupt, "tree node: begins at %q, not at %q", Join(first[0], first[1]), p.From())
	}
	if p.bounded && Compare(last[0], last[1], p.untilParent, p.untilName) >= 0 {
		return tripod.Errorf(tripod.Corrupt, "tree node: reaches to %q, and should end before %q", Join(last[0], last[1]), Join(p.untilParent, p.untilName))
	}
	return nil
}

// Fits returns Corrupt unless n, whose first block has the number first, fits
// below parent, or is a map's root when parent is nil: level, size and block as
// they should be, and no slot beyond the disk.
func (n *DiskNode) Fits(parent *DiskNode, first int64) error {
	level := DiskLevels(n.Size, n.Block)
	if parent != nil {
		level = parent.Level - 1
	}
	if n.Level != level || (parent != nil && (n.Size != parent.Size || n.Block != parent.Block)) {
		return tripod.Errorf(tripod.Corrupt, "disk map: a node of level %d for %d bytes in blocks of %d is not what its parent names", n.Level, n.Size, n.Block)
	}
	if len(n.Slots) == 0 {
		return nil
	}
	last := first + int64(n.Slots[len(n.Slots)-1].Index)*n.SlotBlocks()
	if blocks := (n.Size + int64(n.Block) - 1) / int64(n.Block); last >= blocks {
		return tripod.Errorf(tripod.Corrupt, "disk map: has block %d of a disk of %d", last, blocks)
	}
	return nil
}
