package blobs_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
)

func TestHostileTreesDoNotWalk(t *testing.T) {
	w := New(t)
	for name, root := range w.HostileTrees() {
		r := blobs.New(w.Vault, w.Keys.ID)
		err := r.Walk(context.Background(), root, tree.All(), func([]tree.Entry) error { return nil }, nil)
		if !errors.Is(err, tripod.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
		lost := 0
		err = r.Walk(context.Background(), root, tree.All(), func([]tree.Entry) error { return nil }, func(blobs.Span, error) error {
			lost++
			return nil
		})
		if lost == 0 || err != nil {
			t.Errorf("%s, going on: %d lost, %v", name, lost, err)
		}
	}
}

func TestHostileDisksDoNotCopy(t *testing.T) {
	w := New(t)
	for name, root := range w.HostileDisks() {
		r := blobs.New(w.Vault, w.Keys.ID)
		n, err := r.Disk(context.Background(), root)
		if err == nil {
			err = r.CopyDisk(context.Background(), io.Discard, n)
		}
		if !errors.Is(err, tripod.Corrupt) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n == nil {
			continue
		}
		err = r.Blocks(context.Background(), n, func(*blobs.Block) error { return nil }, func(offset, length int64, _ error) error {
			if offset < 0 || length <= 0 || offset+length > n.Size {
				t.Errorf("%s: lost %d bytes at %d of %d", name, length, offset, n.Size)
			}
			return nil
		})
		if err != nil && !errors.Is(err, tripod.Corrupt) {
			t.Errorf("%s, going on: %v", name, err)
		}
	}
}

func TestHostileListsDoNotCopy(t *testing.T) {
	w := New(t)
	for name, root := range w.HostileLists() {
		r := blobs.New(w.Vault, w.Keys.ID)
		err := r.Copy(context.Background(), io.Discard, 0, func(ctx context.Context, fn func(*blobs.Extent) error) error {
			return r.ListExtents(ctx, root, -1, fn)
		})
		if !errors.Is(err, tripod.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
