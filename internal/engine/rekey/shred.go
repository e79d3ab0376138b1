package rekey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault"
)

// Shredded tells what a machine's shredding has done, and what it has not.
type Shredded struct {
	Report
	Forgotten int       // of its snapshots, by orders to forget: their data may go
	Locked    int       // that lie on until their locks end, and open for nobody
	Until     time.Time // when the last of those ends
}

// Shred makes all that a machine has backed up unreadable for good: it orders so,
// orders to forget what no lock holds, and replaces the company's key without the
// machine's snapshots. It returns NotFound when the vault knows no such machine,
// and Denied while something is held, or locked and not meant to be included.
func Shred(ctx context.Context, r vault.Reader, s keyring.Writable, sealed *keyring.Sealed, m tripod.MachineID, locked bool, o Options) (*Shredded, error) {
	if sealed.Unlocked == nil {
		return nil, tripod.Errorf(tripod.Denied, "keyring: was not opened")
	}
	keys := sealed.Unlocked.Keys
	if err := held(ctx, s); err != nil {
		return nil, err
	}
	c, err := catalog.Open(ctx, r, keys)
	if err != nil {
		return nil, err
	}
	var all []catalog.Snapshot
	var done Shredded
	for _, snap := range append(c.Snapshots(), c.Forgotten()...) {
		if snap.Key.Machine != m {
			continue
		}
		all = append(all, snap)
		if until := snap.Record.LockUntil; o.Now.Before(until) {
			done.Locked++
			if until.After(done.Until) {
				done.Until = until
			}
		}
	}
	if done.Locked > 0 && !locked {
		return nil, tripod.Errorf(tripod.Denied, "machine %.8s: has %s, the last until %s, and a lock is there to keep what is backed up", m, tripod.Count(done.Locked, "locked snapshot"), done.Until.UTC().Format("2006-01-02")).
			WithHint("wait for it; or make them unreadable all the same: --even-locked")
	}
	if err := order(ctx, s, sealed.Descriptor, keys, m, o.Now); err != nil {
		return nil, err
	}
	for _, snap := range all {
		if o.Now.Before(snap.Record.LockUntil) {
			continue
		}
		name, encoded := catalog.Order(keys, snap, o.Now)
		if err := s.PutDocument(ctx, name, encoded); err != nil && !errors.Is(err, tripod.Exists) {
			return nil, fmt.Errorf("forget snapshot %s: %w", snap.ID, err)
		}
		done.Forgotten++
	}
	report, err := Replace(ctx, r, s, sealed, o)
	if err != nil {
		return nil, err
	}
	done.Report = *report
	return &done, nil
}

// held returns Denied while anything is held.
func held(ctx context.Context, s keyring.Documents) error {
	return s.Documents(ctx, vault.HoldPrefix, func(name string, _ []byte) error {
		return tripod.Errorf(tripod.Denied, "this vault is held by %s: nothing in it may be made unreadable", strings.TrimPrefix(name, vault.HoldPrefix)).
			WithHint("end the hold first")
	})
}

// order stores the order to shred, which stays as the proof.
func order(ctx context.Context, s keyring.Writable, d *snapshot.Descriptor, keys *seal.CompanyKeys, m tripod.MachineID, now time.Time) error {
	known, ordered := false, false
	err := s.Documents(ctx, vault.CertificateName(m), func(string, []byte) error { known = true; return nil })
	if err != nil {
		return err
	}
	err = s.Documents(ctx, vault.ShredName(m), func(_ string, content []byte) error {
		_, err := snapshot.ParseShred(content, d)
		ordered = err == nil
		return nil
	})
	switch {
	case err != nil || ordered:
		return err
	case !known:
		return tripod.Errorf(tripod.NotFound, "machine %s: is not one of this vault", m).WithHint("look for its id: tripod snapshots --json")
	}
	o := snapshot.Shred{Company: d.Company, Machine: m, Time: now}
	if err := s.PutDocument(ctx, vault.ShredName(m), o.Encode(keys.Sign)); err != nil {
		return fmt.Errorf("order to shred: %w", err)
	}
	return nil
}
