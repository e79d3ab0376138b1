// Package index finds blobs among a vault's packs. For an id it tells in which
// pack, where in it and under which sum the vault holds it, and whether all below
// it is there too.
//
// It is derived. Everything in it can be read again from the packs, so it lies
// in a cache directory of the machine that uses the vault, is written without
// a single sync, and is thrown away and rebuilt when it is damaged, of another
// vault, or of another format. It never leaves a hole: a pack's row and its
// blobs' rows are one transaction, so that what an index lacks after a crash is
// whole packs, which a look at the vault's list of packs shows.
//
// The rows are described in rows.go, what takes copies out again is in lost.go.
package index

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"tripod/internal/core/frame"
	"tripod/internal/core/reach"
	"tripod/internal/core/tripod"
)

// Entry is one stored copy of a blob.
type Entry struct {
	ID     tripod.ID
	Sum    tripod.Sum
	Pack   uint32 // the pack's ordinal
	Offset uint32 // of the frame in the pack, bytes
	Len    uint32 // of the frame, bytes
	Kind   tripod.BlobKind
	Closed bool // of a node: every blob below it is there
	// Suspect says that the copy was found damaged. It is still read when there
	// is no other: its pack may have been put right since.
	Suspect bool
	// Condemned says that a collection found nothing live that needs the blob.
	Condemned bool
}

// State is what package reach decides about.
func (e *Entry) State() reach.Copy {
	return reach.Copy{Node: e.Kind.Node(), Closed: e.Closed, Suspect: e.Suspect, Condemned: e.Condemned}
}

func (e *Entry) set(c reach.Copy) {
	e.Closed, e.Suspect, e.Condemned = c.Closed, c.Suspect, c.Condemned
}

// Held reports whether the copy counts as held: data always, nodes when closed,
// and neither when it was found damaged or condemned.
func (e *Entry) Held() bool { return e.State().Held() }

// Pack is what the index knows of a pack.
type Pack struct {
	Name    tripod.PackID
	Ordinal uint32 // set by Add
	Size    int64  // bytes
	Class   frame.Class
	Open    bool // closed bits of its nodes are still to be worked out
	Damaged bool // its table of contents is unreadable; the rows were salvaged
}

// Index is an open index. Its methods may be called concurrently.
type Index struct {
	db     *pebble.DB
	files  *files
	done   func() error // gives back lock and temporary directory
	origin Origin
	dirty  atomic.Bool
	moves  atomic.Uint64 // see Moves

	mu    sync.RWMutex
	packs []Pack // by ordinal; of size 0 where there is none
	names map[tripod.PackID]uint32
}

// Pack gives the pack with an ordinal.
func (x *Index) Pack(ordinal uint32) (Pack, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if int(ordinal) >= len(x.packs) || x.packs[ordinal].Size == 0 {
		return Pack{}, false
	}
	return x.packs[ordinal], true
}

// Named gives the pack with a name.
func (x *Index) Named(name tripod.PackID) (Pack, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.names[name]
	if !ok {
		return Pack{}, false
	}
	return x.packs[n], true
}

// Packs lists the packs in ascending order of ordinals.
func (x *Index) Packs() []Pack {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.DeleteFunc(slices.Clone(x.packs), func(p Pack) bool { return p.Size == 0 })
}

// Add makes a pack and its blobs known in one transaction, and marks as closed
// the copies in closed, which lie in other packs. The entries' Pack is set
// here. Rows already there are overwritten. A pack that is Open leaves the index
// unsettled.
func (x *Index) Add(p Pack, entries, closed []Entry) error { return x.add(p, entries, closed, true) }

// AddFound is Add for a pack that was found in the store. A pack that is known
// stays as it is: who put it knows more of it.
func (x *Index) AddFound(p Pack, entries []Entry) error { return x.add(p, entries, nil, false) }

func (x *Index) add(p Pack, entries, closed []Entry, replace bool) error {
	if p.Size <= 0 {
		return tripod.Errorf(tripod.Invalid, "index: pack %.16s: size %d", p.Name, p.Size)
	}
	b := x.db.NewBatchWithSize(packValueLen + 40 + len(entries)*(blobKeyLen+blobValueLen+8))
	defer b.Close()
	// The lock spans the commit, so that no two packs get one ordinal.
	x.mu.Lock()
	defer x.mu.Unlock()
	n, known := x.names[p.Name]
	switch {
	case !known:
		n = x.freeOrdinal()
	case !replace:
		return nil
	}
	p.Ordinal = n
	err := setPack(b, &p)
	for i := range entries {
		entries[i].Pack = n
		err = errors.Join(err, setEntry(b, &entries[i]))
	}
	for i := range closed {
		closed[i].set(closed[i].State().Close())
		err = errors.Join(err, setEntry(b, &closed[i]))
	}
	if p.Open {
		err = errors.Join(err, b.Set([]byte{prefixUnsettled}, nil, nil))
	}
	if err := x.commit(b, err); err != nil {
		return err
	}
	x.remember(p)
	return nil
}

