package backup

import (
	"encoding/binary"

	"tripod/internal/core/chunk"
	"tripod/internal/core/tree"
)

// bundles keeps account of how much of each bundle this source's newest tree
// still uses. A bundle that is mostly unused would keep dead files alive for
// as long as one of its files stays: the files left in it are read once more
// and bundled anew, a few per cent of the source in one run.
type bundles struct {
	cache  *cache
	loaded map[knownSum]bundleUse // nil until something changes
	sparse map[knownSum]bool      // used to less than half when the last run ended
	budget int64                  // bytes that may still be bundled anew
}

// bundleUse is one bundle's account, in bytes.
type bundleUse struct{ total, used uint32 }

// rebundleShare of a source's bytes may be bundled anew in one run.
const rebundleShare = 0.05

const bundleRow = 16 + 4 + 4

func newBundles(c *cache) *bundles {
	b := &bundles{cache: c, sparse: map[knownSum]bool{}, budget: int64(rebundleShare * float64(c.bytes))}
	c.eachBundle(func(k knownSum, u bundleUse) {
		if u.used < u.total/2 {
			b.sparse[k] = true
		}
	})
	return b
}

// eachBundle goes through the accounts a cache holds.
func (c *cache) eachBundle(fn func(knownSum, bundleUse)) {
	for row := c.bundles; len(row) >= bundleRow; row = row[bundleRow:] {
		fn(knownSum(row[:16]), bundleUse{binary.LittleEndian.Uint32(row[16:]), binary.LittleEndian.Uint32(row[20:])})
	}
}

func (b *bundles) load() map[knownSum]bundleUse {
	if b.loaded == nil {
		b.loaded = map[knownSum]bundleUse{}
		b.cache.eachBundle(func(k knownSum, u bundleUse) { b.loaded[k] = u })
	}
	return b.loaded
}

// bundled gives the piece of an entry that lies in a bundle, nil for others.
func bundled(e *tree.Entry) *tree.Piece {
	if c := &e.Content; len(c.Pieces) == 1 && c.Pieces[0].Length < chunk.BundleFileMax {
		return &c.Pieces[0]
	}
	return nil
}

// add counts an entry that is in the new tree and was not in the last. total
// is the length of its bundle when that is new, else 0.
func (b *bundles) add(e *tree.Entry, total int) {
	p := bundled(e)
	if p == nil {
		return
	}
	m, k := b.load(), sumOfRef(&p.Ref)
	u := m[k]
	if total > 0 {
		u.total = uint32(total)
	}
	u.used += p.Length
	m[k] = u
}

// remove counts an entry of the last tree that is not in the new.
func (b *bundles) remove(e *tree.Entry) {
	p := bundled(e)
	if p == nil {
		return
	}
	m, k := b.load(), sumOfRef(&p.Ref)
	u := m[k]
	if u.used <= p.Length {
		delete(m, k)
		return
	}
	u.used -= p.Length
	m[k] = u
}

// renew reports whether an unchanged entry should be bundled anew, and takes it
// off the budget.
func (b *bundles) renew(e *tree.Entry) bool {
	p := bundled(e)
	if p == nil || !b.sparse[sumOfRef(&p.Ref)] || int64(p.Length) > b.budget {
		return false
	}
	b.budget -= int64(p.Length)
	return true
}

// append encodes the accounts for the next run.
func (b *bundles) append(dst []byte) []byte {
	for k, u := range b.load() {
		dst = append(dst, k[:]...)
		dst = binary.LittleEndian.AppendUint32(dst, u.total)
		dst = binary.LittleEndian.AppendUint32(dst, u.used)
	}
	return dst
}
