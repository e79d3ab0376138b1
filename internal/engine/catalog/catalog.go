// Package catalog opens a company's log in a vault: it checks every signed
// document, follows each source's chain of records, opens the grants, and
// gives the snapshots that can be trusted. What cannot is a Problem and is not
// used; everything else stays usable. find.go picks a snapshot by what people
// call it, path.go a file in one.
package catalog

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault"
)

// Snapshot is one backup that can be trusted and opened.
type Snapshot struct {
	Key       snapshot.Key
	ID        string        // the first digits of Hash in hex: 8, or more where these are not enough
	Hash      snapshot.Hash // of the record
	Record    *snapshot.Record
	Label     *snapshot.Label  // nil for a forgotten or expired one
	Root      seal.Ref         // opens it; zero for a forgotten or expired one
	Forgotten bool             // the company ordered to forget it, or to shred its machine
	Expired   bool             // retention let it go, and nobody ordered to forget it
	Expiry    *snapshot.Expiry // how; nil when that cannot be read

	at time.Time // its place among others, see place
}

// Problem is something in the log that is not used. Its error has a kind and
// mostly a hint.
type Problem struct {
	Document string // name in the vault
	Err      error
}

// Catalog is what a vault's log says.
type Catalog struct {
	Descriptor *snapshot.Descriptor
	live       []Snapshot
	forgotten  []Snapshot
	expired    []Snapshot
	problems   []Problem
	retention  retention
}

// Snapshots gives all that are neither forgotten nor expired, oldest first.
func (c *Catalog) Snapshots() []Snapshot { return slices.Clone(c.live) }

// Forgotten gives those that the company ordered to forget, oldest first.
func (c *Catalog) Forgotten() []Snapshot { return slices.Clone(c.forgotten) }

// Problems gives what was found and not used.
func (c *Catalog) Problems() []Problem { return slices.Clone(c.problems) }

// Open reads a company's log and opens it with the company's keys. It returns
// NotFound when there is no vault, Denied when it is another company's, and
// whatever keeps the log from being read.
func Open(ctx context.Context, r vault.Reader, keys *seal.CompanyKeys) (*Catalog, error) {
	public, err := keys.Public()
	if err != nil {
		return nil, err
	}
	d, err := descriptor(ctx, r, &public)
	if err != nil {
		return nil, err
	}
	recipients, err := recipients(keys)
	if err != nil {
		return nil, err
	}
	o := &opening{
		Catalog: Catalog{Descriptor: d}, keys: keys, certificates: map[tripod.MachineID]*snapshot.Certificate{},
		recipients: recipients, grants: map[string][]document{}, orders: map[snapshot.Key]document{},
		shredded: map[tripod.MachineID]bool{},
		invalid:  map[string]error{}, unsigned: map[tripod.MachineID]int{},
	}
	o.retention = retention{policies: map[uint32]*snapshot.Policy{}, expiries: map[snapshot.Key]*snapshot.Expiry{}}
	for prefix, read := range map[string]func(document){
		vault.CertificatePrefix: o.certificate,
		vault.GrantPrefix:       o.grant,
		vault.OrderPrefix:       o.order,
		vault.ShredPrefix:       o.shred,
		vault.PolicyPrefix:      o.policy,
		vault.HoldPrefix:        o.hold,
	} {
		if err := documents(ctx, r, prefix, read); err != nil {
			return nil, err
		}
	}
	// After the grants: when one is gone meanwhile, the reason is there.
	if err := documents(ctx, r, vault.ExpiryPrefix, o.expiry); err != nil {
		return nil, err
	}
	if err := documents(ctx, r, vault.RecordPrefix, o.record); err != nil {
		return nil, err
	}
	o.tellCertificates()
	o.checkRetention(time.Now())
	o.place()
	if err := o.openGrants(ctx); err != nil {
		return nil, err
	}
	o.finish()
	return &o.Catalog, nil
}

// recipients are the keys that open grants: the one in force, and while it is being
// replaced the one before.
func recipients(keys *seal.CompanyKeys) (map[snapshot.Hash][]byte, error) {
	all := map[snapshot.Hash][]byte{}
	for _, pair := range append([]seal.KeyPair{{Box: keys.Box, Sign: keys.Sign}}, keys.Others...) {
		one := seal.CompanyKeys{ID: keys.ID, Box: pair.Box, Sign: pair.Sign}
		public, err := one.Public()
		if err != nil {
			return nil, err
		}
		all[snapshot.HashOf(public.Box)] = pair.Box
	}
	return all, nil
}

