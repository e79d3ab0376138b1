// Package replicate keeps a second copy of a vault, without a key. The second
// copy pulls: it reads the first through vault.Source and writes to its own store.
// It believes nothing that it can check: sums of frames, signatures, chains of
// records. Frames and documents are taken as they are, so a copy has the same
// descriptor, opens with the same passphrase, and can be compared with the first.
//
// The copy only grows. What the source has let go, or has lost, stays; each copy
// keeps its own retention. What is not taken over: holds, and expiries of snapshots
// that the copy has.
//
// Where to start reading: Run; pull.go fetches blobs, compare.go lists what is
// missing, chain.go takes one chain of records.
package replicate

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/zeebo/blake3"

	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

// Options say how a copy is brought up to date.
type Options struct {
	Now time.Time
	// DropReplaced removes keyrings and grants that newer ones replaced. Nobody can
	// tell without opening them that the newer ones are any good: a source that
	// lies could so make a copy that nobody can open. It is for who has tried.
	DropReplaced bool
	// Thorough compares all grants, also when nothing else is new.
	Thorough bool
	Progress run.Progress
}

// Report tells what a run did and what it refused.
type Report struct {
	Chains    []Chain // as they stood before
	Snapshots int     // taken
	Gone      int     // of which only the record was taken: forgotten or expired at the source
	Documents int     // taken beside the records and their grants
	Blobs     int64   // fetched
	Bytes     int64   // of frames, fetched
	Stored    int64   // bytes of packs
	Problems  []Problem
}

// Problem is something that was refused, or could not be had.
type Problem struct {
	Document string
	Key      snapshot.Key // of the snapshot that it is about; zero for none
	Err      error
}

// Err is Corrupt or worse when there are problems.
func (r *Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	first := r.Problems[0].Err
	if len(r.Problems) == 1 {
		return first
	}
	return tripod.Errorf(tripod.KindOf(first), "%s; the first: %w", tripod.Count(len(r.Problems), "problem"), first).
		WithHint("%s", tripod.HintOf(first))
}

