package collect

import (
	"context"
	"encoding/binary"
	"slices"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault/index"
	"tripod/internal/vault/local"
)

// mark finds what the snapshots there are need, and which copies they do not.
func (c *collection) mark(ctx context.Context) error {
	packs := c.idx.Packs()
	c.before = make(map[tripod.PackID]uint32, len(packs))
	c.marked = map[tripod.PackID]bool{}
	for i := range packs {
		c.before[packs[i].Name] = packs[i].Ordinal
	}
	if err := c.findRoots(ctx); err != nil {
		return err
	}
	if err := c.readNodes(ctx, packs, c.tell); err != nil {
		return err
	}
	if err := c.graph.connect(false); err != nil {
		return err
	}
	c.graph.seal()
	return c.account(ctx, packs)
}

// findRoots adds the roots of the live snapshots that are not known yet.
func (c *collection) findRoots(ctx context.Context) error {
	known := func(name string) bool { return c.records[name] }
	return c.v.Live(ctx, known, func(name string, r *snapshot.Record) error {
		c.records[name] = true
		c.roots = append(c.roots, r.Root)
		c.report.Snapshots++
		return nil
	})
}

// readNodes adds the nodes of packs that the graph does not know.
func (c *collection) readNodes(ctx context.Context, packs []index.Pack, tell func(run.Phase, string, int64, int64)) error {
	packs = slices.DeleteFunc(slices.Clone(packs), func(p index.Pack) bool { return p.Class != frame.NodeClass || c.marked[p.Name] })
	for i := range packs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.graph.read(ctx, c.store, &packs[i], c.v.Descriptor().Company); err != nil {
			return err
		}
		c.marked[packs[i].Name] = true
		c.event.Bytes += packs[i].Size
		tell(run.Scanning, "metadata", int64(i+1), int64(len(packs)))
	}
	return nil
}

// reach gives the nodes that are needed. A root that no pack holds whole ends
// the run.
func (c *collection) reach(pinned []int32, more []tripod.ID) (reached []bool, err error) {
	reached = c.graph.reached(append(slices.Clone(c.roots), more...), pinned, func(id tripod.ID) { err = incomplete(id) })
	return reached, err
}

// incomplete says why a run ends: who cannot read a node does not know what is
// below it.
func incomplete(id tripod.ID) error {
	return tripod.Errorf(tripod.Corrupt, "collect: blob %.16s is missing or damaged, which a snapshot needs", id).
		WithHint("nothing was deleted; heal the vault first (tripod verify tells which snapshots it is about), or forget those snapshots")
}

// account looks at every copy: what it is for, and what is to be condemned.
func (c *collection) account(ctx context.Context, packs []index.Pack) error {
	reached, err := c.reach(nil, nil)
	if err != nil {
		return err
	}
	c.reached = reached
	counted := make(map[uint32]bool, len(packs)) // packs of before
	c.packs = make(map[uint32]*usage, len(packs))
	for i := range packs {
		counted[packs[i].Ordinal] = true
		c.packs[packs[i].Ordinal] = new(usage)
		if packs[i].Damaged {
			c.report.Damaged += packs[i].Size
		}
	}
	c.report.Packs = int64(len(packs))
	l := &ledger{c: c, reached: reached, first: -1}
	err = c.idx.Each(func(e *index.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return l.entry(e, counted[e.Pack])
	})
	if err == nil {
		err = l.end()
	}
	for i := range packs {
		u := c.packs[packs[i].Ordinal]
		c.report.Spare += packs[i].Size - u.live - u.dead
	}
	c.report.Spare -= c.report.Damaged
	return err
}

// ledger goes through all copies in ascending order of ids, beside what is
// wanted in the same order.
type ledger struct {
	c       *collection
	reached []bool
	first   int // byte of the ids at hand
	wanted  []short
	at      int  // in wanted: there is a copy of all before it
	found   bool // and of the one there
	last    tripod.ID
	any     bool // last is set
}

func (l *ledger) entry(e *index.Entry, counted bool) error {
	for l.first < int(e.ID[0]) {
		if err := l.next(); err != nil {
			return err
		}
	}
	id := shorten(e.ID)
	for l.at < len(l.wanted) && l.wanted[l.at] < id {
		if err := l.pass(); err != nil {
			return err
		}
	}
	needed := l.at < len(l.wanted) && l.wanted[l.at] == id
	l.found = l.found || needed
	if e.Kind.Node() {
		n, ok := l.c.graph.number[id]
		if !ok && needed && counted {
			return incomplete(e.ID)
		}
		needed = ok && l.reached[n]
	}
	again := l.any && l.last == e.ID
	if !again {
		l.c.report.Blobs++
		l.last, l.any = e.ID, true
	}
	if !counted {
		return nil
	}
	u := l.c.packs[e.Pack]
	u.rows++
	if e.Suspect {
		l.c.suspect.add(e)
	}
	switch {
	case !needed:
		u.dead += int64(e.Len)
		l.c.report.Dead += int64(e.Len)
		return l.c.doomed.add(e)
	case !again:
		u.live += int64(e.Len)
		l.c.report.Live += int64(e.Len)
	default:
		l.c.spare.add(e)
	}
	if e.Condemned {
		l.c.again = append(l.c.again, *e)
	}
	return nil
}

