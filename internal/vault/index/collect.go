package index

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"tripod/internal/core/tripod"
)

// Condemn marks copies that nothing live needs. They are given as found.
func (x *Index) Condemn(entries []Entry) error {
	return x.update(entries, func(b *pebble.Batch, e *Entry) error {
		e.set(e.State().Condemn())
		return setEntry(b, e)
	})
}

// Revive keeps copies of data that somebody wants again. They are given as
// found.
func (x *Index) Revive(entries []Entry) error {
	return x.update(entries, func(b *pebble.Batch, e *Entry) error {
		after, _ := e.State().Want()
		e.set(after)
		return setEntry(b, e)
	})
}

// Acquit takes the sentence back from copies that are needed after all. They
// are given as found. Whether nodes among them are closed is to be worked out
// anew, and of all others that may rest on them.
func (x *Index) Acquit(entries []Entry) error {
	nodes := false
	err := x.update(entries, func(b *pebble.Batch, e *Entry) error {
		e.Condemned = false
		nodes = nodes || e.Kind.Node()
		return setEntry(b, e)
	})
	if err == nil && nodes {
		err = x.reopen()
	}
	return err
}

// Replace makes a pack known that holds what is to be kept of others, and
// forgets those with the rows given, which are all of theirs, in one
// transaction. fresh is of size 0 when nothing of them is kept. Nothing that
// is still needed may go this way, so closed bits stay as they are.
func (x *Index) Replace(old []tripod.PackID, rows []Entry, fresh Pack, entries []Entry) error {
	b := x.db.NewBatch()
	defer b.Close()
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	if _, known := x.names[fresh.Name]; fresh.Size > 0 && known {
		return tripod.Errorf(tripod.Exists, "index: pack %.16s is there already", fresh.Name)
	}
	var key [blobKeyLen]byte
	for i := range rows {
		err = errors.Join(err, b.Delete(putBlobKey(&key, &rows[i]), nil))
	}
	for _, name := range old {
		err = errors.Join(err, b.Delete(append([]byte{prefixPack}, name[:]...), nil))
	}
	if fresh.Size > 0 {
		// Never the number of a pack that goes: readers may still look there.
		fresh.Ordinal = x.freeOrdinal()
		err = errors.Join(err, setPack(b, &fresh))
		for i := range entries {
			entries[i].Pack = fresh.Ordinal
			err = errors.Join(err, setEntry(b, &entries[i]))
		}
	}
	if err := x.commit(b, err); err != nil {
		return err
	}
	if fresh.Size > 0 {
		x.remember(fresh)
	}
	for _, name := range old {
		if n, ok := x.names[name]; ok {
			x.packs[n] = Pack{}
			delete(x.names, name)
		}
	}
	return nil
}
