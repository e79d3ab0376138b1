package reader

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

// fields takes values off the front of hostile bytes. After the first fault
// every read gives zero and bad stays true. Documents are big-endian with
// fixed lengths; nodes use varints.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n uint64) []byte {
	if f.bad || n > uint64(len(f.b)) {
		f.bad, f.b = true, nil
		return nil
	}
	p := f.b[:n:n]
	f.b = f.b[n:]
	return p
}

func (f *fields) uint(bytes uint64) (v uint64) {
	for _, b := range f.take(bytes) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (f *fields) byte() byte { return byte(f.uint(1)) }

// counted reads bytes behind a big-endian length of the given width.
func (f *fields) counted(width uint64) []byte { return f.take(f.uint(width)) }

func (f *fields) tag(tag string) {
	if string(f.take(uint64(len(tag)))) != tag {
		f.bad = true
	}
}

func (f *fields) time() time.Time {
	ns := f.uint(8)
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns)).UTC()
}

func (f *fields) id() [16]byte { return fixed16(f.take(16)) }

func (f *fields) hash() [32]byte { return fixed32(f.take(32)) }

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.bad, n = true, 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b)
	if n <= 0 {
		f.bad, n = true, 0
	}
	f.b = f.b[n:]
	return v
}

// upTo reads a varint that must not be more than limit.
func (f *fields) upTo(limit uint64) uint64 {
	v := f.uvarint()
	if v > limit {
		f.bad = true
		return 0
	}
	return v
}

func (f *fields) text(limit uint64) string { return string(f.take(f.upTo(limit))) }

func (f *fields) column() *fields { return &fields{b: f.take(f.upTo(8 << 20)), bad: f.bad} }

// done returns an error unless everything was read and nothing is left.
func (f *fields) done(what string) error {
	if f.bad || len(f.b) != 0 {
		return errors.New(what + ": malformed")
	}
	return nil
}

func fixed16(b []byte) (out [16]byte) {
	copy(out[:], b)
	return out
}

func fixed32(b []byte) (out [32]byte) {
	copy(out[:], b)
	return out
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