// next goes on to the next first byte.
func (l *ledger) next() error {
	if err := l.flush(); err != nil {
		return err
	}
	l.first++
	var err error
	l.wanted, err = l.c.graph.wanted(l.first, false, l.reached, l.wanted)
	l.at, l.found = 0, false
	return err
}

// pass leaves one wanted id behind, of which there must have been a copy.
func (l *ledger) pass() error {
	if !l.found {
		var id tripod.ID
		binary.BigEndian.PutUint64(id[:], uint64(l.wanted[l.at]))
		return incomplete(id)
	}
	l.at, l.found = l.at+1, false
	return nil
}

func (l *ledger) flush() error {
	for l.at < len(l.wanted) {
		if err := l.pass(); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) end() error {
	for l.first < 255 {
		if err := l.next(); err != nil {
			return err
		}
	}
	return l.flush()
}

// condemn condemns what was not needed when the mark ended and is not by now.
func (c *collection) condemn(ctx context.Context) error {
	// Most of what came since is read before anybody has to stand still.
	if err := c.readNodes(ctx, c.idx.Packs(), c.tell); err != nil {
		return err
	}
	return c.v.Still(func(pins local.Pins) error {
		for name, ordinal := range c.before {
			if p, ok := c.idx.Named(name); !ok || p.Ordinal != ordinal {
				return tripod.Errorf(tripod.Conflict, "collect: pack %.16s went meanwhile", name).WithHint("collect again")
			}
		}
		if err := c.readNodes(ctx, c.idx.Packs(), func(run.Phase, string, int64, int64) {}); err != nil {
			return err
		}
		if err := c.findRoots(ctx); err != nil {
			return err
		}
		pinned, err := c.pinned(pins)
		if err != nil {
			return err
		}
		newly, late, err := c.since(pinned, pins.Nodes)
		if err != nil {
			return err
		}
		if err := c.idx.Acquit(c.again); err != nil {
			return err
		}
		if err := c.condemnUnless(ctx, newly, late); err != nil {
			return err
		}
		c.moves = c.idx.Moves()
		for _, p := range []places{c.dead, c.spare, c.suspect} {
			slices.Sort(p)
		}
		return nil
	})
}

// pinned gives the nodes that running sessions have put, and all that came
// since the mark began: those that no snapshot needs are closed like the
// others, so what they need has to stay until they are condemned themselves.
func (c *collection) pinned(pins local.Pins) (nodes []int32, err error) {
	for name, in := range c.graph.inPack {
		if _, old := c.before[name]; !old {
			nodes = append(nodes, in...)
		}
	}
	for _, name := range pins.Packs {
		in, ok := c.graph.inPack[name]
		if !ok {
			return nil, tripod.Errorf(tripod.Conflict, "collect: pack %.16s, which a backup has just put, cannot be read", name).
				WithHint("heal the vault first, then collect again")
		}
		nodes = append(nodes, in...)
	}
	return nodes, nil
}

// since gives the nodes that are needed by now and were not when the mark
// ended. late says that all of them were noted since then.
func (c *collection) since(pinned []int32, more []tripod.ID) (newly []bool, late bool, err error) {
	for _, late = range []bool{true, false} {
		if err := c.graph.connect(late); err != nil {
			return nil, late, err
		}
		if newly, err = c.reach(pinned, more); err != nil {
			return nil, late, err
		}
		// What an old node needs may have come since: then all edges count.
		old := false
		for n, before := range c.reached {
			old = old || newly[n] && !before
			newly[n] = newly[n] && !before
		}
		if !old {
			break
		}
	}
	return newly, late, nil
}

// condemnUnless condemns the doomed but for those that newly reached nodes need.
func (c *collection) condemnUnless(ctx context.Context, newly []bool, late bool) error {
	const at = 10_000
	var batch []index.Entry
	var wanted []short
	first := -1
	flush := func() error {
		err := c.idx.Condemn(batch)
		c.report.Condemned += int64(len(batch))
		for i := range batch {
			c.dead.add(&batch[i])
		}
		batch = batch[:0]
		return err
	}
	err := c.doomed.each(func(e *index.Entry) error {
		for first < int(e.ID[0]) {
			first++
			var err error
			if wanted, err = c.graph.wanted(first, late, newly, wanted); err != nil {
				return err
			}
		}
		id := shorten(e.ID)
		if _, needed := slices.BinarySearch(wanted, id); needed {
			return nil
		}
		if n, ok := c.graph.number[id]; ok && newly[n] {
			return nil
		}
		if batch = append(batch, *e); len(batch) < at {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}
