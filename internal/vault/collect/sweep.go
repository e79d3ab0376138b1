package collect

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
	"tripod/internal/vault/local"
)

// Sizes of packs that a collection writes, in bytes; and how many tiny ones of
// a class there must be to be joined.
const (
	dataPack = 32 << 20
	nodePack = 8 << 20
	tiny     = 4 // a pack is, with less than a fourth of that
	manyTiny = 8
)

func target(c frame.Class) int64 {
	if c == frame.NodeClass {
		return nodePack
	}
	return dataPack
}

// victim is a pack that is to go.
type victim struct {
	index.Pack
	live  int64       // bytes in it that are needed, as far as the mark knows
	waste int64       // bytes that are not: neither needed nor of the table of contents
	count int         // of its rows
	rows  []frame.Row // once it was read
}

// choose says which packs go: those of which nothing is needed, mostly dead
// ones until the rest is within what may be unused, and tiny ones when there
// are many. It is a decision on numbers alone.
func choose(packs []victim, unused float64) (go_ []victim) {
	var live, waste int64
	small := map[frame.Class]int{}
	for i := range packs {
		live += packs[i].live
		waste += packs[i].waste
		if packs[i].Size < target(packs[i].Class)/tiny {
			small[packs[i].Class]++
		}
	}
	byWaste := slices.Clone(packs)
	slices.SortStableFunc(byWaste, func(a, b victim) int {
		return cmp.Compare(float64(b.waste)/float64(b.Size), float64(a.waste)/float64(a.Size))
	})
	for _, p := range byWaste {
		isTiny := p.Size < target(p.Class)/tiny && small[p.Class] >= manyTiny
		enough := float64(waste) <= unused*float64(live) || p.waste == 0
		if p.live > 0 && enough && !isTiny {
			continue
		}
		waste -= p.waste
		go_ = append(go_, p)
	}
	slices.SortFunc(go_, func(a, b victim) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Ordinal, b.Ordinal))
	})
	return go_
}

// group cuts what goes into groups of which each gives one new pack, and empty
// packs, which give none.
func group(packs []victim) (groups [][]victim) {
	var at []victim
	var live int64
	rows := 0
	for _, p := range packs {
		other := len(at) > 0 && (at[0].Class != p.Class || (at[0].live == 0) != (p.live == 0))
		full := len(at) > 0 && (live+p.live > target(p.Class) || rows+p.count > mostRows)
		if other || full {
			groups = append(groups, at)
			at, live, rows = nil, 0, 0
		}
		at = append(at, p)
		live, rows = live+p.live, rows+p.count
	}
	if len(at) > 0 {
		groups = append(groups, at)
	}
	return groups
}

// mostRows bounds the memory that a group takes, and how long sessions stand
// still for it.
const mostRows = 100_000

// sweep deletes and rewrites packs.
func (c *collection) sweep(ctx context.Context) error {
	var packs []victim
	for _, p := range c.idx.Packs() {
		ordinal, there := c.before[p.Name]
		if u := c.packs[ordinal]; there && u != nil && !p.Damaged && p.Size <= mostPack {
			packs = append(packs, victim{Pack: p, live: u.live, count: u.rows, waste: max(0, p.Size-u.live-int64(frame.TableLen(u.rows)))})
		}
	}
	chosen := choose(packs, c.Unused)
	going := make(map[uint32]bool, len(chosen))
	for i := range chosen {
		going[chosen[i].Ordinal] = true
	}
	groups := group(chosen)
	w := &sweeper{collection: c, going: going}
	for i, g := range groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		g = slices.DeleteFunc(g, func(p victim) bool { return !going[p.Ordinal] })
		if len(g) == 0 {
			continue
		}
		if err := w.group(ctx, g); err != nil {
			return err
		}
		c.event.Stored = c.report.Written
		c.tell(run.Saving, "packs", int64(i+1), int64(len(groups)))
	}
	return nil
}

