package index

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

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

// Drop forgets packs and every blob copy in them. When that was the last copy
// of some blob, nodes above it may no longer be closed: then all closed bits
// are taken back and the index is unsettled.
func (x *Index) Drop(names []tripod.PackID) error {
	x.moves.Add(1)
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
