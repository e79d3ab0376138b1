package verify

import (
	"context"
	"encoding/binary"
	"errors"
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
	// so that a blob met again is read again only if more is asked of it.
	seen  map[short]uint32
	lists map[short]int64 // lengths of the lists that files name
	win   *batch
	send  func(*batch) error

	mu  sync.Mutex
	bad map[short]error
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
	// In seen: a node, and the bit that says a length is the blob's own.
	node    = math.MaxUint32
	exactly = 1 << 31
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
	_, known := c.bad[k]
	c.bad[k] = err
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

// first reports whether a node was not met before.
func (c *checker) first(ref *seal.Ref) bool {
	k := shorten(ref)
	if _, ok := c.seen[k]; ok {
		return false
	}
	c.seen[k] = node
	return true
}

func (c *checker) snapshot(ctx context.Context, s *catalog.Snapshot) error {
	if !c.first(&s.Root) {
		return ctx.Err()
	}
	switch s.Record.Type {
	case tripod.Files:
		return c.one(ctx, tripod.Tree, s.Root, func(n any) error { return c.tree(ctx, n) })
	case tripod.DiskImage:
		return c.one(ctx, tripod.Disk, s.Root, func(n any) error { return c.disk(ctx, n, 0) })
	case tripod.Stream:
		return c.one(ctx, tripod.List, s.Root, func(n any) error { return c.list(ctx, n) })
	}
	return nil
}

func (c *checker) one(ctx context.Context, kind tripod.BlobKind, ref seal.Ref, use func(any) error) error {
	return c.nodes(ctx, kind, []child{{ref: ref}}, func(n any, _ int) error { return use(n) })
}

// child is a node to be read, and what its parent says of it.
type child struct {
	ref  seal.Ref
	fits func(n any) error // nil for a root
	at   int
}

// ahead is how many nodes are read at a time while those before are used.
const ahead = 16

// nodes reads nodes that were not met before and uses those that are sound.
func (c *checker) nodes(ctx context.Context, kind tripod.BlobKind, children []child, use func(n any, at int) error) error {
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
			c.damaged(&refs[i], err)
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
					c.damaged(&p.children[i].ref, err)
					continue
				}
			}
			c.mu.Lock()
			c.report.Nodes++
			c.mu.Unlock()
			if err := use(n, p.children[i].at); err != nil {
				return err
			}
		}
		return nil
	})
}

func misfit(what string) error {
	return tripod.Errorf(tripod.Corrupt, "%s: is not what its parent says", what)
}

func (c *checker) tree(ctx context.Context, got any) error {
	n, ok := got.(*tree.Node)
	if !ok {
		return nil
	}
	if n.Level == 0 {
		return c.leaf(ctx, n)
	}
	var children []child
	for i := range n.Children {
		k := &n.Children[i]
		if c.first(&k.Ref) {
			children = append(children, child{ref: k.Ref, fits: func(got any) error {
				if n2, ok := got.(*tree.Node); ok && blobs.Fits(n2, n.Level-1, k) == nil {
					return nil
				}
				return misfit("tree node at /" + tree.Join(k.Parent, k.Name))
			}})
		}
	}
	return c.nodes(ctx, tripod.Tree, children, func(n any, _ int) error { return c.tree(ctx, n) })
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
		if !c.first(e.Content.List) {
			if c.lists[shorten(e.Content.List)] != size {
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
		}}}, func(n any, _ int) error { return c.list(ctx, n) })
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
		if c.first(&item.Ref) {
			children = append(children, child{ref: item.Ref, fits: func(got any) error {
				if l, ok := got.(*tree.ListNode); ok && l.Level == n.Level-1 && l.Size() == item.Length {
					return nil
				}
				return misfit("list node")
			}})
		}
	}
	return c.nodes(ctx, tripod.List, children, func(n any, _ int) error { return c.list(ctx, n) })
}

// disk checks a node of a disk map whose first block has the number first.
func (c *checker) disk(ctx context.Context, got any, first int64) error {
	n, ok := got.(*tree.DiskNode)
	if !ok {
		return nil
	}
	var children []child
	for i := range n.Slots {
		s := &n.Slots[i]
		at := first + int64(s.Index)*n.SlotBlocks()
		if n.Level == 0 {
			length := min(int64(n.Block), n.Size-at*int64(n.Block))
			if err := c.data(&s.Ref, uint32(max(length, 0)), true); err != nil { //nolint:gosec // at most a block
				return err
			}
			continue
		}
		if c.first(&s.Ref) {
			children = append(children, child{ref: s.Ref, at: i, fits: func(got any) error {
				if d, ok := got.(*tree.DiskNode); ok && d.Level == n.Level-1 && d.Size == n.Size && d.Block == n.Block {
					return nil
				}
				return misfit("disk map node")
			}})
		}
	}
	return c.nodes(ctx, tripod.Disk, children, func(k any, at int) error {
		return c.disk(ctx, k, first+int64(n.Slots[at].Index)*n.SlotBlocks())
	})
}
