// Package rekey replaces a company's key, and shreds machines.
//
// A company key is replaced without touching data: whoever holds the old one opens
// the grant of each snapshot and seals it to the new one. In order, each step
// durable before the next:
//
//  1. the next keyring holds the new key beside the old one
//  2. a succession puts the new key in force: machines follow it at their next run
//  3. each live snapshot gets a grant to the new key, signed by the company
//  4. all of them are read back and opened with the new key alone
//  5. the grants to the old key go
//  6. the next keyring holds the new key alone, and the ones before go
//
// Wherever that ends, the keyring opens every snapshot, and another run goes on
// from there. A machine is shredded by an order that stays, and by the same way
// without its snapshots: what its grants were sealed to is then nowhere any more.
package rekey

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault"
)

// Options say how a key is replaced.
type Options struct {
	Now time.Time
	// Damaged goes on although part of the log cannot be used: what those
	// snapshots need is lost for good then, even where another copy has it whole.
	Damaged  bool
	Progress run.Progress
}

// Report tells what was done.
type Report struct {
	Number    uint32 // of the company key that is in force now
	Resumed   bool   // an earlier run had begun
	Snapshots int    // that the new key opens
	Regranted int    // of them, in this run
	Removed   int    // grants that open nothing any more
}

// work is one replacement.
type work struct {
	Options
	r      vault.Reader
	s      keyring.Writable
	sealed *keyring.Sealed
	report Report
}

const grantsAtOnce = 8

