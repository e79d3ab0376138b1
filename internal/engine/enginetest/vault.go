// Package enginetest makes small worlds for tests of the engines that read: a
// company, a machine, and a vault in memory that can lie, lose and fail.
package enginetest

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// Vault is a vault.Reader over maps. Its fields are for one test to change
// between reads.
type Vault struct {
	Frames    map[tripod.ID][]byte
	Variants  map[tripod.ID][][]byte // tried after Frames
	Order     []tripod.ID            // ids as they were put
	Docs      map[string][]byte
	Workers   int                                 // calls of use at a time; 0 chooses
	OnGet     func(n int) error                   // before the n-th Get, from 0
	OnFrame   func(id tripod.ID, b []byte) []byte // replaces what is delivered; nil is a missing blob
	mu        sync.Mutex
	gets      int
	delivered map[tripod.ID]int
}

var _ vault.Reader = (*Vault)(nil)

// NewVault makes an empty vault.
func NewVault() *Vault {
	return &Vault{Frames: map[tripod.ID][]byte{}, Docs: map[string][]byte{}, delivered: map[tripod.ID]int{}}
}

// Gets is how often Get was called since the last ResetCounts.
func (v *Vault) Gets() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gets
}

// Delivered tells how often each blob was read since the last ResetCounts.
func (v *Vault) Delivered() map[tripod.ID]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.delivered)
}

// ResetCounts begins counting anew.
func (v *Vault) ResetCounts() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gets = 0
	clear(v.delivered)
}

// Get implements vault.Reader.
func (v *Vault) Get(ctx context.Context, ids []tripod.ID, use func(int, []byte) error, onError func(int, error) error) error {
	v.mu.Lock()
	n := v.gets
	v.gets++
	v.mu.Unlock()
	if v.OnGet != nil {
		if err := v.OnGet(n); err != nil {
			return err
		}
	}
	workers := v.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	g, gctx := errgroup.WithContext(ctx)
	var next int
	for range min(workers, len(ids)) {
		g.Go(func() error {
			for {
				v.mu.Lock()
				i := next
				next++
				v.mu.Unlock()
				if i >= len(ids) {
					return nil
				}
				if err := gctx.Err(); err != nil {
					return err
				}
				err := v.one(i, ids[i], use)
				if err != nil && onError != nil {
					err = onError(i, err)
				}
				if err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (v *Vault) one(i int, id tripod.ID, use func(int, []byte) error) error {
	v.mu.Lock()
	v.delivered[id]++
	var tries [][]byte
	if b, ok := v.Frames[id]; ok {
		tries = append(tries, b)
	}
	tries = append(tries, v.Variants[id]...)
	v.mu.Unlock()
	var err error = tripod.Errorf(tripod.NotFound, "blob %.16s: not in the vault", id)
	for _, b := range tries {
		if v.OnFrame != nil {
			if b = v.OnFrame(id, b); b == nil {
				continue
			}
		}
		if err = use(i, b); tripod.KindOf(err) != tripod.Corrupt || err == nil {
			return err
		}
	}
	return err
}

// Documents implements vault.Reader.
func (v *Vault) Documents(ctx context.Context, prefix string, fn func(string, []byte) error) error {
	for _, name := range slices.Sorted(maps.Keys(v.Docs)) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(name, v.Docs[name]); err != nil {
			return err
		}
	}
	return nil
}

// PutDocument implements vault.Admin.
func (v *Vault) PutDocument(_ context.Context, name string, content []byte) error {
	if _, ok := v.Docs[name]; ok {
		return tripod.Errorf(tripod.Exists, "document %s: exists", name)
	}
	v.Docs[name] = content
	return nil
}

// RemoveDocument implements vault.Admin; it removes whatever it is asked to.
func (v *Vault) RemoveDocument(_ context.Context, name string) error {
	delete(v.Docs, name)
	return nil
}
