package local

import (
	"bytes"
	"context"
	"errors"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// Commit implements vault.Writer. Committing the same record again succeeds.
func (s *Session) Commit(ctx context.Context, record []byte, grants [][]byte) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	s.v.writers.commit.Lock()
	defer s.v.writers.commit.Unlock()
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		return err
	}
	if r.Company != s.v.descriptor.Company {
		return tripod.Errorf(tripod.Denied, "snapshot record: of another company than this vault's").
			WithHint("these keys are not those of this vault")
	}
	c, err := s.v.certificate(ctx, r.Key.Machine)
	if err != nil {
		return err
	}
	if _, err := snapshot.VerifyRecord(record, c); err != nil {
		return err
	}
	if err := s.v.Shredded(ctx, r.Key.Machine); err != nil {
		return err
	}
	done, err := s.checkChain(ctx, r, record, c)
	if done || err != nil {
		return err
	}
	// No collection may come between the look at the root and the record.
	s.v.writers.gate.RLock()
	defer s.v.writers.gate.RUnlock()
	if err := s.checkRoot(r); err != nil {
		return err
	}
	names, err := s.checkGrants(r, c, grants)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := s.putGrant(ctx, name, grants[i]); err != nil {
			return err
		}
	}
	// From here on the snapshot exists.
	err = s.v.store.Put(ctx, vault.RecordName(r.Key), record)
	if errors.Is(err, tripod.Exists) {
		return tripod.Errorf(tripod.Conflict, "snapshot %d of machine %.8s: another one was committed meanwhile", r.Key.Seq, r.Key.Machine).
			WithHint("begin again: the snapshot must follow the new one")
	}
	return err
}

// checkChain checks that the record follows the newest one; done tells that it
// is there already. After a damaged record the next one is taken whatever it says
// of the one before, since its machine may know it: readers see that one is
// missing, and whether it fits should it come back.
func (s *Session) checkChain(ctx context.Context, r *snapshot.Record, encoded []byte, c *snapshot.Certificate) (done bool, err error) {
	there, err := readWhole(ctx, s.v.store, vault.RecordName(r.Key), -1)
	switch {
	case err == nil && bytes.Equal(there, encoded):
		return true, nil
	case err != nil && !errors.Is(err, tripod.NotFound):
		return false, err
	}
	seq, head, err := s.v.Head(ctx, r.Key.Machine, r.Key.Source)
	if err != nil {
		return false, err
	}
	if seq == 0 {
		return false, snapshot.Chain(nil, snapshot.Hash{}, r)
	}
	last, err := snapshot.VerifyRecord(head, c)
	if err == nil && last.Key.Seq == seq {
		return false, snapshot.Chain(last, snapshot.HashOf(head), r)
	}
	if errors.Is(err, tripod.Invalid) {
		return false, err // of a newer format
	}
	if r.Key.Seq == seq+1 && r.Prev != (snapshot.Hash{}) {
		return false, nil
	}
	k := snapshot.Key{Machine: r.Key.Machine, Source: r.Key.Source, Seq: seq}
	return false, tripod.Errorf(tripod.Corrupt, "%s: the newest record of this source is damaged, and this one does not follow it", vault.RecordName(k)).
		WithHint("get the record from another copy of this vault")
}

// checkRoot checks that the root and all below it is there.
func (s *Session) checkRoot(r *snapshot.Record) error {
	want := map[tripod.SourceType]tripod.BlobKind{tripod.Files: tripod.Tree, tripod.DiskImage: tripod.Disk, tripod.Stream: tripod.List}[r.Type]
	var there, closed, kind bool
	err := s.idx.Find([]tripod.ID{r.Root}, func(_ int, e *index.Entry) error {
		there = true
		closed = closed || e.Held()
		kind = kind || (e.Held() && e.Kind == want)
		return nil
	})
	switch {
	case err != nil:
		return err
	case !there:
		return tripod.Errorf(tripod.NotFound, "snapshot: its root %.16s is missing", r.Root).WithHint("put the blobs before the record")
	case !closed:
		return tripod.Errorf(tripod.NotFound, "snapshot: blobs below its root %.16s are missing", r.Root).WithHint("ask again which ones the vault has")
	case !kind:
		return tripod.Errorf(tripod.Invalid, "snapshot of type %v: its root %.16s is no %v blob", r.Type, r.Root, want)
	}
	return nil
}

