package faulty

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"tripod/internal/core/tripod"
)

// Damager is objects at rest that can be changed behind the contract's back:
// those of a mem.Store, and files by Dir.
type Damager interface {
	// Damage replaces an object's bytes by what change makes of a copy of
	// them, or removes the object when change returns nil.
	Damage(name string, change func([]byte) []byte) error
}

// Change makes damaged bytes of good ones. It may work in place.
type Change func([]byte) []byte

// FlipBit changes one bit, which one the seed decides. Of no bytes it makes one.
func FlipBit(seed uint64) Change {
	return func(b []byte) []byte {
		if len(b) == 0 {
			return []byte{0}
		}
		r := rand.New(rand.NewPCG(seed, 0))
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return b
	}
}

// Zero sets up to n bytes to zero from a place that the seed decides.
func Zero(seed uint64, n int) Change {
	return func(b []byte) []byte {
		if len(b) > 0 {
			at := rand.New(rand.NewPCG(seed, 0)).IntN(len(b))
			clear(b[at:min(at+n, len(b))])
		}
		return b
	}
}

// Truncate cuts the bytes short, to a length that the seed decides.
func Truncate(seed uint64) Change {
	return func(b []byte) []byte {
		if len(b) == 0 {
			return []byte{}
		}
		return b[:rand.New(rand.NewPCG(seed, 0)).IntN(len(b))]
	}
}

// Remove removes the object.
func Remove() Change { return func([]byte) []byte { return nil } }

// Replace puts other bytes in place: a stale version, another object's.
func Replace(with []byte) Change {
	return func([]byte) []byte { return append([]byte{}, with...) }
}

// Swap exchanges the bytes of two objects.
func Swap(d Damager, a, b string) error {
	var bytesA, bytesB []byte
	keep := func(to *[]byte) Change {
		return func(p []byte) []byte {
			*to = bytes.Clone(p)
			return p
		}
	}
	return errors.Join(
		d.Damage(a, keep(&bytesA)), d.Damage(b, keep(&bytesB)),
		d.Damage(a, func([]byte) []byte { return append([]byte{}, bytesB...) }),
		d.Damage(b, func([]byte) []byte { return append([]byte{}, bytesA...) }),
	)
}

// Dir is the Damager of objects that are files below a directory.
type Dir string

// Damage implements Damager. The file is written anew under its name, so a
// reader that holds the old one open must notice.
func (d Dir) Damage(name string, change func([]byte) []byte) error {
	file := filepath.Join(string(d), filepath.FromSlash(name))
	old, err := os.ReadFile(file)
	if err != nil {
		return tripod.Errorf(tripod.NotFound, "damage %s: %w", name, err)
	}
	damaged := change(old)
	if err := os.Remove(file); err != nil || damaged == nil {
		return err
	}
	return os.WriteFile(file, damaged, 0o400)
}

// readAt reads from bytes as the contract's Get does from an object.
func readAt(b, p []byte, off int64) (n int, err error) {
	if off < int64(len(b)) {
		n = copy(p, b[off:])
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// read reads a whole object from the store inside.
func (s *Store) read(ctx context.Context, name string) ([]byte, error) {
	info, err := s.inner.Head(ctx, name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size)
	_, err = s.inner.Get(ctx, name, b, 0)
	return b, err
}