// document is a document of the log as stored.
type document struct {
	name    string
	content []byte
}

func documents(ctx context.Context, r vault.Reader, prefix string, fn func(document)) error {
	err := r.Documents(ctx, prefix, func(name string, content []byte) error {
		fn(document{name, bytes.Clone(content)})
		return nil
	})
	if err != nil {
		return tripod.Errorf(tripod.KindOf(err), "vault log: %w", err).WithHint("%s", tripod.HintOf(err))
	}
	return nil
}

func descriptor(ctx context.Context, r vault.Reader, public *seal.CompanyPublic) (*snapshot.Descriptor, error) {
	d, err := keyring.Describe(ctx, r)
	if errors.Is(err, tripod.NotFound) {
		return nil, tripod.Errorf(tripod.NotFound, "vault: there is none here").WithHint("check the place, or make one with tripod init")
	}
	if err != nil {
		return nil, err
	}
	if err := keyring.Pinned(d, public); err != nil && !(d.Company == public.ID && d.Succeeds(public.Box, public.Sign)) {
		return nil, tripod.Errorf(tripod.Denied, "vault: belongs to company %.8s, the keys to %.8s", d.Company, public.ID).
			WithHint("use the keyring of this vault; if it should be this one, its descriptor was replaced")
	}
	return d, nil
}

// opening is a catalog on its way.
type opening struct {
	Catalog
	keys         *seal.CompanyKeys
	recipients   map[snapshot.Hash][]byte // the company's private keys, by the hash of the public ones
	certificates map[tripod.MachineID]*snapshot.Certificate
	grants       map[string][]document // by vault.KeyPath
	orders       map[snapshot.Key]document
	shredded     map[tripod.MachineID]bool
	chain        chain
	found        []Snapshot
	invalid      map[string]error         // certificates that are not valid, by their names
	unsigned     map[tripod.MachineID]int // records of machines without a valid certificate
}

func (o *opening) problem(name string, err error) {
	o.problems = append(o.problems, Problem{Document: name, Err: err})
}

func (o *opening) certificate(d document) {
	c, err := snapshot.ParseCertificate(d.content, o.Descriptor)
	if err == nil && d.name != vault.CertificatePrefix+c.Machine.String() {
		err = misplaced("machine certificate")
	}
	if err != nil {
		o.invalid[d.name] = err
		return
	}
	o.certificates[c.Machine] = c
}

func (o *opening) grant(d document) {
	path := strings.TrimPrefix(d.name, vault.GrantPrefix)
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		path = path[:i]
	}
	o.grants[path] = append(o.grants[path], d) // checked when it is opened
}

func (o *opening) order(d document) {
	order, err := snapshot.ParseOrder(d.content, o.Descriptor)
	if err == nil && d.name != vault.OrderPrefix+vault.KeyPath(order.Key) {
		err = misplaced("order to forget")
	}
	if err != nil {
		o.problem(d.name, err)
		return
	}
	o.orders[order.Key] = d
}

func (o *opening) shred(d document) {
	order, err := snapshot.ParseShred(d.content, o.Descriptor)
	if err == nil && d.name != vault.ShredName(order.Machine) {
		err = misplaced("order to shred")
	}
	if err != nil {
		o.problem(d.name, err)
		return
	}
	o.shredded[order.Machine] = true
}

func misplaced(what string) error {
	return tripod.Errorf(tripod.Corrupt, "%s: lies under another name than its own", what).
		WithHint("it was moved or copied; it is not used")
}

// chain follows the records of one machine and source.
type chain struct {
	machine tripod.MachineID
	source  tripod.SourceID
	last    *snapshot.Record
	hash    snapshot.Hash
	refused map[snapshot.Hash]bool // signed, but beside the chain
}

