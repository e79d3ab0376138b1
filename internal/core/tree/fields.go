package tree

import (
	"encoding/binary"

	"tripod/internal/core/tripod"
)

// fields reads varints and length-prefixed strings from hostile bytes. After
// the first fault every read gives zero and bad stays true.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b)
	if n <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[n:]
	return v
}

// count reads a number of things that each take at least one byte of what
// is left, and at most limit.
func (f *fields) count(limit int) int {
	n := f.uvarint()
	if n > uint64(limit) || n > uint64(len(f.b)) {
		f.fail()
		return 0
	}
	return int(n)
}

func (f *fields) bytes(n int) []byte {
	if n < 0 || n > len(f.b) {
		f.fail()
		return nil
	}
	p := f.b[:n:n]
	f.b = f.b[n:]
	return p
}

func (f *fields) byte() byte {
	if p := f.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

func (f *fields) text(limit int) string { return string(f.bytes(f.lengthUpTo(limit))) }

func (f *fields) lengthUpTo(limit int) int {
	n := f.uvarint()
	if n > uint64(limit) || n > uint64(len(f.b)) {
		f.fail()
		return 0
	}
	return int(n)
}

func (f *fields) u32() uint32 {
	v := f.uvarint()
	if v > 1<<32-1 {
		f.fail()
	}
	return uint32(v)
}

// length reads a file offset or length: not negative, below 2^62.
func (f *fields) length() int64 {
	v := f.uvarint()
	if v >= 1<<62 {
		f.fail()
		return 0
	}
	return int64(v)
}

func (f *fields) fail() { f.bad, f.b = true, nil }

// done returns Corrupt unless everything was read without fault.
func (f *fields) done(what string) error {
	if f.bad || len(f.b) != 0 {
		return tripod.Errorf(tripod.Corrupt, "%s: malformed", what)
	}
	return nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