// sweeper is what a sweep keeps from group to group.
type sweeper struct {
	*collection
	going map[uint32]bool // ordinals of all packs that are to go
	pack  frame.Pack
	buf   []byte
}

// place is where a copy lies.
type place struct{ pack, offset uint32 }

// group writes what is needed of some packs into a new one and lets them go.
func (w *sweeper) group(ctx context.Context, g []victim) error {
	w.pack.Reset(g[0].Class)
	copied := map[place]bool{}
	var whole []victim // packs that can be read
	for i := range g {
		err := w.copy(ctx, &g[i], copied)
		switch {
		case errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound):
			w.report.Kept = append(w.report.Kept, Kept{g[i].Name, g[i].Size, err})
		case err != nil:
			return err
		default:
			whole = append(whole, g[i])
		}
	}
	if len(whole) == 0 {
		return nil
	}
	var fresh index.Pack
	var entries []index.Entry
	if !w.pack.Empty() {
		name, data := w.pack.Finish()
		if same, known := w.idx.Named(name); known {
			// That pack stays: one that is all needed, or what a run left that
			// ended between writing it and letting the old ones go.
			delete(w.going, same.Ordinal)
			if good, err := w.good(same.Ordinal); !good || err != nil {
				return err
			}
			whole = slices.DeleteFunc(whole, func(p victim) bool { return p.Ordinal == same.Ordinal })
		} else {
			if err := w.store.Put(ctx, vault.PackName(name), data); err != nil && !errors.Is(err, tripod.Exists) {
				return err
			}
			fresh = index.Pack{Name: name, Size: int64(len(data)), Class: g[0].Class}
			for _, r := range w.pack.TOC().Rows {
				entries = append(entries, index.Entry{ID: r.ID, Sum: r.Sum, Offset: uint32(r.Offset), Len: uint32(r.Len), Kind: r.Kind})
			}
			w.report.Written += fresh.Size
		}
	}
	if len(whole) == 0 {
		return nil
	}
	gone := false
	err := w.v.Still(func(local.Pins) (err error) {
		gone, err = w.swap(ctx, whole, copied, fresh, entries)
		return err
	})
	if err != nil || !gone {
		if fresh.Size > 0 && !gone {
			err = errors.Join(err, w.forget(ctx, fresh.Name))
		}
		return err
	}
	for i := range whole {
		w.report.Deleted++
		w.report.Freed += whole[i].Size
	}
	return nil
}

// good reports whether the index knows all that the new pack would hold from
// another one of the same name, undamaged.
func (w *sweeper) good(ordinal uint32) (bool, error) {
	states, err := w.lookUp(ordinal, w.pack.TOC().Rows)
	for i := range states {
		if s := &states[i]; !s.known || !s.needed || s.row.Suspect {
			return false, err
		}
	}
	return true, err
}

// forget deletes a new pack that is of no use.
func (w *sweeper) forget(ctx context.Context, name tripod.PackID) error {
	if err := w.store.Delete(ctx, vault.PackName(name)); err != nil && !errors.Is(err, tripod.NotFound) {
		return err
	}
	return nil
}

// copy puts into the new pack what is needed of an old one and is not held in a
// pack that stays.
func (w *sweeper) copy(ctx context.Context, p *victim, copied map[place]bool) error {
	data, rows, err := readPack(ctx, w.store, &p.Pack, w.buf)
	w.buf = data[:0]
	if err != nil {
		return err
	}
	p.rows = rows
	states, err := w.states(p.Ordinal, rows)
	if err != nil {
		return err
	}
	for i := range rows {
		s := &states[i]
		if !s.known {
			return tripod.Errorf(tripod.Corrupt, "pack %.16s: the index does not know all of it", p.Name)
		}
		if !s.needed || s.elsewhere {
			continue
		}
		if _, err := whole(&rows[i], data, w.v.Descriptor().Company); err != nil {
			return err
		}
		if s.row.Suspect {
			return tripod.Errorf(tripod.Corrupt, "pack %.16s: blob %.16s was found damaged", p.Name, rows[i].ID)
		}
	}
	for i := range rows {
		r, s := &rows[i], &states[i]
		if !s.needed || s.elsewhere {
			continue
		}
		if err := w.pack.Add(data[r.Offset : r.Offset+int64(r.Len)]); err != nil {
			return err
		}
		copied[place{p.Ordinal, uint32(r.Offset)}] = true
	}
	return nil
}

