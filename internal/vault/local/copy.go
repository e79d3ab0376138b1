package local

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// What copies of a vault need of each other. See packages replicate and scrub.

var _ vault.Source = (*Vault)(nil)

// Document implements vault.Source.
func (v *Vault) Document(ctx context.Context, name string) ([]byte, error) {
	content, err := readWhole(ctx, v.store, name, -1)
	if err = v.judge(ctx, name, err); err != nil {
		return nil, err
	}
	return content, nil
}

// Names implements vault.Source.
func (v *Vault) Names(ctx context.Context, prefix string, fn func(name string, size int64) error) error {
	return v.store.List(ctx, prefix, func(i store.Info) error {
		if !vault.Documented(i.Name) {
			return nil
		}
		return fn(i.Name, i.Size)
	})
}

// Copies implements vault.Source.
func (v *Vault) Copies(ctx context.Context, ids []tripod.ID) ([][]vault.Copy, error) {
	x, err := v.index(ctx)
	if err != nil {
		return nil, err
	}
	found := make([][]vault.Copy, len(ids))
	err = x.Find(ids, func(i int, e *index.Entry) error {
		at := slices.IndexFunc(found[i], func(c vault.Copy) bool { return c.Sum == e.Sum })
		if at < 0 {
			found[i] = append(found[i], vault.Copy{Sum: e.Sum, Suspect: e.Suspect})
			return nil
		}
		found[i][at].Suspect = found[i][at].Suspect && e.Suspect
		return nil
	})
	return found, err
}

// Accept makes a snapshot exist that another copy of the vault has. It is Commit
// for records that come late: the one before may be missing here. Records that
// are there, before and after, must fit.
func (s *Session) Accept(ctx context.Context, record []byte, grants [][]byte) error {
	r, c, err := s.acceptable(ctx, record)
	if r == nil || err != nil {
		return err
	}
	s.v.writers.commit.Lock()
	defer s.v.writers.commit.Unlock()
	s.v.writers.gate.RLock()
	defer s.v.writers.gate.RUnlock()
	if err := s.checkRoot(r); err != nil {
		return err
	}
	names, err := s.checkLateGrants(r, c, grants)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := s.putGrant(ctx, name, grants[i]); err != nil {
			return err
		}
	}
	return s.v.store.Put(ctx, vault.RecordName(r.Key), record)
}

// checkLateGrants is checkGrants for a record whose grants may have been made again
// since, for another company key.
func (s *Session) checkLateGrants(r *snapshot.Record, c *snapshot.Certificate, grants [][]byte) (names []string, err error) {
	d := s.v.Descriptor()
	company := map[snapshot.Hash]bool{snapshot.HashOf(d.Box): true}
	for _, f := range d.Former() {
		company[snapshot.HashOf(f.Box)] = true
	}
	toCompany := false
	for _, encoded := range grants {
		g, err := snapshot.VerifyGrantOf(encoded, c, d)
		if err != nil {
			return nil, err
		}
		if g.Key != r.Key {
			return nil, tripod.Errorf(tripod.Invalid, "grant: is for another snapshot than the record")
		}
		toCompany = toCompany || company[g.Recipient]
		names = append(names, vault.GrantName(g.Key, g.Recipient))
	}
	if !toCompany {
		return nil, tripod.Errorf(tripod.NotFound, "snapshot %d of machine %.8s: no grant to the company's key", r.Key.Seq, r.Key.Machine).
			WithHint("without it nobody could restore the snapshot")
	}
	return names, nil
}

// AcceptKeyring takes a keyring that is newer than all there are. Those between
// were replaced, and removed.
func (s *Session) AcceptKeyring(ctx context.Context, name string, content []byte) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	n, ok := vault.ParseKeyringName(name)
	if !ok || len(content) == 0 || len(content) > snapshot.MaxDocument {
		return tripod.Errorf(tripod.Invalid, "document %q of %d bytes: is no keyring", name, len(content))
	}
	newest := 0
	err := s.v.Names(ctx, vault.KeyringPrefix, func(name string, _ int64) error {
		n, _ := vault.ParseKeyringName(name)
		newest = max(newest, n)
		return nil
	})
	if err == nil && n <= newest {
		err = tripod.Errorf(tripod.Exists, "document %q: there is keyring number %d", name, newest)
	}
	if err == nil {
		err = s.v.store.Put(ctx, name, content)
	}
	return err
}

