package scrub

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
)

// live is a snapshot that must be whole.
type live struct {
	key  snapshot.Key
	root tripod.ID
}

// log is what the documents of a vault say.
type log struct {
	v       *local.Vault
	keyring func([]byte) error

	read     int
	bad      []replicate.Problem
	live     []live
	certs    map[tripod.MachineID]*snapshot.Certificate
	gone     map[snapshot.Key]snapshot.Hash // of the record that an order means
	expired  map[snapshot.Key]bool
	shredded map[tripod.MachineID]bool
	granted  map[snapshot.Key]bool // to the company
	keyrings int
	last     struct {
		record *snapshot.Record
		hash   snapshot.Hash
	}
	unsigned map[tripod.MachineID]bool
}

// readLog reads and checks every document that can be checked without a key.
func readLog(ctx context.Context, v *local.Vault, keyring func([]byte) error) (*log, error) {
	l := &log{
		v: v, keyring: keyring, certs: map[tripod.MachineID]*snapshot.Certificate{}, gone: map[snapshot.Key]snapshot.Hash{}, expired: map[snapshot.Key]bool{},
		shredded: map[tripod.MachineID]bool{}, granted: map[snapshot.Key]bool{}, unsigned: map[tripod.MachineID]bool{},
	}
	for _, prefix := range []string{
		vault.KeyringPrefix, vault.CertificatePrefix, vault.PolicyPrefix, vault.HoldPrefix, vault.ShredPrefix, vault.OrderPrefix, vault.ExpiryPrefix,
		vault.GrantPrefix, vault.RecordPrefix,
	} {
		err := v.Documents(ctx, prefix, func(name string, content []byte) error {
			l.read++
			switch prefix {
			case vault.RecordPrefix:
				l.record(name, content)
				return nil
			case vault.ExpiryPrefix:
				// It counts by its name, even when it is damaged.
				if k, ok := vault.ParseKeyPath(strings.TrimPrefix(name, prefix)); ok {
					l.expired[k] = true
				}
			}
			if err := l.check(name, content); err != nil {
				l.problem(name, snapshot.Key{}, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if l.keyrings == 0 {
		l.problem(vault.KeyringName(1), snapshot.Key{}, tripod.Errorf(tripod.Corrupt, "the vault has no keyring that can be read").
			WithHint("without one nobody opens the vault: get it from another copy"))
	}
	for m := range l.unsigned {
		name := vault.CertificateName(m)
		if !slices.ContainsFunc(l.bad, func(p replicate.Problem) bool { return p.Document == name }) {
			l.problem(name, snapshot.Key{}, tripod.Errorf(tripod.Corrupt, "%s is missing: snapshots of machine %.8s cannot be used without it", name, m).
				WithHint("its next backup puts it back"))
		}
	}
	return l, nil
}

func (l *log) problem(name string, k snapshot.Key, err error) {
	l.bad = append(l.bad, replicate.Problem{Document: name, Key: k, Err: err})
}

func misplaced(name string) error {
	return tripod.Errorf(tripod.Corrupt, "%s: another document lies in its place", name)
}

// check checks a document that is no record, and keeps what it says.
func (l *log) check(name string, content []byte) error {
	d := l.v.Descriptor()
	kind, rest, _ := strings.Cut(name, "/")
	if len(content) == 0 {
		return tripod.Errorf(tripod.Corrupt, "%s: is empty, or cannot be read", name)
	}
	fits, err := true, error(nil)
	switch kind + "/" {
	case vault.KeyringPrefix:
		if err = l.keyring(content); err == nil {
			l.keyrings++
		}
	case vault.CertificatePrefix:
		var c *snapshot.Certificate
		if c, err = snapshot.ParseCertificate(content, d); err == nil && vault.CertificateName(c.Machine) == name {
			l.certs[c.Machine] = c
		} else {
			fits = false
		}
	case vault.GrantPrefix:
		err = l.grant(name, rest, content)
	default:
		fits, err = l.decides(name, content)
	}
	if err == nil && !fits {
		err = misplaced(name)
	}
	if err != nil {
		return tripod.Errorf(tripod.Corrupt, "%s: %w", name, err)
	}
	return nil
}

// decides reads a document that says what is to be kept.
func (l *log) decides(name string, content []byte) (fits bool, err error) {
	d := l.v.Descriptor()
	kind, _, _ := strings.Cut(name, "/")
	switch kind + "/" {
	case vault.PolicyPrefix:
		p, err := snapshot.ParsePolicy(content, d)
		return err == nil && vault.PolicyName(p.Number) == name, err
	case vault.HoldPrefix:
		h, err := snapshot.ParseHold(content, d)
		return err == nil && vault.HoldName(h.Name) == name, err
	case vault.ExpiryPrefix:
		e, err := snapshot.ParseExpiry(content, d)
		return err == nil && vault.ExpiryName(e.Key) == name, err
	case vault.ShredPrefix:
		o, err := snapshot.ParseShred(content, d)
		if fits = err == nil && vault.ShredName(o.Machine) == name; fits {
			l.shredded[o.Machine] = true
		}
		return fits, err
	case vault.OrderPrefix:
		o, err := snapshot.ParseOrder(content, d)
		if fits = err == nil && vault.OrderName(o.Key) == name; fits {
			l.gone[o.Key] = o.Record
		}
		return fits, err
	}
	return true, nil
}

func (l *log) grant(name, rest string, content []byte) error {
	d := l.v.Descriptor()
	k, ok := vault.ParseKeyPath(rest[:max(strings.LastIndexByte(rest, '/'), 0)])
	c := l.certs[k.Machine]
	if !ok || c == nil {
		if ok {
			l.unsigned[k.Machine] = true
		}
		return nil // nobody can tell without the certificate
	}
	g, err := snapshot.VerifyGrantOf(content, c, d)
	if err != nil {
		return err
	}
	if vault.GrantName(g.Key, g.Recipient) != name {
		return misplaced(name)
	}
	toCompany := g.Recipient == snapshot.HashOf(d.Box)
	for _, f := range d.Former() {
		toCompany = toCompany || g.Recipient == snapshot.HashOf(f.Box)
	}
	if toCompany {
		l.granted[k] = true
	}
	return nil
}

// record checks a record. They come in the order of machine, source and number.
func (l *log) record(name string, content []byte) {
	k, ok := vault.ParseKeyPath(strings.TrimPrefix(name, vault.RecordPrefix))
	if !ok {
		return
	}
	c := l.certs[k.Machine]
	if c == nil {
		l.unsigned[k.Machine] = true
		return
	}
	l.gap(k)
	before := l.last
	l.last.record, l.last.hash = nil, snapshot.Hash{}
	r, err := snapshot.VerifyRecord(content, c)
	if err == nil && r.Key != k {
		err = misplaced(name)
	}
	if err != nil {
		l.last.record = &snapshot.Record{Key: k} // it is there, and says nothing
		l.problem(name, k, tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s: %w", k.Seq, k.Machine, err))
		return
	}
	l.last.record, l.last.hash = r, snapshot.HashOf(content)
	if before.hash != (snapshot.Hash{}) && follows(before.record, k) && r.Prev != before.hash {
		l.problem(name, k, tripod.Errorf(tripod.Conflict, "snapshot %d of machine %.8s: does not follow the snapshot before it", k.Seq, k.Machine).
			WithHint("the vault was rolled back, and the machine backed up to it again: ask who did so"))
	}
	if hash, ok := l.gone[k]; ok && hash == l.last.hash || l.shredded[k.Machine] || l.expired[k] {
		return
	}
	l.live = append(l.live, live{k, r.Root})
	if !l.granted[k] {
		l.problem(vault.GrantName(k, snapshot.HashOf(l.v.Descriptor().Box)), k, tripod.Errorf(tripod.Corrupt,
			"snapshot %d of machine %.8s: has no grant to the company's key that can be used", k.Seq, k.Machine).
			WithHint("without it nobody can restore the snapshot: get it from another copy of the vault"))
	}
}

func sameChain(r *snapshot.Record, k snapshot.Key) bool {
	return r != nil && r.Key.Machine == k.Machine && r.Key.Source == k.Source
}

func follows(r *snapshot.Record, k snapshot.Key) bool { return sameChain(r, k) && r.Key.Seq+1 == k.Seq }

// gap tells of records that are missing in front of one.
func (l *log) gap(k snapshot.Key) {
	first := uint64(1)
	if sameChain(l.last.record, k) {
		first = l.last.record.Key.Seq + 1
	}
	if first >= k.Seq {
		return
	}
	missing := k
	missing.Seq = first
	text := tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s: its record is missing", first, k.Machine)
	if first+1 < k.Seq {
		text = tripod.Errorf(tripod.Corrupt, "snapshots %d to %d of machine %.8s: their records are missing", first, k.Seq-1, k.Machine)
	}
	l.problem(vault.RecordName(missing), missing, text.WithHint("the store lost or hides them: look into other copies of the vault"))
}

// healDocuments puts documents of the other copy in the place of damaged ones.
// Records and grants are believed for their signatures, as ever.
func (r *running) healDocuments(ctx context.Context, l *log) error {
	for _, p := range l.bad {
		content, err := r.opts.Other.Document(ctx, p.Document)
		if errors.Is(err, tripod.NotFound) || errors.Is(err, tripod.Corrupt) {
			continue
		}
		if err != nil {
			return err
		}
		if !r.proves(ctx, l, p.Document, content) {
			continue
		}
		if err := r.replace(ctx, p.Document, content); err != nil && !errors.Is(err, tripod.Denied) { // locked: it stays as it is
			return err
		}
	}
	return nil
}

// proves reports whether bytes are what a document's name stands for. A grant or
// record of a machine whose certificate was damaged needs the healed one.
func (r *running) proves(ctx context.Context, l *log, name string, content []byte) bool {
	if strings.HasPrefix(name, vault.CertificatePrefix) {
		return l.check(name, content) == nil
	}
	if rest, ok := strings.CutPrefix(name, vault.RecordPrefix); ok {
		k, _ := vault.ParseKeyPath(rest)
		c := l.certs[k.Machine]
		if c == nil {
			return false
		}
		rec, err := snapshot.VerifyRecord(content, c)
		return err == nil && rec.Key == k && r.there(ctx, name)
	}
	return l.check(name, content) == nil
}

// there reports whether the vault has something under a name: what is missing
// replication brings, with all that it needs.
func (r *running) there(ctx context.Context, name string) bool {
	_, err := r.v.Document(ctx, name)
	return !errors.Is(err, tripod.NotFound)
}

// replace puts a document in place of a damaged one.
func (r *running) replace(ctx context.Context, name string, content []byte) error {
	old, err := r.v.Document(ctx, name)
	if err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := r.store.Delete(ctx, name); err != nil && !errors.Is(err, tripod.NotFound) {
		return err
	}
	if err := r.store.Put(ctx, name, content); err != nil {
		return err
	}
	r.report.HealedDocuments++
	return nil
}

// compareKeyrings tells of keyrings that are not the same in both copies. Only a
// holder of one can tell which is right.
func (r *running) compareKeyrings(ctx context.Context) error {
	return r.v.Documents(ctx, vault.KeyringPrefix, func(name string, ours []byte) error {
		theirs, err := r.opts.Other.Document(ctx, name)
		if errors.Is(err, tripod.NotFound) || errors.Is(err, tripod.Corrupt) || r.opts.Keyring(theirs) != nil {
			return nil
		}
		if err == nil && !bytes.Equal(ours, theirs) {
			r.report.Problems = append(r.report.Problems, replicate.Problem{Document: name, Err: tripod.Errorf(tripod.Conflict,
				"%s: the copies have different ones, and nobody can tell which is right without opening them", name).
				WithHint("open both with the passphrase and with the recovery code; copy the file that both open to the other place")})
		}
		return err
	})
}

// Descriptor heals what says whose vault lies in a store, without which it cannot
// even be opened: the descriptor and the successions of the company's key. They are
// taken from another copy, if a machine's certificate in the store shows that it is
// the same company's.
func Descriptor(ctx context.Context, s store.Store, other vault.Source) (healed bool, err error) {
	ours, damage := local.Describe(ctx, s)
	if damage != nil && !errors.Is(damage, tripod.Corrupt) && !errors.Is(damage, tripod.Denied) {
		return false, damage
	}
	content, err := other.Document(ctx, vault.DescriptorName)
	if err != nil {
		return false, err
	}
	if damage == nil {
		// It signs itself, so zeros may pass for one.
		own, err := read(ctx, s, vault.DescriptorName)
		if err != nil || bytes.Equal(own, content) || sameCompany(ctx, s, ours) == nil {
			return false, err
		}
	}
	heal, d, err := introductions(ctx, content, other)
	if err == nil {
		err = sameCompany(ctx, s, d)
	}
	if err != nil {
		return false, err
	}
	for _, h := range heal {
		old, err := read(ctx, s, h.name)
		if err == nil && bytes.Equal(old, h.content) {
			continue
		}
		if err == nil {
			err = s.Delete(ctx, h.name)
		}
		if err == nil || errors.Is(err, tripod.NotFound) {
			err = s.Put(ctx, h.name, h.content)
		}
		if err != nil {
			return false, err
		}
	}
	_, err = local.Describe(ctx, s)
	return err == nil, err
}

// document is a document of a vault.
type document struct {
	name    string
	content []byte
}

// introductions gives what says whose a vault is: the descriptor and the successions
// of the company's key, and what they come to.
func introductions(ctx context.Context, descriptor []byte, other vault.Source) (all []document, d *snapshot.Descriptor, err error) {
	if d, err = snapshot.ParseDescriptor(descriptor); err != nil {
		return nil, nil, err
	}
	all = []document{{vault.DescriptorName, descriptor}}
	for {
		name := vault.SuccessionName(d.Number() + 1)
		next, err := other.Document(ctx, name)
		if errors.Is(err, tripod.NotFound) {
			return all, d, nil
		}
		if err == nil {
			d, err = d.Succeed(next)
		}
		if err != nil {
			return nil, nil, err
		}
		all = append(all, document{name, next})
	}
}

// sameCompany looks for a certificate that a company endorsed.
func sameCompany(ctx context.Context, s store.Store, d *snapshot.Descriptor) error {
	found := false
	err := s.List(ctx, vault.CertificatePrefix, func(i store.Info) error {
		content, err := read(ctx, s, i.Name)
		if err == nil && !found {
			_, bad := snapshot.ParseCertificate(content, d)
			found = bad == nil
		}
		return err
	})
	if err == nil && !found {
		err = tripod.Errorf(tripod.Denied, "the vault's descriptor is damaged, and no certificate in the vault shows that the other place is a copy of it").
			WithHint("if you know that it is, put its file %q in place by hand", vault.DescriptorName)
	}
	return err
}

// read reads an object as far as it can be read.
func read(ctx context.Context, s store.Store, name string) ([]byte, error) {
	info, err := s.Head(ctx, name)
	if errors.Is(err, tripod.NotFound) {
		return nil, nil
	}
	if err != nil || info.Size > snapshot.MaxDocument {
		return nil, err
	}
	b := make([]byte, info.Size)
	if _, err := s.Get(ctx, name, b, 0); err != nil && errors.Is(err, tripod.NotFound) {
		return nil, nil
	}
	return b, nil
}