// Replace puts a new company key in the place of the one in force, or ends what an
// earlier run began. The keyring must have been opened, after s began to keep
// other writers out.
func Replace(ctx context.Context, r vault.Reader, s keyring.Writable, sealed *keyring.Sealed, o Options) (*Report, error) {
	w := &work{Options: o, r: r, s: s, sealed: sealed}
	if sealed.Unlocked == nil {
		return nil, tripod.Errorf(tripod.Denied, "keyring: was not opened")
	}
	w.Progress.Emit(run.Event{Phase: run.Scanning})
	before, err := w.look(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	if err := w.regrant(ctx, before); err != nil {
		return nil, err
	}
	if err := w.proved(ctx, before); err != nil {
		return nil, err
	}
	if err := w.clear(ctx); err != nil {
		return nil, err
	}
	err = sealed.Change(ctx, s, func(u *seal.Unlocked) error {
		u.Keys.Others = nil
		return nil
	})
	if err != nil {
		return nil, err
	}
	w.report.Number, w.report.Snapshots = sealed.Descriptor.Number(), len(before)
	return &w.report, nil
}

func (w *work) keys() *seal.CompanyKeys { return w.sealed.Unlocked.Keys }

// look gives the snapshots that can be opened now, all of which there are.
func (w *work) look(ctx context.Context) ([]catalog.Snapshot, error) {
	c, err := catalog.Open(ctx, w.r, w.keys())
	if err != nil {
		return nil, err
	}
	for _, p := range c.Problems() {
		kind, _, _ := strings.Cut(p.Document, "/")
		if !w.Damaged && slices.Contains([]string{vault.CertificatePrefix, vault.RecordPrefix, vault.GrantPrefix}, kind+"/") {
			return nil, tripod.Errorf(tripod.Corrupt, "part of the log cannot be used, and could not be opened with a new key either: %s: %w", p.Document, p.Err).
				WithHint("mend it first, see tripod verify; or give up what it costs: --despite-damage")
		}
	}
	return c.Snapshots(), nil
}

// begin makes the new key and puts it in force, as far as that was not done.
func (w *work) begin(ctx context.Context) error {
	d := w.sealed.Descriptor
	w.report.Resumed = len(w.keys().Others) > 0
	if !w.report.Resumed {
		err := w.sealed.Change(ctx, w.s, func(u *seal.Unlocked) error { return u.Keys.Renew() })
		w.keys().Use(d.Sign)
		if err != nil {
			return err
		}
	}
	next := w.next()
	if next == nil {
		return nil // it is in force already
	}
	kept, err := w.kept(ctx)
	if err != nil {
		return err
	}
	one := seal.CompanyKeys{ID: d.Company, Box: next.Box, Sign: next.Sign}
	public, err := one.Public()
	if err != nil {
		return err
	}
	n := snapshot.Succession{
		Company: d.Company, Vault: d.Vault, Number: d.Number() + 1, Box: public.Box, Sign: public.Sign, Time: w.Now, Kept: kept,
	}
	if err := w.s.PutDocument(ctx, vault.SuccessionName(n.Number), n.Encode(w.keys().Sign, next.Sign)); err != nil {
		return fmt.Errorf("succession of the company key: %w", err)
	}
	if w.sealed.Descriptor, err = keyring.Describe(ctx, w.s); err != nil {
		return err
	}
	if !w.keys().Use(w.sealed.Descriptor.Sign) {
		return tripod.Errorf(tripod.Conflict, "the company's key was replaced by someone else meanwhile").WithHint("run it again")
	}
	return nil
}

// next is the pair that has never been in force, nil when there is none.
func (w *work) next() *seal.KeyPair {
	d := w.sealed.Descriptor
	for i, p := range w.keys().Others {
		key, _ := p.Sign.Public().(ed25519.PublicKey) // seal makes no others
		if !slices.ContainsFunc(d.Former(), func(f snapshot.Former) bool { return f.Sign.Equal(key) }) {
			return &w.keys().Others[i]
		}
	}
	return nil
}

// kept lists what counts on of all that the company has signed. What is left out
// never counts again, so nothing is because it could not be read just now.
func (w *work) kept(ctx context.Context) ([]snapshot.Hash, error) {
	d := w.sealed.Descriptor
	var all []snapshot.Hash
	for _, prefix := range []string{vault.CertificatePrefix, vault.OrderPrefix, vault.PolicyPrefix, vault.ShredPrefix} {
		err := w.s.Documents(ctx, prefix, func(name string, content []byte) error {
			err := d.Verify(content)
			if prefix == vault.CertificatePrefix {
				_, err = snapshot.ParseCertificate(content, d)
			}
			switch {
			case err == nil:
				all = append(all, snapshot.HashOf(content))
			case !w.Damaged:
				return tripod.Errorf(tripod.Corrupt, "%s cannot be read, or nobody signed it, and would never count again: %w", name, err).
					WithHint("run it again, or mend it, see tripod verify; or give it up: --despite-damage")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(all) > snapshot.MaxKept {
		return nil, tripod.Errorf(tripod.Exhausted, "the company has signed %d documents that count on, and a new key can take over %d", len(all), snapshot.MaxKept)
	}
	slices.SortFunc(all, func(a, b snapshot.Hash) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(all), nil
}

// regrant makes the grants to the key in force that are missing.
func (w *work) regrant(ctx context.Context, snaps []catalog.Snapshot) error {
	recipient := snapshot.HashOf(w.sealed.Descriptor.Box)
	there := map[string]bool{}
	err := w.s.Documents(ctx, vault.GrantPrefix, func(name string, _ []byte) error {
		there[name] = true
		return nil
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var done int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(grantsAtOnce)
	for i := range snaps {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			name := vault.GrantName(snaps[i].Key, recipient)
			if !there[name] {
				if err := w.grant(gctx, &snaps[i], name); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			if !there[name] {
				w.report.Regranted++
			}
			w.Progress.Emit(run.Event{Phase: run.Saving, Files: done, FilesTotal: int64(len(snaps))})
			return nil
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

func (w *work) grant(ctx context.Context, s *catalog.Snapshot, name string) error {
	d := w.sealed.Descriptor
	c := seal.GrantContext{Company: d.Company, Machine: s.Key.Machine, Source: s.Key.Source, Seq: s.Key.Seq, Root: s.Record.Root}
	sealed, err := seal.SealGrant(d.Box, &c, &s.Root)
	if err != nil {
		return err
	}
	g := snapshot.Grant{Company: d.Company, Key: s.Key, Recipient: snapshot.HashOf(d.Box), Sealed: sealed}
	if err := w.s.PutDocument(ctx, name, g.Encode(w.keys().Sign)); err != nil {
		return fmt.Errorf("snapshot %s: new grant: %w", s.ID, err)
	}
	return nil
}

// proved opens every snapshot with the new key alone, as it will be from now on.
func (w *work) proved(ctx context.Context, before []catalog.Snapshot) error {
	alone := *w.keys()
	alone.Others = nil
	c, err := catalog.Open(ctx, w.r, &alone)
	if err != nil {
		return err
	}
	opens := map[snapshot.Hash]seal.Ref{}
	for _, s := range c.Snapshots() {
		opens[s.Hash] = s.Root
	}
	for _, s := range before {
		if opens[s.Hash] != s.Root {
			name := vault.GrantName(s.Key, snapshot.HashOf(w.sealed.Descriptor.Box))
			return tripod.Errorf(tripod.Corrupt, "snapshot %s does not open with the new key, its grant is damaged: %s", s.ID, name).
				WithHint("the old key still opens it; delete this file and run it again")
		}
	}
	return nil
}

// clear removes the grants that open nothing any more.
func (w *work) clear(ctx context.Context) error {
	shredded := map[string]bool{}
	err := w.s.Documents(ctx, vault.ShredPrefix, func(name string, _ []byte) error {
		shredded[strings.TrimPrefix(name, vault.ShredPrefix)] = true
		return nil
	})
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, f := range w.sealed.Descriptor.Former() {
		h := snapshot.HashOf(f.Box)
		old[fmt.Sprintf("/%x", h[:8])] = true
	}
	var names []string
	err = w.s.Documents(ctx, vault.GrantPrefix, func(name string, _ []byte) error {
		machine, _, _ := strings.Cut(strings.TrimPrefix(name, vault.GrantPrefix), "/")
		if shredded[machine] || old[name[strings.LastIndexByte(name, '/'):]] {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, name := range names {
		switch err := w.s.RemoveDocument(ctx, name); {
		case errors.Is(err, tripod.Denied): // of a damaged snapshot, or locked: no key opens it
		case err != nil:
			return fmt.Errorf("old grant: %w", err)
		default:
			w.report.Removed++
		}
		w.Progress.Emit(run.Event{Phase: run.Finish, Files: int64(i + 1), FilesTotal: int64(len(names))})
	}
	return nil
}
