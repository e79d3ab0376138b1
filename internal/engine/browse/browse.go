// Package browse looks into snapshots without restoring them: it lists folders,
// finds documents and their versions in all snapshots, compares two snapshots,
// and reads single files and disks at any place. A mount, the command line and
// the console stand on it.
//
// Where to start reading: Browser in this file; find.go searches, diff.go
// compares, file.go reads at random.
package browse

import (
	"context"
	"io"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
)

// Browser reads a company's snapshots and keeps what it read last: nodes, and
// some tens of megabytes of content. It may be used concurrently.
type Browser struct {
	blobs *blobs.Reader
	data  *blobs.Cache[[]byte]
}

// cachedBlobs of content are kept, of some 1 MiB each.
const cachedBlobs = 32

// New makes a browser.
func New(r vault.Reader, company tripod.CompanyID) *Browser {
	reader := blobs.New(r, company)
	reader.KeepLeaves = true
	return &Browser{blobs: reader, data: blobs.NewCache[[]byte](cachedBlobs)}
}

// Stat gives the entry of a path: absolute, or relative to the only protected
// path; empty is that path.
func (b *Browser) Stat(ctx context.Context, s catalog.Snapshot, path string) (*tree.Entry, error) {
	return catalog.Locate(ctx, b.blobs, &s, path)
}

// List gives the entries of a folder, by name. Of anything else it gives the
// one entry.
func (b *Browser) List(ctx context.Context, s catalog.Snapshot, path string) ([]tree.Entry, error) {
	e, err := b.Stat(ctx, s, path)
	if err != nil {
		return nil, err
	}
	if e.Type != tree.Dir {
		return []tree.Entry{*e}, nil
	}
	var out []tree.Entry
	err = b.blobs.Walk(ctx, s.Root, tree.ListOf(e.Path()), func(entries []tree.Entry) error {
		out = append(out, entries...)
		return nil
	}, nil)
	return out, err
}

// Walk calls fn for everything inside a folder in the order of the tree: each
// folder's entries by name, then its subfolders in turn.
func (b *Browser) Walk(ctx context.Context, s catalog.Snapshot, path string, fn func(*tree.Entry) error) error {
	e, err := b.Stat(ctx, s, path)
	if err != nil {
		return err
	}
	return b.blobs.Walk(ctx, s.Root, tree.Under(e.Path()), func(entries []tree.Entry) error {
		for i := range entries {
			if err := fn(&entries[i]); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

// Cat writes the content of a regular file to w, holes as zeros.
func (b *Browser) Cat(ctx context.Context, s catalog.Snapshot, path string, w io.Writer) error {
	e, err := b.regular(ctx, s, path)
	if err != nil {
		return err
	}
	if err := b.blobs.CopyFile(ctx, w, e); err != nil {
		return tripod.Errorf(tripod.KindOf(err), "/%s: %w", e.Path(), err).WithHint("%s", tripod.HintOf(err))
	}
	return nil
}

func (b *Browser) regular(ctx context.Context, s catalog.Snapshot, path string) (*tree.Entry, error) {
	e, err := b.Stat(ctx, s, path)
	if err != nil {
		return nil, err
	}
	if e.Type != tree.Regular {
		return nil, tripod.Errorf(tripod.Invalid, "/%s: is not a regular file", e.Path()).
			WithHint("tripod ls lists folders; tripod restore brings back everything")
	}
	return e, nil
}
