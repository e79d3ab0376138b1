// Package expire applies the company's signed policy to a vault, without a key:
// Look decides for every live snapshot and says why (core/policy), Apply lets go
// what nothing keeps. An expiry is a document, which readers check against the
// policy; the space comes back when the vault is collected.
//
// What time it is, Look is told by the clock that clock.go reads.
package expire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tripod/internal/core/policy"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// Vault is what expiry reads.
type Vault interface {
	Reader
	// Have tells which blobs the vault holds, with all below them; see
	// vault.Writer.
	Have(ctx context.Context, ids []tripod.ID) ([][]tripod.Sum, error)
}

// Session is what it writes to.
type Session interface {
	Vault
	Expire(ctx context.Context, e *snapshot.Expiry) error
	DropGrants(ctx context.Context, k snapshot.Key) error
}

// Options say how to decide.
type Options struct {
	Clock Clock
	// Rules are applied instead of the vault's policy, to see what they would do:
	// such a plan is not applied. Nil for the policy's.
	Rules *policy.Rules
	// Tags gives a snapshot's tags, for who can open them; known is false for one
	// that cannot be opened. Nil for who has no key: then a policy that keeps tags
	// keeps everything.
	Tags func(k snapshot.Key) (tags []string, known bool)
}

// Plan is what would become of a vault's live snapshots.
type Plan struct {
	Policy  *snapshot.Policy // that was applied; nil for rules of the caller's
	Rules   policy.Rules
	Now     time.Time     // by the retention clock
	Behind  time.Duration // of the wall clock
	Holds   []*snapshot.Hold
	Rows    []Row     // by machine, source and sequence
	Refused []Refused // documents that were not used
	Applied uint32    // the highest number of a policy by which something expired

	leftover []snapshot.Key // expired, but with grants
	sight    *policy.Sight
	clock    *Clock
}

// Row is one snapshot and the decision.
type Row struct {
	policy.Decision
	Record snapshot.Hash
	Type   tripod.SourceType
	newest uint64 // sequence of its source's newest record
}

// Refused is a document that is not valid.
type Refused struct {
	Document string
	Err      error
}