// freeOrdinal gives the ordinal for one more pack. Those of dropped packs are
// taken again: their rows are gone.
func (x *Index) freeOrdinal() uint32 {
	if len(x.names) < len(x.packs) {
		for i := range x.packs {
			if x.packs[i].Size == 0 {
				return uint32(i)
			}
		}
	}
	return uint32(len(x.packs))
}

func (x *Index) remember(p Pack) {
	for int(p.Ordinal) >= len(x.packs) {
		x.packs = append(x.packs, Pack{})
	}
	x.packs[p.Ordinal] = p
	x.names[p.Name] = p.Ordinal
}

// Settle notes that the packs' closed bits are worked out, except for the
// nodes of packs in open, which cannot be closed.
func (x *Index) Settle(open map[uint32]bool) error {
	b := x.db.NewBatch()
	defer b.Close()
	x.mu.Lock()
	defer x.mu.Unlock()
	err := b.Delete([]byte{prefixUnsettled}, nil)
	for i := range x.packs {
		if p := x.packs[i]; p.Size > 0 && p.Open != open[p.Ordinal] {
			p.Open = open[p.Ordinal]
			err = errors.Join(err, setPack(b, &p))
		}
	}
	if err := x.commit(b, err); err != nil {
		return err
	}
	for i := range x.packs {
		x.packs[i].Open = open[uint32(i)] && x.packs[i].Size > 0
	}
	return nil
}

// Settled reports whether all closed bits are worked out.
func (x *Index) Settled() (bool, error) {
	_, closer, err := x.db.Get([]byte{prefixUnsettled})
	if errors.Is(err, pebble.ErrNotFound) {
		return true, x.health(nil)
	}
	if err != nil {
		return false, x.health(err)
	}
	return false, closer.Close()
}

// Find calls fn for every stored copy of each of the ids, with the id's
// position in ids, in an order of its own. fn's first error ends it.
func (x *Index) Find(ids []tripod.ID, fn func(i int, e *Entry) error) error {
	if len(ids) == 0 {
		return x.health(nil)
	}
	it, err := x.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixBlob}, UpperBound: []byte{prefixBlob + 1}, UseL6Filters: true,
	})
	if err != nil {
		return x.health(err)
	}
	defer it.Close()
	var e Entry
	key := make([]byte, 1+32)
	key[0] = prefixBlob
	for _, i := range sortedOrder(ids) {
		copy(key[1:], ids[i][:])
		for ok := it.SeekPrefixGE(key); ok; ok = it.Next() {
			if err := x.decode(it, &e); err != nil {
				return err
			}
			if err := fn(int(i), &e); err != nil {
				return err
			}
		}
		// A seek that failed looks like one that found nothing.
		if err := it.Error(); err != nil {
			return x.health(err)
		}
	}
	return x.health(nil)
}

// sortedOrder gives the positions of ids in ascending order of ids: seeks that
// only go forward are several times as fast.
func sortedOrder(ids []tripod.ID) []int32 {
	order := make([]int32, len(ids))
	for i := range order {
		order[i] = int32(i)
	}
	if len(ids) > 1 {
		slices.SortFunc(order, func(a, b int32) int { return bytes.Compare(ids[a][:], ids[b][:]) })
	}
	return order
}

// Each calls fn for every copy of every blob, in ascending order of ids.
func (x *Index) Each(fn func(e *Entry) error) error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixBlob}, UpperBound: []byte{prefixBlob + 1}})
	if err != nil {
		return x.health(err)
	}
	defer it.Close()
	var e Entry
	for ok := it.First(); ok; ok = it.Next() {
		if err := x.decode(it, &e); err != nil {
			return err
		}
		if err := fn(&e); err != nil {
			return err
		}
	}
	return x.health(it.Error())
}

// Blobs counts the distinct ids.
func (x *Index) Blobs() (n int64, err error) {
	var last tripod.ID
	err = x.Each(func(e *Entry) error {
		if n == 0 || e.ID != last {
			n++
			last = e.ID
		}
		return nil
	})
	return n, err
}

// MarkClosed sets the closed bit of copies given as found by Find.
func (x *Index) MarkClosed(entries []Entry) error {
	return x.update(entries, func(b *pebble.Batch, e *Entry) error {
		e.set(e.State().Close())
		return setEntry(b, e)
	})
}

// Moves counts the times when the state of copies was changed: while it stays
// the same, so does what was read of them. Packs that are added do not count.
func (x *Index) Moves() uint64 { return x.moves.Load() }

func (x *Index) update(entries []Entry, change func(*pebble.Batch, *Entry) error) error {
	if len(entries) > 0 {
		x.moves.Add(1)
	}
	b := x.db.NewBatch()
	defer b.Close()
	var err error
	for i := range entries {
		err = errors.Join(err, change(b, &entries[i]))
	}
	return x.commit(b, err)
}

// commit applies a batch unless filling it failed.
func (x *Index) commit(b *pebble.Batch, err error) error {
	if err == nil && !b.Empty() {
		x.dirty.Store(true)
		err = b.Commit(pebble.NoSync)
	}
	return x.health(err)
}
