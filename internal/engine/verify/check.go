package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
)

// short is the first half of a blob's U: 128 bits of BLAKE3 tell blobs apart,
// and what is remembered of each stays at 20 bytes.
type short [16]byte

func shorten(r *seal.Ref) short { return short(r.U[:16]) }

// checker goes through the snapshots. One goroutine walks and owns seen; others
// read data blobs and change what mu guards.
type checker struct {
	Options
	blobs  *blobs.Reader
	meter  *blobs.Meter
	report Report

	// seen holds every blob that was met: data with the longest use made of it,
	// so that a blob met again is read again only if more is asked of it; nodes
	// with a hash of what the node above says of them, for the same reason.
	seen  map[short]uint32
	claim maphash.Seed
	lists map[short]int64 // lengths of lists, by what names them
	win   *batch
	send  func(*batch) error

	mu  sync.Mutex
	bad map[short]*Blob
}

// batch is a number of data blobs to read, with the least plaintext length that
// their uses need; exact says that it is the length.
type batch struct {
	wants []blobs.Want
	need  []uint32
	exact []bool
	index map[short]int
}

const (
	batchBlobs = 512
	readers    = 2
	exactly    = 1 << 31 // in seen: the length is the blob's own
)

func newBatch() *batch { return &batch{index: make(map[short]int, batchBlobs)} }

