package blobs

import (
	"context"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// Extent is a run of a file's bytes in a data blob.
type Extent struct {
	Ref    seal.Ref
	From   uint32 // offset in the blob's plaintext
	Length uint32 // bytes
	Whole  uint32 // the blob's plaintext length; 0 when the tree does not tell
	Offset int64  // in the file
}

// Of gives the extent's bytes out of its blob's plaintext, and Corrupt when the
// blob is not as long as the tree says.
func (x *Extent) Of(plain []byte) ([]byte, error) {
	if (x.Whole != 0 && len(plain) != int(x.Whole)) || int64(x.From)+int64(x.Length) > int64(len(plain)) {
		return nil, tripod.Errorf(tripod.Corrupt, "blob %.16s: is %d bytes long, and its tree says otherwise", x.Ref.ID(), len(plain))
	}
	return plain[x.From : x.From+x.Length], nil
}

// spread turns positions in an entry's content into places in the file: the
// two differ by a sparse file's holes.
type spread struct {
	ranges []tree.Range // nil: no holes
	used   int64        // of ranges[0]
	at     int64        // in the file, without holes
}

func newSpread(e *tree.Entry) *spread { return &spread{ranges: e.Ranges} }

// next places the next n bytes of content, in one run for each range they touch.
func (s *spread) next(n int64, fn func(offset, length int64) error) error {
	if s.ranges == nil {
		s.at += n
		return fn(s.at-n, n)
	}
	for n > 0 {
		if len(s.ranges) == 0 {
			return tripod.Errorf(tripod.Corrupt, "more content than the file has room for")
		}
		g := s.ranges[0]
		k := min(n, g.Length-s.used)
		if k > 0 {
			if err := fn(g.Offset+s.used, k); err != nil {
				return err
			}
		}
		n -= k
		if s.used += k; s.used == g.Length {
			s.ranges, s.used = s.ranges[1:], 0
		}
	}
	return nil
}

// Inline calls fn with the runs of content that lie in the entry itself.
func Inline(e *tree.Entry, fn func(offset int64, p []byte) error) error {
	p := e.Content.Inline
	if len(p) == 0 {
		return nil
	}
	return newSpread(e).next(int64(len(p)), func(offset, length int64) error {
		run := p[:length]
		p = p[length:]
		return fn(offset, run)
	})
}

// Extents calls fn with the extents of a regular file in ascending order. A
// file whose content lies inline has none. List nodes are read as needed;
// one that is lost, or whose lengths contradict the entry, gives Corrupt.
func (r *Reader) Extents(ctx context.Context, e *tree.Entry, fn func(*Extent) error) error {
	return r.Salvage(ctx, e, fn, nil)
}

// Salvage is Extents that goes on behind lost list nodes: lost is told which
// bytes of the file lie below each.
func (r *Reader) Salvage(ctx context.Context, e *tree.Entry, fn func(*Extent) error, lost Missing) error {
	s := newSpread(e)
	if e.Content.List != nil {
		below := lost
		if lost != nil {
			below = func(_, length int64, err error) error {
				return s.next(length, func(offset, length int64) error { return lost(offset, length, err) })
			}
		}
		return r.SalvageList(ctx, *e.Content.List, e.Stored(), func(x *Extent) error { return s.extent(x, fn) }, below)
	}
	for i := range e.Content.Pieces {
		p := &e.Content.Pieces[i]
		if err := s.extent(&Extent{Ref: p.Ref, From: p.Offset, Length: p.Length}, fn); err != nil {
			return err
		}
	}
	return nil
}

// Missing is told of bytes that cannot be read because a node above them is
// lost. It gives nil to go on without them.
type Missing func(offset, length int64, err error) error

func (s *spread) extent(x *Extent, fn func(*Extent) error) error {
	from := x.From
	return s.next(int64(x.Length), func(offset, length int64) error {
		part := Extent{Ref: x.Ref, From: from, Length: uint32(length), Whole: x.Whole, Offset: offset}
		from += uint32(length)
		return fn(&part)
	})
}

// ListExtents calls fn with the blobs of a list in order. size is what the list
// must hold, or -1 when nothing else tells.
func (r *Reader) ListExtents(ctx context.Context, root seal.Ref, size int64, fn func(*Extent) error) error {
	return r.SalvageList(ctx, root, size, fn, nil)
}

// SalvageList is ListExtents that goes on behind lost nodes, except the root.
func (r *Reader) SalvageList(ctx context.Context, root seal.Ref, size int64, fn func(*Extent) error, lost Missing) error {
	n, err := r.List(ctx, root)
	if err != nil {
		return err
	}
	if size >= 0 && n.Size() != size {
		return tripod.Errorf(tripod.Corrupt, "list %.16s: holds %d bytes, not %d", root.ID(), n.Size(), size)
	}
	var at int64
	return r.listExtents(ctx, n, &at, fn, lost)
}

func (r *Reader) listExtents(ctx context.Context, n *tree.ListNode, at *int64, fn func(*Extent) error, lost Missing) error {
	if n.Level == 0 {
		for i := range n.Items {
			item := &n.Items[i]
			if item.Length <= 0 || item.Length > tripod.MaxPlain {
				return tripod.Errorf(tripod.Corrupt, "list: impossible length of a blob")
			}
			length := uint32(item.Length)
			if err := fn(&Extent{Ref: item.Ref, Length: length, Whole: length, Offset: *at}); err != nil {
				return err
			}
			*at += item.Length
		}
		return ctx.Err()
	}
	return Ahead(ctx, n.Items, ahead,
		func(ctx context.Context, part []tree.ListItem) ([]listed, error) {
			return r.listNodes(ctx, n, part, lost != nil)
		},
		func(nodes []listed) error {
			for _, c := range nodes {
				if c.node != nil {
					if err := r.listExtents(ctx, c.node, at, fn, lost); err != nil {
						return err
					}
					continue
				}
				if err := lost(*at, c.length, c.err); err != nil {
					return err
				}
				*at += c.length
			}
			return nil
		})
}

// listed is a child of a list node, or why it is lost.
type listed struct {
	node   *tree.ListNode
	length int64
	err    error
}

func (r *Reader) listNodes(ctx context.Context, n *tree.ListNode, part []tree.ListItem, salvage bool) ([]listed, error) {
	refs := make([]seal.Ref, len(part))
	out := make([]listed, len(part))
	for i := range part {
		refs[i], out[i].length = part[i].Ref, part[i].Length
	}
	var onError func(int, error) error
	if salvage {
		onError = func(i int, err error) error {
			out[i].err = err
			return nil
		}
	}
	nodes, err := r.Nodes(ctx, tripod.List, refs, onError)
	if err != nil {
		return nil, err
	}
	for i := range nodes {
		child, ok := nodes[i].(*tree.ListNode)
		switch {
		case ok && child.Level == n.Level-1 && child.Size() == part[i].Length:
			out[i].node = child
			continue
		case out[i].err == nil:
			out[i].err = tripod.Errorf(tripod.Corrupt, "list %.16s: is not what its parent names", refs[i].ID())
		}
		if !salvage || part[i].Length < 0 {
			return nil, out[i].err
		}
	}
	return out, nil
}

// Block is one present block of a disk.
type Block struct {
	Ref    seal.Ref
	Offset int64 // on the disk, bytes
	Length int64 // bytes; less than a block's at the end of the disk
}

// Blocks calls fn with the present blocks of a disk in ascending order; what
// lies between them is zeros. A lost node of the map is told to lost with the
// bytes that lie below it.
func (r *Reader) Blocks(ctx context.Context, root *tree.DiskNode, fn func(*Block) error, lost Missing) error {
	if err := root.Fits(nil, 0); err != nil {
		return err
	}
	return r.blocks(ctx, root, 0, fn, lost)
}

// blocks goes through a node whose first block has the number first.
func (r *Reader) blocks(ctx context.Context, n *tree.DiskNode, first int64, fn func(*Block) error, lost Missing) error {
	span := n.SlotBlocks()
	if n.Level == 0 {
		for i := range n.Slots {
			b := Block{Ref: n.Slots[i].Ref, Offset: (first + int64(n.Slots[i].Index)) * int64(n.Block)}
			b.Length = min(int64(n.Block), n.Size-b.Offset) // Fits saw that it lies on the disk
			if err := fn(&b); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	return Ahead(ctx, n.Slots, ahead,
		func(ctx context.Context, part []tree.Slot) ([]placed, error) {
			return r.diskNodes(ctx, n, first, part, lost)
		},
		func(nodes []placed) error {
			for _, c := range nodes {
				if err := r.blocks(ctx, c.node, first+int64(c.index)*span, fn, lost); err != nil {
					return err
				}
			}
			return nil
		})
}

type placed struct {
	node  *tree.DiskNode
	index int
}

func (r *Reader) diskNodes(ctx context.Context, n *tree.DiskNode, first int64, part []tree.Slot, lost Missing) ([]placed, error) {
	refs := make([]seal.Ref, len(part))
	for i := range part {
		refs[i] = part[i].Ref
	}
	bad := make([]error, len(part))
	nodes, err := r.Nodes(ctx, tripod.Disk, refs, func(i int, err error) error {
		bad[i] = err
		return nil
	})
	if err != nil {
		return nil, err
	}
	bytes := n.SlotBlocks() * int64(n.Block)
	var out []placed
	for i := range part {
		child, ok := nodes[i].(*tree.DiskNode)
		if ok {
			if err := child.Fits(n, first+int64(part[i].Index)*n.SlotBlocks()); err != nil {
				ok, bad[i] = false, tripod.Errorf(tripod.Corrupt, "blob %.16s: %w", refs[i].ID(), err)
			}
		}
		if ok {
			out = append(out, placed{node: child, index: part[i].Index})
			continue
		}
		offset := first*int64(n.Block) + int64(part[i].Index)*bytes
		if err := lost(offset, min(bytes, n.Size-offset), bad[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