// state is what the index says of a row of a pack.
type state struct {
	row       index.Entry
	known     bool // the index has the row
	needed    bool
	elsewhere bool // a pack that stays holds the same bytes
}

// states gives what is known of the rows of a pack. Nodes are few, and their
// closed bits count: they are looked up, as are all when some have changed.
func (w *sweeper) states(ordinal uint32, rows []frame.Row) ([]state, error) {
	if u := w.packs[ordinal]; w.moves == w.idx.Moves() && u != nil && u.rows == len(rows) && !rows[0].Kind.Node() {
		return w.remembered(ordinal, rows)
	}
	return w.lookUp(ordinal, rows)
}

// remembered gives the states as the mark left them.
func (w *sweeper) remembered(ordinal uint32, rows []frame.Row) ([]state, error) {
	states := make([]state, len(rows))
	for i := range rows {
		r, s := &rows[i], &states[i]
		offset := uint32(r.Offset)
		s.row = index.Entry{ID: r.ID, Sum: r.Sum, Pack: ordinal, Offset: offset, Len: uint32(r.Len), Kind: r.Kind}
		s.known, s.needed = true, !w.dead.has(ordinal, offset)
		s.row.Suspect = w.suspect.has(ordinal, offset)
		if s.needed && w.spare.has(ordinal, offset) {
			one, err := w.lookUp(ordinal, rows[i:i+1])
			if err != nil {
				return nil, err
			}
			*s = one[0]
		}
	}
	return states, nil
}

// lookUp reads the rows of a pack in the index.
func (w *sweeper) lookUp(ordinal uint32, rows []frame.Row) ([]state, error) {
	states := make([]state, len(rows))
	ids := make([]tripod.ID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	err := w.idx.Find(ids, func(i int, e *index.Entry) error {
		s := &states[i]
		switch {
		case e.Pack == ordinal && int64(e.Offset) == rows[i].Offset:
			s.row, s.known, s.needed = *e, true, !e.Condemned
		case e.Sum == rows[i].Sum && !e.Condemned && !e.Suspect && !w.going[e.Pack]:
			s.elsewhere = true
		}
		return nil
	})
	return states, err
}

// copyOf is what all copies of the same bytes share.
type copyOf struct {
	id  tripod.ID
	sum tripod.Sum
}

// swap lets the old packs go if all that is needed of them is in the new one,
// or in others that stay, at this moment, in which no session acts.
func (w *sweeper) swap(ctx context.Context, old []victim, copied map[place]bool, fresh index.Pack, entries []index.Entry) (bool, error) {
	var names []tripod.PackID
	var rows []index.Entry
	closed := map[copyOf]bool{}
	for i := range old {
		names = append(names, old[i].Name)
		states, err := w.states(old[i].Ordinal, old[i].rows)
		if err != nil {
			return false, err
		}
		for k := range states {
			s := &states[k]
			if s.needed && !s.elsewhere && !copied[place{old[i].Ordinal, s.row.Offset}] {
				return false, nil // wanted again since it was read
			}
			of := copyOf{s.row.ID, s.row.Sum}
			closed[of] = closed[of] || s.row.Closed
			rows = append(rows, s.row)
		}
	}
	for i := range entries {
		entries[i].Closed = closed[copyOf{entries[i].ID, entries[i].Sum}]
	}
	return true, w.v.Swap(ctx, names, rows, fresh, entries)
}
