package index

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

// Rows, in a Pebble database (integers big-endian in keys):
//
//	m                            format 1, vault 16
//	u                            present: closed bits are still to be worked out
//	p name 32                    ordinal 4, size 8, class 1, flags 1
//	b id 32, ordinal 4, offset 4 sum 32, length 4, kind, closed, suspect and condemned bit 1
const (
	format = 2

	prefixMeta      = 'm'
	prefixUnsettled = 'u'
	prefixPack      = 'p'
	prefixBlob      = 'b'

	blobKeyLen   = 1 + 32 + 4 + 4
	blobValueLen = 32 + 4 + 1
	packValueLen = 4 + 8 + 1 + 1

	closedBit  = 0x80
	suspectBit = 0x40
	doomedBit  = 0x20
	kindMask   = 0x1f

	flagOpen    = 1
	flagDamaged = 2
)

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
	if e.Condemned {
		flags |= doomedBit
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
	e.Kind = tripod.BlobKind(v[36] & kindMask)
	e.Closed, e.Suspect, e.Condemned = v[36]&closedBit != 0, v[36]&suspectBit != 0, v[36]&doomedBit != 0
	return nil
}
