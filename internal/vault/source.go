package vault

import (
	"context"

	"tripod/internal/core/tripod"
)

// Source is a vault as another copy of it reads it, without a key.
type Source interface {
	Reader

	// Document gives the content of one document; NotFound when there is none,
	// Corrupt when it cannot be read while others can.
	Document(ctx context.Context, name string) ([]byte, error)

	// Names calls fn for every document whose name begins with prefix, in
	// ascending order of names, with its size in bytes, and reads none.
	Names(ctx context.Context, prefix string, fn func(name string, size int64) error) error

	// Copies tells for each id under which sums blobs are stored, once each.
	// It says nothing of what is below a node.
	Copies(ctx context.Context, ids []tripod.ID) ([][]Copy, error)
}

// Copy is a stored copy of a blob, or several of the same bytes.
type Copy struct {
	Sum     tripod.Sum
	Suspect bool // all of them were found damaged
}