// checkGrants checks the grants and that the company gets one.
func (s *Session) checkGrants(r *snapshot.Record, c *snapshot.Certificate, grants [][]byte) (names []string, err error) {
	company := snapshot.HashOf(s.v.Descriptor().Box)
	toCompany := false
	for _, encoded := range grants {
		g, err := snapshot.VerifyGrant(encoded, c)
		if err != nil {
			return nil, err
		}
		if g.Key != r.Key {
			return nil, tripod.Errorf(tripod.Invalid, "grant: is for another snapshot than the record")
		}
		toCompany = toCompany || g.Recipient == company
		names = append(names, vault.GrantName(g.Key, g.Recipient))
	}
	if !toCompany {
		return nil, tripod.Errorf(tripod.Invalid, "snapshot %d of machine %.8s: no grant to the company's key", r.Key.Seq, r.Key.Machine).
			WithHint("without it nobody could restore the snapshot")
	}
	return names, nil
}

// putGrant stores a grant. One that is there, with other bytes, was made for a
// record that was never committed: it would open another root, and goes.
func (s *Session) putGrant(ctx context.Context, name string, encoded []byte) error {
	err := s.v.store.Put(ctx, name, encoded)
	if !errors.Is(err, tripod.Exists) {
		return err
	}
	same, err := s.holds(ctx, name, encoded)
	if same || err != nil {
		return err
	}
	if err := s.v.store.Delete(ctx, name); err != nil && !errors.Is(err, tripod.NotFound) {
		return err
	}
	return s.v.store.Put(ctx, name, encoded)
}

// PutDocument implements vault.Admin. What is signed is checked: certificates,
// orders to forget, and grants to further holders of a snapshot. A keyring must
// have the next number. Descriptor and records are not put this way. Nothing is
// overwritten, but a certificate that is not valid any more.
func (s *Session) PutDocument(ctx context.Context, name string, content []byte) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if !vault.Documented(name) || len(content) == 0 || len(content) > snapshot.MaxDocument {
		return tripod.Errorf(tripod.Invalid, "document %q of %d bytes: has no place in a vault", name, len(content))
	}
	var err error
	switch kindOf(name) {
	case vault.CertificatePrefix:
		err = s.checkCertificate(name, content)
	case vault.OrderPrefix:
		err = s.checkOrder(ctx, name, content, time.Now())
	case vault.SuccessionPrefix:
		return s.putSuccession(ctx, name, content)
	case vault.ShredPrefix:
		err = s.checkShred(name, content)
	case vault.PolicyPrefix:
		err = s.checkPolicy(name, content)
	case vault.KeyringPrefix:
		err = s.checkKeyring(ctx, name)
	case vault.GrantPrefix:
		err = s.checkFurtherGrant(ctx, name, content)
	default:
		err = tripod.Errorf(tripod.Invalid, "document %q: is made by Create and Commit alone", name)
	}
	if err != nil {
		return err
	}
	err = s.v.store.Put(ctx, name, content)
	if errors.Is(err, tripod.Exists) && kindOf(name) == vault.CertificatePrefix {
		return s.healCertificate(ctx, name, content, err)
	}
	return err
}

// healCertificate puts a certificate in place of one that nobody can use, and
// returns taken where it can be used.
func (s *Session) healCertificate(ctx context.Context, name string, content []byte, taken error) error {
	old, err := readWhole(ctx, s.v.store, name, -1)
	err = s.v.judge(ctx, name, err)
	if err == nil {
		var c *snapshot.Certificate
		if c, err = snapshot.ParseCertificate(old, s.v.Descriptor()); err == nil && vault.CertificateName(c.Machine) == name {
			return taken
		}
	}
	if err != nil && !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.Denied) {
		return err // a newer format, or a store out of reach
	}
	if err := s.v.store.Delete(ctx, name); err != nil && !errors.Is(err, tripod.NotFound) {
		return err
	}
	return s.v.store.Put(ctx, name, content)
}