// record takes the records in the order of their names: by machine, source and
// sequence.
func (o *opening) record(d document) {
	r, err := snapshot.ParseRecord(d.content)
	if err != nil {
		o.problem(d.name, damaged(err))
		return
	}
	if d.name != vault.RecordPrefix+vault.KeyPath(r.Key) {
		o.problem(d.name, misplaced("snapshot record"))
		return
	}
	c := o.certificates[r.Key.Machine]
	if c == nil {
		_, forgotten := o.orders[r.Key]
		_, expired := o.retention.expiries[r.Key]
		if !forgotten && !expired {
			o.unsigned[r.Key.Machine]++
		}
		return
	}
	if r, err = snapshot.VerifyRecord(d.content, c); err != nil {
		o.problem(d.name, err)
		return
	}
	hash := snapshot.HashOf(d.content)
	if err := o.follow(r, hash); err != nil {
		o.problem(d.name, err)
		return
	}
	s := Snapshot{Key: r.Key, Hash: hash, Record: r}
	if order, ok := o.orders[r.Key]; ok {
		s.Forgotten = o.means(order, hash)
	}
	s.Forgotten = s.Forgotten || o.shredded[r.Key.Machine]
	if e, ok := o.retention.expiries[r.Key]; ok && !s.Forgotten {
		s.Expired, s.Expiry = true, e
	}
	o.found = append(o.found, s)
}

// means checks that an order to forget is for the record with this hash.
func (o *opening) means(d document, hash snapshot.Hash) bool {
	order, err := snapshot.ParseOrder(d.content, o.Descriptor)
	if err == nil && order.Record != hash {
		err = tripod.Errorf(tripod.Corrupt, "order to forget: means another record than the one stored").
			WithHint("the record was replaced after the order was given; the snapshot is kept")
	}
	if err != nil {
		o.problem(d.name, err)
	}
	return err == nil
}

// tellCertificates tells of each machine that cannot be believed without its
// certificate, once, with what that costs.
func (o *opening) tellCertificates() {
	for m, n := range o.unsigned {
		name := vault.CertificateName(m)
		cause, there := o.invalid[name]
		delete(o.invalid, name)
		what := tripod.Count(n, "snapshot")
		if !there {
			o.problem(name, tripod.Errorf(tripod.Denied, "%s of machine %.8s cannot be used: its certificate %s is missing", what, m, name).
				WithHint("%s", hintCertificate))
			continue
		}
		o.problem(name, tripod.Errorf(tripod.KindOf(cause), "%s of machine %.8s cannot be used: its certificate %s is not valid: %w", what, m, name, cause).
			WithHint("%s", hintCertificate))
	}
	for name, cause := range o.invalid {
		o.problem(name, cause)
	}
}

const hintCertificate = "the next backup on that machine puts it back; if the machine is gone, get this file from another copy of the vault"

func damaged(err error) error {
	if tripod.HintOf(err) != "" {
		return err
	}
	return tripod.Errorf(tripod.KindOf(err), "%w", err).WithHint("the record was damaged in the store; it is not used, another copy of the vault may have it whole")
}

// follow checks that a signed record continues its chain. A record that comes
// after missing ones is used, because its machine signed it, and the gap is a
// problem; one that contradicts the record before it is not, nor is what
// builds on it.
func (o *opening) follow(r *snapshot.Record, hash snapshot.Hash) error {
	c := &o.chain
	if c.machine != r.Key.Machine || c.source != r.Key.Source {
		*c = chain{machine: r.Key.Machine, source: r.Key.Source, refused: map[snapshot.Hash]bool{}}
	}
	var next uint64 = 1
	if c.last != nil {
		next = c.last.Key.Seq + 1
	}
	err := snapshot.Chain(c.last, c.hash, r)
	gap := r.Key.Seq > next && !c.refused[r.Prev]
	if err != nil && !gap {
		c.refused[hash] = true
		return err
	}
	if gap {
		missing := snapshot.Key{Machine: r.Key.Machine, Source: r.Key.Source, Seq: next}
		o.problem(vault.RecordPrefix+vault.KeyPath(missing), tripod.Errorf(tripod.Corrupt,
			"%s of machine %.8s: missing or not usable", numbered(next, r.Key.Seq-1), r.Key.Machine).
			WithHint("the store lost or hides them; look in another copy of the vault"))
	}
	c.last, c.hash = r, hash
	return nil
}

// numbered words the numbers of one or several snapshots in a row.
func numbered(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("snapshot %d", first)
	}
	return fmt.Sprintf("snapshots %d to %d", first, last)
}