// AcceptGone takes the record of a snapshot that was forgotten or has expired, or
// whose machine was shredded: nobody needs its data any more, but it belongs to
// the log. The document says so, and comes first: nobody may take the snapshot
// for one that can be restored.
func (s *Session) AcceptGone(ctx context.Context, record []byte, name string, document []byte) error {
	r, _, err := s.acceptable(ctx, record)
	if r == nil || err != nil {
		return err
	}
	if err := s.givesUp(name, document, r.Key, snapshot.HashOf(record)); err != nil {
		return err
	}
	if err := s.v.store.Put(ctx, name, document); err != nil && !errors.Is(err, tripod.Exists) {
		return err
	}
	return s.v.store.Put(ctx, vault.RecordName(r.Key), record)
}

// givesUp checks that a document gives up a snapshot.
func (s *Session) givesUp(name string, document []byte, k snapshot.Key, record snapshot.Hash) error {
	d := s.v.Descriptor()
	fits := false
	switch kindOf(name) {
	case vault.OrderPrefix:
		o, err := snapshot.ParseOrder(document, d)
		if err != nil {
			return err
		}
		fits = o.Key == k && o.Record == record && name == vault.OrderName(k)
	case vault.ExpiryPrefix:
		e, err := snapshot.ParseExpiry(document, d)
		if err != nil {
			return err
		}
		fits = e.Key == k && e.Record == record && name == vault.ExpiryName(k)
	case vault.ShredPrefix:
		o, err := snapshot.ParseShred(document, d)
		if err != nil {
			return err
		}
		fits = o.Machine == k.Machine && name == vault.ShredName(k.Machine)
	}
	if !fits {
		return tripod.Errorf(tripod.Conflict, "document %q: does not give up snapshot %d of machine %.8s", name, k.Seq, k.Machine)
	}
	return nil
}

// acceptable checks a record, and that it fits those beside it. It gives nil for
// one that is there.
func (s *Session) acceptable(ctx context.Context, record []byte) (*snapshot.Record, *snapshot.Certificate, error) {
	if err := s.alive(ctx); err != nil {
		return nil, nil, err
	}
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.v.certificate(ctx, r.Key.Machine)
	if err != nil {
		return nil, nil, err
	}
	if _, err := snapshot.VerifyRecord(record, c); err != nil {
		return nil, nil, err
	}
	there, err := s.v.Document(ctx, vault.RecordName(r.Key))
	switch {
	case err == nil && bytes.Equal(there, record):
		return nil, nil, nil
	case err == nil || !errors.Is(err, tripod.NotFound):
		return nil, nil, errors.Join(err, tripod.Errorf(tripod.Conflict, "snapshot %d of machine %.8s: another record has its place", r.Key.Seq, r.Key.Machine))
	}
	return r, c, s.fits(ctx, r, snapshot.HashOf(record), c)
}

// fits checks a record against the ones before and after it, as far as these are
// there and whole.
func (s *Session) fits(ctx context.Context, r *snapshot.Record, hash snapshot.Hash, c *snapshot.Certificate) error {
	beside := func(seq uint64) (*snapshot.Record, snapshot.Hash, error) {
		k := r.Key
		k.Seq = seq
		content, err := s.v.Document(ctx, vault.RecordName(k))
		if err != nil {
			if errors.Is(err, tripod.NotFound) || errors.Is(err, tripod.Corrupt) {
				err = nil
			}
			return nil, snapshot.Hash{}, err
		}
		b, err := snapshot.VerifyRecord(content, c)
		if err != nil || b.Key != k {
			return nil, snapshot.Hash{}, nil //nolint:nilerr // a damaged one says nothing
		}
		return b, snapshot.HashOf(content), nil
	}
	if r.Key.Seq == 1 {
		if err := snapshot.Chain(nil, snapshot.Hash{}, r); err != nil {
			return err
		}
	} else if before, prev, err := beside(r.Key.Seq - 1); err != nil {
		return err
	} else if before != nil && prev != r.Prev {
		return snapshot.Chain(before, prev, r)
	}
	after, _, err := beside(r.Key.Seq + 1)
	if after != nil && after.Prev != hash {
		return tripod.Errorf(tripod.Conflict, "snapshot %d of machine %.8s: snapshot %d follows another record", r.Key.Seq, r.Key.Machine, after.Key.Seq)
	}
	return err
}