// Look decides for every live snapshot. It returns NotFound when there is neither
// a policy nor rules of the caller's, and Conflict when the clock cannot be
// believed.
func Look(ctx context.Context, v Vault, d *snapshot.Descriptor, o Options) (*Plan, error) {
	l := &look{Plan: Plan{clock: &o.Clock}, d: d, certificates: map[tripod.MachineID]*snapshot.Certificate{}, gone: map[snapshot.Key]bool{}, expired: map[snapshot.Key]bool{}, shredded: map[tripod.MachineID]bool{}}
	for _, of := range []struct {
		prefix string
		read   func(name string, content []byte) error
	}{
		{vault.PolicyPrefix, l.policy},
		{vault.HoldPrefix, l.hold},
		{vault.CertificatePrefix, l.certificate},
		{vault.OrderPrefix, l.order},
		{vault.ShredPrefix, l.shred},
		{vault.ExpiryPrefix, l.expiry},
		{vault.GrantPrefix, l.grant},
		{vault.RecordPrefix, l.record},
	} {
		err := v.Documents(ctx, of.prefix, func(name string, content []byte) error {
			if err := of.read(name, content); err != nil {
				l.Refused = append(l.Refused, Refused{name, err})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if err := l.rules(&o); err != nil {
		return nil, err
	}
	if err := l.now(&o); err != nil {
		return nil, err
	}
	if err := l.decide(ctx, v, o.Tags); err != nil {
		return nil, err
	}
	return &l.Plan, nil
}

// look is a plan on its way.
type look struct {
	Plan
	d            *snapshot.Descriptor
	certificates map[tripod.MachineID]*snapshot.Certificate
	gone         map[snapshot.Key]bool // forgotten or expired
	expired      map[snapshot.Key]bool
	shredded     map[tripod.MachineID]bool
	seen         time.Time
	unreadable   error // of the newest policy
	records      []Row
	roots        []tripod.ID
}

// policy takes policies in the order of their numbers. When the newest cannot be
// read nothing expires by an older one, which may have kept less.
func (l *look) policy(name string, content []byte) error {
	p, err := snapshot.ParsePolicy(content, l.d)
	if err == nil && vault.PolicyName(p.Number) != name {
		err = tripod.Errorf(tripod.Corrupt, "policy: lies under another name than its own")
	}
	if l.unreadable = err; err != nil {
		return err
	}
	l.Policy = p
	if p.Time.After(l.seen) {
		l.seen = p.Time
	}
	return nil
}

// hold counts whatever lies there: one that cannot be read is one all the same.
func (l *look) hold(name string, content []byte) error {
	h, err := snapshot.ParseHold(content, l.d)
	if err != nil {
		h = &snapshot.Hold{Name: strings.TrimPrefix(name, vault.HoldPrefix), Reason: "(cannot be read)"}
	}
	l.Holds = append(l.Holds, h)
	return err
}

func (l *look) certificate(name string, content []byte) error {
	c, err := snapshot.ParseCertificate(content, l.d)
	if err == nil && vault.CertificateName(c.Machine) == name {
		l.certificates[c.Machine] = c
	}
	return err
}

func (l *look) order(name string, content []byte) error {
	o, err := snapshot.ParseOrder(content, l.d)
	if err == nil && vault.OrderName(o.Key) == name {
		l.gone[o.Key] = true
	}
	return err
}

// shred finds machines whose snapshots nobody can open any more.
func (l *look) shred(name string, content []byte) error {
	o, err := snapshot.ParseShred(content, l.d)
	if err == nil && vault.ShredName(o.Machine) == name {
		l.shredded[o.Machine] = true
	}
	return err
}

// expiry counts by its name, as it does for who collects.
func (l *look) expiry(name string, content []byte) error {
	k, ok := vault.ParseKeyPath(strings.TrimPrefix(name, vault.ExpiryPrefix))
	if !ok {
		return nil
	}
	l.gone[k] = true
	l.expired[k] = true
	e, err := snapshot.ParseExpiry(content, l.d)
	if err != nil {
		return err
	}
	l.Applied = max(l.Applied, e.Policy)
	if e.Time.After(l.seen) {
		l.seen = e.Time
	}
	return nil
}

// grant finds what an Apply that did not end has left.
func (l *look) grant(name string, _ []byte) error {
	path := strings.TrimPrefix(name, vault.GrantPrefix)
	if at := strings.LastIndexByte(path, '/'); at >= 0 {
		path = path[:at]
	}
	k, ok := vault.ParseKeyPath(path)
	if n := len(l.leftover); ok && l.expired[k] && (n == 0 || l.leftover[n-1] != k) {
		l.leftover = append(l.leftover, k)
	}
	return nil
}

// record takes records in the order of their names: those of a source by their
// sequence. Only what a machine of the company signed counts.
func (l *look) record(name string, content []byte) error {
	r, err := snapshot.ParseRecord(content)
	if err != nil {
		return err
	}
	c := l.certificates[r.Key.Machine]
	if c == nil {
		return tripod.Errorf(tripod.Denied, "snapshot record: its machine has no valid certificate")
	}
	if r, err = snapshot.VerifyRecord(content, c); err != nil {
		return err
	}
	if vault.RecordName(r.Key) != name {
		return tripod.Errorf(tripod.Corrupt, "snapshot record: lies under another name than its own")
	}
	l.records = append(l.records, Row{
		Decision: policy.Decision{Snapshot: policy.Snapshot{Key: r.Key, Time: r.Time, LockUntil: r.LockUntil, Sealed: true}},
		Record:   snapshot.HashOf(content), Type: r.Type,
	})
	l.roots = append(l.roots, r.Root)
	return nil
}

func (l *look) rules(o *Options) error {
	switch {
	case o.Rules != nil:
		l.Policy, l.Rules = nil, *o.Rules
		return nil
	case l.unreadable != nil:
		return tripod.Errorf(tripod.KindOf(l.unreadable), "the newest policy cannot be used, so nothing expires: %w", l.unreadable).
			WithHint("sign a new one: tripod vault policy --keep-...")
	case l.Policy == nil:
		return tripod.Errorf(tripod.NotFound, "the vault has no policy, so nothing expires").
			WithHint("make one, for example: tripod vault policy --keep-daily 7 --keep-weekly 4 --keep-within 3d")
	}
	if l.Policy.Number < l.Applied {
		return tripod.Errorf(tripod.Conflict, "the vault's newest policy is number %d, but number %d was applied already, so nothing expires", l.Policy.Number, l.Applied).
			WithHint("the vault was rolled back, or hides something; sign a new policy if you know why")
	}
	in, err := policy.Zone(l.Policy.Zone)
	if err != nil {
		return fmt.Errorf("policy %d: %w", l.Policy.Number, err)
	}
	l.Rules = policy.RulesOf(l.Policy, in)
	return nil
}

func (l *look) now(o *Options) error {
	newest := map[tripod.MachineID]map[tripod.SourceID]time.Time{}
	for i := range l.records {
		r := &l.records[i]
		if newest[r.Key.Machine] == nil {
			newest[r.Key.Machine] = map[tripod.SourceID]time.Time{}
		}
		newest[r.Key.Machine][r.Key.Source] = r.Time // the last of its source stays
	}
	var others []time.Time
	for m, sources := range newest {
		var latest time.Time
		for _, t := range sources {
			if t.After(latest) {
				latest = t
			}
		}
		if m != o.Clock.Own {
			others = append(others, latest)
		}
	}
	reading, err := o.Clock.read(l.seen, others)
	if err != nil {
		return err
	}
	l.Now, l.Behind, l.sight = reading.Now, reading.Behind, reading.Note
	if o.Rules != nil { // which are only looked at
		l.Now, l.Behind = o.Clock.Wall, 0
	}
	return nil
}

func (l *look) decide(ctx context.Context, v Vault, tags func(snapshot.Key) ([]string, bool)) error {
	type source struct {
		m tripod.MachineID
		s tripod.SourceID
	}
	newest := map[source]uint64{}
	var roots []tripod.ID
	for i := range l.records {
		r := &l.records[i]
		of := source{r.Key.Machine, r.Key.Source}
		newest[of] = max(newest[of], r.Key.Seq)
		if !l.gone[r.Key] && !l.shredded[r.Key.Machine] {
			l.Rows, roots = append(l.Rows, *r), append(roots, l.roots[i])
		}
	}
	held, err := v.Have(ctx, roots)
	if err != nil {
		return err
	}
	snapshots := make([]policy.Snapshot, len(l.Rows))
	for i := range l.Rows {
		r := &l.Rows[i]
		r.newest = newest[source{r.Key.Machine, r.Key.Source}]
		r.Damaged = len(held[i]) == 0
		if tags != nil {
			if t, known := tags(r.Key); known {
				r.Tags, r.Sealed = t, false
			}
		}
		snapshots[i] = r.Snapshot
	}
	var holds []string
	for _, h := range l.Holds {
		holds = append(holds, h.Name)
	}
	for i, d := range policy.Keep(&l.Rules, snapshots, holds, l.Now) {
		l.Rows[i].Decision = d
	}
	return nil
}

// Apply lets go what nothing keeps, and finishes what an earlier one left. The
// session must be the one that Look saw the vault by.
func (p *Plan) Apply(ctx context.Context, s Session, d *snapshot.Descriptor) error {
	if p.Policy == nil {
		return tripod.Errorf(tripod.Invalid, "expire: only the vault's own policy is applied")
	}
	// What retention goes by is noted first: it may lag, but it never forgets.
	if err := p.clock.note(p.sight); err != nil {
		return err
	}
	for _, k := range p.leftover {
		if err := s.DropGrants(ctx, k); err != nil {
			return err
		}
	}
	for i := range p.Rows {
		r := &p.Rows[i]
		if r.Keep() {
			continue
		}
		err := s.Expire(ctx, &snapshot.Expiry{
			Company: d.Company, Key: r.Key, Record: r.Record, Time: p.Now, Policy: p.Policy.Number, Newest: r.newest, Reason: r.Because(),
		})
		if err != nil && !errors.Is(err, tripod.Exists) {
			return err
		}
	}
	return nil
}

// Reader is where documents are read.
type Reader interface {
	Documents(ctx context.Context, prefix string, fn func(name string, content []byte) error) error
}

// Policy gives the newest policy of a vault and the highest number there is; nil
// and 0 when there is none. It returns the error of a newest one that cannot be
// used.
func Policy(ctx context.Context, r Reader, d *snapshot.Descriptor) (p *snapshot.Policy, number uint32, err error) {
	l := &look{d: d}
	err = r.Documents(ctx, vault.PolicyPrefix, func(name string, content []byte) error {
		number, _ = vault.ParsePolicyName(name)
		_ = l.policy(name, content) // kept in unreadable
		return nil
	})
	if err == nil {
		err = l.unreadable
	}
	return l.Policy, number, err
}

// Holds gives the holds that are open, by name, and what could not be read of
// them, which counts as one.
func Holds(ctx context.Context, r Reader, d *snapshot.Descriptor) ([]*snapshot.Hold, []Refused, error) {
	l := &look{d: d}
	err := r.Documents(ctx, vault.HoldPrefix, func(name string, content []byte) error {
		if err := l.hold(name, content); err != nil {
			l.Refused = append(l.Refused, Refused{name, err})
		}
		return nil
	})
	return l.Holds, l.Refused, err
}
