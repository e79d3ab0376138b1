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
// Rows, in a Pebble database (integers big-endian in keys):
//
//	m                            format 1, vault 16
//	u                            present: closed bits are still to be worked out
//	p name 32                    ordinal 4, size 8, class 1, flags 1
//	b id 32, ordinal 4, offset 4 sum 32, length 4, kind, closed and suspect bit 1
package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

const (
	format = 1

	prefixMeta      = 'm'
	prefixUnsettled = 'u'
	prefixPack      = 'p'
	prefixBlob      = 'b'

	blobKeyLen   = 1 + 32 + 4 + 4
	blobValueLen = 32 + 4 + 1
	packValueLen = 4 + 8 + 1 + 1

	closedBit  = 0x80
	suspectBit = 0x40
	kindMask   = 0x3f

	flagOpen    = 1
	flagDamaged = 2
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
}

// Held reports whether the copy counts as held: data always, nodes when closed,
// and neither when it was found damaged.
func (e *Entry) Held() bool { return !e.Suspect && (e.Closed || !e.Kind.Node()) }

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
		closed[i].Closed = true
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
		e.Closed = true
		return setEntry(b, e)
	})
}

// Suspect marks copies whose frames turned out to be damaged; those that the
// index does not know stay unknown. When one was the last that counted as held,
// nodes above it may no longer be closed: then all closed bits are taken back,
// the index is unsettled, and reopened is true.
func (x *Index) Suspect(entries []Entry) (reopened bool, err error) {
	type place struct{ pack, offset uint32 }
	ids := make([]tripod.ID, len(entries))
	for i := range entries {
		ids[i] = entries[i].ID
	}
	was, left := make([]bool, len(entries)), make([]bool, len(entries))
	gone := make(map[place]bool, len(entries))
	for i := range entries {
		gone[place{entries[i].Pack, entries[i].Offset}] = true
	}
	var marked []Entry
	err = x.Find(ids, func(i int, e *Entry) error {
		if gone[place{e.Pack, e.Offset}] {
			was[i] = was[i] || e.Held()
			marked = append(marked, *e)
		} else {
			left[i] = left[i] || e.Held()
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for i := range entries {
		reopened = reopened || was[i] && !left[i]
	}
	// Bits first: whoever stops in between finds the damage again.
	if reopened {
		if err := x.reopen(); err != nil {
			return false, err
		}
	}
	return reopened, x.update(marked, func(b *pebble.Batch, e *Entry) error {
		e.Closed, e.Suspect = false, true
		return setEntry(b, e)
	})
}

func (x *Index) update(entries []Entry, change func(*pebble.Batch, *Entry) error) error {
	b := x.db.NewBatch()
	defer b.Close()
	var err error
	for i := range entries {
		err = errors.Join(err, change(b, &entries[i]))
	}
	return x.commit(b, err)
}

// Drop forgets packs and every blob copy in them. When that was the last copy
// of some blob, nodes above it may no longer be closed: then all closed bits
// are taken back and the index is unsettled.
func (x *Index) Drop(names []tripod.PackID) error {
	gone := map[uint32]tripod.PackID{}
	for _, name := range names {
		if p, ok := x.Named(name); ok {
			gone[p.Ordinal] = name
		}
	}
	if len(gone) == 0 {
		return nil
	}
	lost, err := x.dropRows(gone)
	if err == nil && lost {
		err = x.reopen()
	}
	if err != nil {
		return err
	}
	// The packs go last: whoever stops before finds them vanished again.
	b := x.db.NewBatch()
	defer b.Close()
	for _, name := range gone {
		err = errors.Join(err, b.Delete(append([]byte{prefixPack}, name[:]...), nil))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.commit(b, err); err != nil {
		return err
	}
	for ordinal, name := range gone {
		x.packs[ordinal] = Pack{}
		delete(x.names, name)
	}
	return nil
}

// dropRows removes the blob rows of packs and reports whether some id has no
// copy left.
func (x *Index) dropRows(gone map[uint32]tripod.PackID) (lost bool, err error) {
	var last tripod.ID
	var left, dropped int
	ended := func() { lost = lost || (dropped > 0 && left == 0) }
	err = x.rewrite(func(b *pebble.Batch, e *Entry) error {
		if e.ID != last {
			ended()
			last, left, dropped = e.ID, 0, 0
		}
		if _, ok := gone[e.Pack]; !ok {
			left++
			return nil
		}
		dropped++
		var key [blobKeyLen]byte
		return b.Delete(putBlobKey(&key, e), nil)
	})
	ended()
	return lost, err
}

// reopen takes back every closed bit.
func (x *Index) reopen() error {
	b := x.db.NewBatch()
	defer b.Close()
	err := b.Set([]byte{prefixUnsettled}, nil, nil)
	x.mu.Lock()
	for i := range x.packs {
		if p := &x.packs[i]; p.Size > 0 && p.Class == frame.NodeClass {
			p.Open = true
			err = errors.Join(err, setPack(b, p))
		}
	}
	x.mu.Unlock()
	if err := x.commit(b, err); err != nil {
		return err
	}
	return x.rewrite(func(b *pebble.Batch, e *Entry) error {
		if !e.Closed {
			return nil
		}
		e.Closed = false
		return setEntry(b, e)
	})
}

// rewrite calls change for every blob row, with a batch that is committed
// whenever it has grown.
func (x *Index) rewrite(change func(*pebble.Batch, *Entry) error) error {
	const most = 512 << 10
	b := x.db.NewBatch()
	defer b.Close()
	err := x.Each(func(e *Entry) error {
		if err := change(b, e); err != nil {
			return err
		}
		if b.Len() < most {
			return nil
		}
		err := x.commit(b, nil)
		b.Reset()
		return err
	})
	if err != nil {
		return err
	}
	return x.commit(b, nil)
}

// commit applies a batch unless filling it failed.
func (x *Index) commit(b *pebble.Batch, err error) error {
	if err == nil && !b.Empty() {
		x.dirty.Store(true)
		err = b.Commit(pebble.NoSync)
	}
	return x.health(err)
}

func setPack(b *pebble.Batch, p *Pack) error {
	var flags byte
	if p.Open {
		flags |= flagOpen
	}
	if p.Damaged {
		flags |= flagDamaged
	}
	v := binary.BigEndian.AppendUint32(make([]byte, 0, packValueLen), p.Ordinal)
	v = binary.BigEndian.AppendUint64(v, uint64(p.Size))
	return b.Set(append([]byte{prefixPack}, p.Name[:]...), append(v, byte(p.Class), flags), nil)
}

func parsePack(key, v []byte) (p Pack, ok bool) {
	if len(key) != 1+32 || len(v) != packValueLen {
		return p, false
	}
	p.Name = tripod.PackID(key[1:])
	p.Ordinal = binary.BigEndian.Uint32(v)
	p.Size = int64(binary.BigEndian.Uint64(v[4:]))
	p.Class = frame.Class(v[12])
	p.Open, p.Damaged = v[13]&flagOpen != 0, v[13]&flagDamaged != 0
	return p, p.Size > 0
}

func putBlobKey(key *[blobKeyLen]byte, e *Entry) []byte {
	key[0] = prefixBlob
	copy(key[1:], e.ID[:])
	binary.BigEndian.PutUint32(key[33:], e.Pack)
	binary.BigEndian.PutUint32(key[37:], e.Offset)
	return key[:]
}

func setEntry(b *pebble.Batch, e *Entry) error {
	op := b.SetDeferred(blobKeyLen, blobValueLen)
	putBlobKey((*[blobKeyLen]byte)(op.Key), e)
	copy(op.Value, e.Sum[:])
	binary.BigEndian.PutUint32(op.Value[32:], e.Len)
	flags := byte(e.Kind)
	if e.Closed {
		flags |= closedBit
	}
	if e.Suspect {
		flags |= suspectBit
	}
	op.Value[36] = flags
	return op.Finish()
}

// decode reads the row it stands on.
func (x *Index) decode(it *pebble.Iterator, e *Entry) error {
	key := it.Key()
	v, err := it.ValueAndErr()
	if err != nil {
		return x.health(err)
	}
	if len(key) != blobKeyLen || len(v) != blobValueLen {
		return x.health(errMalformed)
	}
	e.ID, e.Sum = tripod.ID(key[1:]), tripod.Sum(v)
	e.Pack, e.Offset = binary.BigEndian.Uint32(key[33:]), binary.BigEndian.Uint32(key[37:])
	e.Len = binary.BigEndian.Uint32(v[32:])
	e.Kind, e.Closed, e.Suspect = tripod.BlobKind(v[36]&kindMask), v[36]&closedBit != 0, v[36]&suspectBit != 0
	return nil
}
