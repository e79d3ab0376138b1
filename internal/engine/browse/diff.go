package browse

import (
	"bytes"
	"context"
	"slices"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
)

// ChangeKind is how an entry differs between two snapshots.
type ChangeKind string

// The kinds of change.
const (
	Added    ChangeKind = "added"
	Removed  ChangeKind = "removed"
	Modified ChangeKind = "modified" // content, or where a link points
	Metadata ChangeKind = "metadata" // mode, owner, times, attributes only
	Retyped  ChangeKind = "type"     // a file became a folder, and the like
)

// Change is one difference. Old is nil for what was added, New for what was
// removed.
type Change struct {
	Kind     ChangeKind
	Path     string
	Old, New *tree.Entry
}

// Diff calls fn for every difference from a to b, in the order of the tree.
// Nodes that both share are not read.
func (b *Browser) Diff(ctx context.Context, from, to catalog.Snapshot, fn func(Change) error) error {
	for _, s := range []catalog.Snapshot{from, to} {
		if s.Record.Type != tripod.Files {
			return tripod.Errorf(tripod.Invalid, "snapshot %s: is of a %s and holds no files", s.ID, s.Record.Type)
		}
	}
	d := &differ{Browser: b, fn: fn}
	d.a, d.b = newCursor(b.blobs, from.Root), newCursor(b.blobs, to.Root)
	for {
		x, okA := d.a.peek()
		y, okB := d.b.peek()
		if !okA && !okB {
			return ctx.Err()
		}
		if err := d.step(ctx, x, okA, y, okB); err != nil {
			return err
		}
	}
}

type differ struct {
	*Browser
	a, b *cursor
	fn   func(Change) error
}

// step takes one step: over a node that both have, into a node, or past an
// entry.
func (d *differ) step(ctx context.Context, x position, okA bool, y position, okB bool) error {
	c := -1
	switch {
	case okA && okB:
		c = tree.Compare(x.parent, x.name, y.parent, y.name)
	case okB:
		c = 1
	}
	switch {
	case c < 0 && x.entry == nil:
		return d.a.descend(ctx, d.b)
	case c > 0 && y.entry == nil:
		return d.b.descend(ctx, d.a)
	case c < 0:
		d.a.next()
		return d.fn(Change{Kind: Removed, Path: x.entry.Path(), Old: x.entry})
	case c > 0:
		d.b.next()
		return d.fn(Change{Kind: Added, Path: y.entry.Path(), New: y.entry})
	case x.entry == nil && y.entry == nil && x.child.Ref == y.child.Ref:
		d.a.next()
		d.b.next()
		return nil
	case x.entry == nil && (y.entry != nil || x.level >= y.level):
		// Of two different nodes of one level both are entered, one now.
		return d.a.descend(ctx, d.b)
	case y.entry == nil:
		return d.b.descend(ctx, d.a)
	}
	d.a.next()
	d.b.next()
	return d.both(ctx, x.entry, y.entry)
}

func (d *differ) both(ctx context.Context, x, y *tree.Entry) error {
	kind := ChangeKind("")
	switch {
	case x.Type != y.Type:
		kind = Retyped
	case x.Link != y.Link || x.Size != y.Size || x.Major != y.Major || x.Minor != y.Minor:
		kind = Modified
	default:
		same, err := d.sameContent(ctx, x, y)
		if err != nil {
			return err
		}
		if !same {
			kind = Modified
		} else if !sameMetadata(x, y) {
			kind = Metadata
		}
	}
	if kind == "" {
		return nil
	}
	return d.fn(Change{Kind: kind, Path: y.Path(), Old: x, New: y})
}

func sameMetadata(x, y *tree.Entry) bool {
	return x.Mode == y.Mode && x.Owner == y.Owner && x.Sec == y.Sec && x.Nsec == y.Nsec && slices.Equal(x.Xattrs, y.Xattrs)
}