// kindOf gives the part of a document's name up to the first slash, included.
func kindOf(name string) string {
	kind, _, _ := bytes.Cut([]byte(name), []byte("/"))
	return string(kind) + "/"
}

func (s *Session) checkCertificate(name string, content []byte) error {
	c, err := snapshot.ParseCertificate(content, s.v.Descriptor())
	if err == nil && vault.CertificateName(c.Machine) != name {
		err = tripod.Errorf(tripod.Invalid, "document %q: is the certificate of machine %.8s", name, c.Machine)
	}
	return err
}

// checkOrder checks that an order to forget means a record that is there and
// not locked.
func (s *Session) checkOrder(ctx context.Context, name string, content []byte, now time.Time) error {
	o, err := snapshot.ParseOrder(content, s.v.Descriptor())
	if err != nil {
		return err
	}
	if vault.OrderName(o.Key) != name {
		return tripod.Errorf(tripod.Invalid, "document %q: is the order to forget another snapshot", name)
	}
	raw, err := readWhole(ctx, s.v.store, vault.RecordName(o.Key), -1)
	if errors.Is(err, tripod.NotFound) {
		return tripod.Errorf(tripod.NotFound, "forget: there is no snapshot %d of machine %.8s", o.Key.Seq, o.Key.Machine)
	}
	if err != nil {
		return err
	}
	if snapshot.HashOf(raw) != o.Record {
		return tripod.Errorf(tripod.Conflict, "forget snapshot %d of machine %.8s: the order means another record", o.Key.Seq, o.Key.Machine).
			WithHint("the record was replaced or damaged: check the vault")
	}
	r, err := snapshot.ParseRecord(raw)
	if err != nil {
		return err
	}
	if now.Before(r.LockUntil) {
		return tripod.Errorf(tripod.Denied, "forget snapshot %d of machine %.8s: locked until %s", o.Key.Seq, o.Key.Machine, r.LockUntil.Format(time.RFC3339)).
			WithHint("the lock was signed with the snapshot and cannot be shortened")
	}
	return nil
}

func (s *Session) checkKeyring(ctx context.Context, name string) error {
	newest := 0
	err := s.v.store.List(ctx, vault.KeyringPrefix, func(i store.Info) error {
		if n, ok := vault.ParseKeyringName(i.Name); ok {
			newest = max(newest, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch n, _ := vault.ParseKeyringName(name); {
	case n <= newest:
		return tripod.Errorf(tripod.Exists, "document %q: the name is taken; the newest keyring is number %d", name, newest).
			WithHint("read the newest keyring, which someone else changed, and try again")
	case n > newest+1:
		return tripod.Errorf(tripod.Invalid, "document %q: the next keyring is number %d", name, newest+1)
	}
	return nil
}

func (s *Session) checkFurtherGrant(ctx context.Context, name string, content []byte) error {
	k, ok := vault.ParseKeyPath(name[len(vault.GrantPrefix) : len(name)-len("/0123456789abcdef")])
	if !ok {
		return tripod.Errorf(tripod.Invalid, "document %q: names no snapshot", name)
	}
	if _, err := s.v.store.Head(ctx, vault.RecordName(k)); err != nil {
		return err
	}
	if err := s.v.Shredded(ctx, k.Machine); err != nil {
		return err
	}
	c, err := s.v.certificate(ctx, k.Machine)
	if err != nil {
		return err
	}
	g, err := snapshot.VerifyGrantOf(content, c, s.v.Descriptor())
	if err == nil && vault.GrantName(g.Key, g.Recipient) != name {
		err = tripod.Errorf(tripod.Invalid, "document %q: is another grant", name)
	}
	return err
}
