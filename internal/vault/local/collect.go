package local

import (
	"context"
	"errors"

	"tripod/internal/core/reach"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// What follows is for package collect, which works beside sessions.

// Store is where the vault lies.
func (v *Vault) Store() store.Store { return v.store }

// Index gives the index, as new as the vault was when it was first asked for.
func (v *Vault) Index(ctx context.Context) (*index.Index, error) { return v.index(ctx) }

// Hold keeps other processes from writing until release is called; see Begin.
func (v *Vault) Hold(ctx context.Context, holder vault.Holder, waiting func(holder string)) (release func() error, err error) {
	return v.hold(ctx, holder, waiting)
}

// Pins are what the sessions of this process count on although no record needs
// it yet.
type Pins struct {
	Packs []tripod.PackID // of nodes: all in them, and what that needs
	Nodes []tripod.ID
}

// Still calls fn while no session of this process acts on what it knows. It
// should be short: backups stand still.
func (v *Vault) Still(fn func(Pins) error) error {
	w := &v.writers
	w.gate.Lock()
	defer w.gate.Unlock()
	w.mu.Lock()
	var p Pins
	for s := range w.open {
		s.mu.Lock()
		p.Packs, p.Nodes = append(p.Packs, s.put...), append(p.Nodes, s.told...)
		s.mu.Unlock()
	}
	w.mu.Unlock()
	return fn(p)
}

// Condemned notes that a collection has condemned copies, and gives the moment
// for Outlived.
func (v *Vault) Condemned() reach.Epoch {
	w := &v.writers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch++
	return w.epoch
}

// Outlived waits until every session has ended that began before e: see package
// reach.
func (v *Vault) Outlived(ctx context.Context, e reach.Epoch) error {
	w := &v.writers
	for {
		w.mu.Lock()
		began := make([]reach.Epoch, 0, len(w.open))
		for s := range w.open {
			began = append(began, s.began)
		}
		ended := w.ended
		w.mu.Unlock()
		if reach.Sweepable(e, began) {
			return ctx.Err()
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Swap forgets packs with all their rows, in favour of one that holds what is
// kept of them (of size 0 for none), and then deletes them. Call it in Still.
func (v *Vault) Swap(ctx context.Context, old []tripod.PackID, rows []index.Entry, fresh index.Pack, entries []index.Entry) error {
	// Held until they are deleted: whoever follows the store meanwhile would
	// find them there and know them again.
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.idx.Replace(old, rows, fresh, entries); err != nil {
		return err
	}
	var errs []error
	for _, name := range old {
		if err := v.store.Delete(ctx, vault.PackName(name)); err != nil && !errors.Is(err, tripod.NotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Live calls fn for the name and the record of each snapshot that is neither
// forgotten nor expired, but not for those of which known says so. A record
// that cannot be read ends it: who cannot say what a snapshot needs cannot say
// what none needs.
func (v *Vault) Live(ctx context.Context, known func(name string) bool, fn func(name string, r *snapshot.Record) error) error {
	gone := map[string]bool{}
	err := v.Documents(ctx, vault.OrderPrefix, func(name string, content []byte) error {
		if o, err := snapshot.ParseOrder(content, v.descriptor); err == nil && vault.OrderName(o.Key) == name {
			gone[vault.RecordName(o.Key)] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := v.expired(ctx, gone); err != nil {
		return err
	}
	var names []store.Info
	err = v.store.List(ctx, vault.RecordPrefix, func(i store.Info) error {
		if vault.Documented(i.Name) && !gone[i.Name] && !known(i.Name) {
			names = append(names, i)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for len(names) > 0 {
		n := min(len(names), documentAhead)
		err := v.readDocuments(ctx, names[:n], func(name string, content []byte) error {
			r, err := snapshot.ParseRecord(content)
			if err == nil && vault.RecordName(r.Key) != name {
				err = tripod.Errorf(tripod.Corrupt, "is the record of another snapshot")
			}
			if err != nil {
				return tripod.Errorf(tripod.Corrupt, "%s: %w", name, err).
					WithHint("get the record from another copy of this vault first: without it nobody knows what it needs")
			}
			return fn(name, r)
		})
		if err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// expired adds the names of the records of expired snapshots.
func (v *Vault) expired(ctx context.Context, gone map[string]bool) error {
	return v.Documents(ctx, vault.ExpiryPrefix, func(name string, content []byte) error {
		if e, err := snapshot.ParseExpiry(content, v.descriptor); err == nil && vault.ExpiryName(e.Key) == name {
			gone[vault.RecordName(e.Key)] = true
		}
		return nil
	})
}