// openGrants opens the live snapshots' roots and labels: some 0.2 ms each.
func (o *opening) openGrants(ctx context.Context) error {
	errs := make([]error, len(o.found))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range o.found {
		if o.found[i].Forgotten || o.found[i].Expired {
			continue
		}
		g.Go(func() error {
			errs[i] = o.open(&o.found[i])
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range o.found {
		s := &o.found[i]
		switch {
		case s.Forgotten:
			o.forgotten = append(o.forgotten, *s)
		case s.Expired:
			o.expired = append(o.expired, *s)
		case errs[i] != nil:
			o.problem(vault.GrantPrefix+vault.KeyPath(s.Key), errs[i])
		default:
			o.live = append(o.live, *s)
		}
	}
	return nil
}

// open tries the grants to the company until one opens.
func (o *opening) open(s *Snapshot) error {
	var failed error = tripod.Errorf(tripod.NotFound, "snapshot %d of machine %.8s: has no grant to the company", s.Key.Seq, s.Key.Machine).
		WithHint("its grant was lost or its key shredded; another copy of the vault may have it")
	for _, d := range o.grants[vault.KeyPath(s.Key)] {
		g, err := snapshot.VerifyGrantOf(d.content, o.certificates[s.Key.Machine], o.Descriptor)
		if err == nil && g.Key != s.Key {
			err = misplaced("grant")
		}
		var box []byte
		if err == nil {
			if box = o.recipients[g.Recipient]; box == nil {
				continue // for someone else
			}
			c := seal.GrantContext{Company: o.keys.ID, Machine: s.Key.Machine, Source: s.Key.Source, Seq: s.Key.Seq, Root: s.Record.Root}
			s.Root, err = seal.OpenGrant(box, &c, g.Sealed)
		}
		if err == nil {
			return s.label()
		}
		failed = tripod.Errorf(tripod.KindOf(err), "snapshot %d of machine %.8s: %w", s.Key.Seq, s.Key.Machine, err).
			WithHint("the grant was damaged or forged; another copy of the vault may have it whole")
	}
	return failed
}

func (s *Snapshot) label() error {
	plain, err := seal.OpenLabel(&s.Root, s.Record.Label)
	if err == nil {
		s.Label, err = snapshot.UnmarshalLabel(plain)
	}
	return err
}

// place gives each snapshot its time among those of other sources. Within a
// source the chain alone tells what came after what: a clock may have been wrong
// for a while, so none is placed later than the next of its chain.
func (o *opening) place() {
	for i := range slices.Backward(o.found) { // in the order of machine, source and number
		s := &o.found[i]
		s.at = s.Record.Time
		if i+1 == len(o.found) {
			continue
		}
		if next := &o.found[i+1]; sourceOf(s.Key) == sourceOf(next.Key) && next.at.Before(s.at) {
			s.at = next.at
		}
	}
}

// finish sorts by place and gives the short ids.
func (o *opening) finish() {
	byTime := func(a, b Snapshot) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.Key.Seq, b.Key.Seq), bytes.Compare(a.Hash[:], b.Hash[:]))
	}
	slices.SortFunc(o.live, byTime)
	slices.SortFunc(o.forgotten, byTime)
	slices.SortFunc(o.expired, byTime)
	slices.SortFunc(o.retention.holds, func(a, b *snapshot.Hold) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(o.problems, func(a, b Problem) int { return cmp.Compare(a.Document, b.Document) })
	nameAll(o.live, o.forgotten, o.expired)
}

// nameAll gives each snapshot the shortest id of at least 8 digits that no
// other shares.
func nameAll(lists ...[]Snapshot) {
	var all []*Snapshot
	for _, l := range lists {
		for i := range l {
			all = append(all, &l[i])
		}
	}
	slices.SortFunc(all, func(a, b *Snapshot) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	for i, s := range all {
		n := 8
		if i > 0 {
			n = max(n, shared(s, all[i-1])+1)
		}
		if i+1 < len(all) {
			n = max(n, shared(s, all[i+1])+1)
		}
		full := hex.EncodeToString(s.Hash[:])
		s.ID = full[:min(n, len(full))]
	}
}

func shared(a, b *Snapshot) (n int) {
	x, y := hex.EncodeToString(a.Hash[:]), hex.EncodeToString(b.Hash[:])
	for n < len(x) && x[n] == y[n] {
		n++
	}
	return n
}

// Order makes the company's signed order to forget a snapshot, and the name to
// put it under.
func Order(keys *seal.CompanyKeys, s Snapshot, now time.Time) (name string, encoded []byte) {
	o := snapshot.Order{Company: keys.ID, Key: s.Key, Record: s.Hash, Time: now}
	return vault.OrderPrefix + vault.KeyPath(s.Key), o.Encode(keys.Sign)
}