func (c *checker) all(ctx context.Context, snaps []catalog.Snapshot) error {
	g, ctx := errgroup.WithContext(ctx)
	batches := make(chan *batch, 1)
	c.win = newBatch()
	c.send = func(b *batch) error {
		select {
		case batches <- b:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.Go(func() error {
		defer close(batches)
		for i := range snaps {
			if err := c.snapshot(ctx, &snaps[i]); err != nil {
				return err
			}
		}
		if len(c.win.wants) == 0 {
			return nil
		}
		return c.send(c.win)
	})
	for range readers {
		g.Go(func() error {
			for b := range batches {
				if err := c.read(ctx, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// read reads one batch of data blobs.
func (c *checker) read(ctx context.Context, b *batch) error {
	return c.blobs.Fetch(ctx, b.wants, func(i int, plain []byte, _ []tripod.ID) error {
		n := len(plain)
		if n < int(b.need[i]) || (b.exact[i] && n != int(b.need[i])) {
			return tripod.Errorf(tripod.Corrupt, "blob %.16s: is %d bytes long, and its tree says otherwise", b.wants[i].Ref.ID(), n)
		}
		c.mu.Lock()
		c.report.Data++
		c.report.Bytes += int64(n)
		c.mu.Unlock()
		c.meter.Add(0, int64(n))
		return nil
	}, func(i int, err error) error {
		c.damaged(&b.wants[i].Ref, err)
		return nil
	})
}

// damaged notes a blob that cannot be used.
func (c *checker) damaged(ref *seal.Ref, err error) {
	c.mu.Lock()
	k := shorten(ref)
	b, known := c.bad[k]
	if !known {
		b = &Blob{ID: ref.ID()}
		c.bad[k] = b
	}
	b.Err = err
	if !known {
		if errors.Is(err, tripod.NotFound) {
			c.report.Missing++
		} else {
			c.report.Damaged++
		}
		if len(c.report.Problems) < mostListed {
			id := ref.ID()
			c.report.Problems = append(c.report.Problems, catalog.Problem{Document: "blob " + id.String()[:16], Err: err})
		} else {
			c.report.Truncated = true
		}
	}
	c.mu.Unlock()
	if !known {
		c.meter.Warn("", err)
	}
}

func (c *checker) damagedNode(ref *seal.Ref, err error) {
	c.damaged(ref, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Unseen = true
}

// data asks for a data blob of at least, or exactly, n bytes.
func (c *checker) data(ref *seal.Ref, n uint32, exact bool) error {
	k := shorten(ref)
	before, again := c.seen[k]
	known, knownExact := before&^exactly, before&exactly != 0
	if again && (n == known && exact == knownExact || !exact && n <= known) {
		return nil
	}
	if again && knownExact { // one of the two is wrong, and both need it
		c.damaged(ref, tripod.Errorf(tripod.Corrupt, "blob %.16s: has two different lengths by its trees", ref.ID()))
		return nil
	}
	c.seen[k] = max(n, known)
	if exact {
		c.seen[k] = n | exactly
	}
	if !again && !c.drawn(ref) {
		c.report.Skipped++
		return nil
	}
	if i, ok := c.win.index[k]; ok && !exact { // not sent yet: ask for more
		c.win.need[i] = max(c.win.need[i], n)
		return nil
	}
	c.win.index[k] = len(c.win.wants)
	c.win.wants = append(c.win.wants, blobs.Want{Ref: *ref, Kind: tripod.Data})
	c.win.need, c.win.exact = append(c.win.need, n), append(c.win.exact, exact)
	if len(c.win.wants) < batchBlobs {
		return nil
	}
	full := c.win
	c.win = newBatch()
	return c.send(full)
}

// drawn decides by the seed whether a blob is in the sample.
func (c *checker) drawn(ref *seal.Ref) bool {
	if c.Sample <= 0 || c.Sample >= 100 {
		return true
	}
	// U is uniform; the seed makes another sample of it.
	x := binary.LittleEndian.Uint64(ref.U[:]) ^ (c.Seed * 0x9E3779B97F4A7C15)
	x ^= x >> 32
	x *= 0xD6E8FEB86659FD93
	x ^= x >> 32
	return float64(x)/math.MaxUint64*100 < c.Sample
}

// met reports whether a node was met before, and whether the node above it said
// the same of it then. If not, only its place has to be checked again.
func met[T comparable](c *checker, ref *seal.Ref, said T) (before, same bool) {
	k, now := shorten(ref), uint32(maphash.Comparable(c.claim, said)) //nolint:gosec // half of a hash is enough
	was, before := c.seen[k]
	c.seen[k] = now
	return before, before && was == now
}

func (c *checker) snapshot(ctx context.Context, s *catalog.Snapshot) error {
	var err error
	switch s.Record.Type {
	case tripod.Files:
		err = c.trees(ctx, []tree.Placed{{Ref: s.Root}})
	case tripod.DiskImage:
		err = c.disks(ctx, nil, []tree.Slot{{Ref: s.Root}}, 0)
	case tripod.Stream:
		if before, _ := met(c, &s.Root, struct{}{}); !before {
			err = c.nodes(ctx, tripod.List, []child{{ref: s.Root}}, func(got any, _ *child) error {
				if n, ok := got.(*tree.ListNode); ok {
					c.lists[shorten(&s.Root)] = n.Size()
				}
				return c.list(ctx, got)
			})
		}
	}
	return errors.Join(err, ctx.Err())
}

// child is a node to be read, and what the node above says of it.
type child struct {
	ref   seal.Ref
	fits  func(n any) error // nil for a list's root
	again bool              // it was met before, under another node that said something else
	place tree.Place        // of a file tree's node
	first int64             // block of a disk's node
}

// ahead is how many nodes are read at a time while those before are used.
const ahead = 16

// nodes reads nodes and uses those that are sound.
func (c *checker) nodes(ctx context.Context, kind tripod.BlobKind, children []child, use func(n any, k *child) error) error {
	type part struct {
		children []child
		nodes    []any
	}
	return blobs.Ahead(ctx, children, ahead, func(ctx context.Context, children []child) (part, error) {
		refs := make([]seal.Ref, len(children))
		for i := range children {
			refs[i] = children[i].ref
		}
		nodes, err := c.blobs.Nodes(ctx, kind, refs, func(i int, err error) error {
			c.damagedNode(&refs[i], err)
			return nil
		})
		return part{children, nodes}, err
	}, func(p part) error {
		for i, n := range p.nodes {
			if n == nil {
				continue
			}
			if fits := p.children[i].fits; fits != nil {
				if err := fits(n); err != nil {
					c.damagedNode(&p.children[i].ref, err)
					continue
				}
			}
			if !p.children[i].again {
				c.mu.Lock()
				c.report.Nodes++
				c.mu.Unlock()
			}
			if err := use(n, &p.children[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func misfit(what string) error {
	return tripod.Errorf(tripod.Corrupt, "%s: is not what its parent says", what)
}

// trees checks nodes of a file tree and what is below them. A node met again in
// another place, mostly because what follows it changed, is read again; of the
// nodes below it, the last alone is in another place too.
func (c *checker) trees(ctx context.Context, placed []tree.Placed) error {
	var children []child
	for i := range placed {
		k := child{ref: placed[i].Ref, place: placed[i].Place}
		before, same := met(c, &k.ref, k.place)
		if same {
			continue
		}
		k.again = before
		k.fits = func(got any) error {
			if n, ok := got.(*tree.Node); ok {
				return k.place.Check(n)
			}
			return misfit("tree node")
		}
		children = append(children, k)
	}
	return c.nodes(ctx, tripod.Tree, children, func(got any, k *child) error {
		n, ok := got.(*tree.Node)
		switch {
		case !ok:
			return nil
		case n.Level > 0:
			return c.trees(ctx, k.place.Below(n, nil))
		case k.again:
			return ctx.Err()
		}
		return c.leaf(ctx, n)
	})
}

func (c *checker) leaf(ctx context.Context, n *tree.Node) error {
	for i := range n.Entries {
		e := &n.Entries[i]
		for k := range e.Content.Pieces {
			p := &e.Content.Pieces[k]
			if err := c.data(&p.Ref, p.Offset+p.Length, false); err != nil {
				return err
			}
		}
		if e.Content.List == nil {
			continue
		}
		size, path := e.Stored(), e.Path()
		if before, _ := met(c, e.Content.List, struct{}{}); before {
			if was, ok := c.lists[shorten(e.Content.List)]; ok && was != size {
				c.damaged(e.Content.List, misfit("list of /"+path))
			}
			continue
		}
		c.lists[shorten(e.Content.List)] = size
		err := c.nodes(ctx, tripod.List, []child{{ref: *e.Content.List, fits: func(got any) error {
			if l, ok := got.(*tree.ListNode); ok && l.Size() == size {
				return nil
			}
			return misfit("list of /" + path)
		}}}, func(n any, _ *child) error { return c.list(ctx, n) })
		if err != nil {
			return err
		}
	}
	c.meter.Add(int64(len(n.Entries)), 0)
	return ctx.Err()
}

func (c *checker) list(ctx context.Context, got any) error {
	n, ok := got.(*tree.ListNode)
	if !ok {
		return nil
	}
	var children []child
	for i := range n.Items {
		item := &n.Items[i]
		if n.Level == 0 {
			length := uint32(min(max(item.Length, 0), exactly-1)) //nolint:gosec // no blob is as long
			if err := c.data(&item.Ref, length, true); err != nil {
				return err
			}
			continue
		}
		before, same := met(c, &item.Ref, [2]int64{int64(n.Level), item.Length})
		if !same {
			c.lists[shorten(&item.Ref)] = item.Length
			children = append(children, child{ref: item.Ref, again: before, fits: func(got any) error {
				if l, ok := got.(*tree.ListNode); ok && l.Level == n.Level-1 && l.Size() == item.Length {
					return nil
				}
				return misfit("list node")
			}})
		}
	}
	return c.nodes(ctx, tripod.List, children, func(n any, k *child) error {
		if k.again {
			return ctx.Err()
		}
		return c.list(ctx, n)
	})
}

// disks checks nodes of a disk map below parent, nil for a root, whose first
// block has the number first. A node met again in another place of the disk is
// only followed where the disk ends, which may be elsewhere in it.
func (c *checker) disks(ctx context.Context, parent *tree.DiskNode, slots []tree.Slot, first int64) error {
	type said struct {
		level, block int
		size, left   int64
	}
	var children []child
	for i := range slots {
		k := child{ref: slots[i].Ref, first: first}
		var s said
		if parent != nil {
			span := parent.SlotBlocks()
			k.first += int64(slots[i].Index) * span
			left := parent.Size - k.first*int64(parent.Block)
			s = said{parent.Level, parent.Block, parent.Size, min(left, span*int64(parent.Block))}
		}
		before, same := met(c, &k.ref, s)
		if same {
			continue
		}
		k.again = before
		k.fits = func(got any) error {
			if n, ok := got.(*tree.DiskNode); ok {
				return n.Fits(parent, k.first)
			}
			return misfit("disk map node")
		}
		children = append(children, k)
	}
	return c.nodes(ctx, tripod.Disk, children, func(got any, k *child) error {
		if n, ok := got.(*tree.DiskNode); ok {
			return c.disk(ctx, n, k.first)
		}
		return nil
	})
}

// disk checks what is below a node of a disk map.
func (c *checker) disk(ctx context.Context, n *tree.DiskNode, first int64) error {
	if n.Level > 0 {
		return c.disks(ctx, n, n.Slots, first)
	}
	for i := range n.Slots {
		s := &n.Slots[i]
		at := first + int64(s.Index)
		length := min(int64(n.Block), n.Size-at*int64(n.Block))      // on the disk: the node fits
		if err := c.data(&s.Ref, uint32(length), true); err != nil { //nolint:gosec // at most a block
			return err
		}
	}
	return ctx.Err()
}
