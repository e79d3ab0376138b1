package local

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// frameMagic begins every frame; see package frame.
const frameMagic = "TPF1"

// nextFrame gives the place at or after from where a frame may begin.
func nextFrame(b []byte, from int) int {
	if n := bytes.Index(b[from:], []byte(frameMagic)); n >= 0 {
		return from + n
	}
	return len(b)
}

// settle works out which nodes of the packs that others wrote are closed: all
// that they refer to is there, down to the leaves. Only who writes needs to know.
//
// The packs lie in no particular order, so a node may be met before its
// children. It then waits for them in memory, some 100 bytes a node and 50 a
// missing child; nodes whose children are there already, in the packs settled
// before, cost nothing. The caller holds v.mu.
func (v *Vault) settle(ctx context.Context) error {
	if ok, err := v.idx.Settled(); ok || err != nil {
		return err
	}
	c := &closing{idx: v.idx, waiting: map[tripod.ID][]int32{}, open: map[uint32]int{}, damaged: v.damaged}
	var todo []index.Pack
	for _, p := range v.idx.Packs() {
		if p.Open {
			todo = append(todo, p)
		}
	}
	told := teller{progress: v.opts.Progress, event: run.Event{Phase: run.Opening, FilesTotal: int64(len(todo)), Item: "metadata"}}
	read := make(chan packBytes)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(read)
		return readPacks(gctx, v, todo, read)
	})
	g.Go(func() error {
		for p := range read {
			if err := c.pack(&p.pack, p.data, p.err, v.descriptor.Company); err != nil {
				return err
			}
			told.event.Files++
			told.event.Bytes += p.pack.Size
			told.tell()
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if c.again {
		return v.settle(ctx) // what was damaged counts no more, so this ends
	}
	stay := make(map[uint32]bool, len(c.open))
	for ordinal, n := range c.open {
		if n > 0 {
			stay[ordinal] = true
		}
	}
	return v.idx.Settle(stay)
}

// packBytes is a pack read whole; err tells why it could not be.
type packBytes struct {
	pack index.Pack
	data []byte
	err  error
}

// readPacks reads packs one ahead of who uses them.
func readPacks(ctx context.Context, v *Vault, packs []index.Pack, to chan<- packBytes) error {
	bufs := [2][]byte{}
	for i, p := range packs {
		// The other buffer is in use until the send of the next pack.
		size := min(p.Size, maxObject)
		buf := slices.Grow(bufs[i%2][:0], int(size))[:size]
		bufs[i%2] = buf
		err := readFull(ctx, v.store, vault.PackName(p.Name), buf, 0)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case to <- packBytes{p, buf, err}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// closing is the state of settle.
type closing struct {
	idx     *index.Index
	parents []parent
	waiting map[tripod.ID][]int32 // positions in parents by the child they wait for
	open    map[uint32]int        // number of nodes not closed by pack
	damaged map[tripod.PackID]error

	again  bool               // a node that was closed is gone: closed bits were taken back
	held   map[tripod.ID]bool // what of this pack's refs is there
	closed []index.Entry      // to be marked
}

type parent struct {
	entry   index.Entry
	pending int // children it waits for
}

// pack works out one pack's nodes.
func (c *closing) pack(p *index.Pack, data []byte, err error, company tripod.CompanyID) error {
	if err != nil {
		c.open[p.Ordinal]++
		c.damaged[p.Name] = fmt.Errorf("pack %.16s: %w", p.Name, err)
		return nil
	}
	nodes, bad := c.rows(p, data, company)
	if len(bad) > 0 {
		c.damaged[p.Name] = tripod.Errorf(tripod.Corrupt, "pack %.16s: %s in it damaged", p.Name, tripod.Count(len(bad), "blob")).
			WithHint("the next backup stores again what it lacks; tripod verify tells which snapshots need it")
		again, err := c.idx.Suspect(bad)
		c.again = c.again || again
		if err != nil {
			return err
		}
	}
	var refs []tripod.ID
	c.held = map[tripod.ID]bool{}
	for i := range nodes {
		for _, ref := range nodes[i].refs {
			if _, ok := c.held[ref]; !ok {
				c.held[ref] = false
				refs = append(refs, ref)
			}
		}
	}
	var revived []index.Entry
	err = c.idx.Find(refs, func(i int, e *index.Entry) error {
		if wanted(e, &revived) {
			c.held[refs[i]] = true
		}
		return nil
	})
	if err == nil {
		err = c.idx.Revive(revived)
	}
	if err != nil {
		return err
	}
	suspects, err := c.suspects(p, nodes)
	if err != nil {
		return err
	}
	for i := range nodes {
		if !suspects[nodes[i].entry.Offset] {
			c.node(&nodes[i])
		}
	}
	closed := c.closed
	c.closed = c.closed[:0]
	return c.idx.MarkClosed(closed)
}

// suspects gives the offsets in a pack of nodes that were found damaged. They
// are not closed, whatever their frames look like now: who has the keys may see
// more. The next backup that needs one stores it again.
func (c *closing) suspects(p *index.Pack, nodes []nodeFrame) (map[uint32]bool, error) {
	ids := make([]tripod.ID, len(nodes))
	for i := range nodes {
		ids[i] = nodes[i].entry.ID
	}
	offsets := map[uint32]bool{}
	err := c.idx.Find(ids, func(_ int, e *index.Entry) error {
		if e.Suspect && e.Pack == p.Ordinal {
			offsets[e.Offset] = true
		}
		return nil
	})
	return offsets, err
}

// nodeFrame is what closing needs of a node.
type nodeFrame struct {
	entry index.Entry
	refs  []tripod.ID
}

// rows reads a pack's nodes, and tells which rows of the index lead to damage.
func (c *closing) rows(p *index.Pack, data []byte, company tripod.CompanyID) (whole []nodeFrame, bad []index.Entry) {
	var rows []frame.Row
	if p.Damaged {
		rows = salvageFrames(data, company)
	} else if toc, err := parseTOC(p.Name, data); err == nil {
		rows = toc.Rows
	}
	for i := range rows {
		r := &rows[i]
		e := index.Entry{ID: r.ID, Sum: r.Sum, Pack: p.Ordinal, Offset: uint32(r.Offset), Len: uint32(r.Len), Kind: r.Kind}
		f, err := checkRow(r, data[r.Offset:r.Offset+int64(r.Len)], company)
		if err != nil {
			bad = append(bad, e)
			continue
		}
		if e.Kind.Node() {
			whole = append(whole, nodeFrame{e, f.Refs})
		}
	}
	return whole, bad
}

// checkRow parses the frame that a row leads to and checks that it is the one
// the row means, whole, and the company's.
func checkRow(r *frame.Row, encoded []byte, company tripod.CompanyID) (frame.Frame, error) {
	f, rest, err := frame.Parse(encoded)
	if err == nil {
		err = f.Check()
	}
	if err == nil && (len(rest) != 0 || f.ID != r.ID || f.Sum != r.Sum || f.Kind != r.Kind) {
		err = tripod.Errorf(tripod.Corrupt, "blob %.16s: another blob lies in its place", r.ID)
	}
	if err == nil && f.Company != company {
		err = tripod.Errorf(tripod.Corrupt, "blob %.16s: belongs to another company", r.ID)
	}
	return f, err
}

// parseTOC reads the table of contents of a whole pack.
func parseTOC(name tripod.PackID, data []byte) (frame.TOC, error) {
	if len(data) < frame.TrailerLen {
		return frame.TOC{}, tripod.Errorf(tripod.Corrupt, "ends too early")
	}
	n, err := frame.TOCLen(data[len(data)-frame.TrailerLen:])
	if err != nil {
		return frame.TOC{}, err
	}
	if n > len(data) {
		return frame.TOC{}, tripod.Errorf(tripod.Corrupt, "table of contents is longer than the pack")
	}
	return frame.ParseTOC(name, int64(len(data)), data[len(data)-n:])
}

// node closes a node or makes it wait for the children that are not.
func (c *closing) node(n *nodeFrame) {
	var missing []tripod.ID
	for _, ref := range n.refs {
		if !c.held[ref] {
			missing = append(missing, ref)
		}
	}
	if len(missing) == 0 {
		c.close(n.entry)
		return
	}
	at := int32(len(c.parents))
	c.parents = append(c.parents, parent{n.entry, len(missing)})
	c.open[n.entry.Pack]++
	for _, ref := range missing {
		c.waiting[ref] = append(c.waiting[ref], at)
	}
}

// close closes a node, and those above it that waited for it alone.
func (c *closing) close(e index.Entry) {
	todo := []index.Entry{e}
	for len(todo) > 0 {
		e := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		c.closed = append(c.closed, e)
		c.held[e.ID] = true
		above := c.waiting[e.ID]
		delete(c.waiting, e.ID)
		for _, at := range above {
			p := &c.parents[at]
			if p.pending--; p.pending == 0 {
				c.open[p.entry.Pack]--
				todo = append(todo, p.entry)
			}
		}
	}
}
