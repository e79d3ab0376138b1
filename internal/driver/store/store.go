// Package store is the contract of the place where sealed objects lie: a
// directory, a bucket, a map in memory. Objects are written once, whole, and
// never change. Adapters stand in folders below (fs, s3, mem), as do decorators
// that behave like a store and wrap one (faulty, retry, limit, meter);
// storetest holds the suite that all of them pass.
package store

import (
	"context"
	"strings"
	"time"

	"tripod/internal/core/tripod"
)

// Store keeps immutable objects under slash-separated names.
//
// Errors are of the kinds of core/tripod: Invalid for a bad name, NotFound,
// Exists, Denied, Unavailable (worth trying again), Exhausted (no space),
// Corrupt. Every method may be called concurrently. A method that blocks
// returns the context's error soon after the context ends.
type Store interface {
	// Put creates the object name with the given bytes, whole or not at all.
	// When it returns nil the object is durable: it survives a crash of this
	// process and of the machine. It returns Exists, and changes nothing,
	// when the name is taken. data is not kept after the call.
	Put(ctx context.Context, name string, data []byte) error

	// Get fills p from the object's bytes at off, as io.ReaderAt does: n is
	// less than len(p) only at the object's end, and then err is io.EOF.
	Get(ctx context.Context, name string, p []byte, off int64) (n int, err error)

	// Head tells the object's size.
	Head(ctx context.Context, name string) (Info, error)

	// List calls fn for every object whose name begins with prefix, in
	// ascending byte order of names. It stops at fn's first error and
	// returns it. Objects put or deleted meanwhile may or may not appear.
	List(ctx context.Context, prefix string, fn func(Info) error) error

	// Delete removes the object durably; NotFound when it is not there,
	// Denied when it is locked.
	Delete(ctx context.Context, name string) error

	// Lock forbids deletion of the object until the given time; a lock can
	// be extended, never shortened. Stores without the capability return
	// Invalid.
	Lock(ctx context.Context, name string, until time.Time) error

	// Capabilities tells what this store promises beyond the contract.
	Capabilities() Capabilities
}

// Info describes an object.
type Info struct {
	Name string
	Size int64 // bytes
}

// Capabilities says what a store can do. What is claimed is probed, not trusted.
type Capabilities struct {
	Lock    bool // Lock keeps its promise
	Durable bool // Put survives a power cut
}

// Exclusive is what a store offers that can keep other writers out.
type Exclusive interface {
	// Exclusive waits until no other process or caller holds the store for
	// writing, then holds it until release is called or the process ends.
	// holder describes the caller to those who wait. While it waits it calls
	// waiting with the description of whoever holds it, once per holder.
	Exclusive(ctx context.Context, holder string, waiting func(holder string)) (release func() error, err error)
}

// CheckName returns Invalid unless name is 1 to 255 bytes of parts joined by
// single slashes, each part made of lower-case letters, digits, '-', '_' and
// '.', and not beginning with a dot.
func CheckName(name string) error {
	bad := func(why string) error {
		return tripod.Errorf(tripod.Invalid, "object name %q: %s", name, why)
	}
	if name == "" || len(name) > 255 {
		return bad("must have 1 to 255 bytes")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' {
			return bad("has an empty or hidden part")
		}
		for i := range len(part) {
			c := part[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
				return bad("may hold only a-z, 0-9, '-', '_' and '.'")
			}
		}
	}
	return nil
}