// Create makes an empty copy of a vault in an empty store. What an earlier Create
// left that did not end is no hindrance.
func Create(ctx context.Context, src vault.Source, to store.Store) error {
	descriptor, err := src.Document(ctx, vault.DescriptorName)
	if err == nil {
		_, err = snapshot.ParseDescriptor(descriptor)
	}
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	keyring := ""
	err = src.Names(ctx, vault.KeyringPrefix, func(name string, _ int64) error {
		keyring = name
		return nil
	})
	if err == nil && keyring == "" {
		err = tripod.Errorf(tripod.Corrupt, "it has no keyring").WithHint("nobody could open the copy: heal the source first")
	}
	var ring []byte
	if err == nil {
		ring, err = src.Document(ctx, keyring)
	}
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if err := vacant(ctx, to); err != nil {
		return err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	for _, d := range []struct {
		name    string
		content []byte
	}{{keyring, ring}, {vault.CopyName, id[:]}, {vault.DescriptorName, descriptor}} { // the last one makes it a vault
		if err := to.Put(ctx, d.name, d.content); err != nil {
			return err
		}
	}
	return nil
}

// vacant returns an error unless a store is empty, after taking away what a
// Create left.
func vacant(ctx context.Context, to store.Store) error {
	var left []string
	err := to.List(ctx, "", func(i store.Info) error {
		if _, keyring := vault.ParseKeyringName(i.Name); !keyring && i.Name != vault.CopyName {
			return tripod.Errorf(tripod.Exists, "the place for the copy is not empty: it holds %s", i.Name).
				WithHint("give a new or an empty place")
		}
		left = append(left, i.Name)
		return nil
	})
	for _, name := range left {
		if err == nil {
			err = to.Delete(ctx, name)
		}
	}
	return err
}

// Place tells the copies of a vault apart, on the machines that use more than one:
// what such a machine keeps beside a copy, an index first of all, is of that copy.
// It is the vault's own id, except in what Create made.
func Place(ctx context.Context, s store.Store, d *snapshot.Descriptor) (place [16]byte, err error) {
	var p [32]byte
	n, err := s.Get(ctx, vault.CopyName, p[:], 0)
	if errors.Is(err, tripod.NotFound) {
		return d.Vault, nil
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, tripod.Corrupt) {
		return place, err
	}
	// Whatever it says, it is not the first copy.
	sum := blake3.Sum256(append(d.Vault[:], p[:n]...))
	return [16]byte(sum[:]), nil
}

// copying is a run of Run.
type copying struct {
	src     vault.Source
	dst     *local.Vault
	session *local.Session
	opts    Options
	report  *Report
	puller  *Puller

	certificates map[tripod.MachineID]*snapshot.Certificate
	waiting      []accepted
}

// Same returns an error unless two places are copies of one vault.
func Same(ctx context.Context, src, dst vault.Source) error {
	var raw [2][]byte
	var of [2]*snapshot.Descriptor
	for i, s := range []vault.Source{src, dst} {
		var err error
		if raw[i], err = s.Document(ctx, vault.DescriptorName); err == nil {
			of[i], err = snapshot.ParseDescriptor(raw[i])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", []string{"source", "copy"}[i], err)
		}
	}
	switch {
	case bytes.Equal(raw[0], raw[1]):
		return nil
	case of[0].Company != of[1].Company:
		return tripod.Errorf(tripod.Denied, "the source is a vault of company %.8s, the copy of company %.8s", of[0].Company, of[1].Company).
			WithHint("nothing was copied; give the right places")
	}
	return tripod.Errorf(tripod.Denied, "the source is not the vault that the copy is of: its descriptor says something else").
		WithHint("nothing was copied; give the right places, or ask whoever keeps the source what happened")
}

// Run brings a copy of a vault up to date. The report is never nil. The error
// tells what ended the run; what the source lied about or has lost is in the
// report, and keeps nothing else from being copied.
func Run(ctx context.Context, src vault.Source, dst *local.Vault, session *local.Session, opts Options) (*Report, error) {
	c := &copying{src: src, dst: dst, session: session, opts: opts, report: new(Report), certificates: map[tripod.MachineID]*snapshot.Certificate{}}
	if err := Same(ctx, src, dst); err != nil {
		return c.report, err
	}
	opts.Progress.Emit(run.Event{Phase: run.Scanning, Item: "what the copy lacks"})
	for _, prefix := range []string{
		vault.SuccessionPrefix, vault.CertificatePrefix, vault.PolicyPrefix, vault.ShredPrefix,
	} {
		if err := c.documents(ctx, prefix); err != nil {
			return c.report, err
		}
	}
	var err error
	if c.report.Chains, err = Compare(ctx, src, dst); err != nil {
		return c.report, err
	}
	err = Pulling(ctx, src, dst, session, opts.Progress, func(ctx context.Context, p *Puller) error {
		c.puller = p
		for i := range c.report.Chains {
			if err := c.chain(ctx, &c.report.Chains[i]); err != nil {
				return err
			}
		}
		return c.accept(ctx)
	})
	if p := c.puller; p != nil {
		c.report.Blobs, c.report.Bytes, c.report.Stored = p.meter.blobs, p.meter.event.Bytes, p.meter.event.Stored
	}
	if err != nil {
		return c.report, err
	}
	if err := c.documents(ctx, vault.OrderPrefix); err != nil {
		return c.report, err
	}
	again, err := c.regranted(ctx)
	if again && err == nil {
		err = c.documents(ctx, vault.GrantPrefix)
	}
	if err := errors.Join(err, c.shred(ctx)); err != nil {
		return c.report, err
	}
	// Last, because a keyring may hold the company's new key alone: by now the copy
	// has what that one opens, and until now the keyring of before opened the rest.
	if err := c.documents(ctx, vault.KeyringPrefix); err != nil {
		return c.report, err
	}
	if !opts.DropReplaced {
		return c.report, nil
	}
	return c.report, c.replaced(ctx)
}

// replaced removes keyrings that were replaced, and grants to company keys that
// were: what somebody had of them must not open this copy either.
func (c *copying) replaced(ctx context.Context) error {
	var names, rings []string
	err := c.dst.Names(ctx, vault.KeyringPrefix, func(name string, _ int64) error {
		rings = append(rings, name)
		return nil
	})
	rings = rings[:max(0, len(rings)-keyringCopies)]
	// The keyrings go last: while there are some, there may be grants too.
	if former := c.dst.Descriptor().Former(); err == nil && len(former) > 0 && len(rings) > 0 {
		old := map[string]bool{}
		for _, f := range former {
			h := snapshot.HashOf(f.Box)
			old[fmt.Sprintf("/%x", h[:8])] = true
		}
		err = c.dst.Names(ctx, vault.GrantPrefix, func(name string, _ int64) error {
			if old[name[strings.LastIndexByte(name, '/'):]] {
				names = append(names, name)
			}
			return nil
		})
	}
	for _, name := range append(names, rings...) {
		if err == nil {
			err = c.session.RemoveDocument(ctx, name)
		}
		if errors.Is(err, tripod.Denied) { // still of use, or locked
			err = nil
		}
	}
	return err
}

// keyringCopies is how many keyrings of the newest are kept, of which each is twice
// in a vault.
const keyringCopies = 2

// regranted reports whether grants beside those of new snapshots are worth a look:
// they are as many as the snapshots, each in a folder of its own. It is so when
// anything is new, and when the newest snapshot of a chain has other grants.
func (c *copying) regranted(ctx context.Context) (again bool, err error) {
	if c.report.Snapshots+c.report.Gone+c.report.Documents > 0 || c.opts.Thorough {
		return true, nil
	}
	for i := range c.report.Chains {
		ch := &c.report.Chains[i]
		if ch.Newest == 0 || err != nil {
			continue
		}
		err = both(ctx, c.src, c.dst, vault.GrantPrefix+vault.KeyPath(ch.key(ch.Newest))+"/", func(_, ours named) error {
			again = again || ours.name == ""
			return nil
		})
	}
	return again, err
}

// shred takes away the grants of machines that the company ordered to shred.
func (c *copying) shred(ctx context.Context) error {
	var grants []string
	err := c.dst.Names(ctx, vault.ShredPrefix, func(name string, _ int64) error {
		machine := strings.TrimPrefix(name, vault.ShredPrefix)
		return c.dst.Names(ctx, vault.GrantPrefix+machine+"/", func(name string, _ int64) error {
			grants = append(grants, name)
			return nil
		})
	})
	for _, name := range grants {
		if err == nil {
			err = c.session.RemoveDocument(ctx, name)
		}
		if errors.Is(err, tripod.Denied) { // a forged order
			err = nil
		}
	}
	return err
}

func (c *copying) problem(document string, k snapshot.Key, err error) {
	c.report.Problems = append(c.report.Problems, Problem{document, k, err})
	c.opts.Progress.Emit(run.Event{Phase: run.Saving, Item: document, Warning: err})
}

// documents takes what the copy lacks of a kind, and tells where both have
// something else under one name.
func (c *copying) documents(ctx context.Context, prefix string) error {
	var missing, differ []string
	err := both(ctx, c.src, c.dst, prefix, func(theirs, ours named) error {
		switch {
		case ours.name == "":
			missing = append(missing, theirs.name)
		case theirs.name != "" && theirs.size != ours.size:
			differ = append(differ, ours.name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range missing {
		let, err := c.expired(ctx, name)
		if err == nil && !let {
			err = c.document(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	for _, name := range differ {
		c.problem(name, snapshot.Key{}, tripod.Errorf(tripod.Conflict, "%s: the source has other bytes than the copy, which keeps its own", name).
			WithHint("one of them is damaged or was exchanged: tripod scrub tells which"))
	}
	return nil
}

// expired reports whether a document is a grant of a snapshot that the copy has let
// go by itself, whose grants it removed.
func (c *copying) expired(ctx context.Context, name string) (bool, error) {
	path, grant := strings.CutPrefix(name, vault.GrantPrefix)
	k, ok := vault.ParseKeyPath(path[:max(0, strings.LastIndexByte(path, '/'))])
	if !grant || !ok {
		return false, nil
	}
	_, err := c.dst.Document(ctx, vault.ExpiryName(k))
	if errors.Is(err, tripod.NotFound) {
		return false, nil
	}
	if errors.Is(err, tripod.Corrupt) {
		err = nil
	}
	return err == nil, err
}

// document takes one document. The session checks it.
func (c *copying) document(ctx context.Context, name string) error {
	content, err := c.src.Document(ctx, name)
	if err == nil {
		if _, keyring := vault.ParseKeyringName(name); keyring {
			err = c.session.AcceptKeyring(ctx, name, content)
		} else {
			err = c.session.PutDocument(ctx, name, content)
		}
	}
	switch tripod.KindOf(err) {
	case tripod.Corrupt, tripod.Denied, tripod.Invalid, tripod.Conflict:
		c.problem(name, snapshot.Key{}, tripod.Errorf(tripod.KindOf(err), "%s of the source is not taken: %w", name, err))
		return nil
	case tripod.NotFound, tripod.Exists: // gone since the list; or of a record that was refused
		return nil
	}
	if err == nil {
		c.report.Documents++
	}
	return err
}