// sameContent compares by reference. Small files may lie in another bundle
// than before with the same bytes, so those are read.
func (d *differ) sameContent(ctx context.Context, x, y *tree.Entry) (bool, error) {
	if bytes.Equal(appendContent(nil, x), appendContent(nil, y)) {
		return true, nil
	}
	p, q := x.Content.Pieces, y.Content.Pieces
	if len(p) != 1 || len(q) != 1 || p[0].Length != q[0].Length || !slices.Equal(x.Ranges, y.Ranges) || p[0].Offset == q[0].Offset && p[0].Ref == q[0].Ref {
		return false, nil
	}
	extent := func(p *tree.Piece) blobs.Extent {
		return blobs.Extent{Ref: p.Ref, From: p.Offset, Length: p.Length}
	}
	data, err := d.blobs.Bytes(ctx, []blobs.Extent{extent(&p[0]), extent(&q[0])})
	if err != nil {
		return false, tripod.Errorf(tripod.KindOf(err), "/%s: %w", y.Path(), err)
	}
	return bytes.Equal(data[0], data[1]), nil
}

// cursor goes through a tree in order and stops before each node, which can be
// entered or passed over.
type cursor struct {
	blobs *blobs.Reader
	stack []frame
}

type frame struct {
	node  *tree.Node
	place *tree.Place // nil for the node above the root
	at    int
}

// position is what a cursor stands before: an entry, or a child of some level.
type position struct {
	parent, name string
	entry        *tree.Entry
	child        *tree.Child
	level        int
}

func newCursor(r *blobs.Reader, root seal.Ref) *cursor {
	// The root is treated as the only child of a node above it.
	top := &tree.Node{Level: topLevel, Children: []tree.Child{{Ref: root, Kind: tripod.Tree}}}
	return &cursor{blobs: r, stack: []frame{{node: top}}}
}

// topLevel is above every level a tree has.
const topLevel = 100

func (c *cursor) peek() (position, bool) {
	for len(c.stack) > 0 {
		f := &c.stack[len(c.stack)-1]
		if f.node.Level == 0 && f.at < len(f.node.Entries) {
			e := &f.node.Entries[f.at]
			return position{parent: e.Parent, name: e.Name, entry: e}, true
		}
		if f.node.Level > 0 && f.at < len(f.node.Children) {
			k := &f.node.Children[f.at]
			return position{parent: k.Parent, name: k.Name, child: k, level: f.node.Level - 1}, true
		}
		c.stack = c.stack[:len(c.stack)-1]
		if len(c.stack) > 0 {
			c.stack[len(c.stack)-1].at++
		}
	}
	return position{}, false
}

func (c *cursor) next() { c.stack[len(c.stack)-1].at++ }

// descend enters the child the cursor stands before, and reads some of its
// siblings ahead that the other tree does not have.
func (c *cursor) descend(ctx context.Context, other *cursor) error {
	const most = 8
	f := &c.stack[len(c.stack)-1]
	k := &f.node.Children[f.at]
	refs := []seal.Ref{k.Ref}
	if f.node.Level == 1 {
		shared := map[seal.Ref]bool{}
		for _, g := range other.stack {
			for i := range g.node.Children {
				shared[g.node.Children[i].Ref] = true
			}
		}
		for i := f.at + 1; i < len(f.node.Children) && len(refs) < most; i++ {
			if ref := f.node.Children[i].Ref; !shared[ref] {
				refs = append(refs, ref)
			}
		}
	}
	nodes, err := c.blobs.Nodes(ctx, tripod.Tree, refs, func(i int, err error) error {
		if i == 0 {
			return err
		}
		return nil // it is told when its turn comes
	})
	if err != nil {
		return tripod.Errorf(tripod.KindOf(err), "folders from /%s on: %w", tree.Join(k.Parent, k.Name), err)
	}
	place := new(tree.Place)
	if f.place != nil {
		place = &f.place.Below(f.node, f.node.Children[f.at:f.at+1])[0].Place
	}
	n, ok := nodes[0].(*tree.Node)
	if !ok {
		return tripod.Errorf(tripod.Corrupt, "folders from /%s on: the node is of another kind", tree.Join(k.Parent, k.Name))
	}
	if err := place.Check(n); err != nil {
		return tripod.Errorf(tripod.Corrupt, "folders from /%s on: %w", tree.Join(k.Parent, k.Name), err)
	}
	c.stack = append(c.stack, frame{node: n, place: place})
	return nil
}
