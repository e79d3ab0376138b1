package local

import (
	"context"
	"errors"
	"sync"

	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// outage is how many different objects must be out of reach one after another
// for the store to count as out of reach.
const outage = 8

// outages tells a bad place on a disk from a disk that is gone.
type outages struct {
	mu     sync.Mutex
	failed map[string]bool // objects that could not be read since one could
}

// judge gives what a read of an object came to. A single object that is out of
// reach, in a store that still answers, is damage like any other: Corrupt. When
// many in a row are, or the vault's descriptor is not there either, the error
// stays Unavailable, and whoever reads should stop.
func (v *Vault) judge(ctx context.Context, object string, err error) error {
	r := &v.outages
	if !errors.Is(err, tripod.Unavailable) {
		if err == nil || errors.Is(err, tripod.Corrupt) {
			r.mu.Lock()
			clear(r.failed)
			r.mu.Unlock()
		}
		return err
	}
	r.mu.Lock()
	if r.failed == nil {
		r.failed = map[string]bool{}
	}
	r.failed[object] = true
	many := len(r.failed) >= outage
	r.mu.Unlock()
	if ctx.Err() != nil || many {
		return err
	}
	if _, gone := readWhole(ctx, v.store, vault.DescriptorName, -1); gone != nil {
		return err
	}
	// The cause is text from here on: nobody shall take it for an outage.
	return tripod.Errorf(tripod.Corrupt, "cannot be read: %s", err.Error()).
		WithHint("the disk or share of the vault is failing there: copy the vault to another one, and get what is unreadable from another copy or by the next backup")
}
