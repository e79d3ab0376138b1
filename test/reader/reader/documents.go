package reader

import (
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zeebo/blake3"
)

// document opens a signed document: it checks tag and version and returns the
// fields between them and the signature.
func document(p []byte, tag string) (*fields, error) {
	f := &fields{b: p}
	f.tag(tag)
	version := f.byte()
	if f.bad || len(p) > 1<<20 || len(f.b) < ed25519.SignatureSize {
		return nil, errors.New("malformed")
	}
	if version != 1 {
		return nil, fmt.Errorf("format version %d is not known", version)
	}
	f.b = f.b[:len(f.b)-ed25519.SignatureSize]
	return f, nil
}

func signedBy(p []byte, key [32]byte) bool {
	n := len(p) - ed25519.SignatureSize
	return n >= 0 && ed25519.Verify(key[:], p[:n], p[n:])
}

type descriptor struct {
	company, vault [16]byte
	box            []byte
	sign           [32]byte
	number         uint64            // of the company key, from 1
	former         [][32]byte        // signing keys before this one
	kept           map[[32]byte]bool // documents of theirs that count
	boxes          [][32]byte        // hashes of the HPKE public keys before this one
}

// signer is the key by which the company signs grants to a recipient.
func (d *descriptor) signer(recipient [32]byte) [32]byte {
	if i := slices.Index(d.boxes, recipient); i >= 0 {
		return d.former[i]
	}
	return d.sign
}

// succeed follows a succession to the company's next key.
func (d *descriptor) succeed(p []byte) (*descriptor, error) {
	f, err := document(p, "tripod 1 succession\n")
	if err != nil {
		return nil, err
	}
	companyID, vault, number := f.id(), f.id(), f.uint(4)
	next := &descriptor{
		company: d.company, vault: d.vault, number: d.number + 1, former: append(slices.Clone(d.former), d.sign),
		box: f.counted(3), sign: f.hash(), kept: map[[32]byte]bool{},
		boxes: append(slices.Clone(d.boxes), blake3.Sum256(d.box)),
	}
	f.time()
	for range f.uint(4) {
		if f.bad {
			break
		}
		next.kept[f.hash()] = true
	}
	f.take(ed25519.SignatureSize) // of the new key
	if err := f.done("succession"); err != nil {
		return nil, err
	}
	if companyID != d.company || vault != d.vault || number != next.number {
		return nil, errors.New("is of another vault, or out of order")
	}
	if !signedBy(p, d.sign) || !signedBy(p[:len(p)-ed25519.SignatureSize], next.sign) {
		return nil, errors.New("not signed by the key before and the new one")
	}
	return next, nil
}

// signed reports whether the company signed part, which lies in a document: by the
// key in force, or by one before if the document is listed.
func (d *descriptor) signed(part, whole []byte) bool {
	if signedBy(part, d.sign) {
		return true
	}
	return d.kept[blake3.Sum256(whole)] && slices.ContainsFunc(d.former, func(key [32]byte) bool { return signedBy(part, key) })
}

// shredded checks an order to shred a machine.
func shredded(p []byte, machine [16]byte, d *descriptor) error {
	f, err := document(p, "tripod 1 shred\n")
	if err != nil {
		return err
	}
	companyID, id := f.id(), f.id()
	f.time()
	if f.done("") != nil || companyID != d.company || id != machine || !d.signed(p, p) {
		return errors.New("not the company's order to shred this machine")
	}
	return nil
}

func parseDescriptor(p []byte) (*descriptor, error) {
	f, err := document(p, "tripod 1 vault\n")
	if err != nil {
		return nil, err
	}
	d := &descriptor{company: f.id(), vault: f.id(), box: f.counted(3), sign: f.hash(), number: 1}
	f.time()
	if err := f.done("vault descriptor"); err != nil {
		return nil, err
	}
	if !signedBy(p, d.sign) {
		return nil, errors.New("its signature does not match")
	}
	return d, nil
}

// machineKey checks a certificate down from the company's key and returns the
// machine's.
func machineKey(p []byte, machine [16]byte, d *descriptor) (key [32]byte, err error) {
	f, err := document(p, "tripod 1 machine\n")
	if err != nil {
		return key, err
	}
	companyID, id := f.id(), f.id()
	key = f.hash()
	enrolled, invitation := f.time(), f.counted(3)
	if err := f.done("certificate"); err != nil {
		return key, err
	}
	i, err := document(invitation, "tripod 1 invitation\n")
	if err != nil {
		return key, fmt.Errorf("invitation: %w", err)
	}
	invited, by, expires := i.id(), i.hash(), i.time()
	switch {
	case i.done("") != nil:
		return key, errors.New("invitation: malformed")
	case invited != d.company || !d.signed(invitation, p):
		return key, errors.New("invitation: not signed by this company")
	case companyID != d.company || id != machine || !signedBy(p, by):
		return key, errors.New("not endorsed by this company")
	case machineID(key) != id:
		return key, errors.New("is for the key of another machine")
	case !expires.IsZero() && enrolled.After(expires):
		return key, errors.New("enrolled after its invitation expired")
	}
	return key, nil
}

// machineID is the id that a machine's key gives it.
func machineID(key [32]byte) [16]byte {
	id := derive("tripod 1 machine id", key)
	return fixed16(id[:16])
}

type record struct {
	company, machine, source [16]byte
	seq                      uint64
	prev, root               [32]byte
	kind                     byte
	time                     time.Time
	label                    []byte
	hash                     [32]byte
}

func parseRecord(p []byte, key [32]byte) (*record, error) {
	f, err := document(p, "tripod 1 record\n")
	if err != nil {
		return nil, err
	}
	r := &record{company: f.id(), machine: f.id(), source: f.id(), seq: f.uint(8), hash: blake3.Sum256(p)}
	f.uint(8) // incarnation
	r.prev = f.hash()
	r.kind, r.root = f.byte(), f.hash()
	r.time = f.time()
	f.take(2) // size classes
	f.time()  // lock until
	r.label = f.counted(3)
	if err := f.done("record"); err != nil {
		return nil, err
	}
	if r.kind < 1 || r.kind > 3 || r.seq == 0 || len(r.label) > 256<<10 {
		return nil, errors.New("impossible fields")
	}
	if !signedBy(p, key) {
		return nil, errors.New("not signed by its machine")
	}
	return r, nil
}

// forgotten checks an order to forget r.
func forgotten(p []byte, r *record, d *descriptor) error {
	f, err := document(p, "tripod 1 forget\n")
	if err != nil {
		return err
	}
	companyID, machine, source, seq, hash := f.id(), f.id(), f.id(), f.uint(8), f.hash()
	f.time()
	if f.done("") != nil || companyID != d.company || machine != r.machine || source != r.source || seq != r.seq ||
		hash != r.hash || !d.signed(p, p) {
		return errors.New("not the company's order to forget this snapshot")
	}
	return nil
}

// expired checks what retention wrote when it let r go. Nobody signs it: that the
// company's policy allowed it is for who has all the records.
func expired(p []byte, r *record) (by policyUse, err error) {
	n := len(p) - 32
	if n < 0 || blake3.Sum256(p[:n]) != fixed32(p[n:]) {
		return by, errors.New("damaged")
	}
	f := &fields{b: p[:n]}
	f.tag("tripod 1 expiry\n")
	version := f.byte()
	companyID, machine, source, seq, hash := f.id(), f.id(), f.id(), f.uint(8), f.hash()
	by = policyUse{f.time(), uint32(f.uint(4)), f.uint(8), string(f.counted(3))}
	if f.done("") != nil || version != 1 || companyID != r.company || machine != r.machine || source != r.source || seq != r.seq || hash != r.hash {
		return by, errors.New("not the expiry of this snapshot")
	}
	return by, nil
}

// policyUse says when a policy let a snapshot go, and why.
type policyUse struct {
	time   time.Time
	number uint32
	newest uint64
	reason string
}

// policy is the company's wish of what to keep.
type policy struct {
	number                                       uint32
	made                                         time.Time
	last, hourly, daily, weekly, monthly, yearly uint32
	within                                       time.Duration
	zone                                         string
	tags                                         []string
}

func parsePolicy(p []byte, d *descriptor) (*policy, error) {
	f, err := document(p, "tripod 1 policy\n")
	if err != nil {
		return nil, err
	}
	companyID := f.id()
	out := &policy{number: uint32(f.uint(4)), made: f.time()}
	for _, n := range []*uint32{&out.last, &out.hourly, &out.daily, &out.weekly, &out.monthly, &out.yearly} {
		*n = uint32(f.uint(4))
	}
	within := f.uint(8)
	out.within = time.Duration(within) * time.Second
	out.zone = string(f.counted(3))
	for range f.uint(2) {
		out.tags = append(out.tags, string(f.counted(3)))
	}
	if f.done("") != nil || within > 1<<63/uint64(time.Second) || companyID != d.company || !d.signed(p, p) {
		return nil, errors.New("not a policy of this company")
	}
	return out, nil
}

// openGrant checks the grant to the company and opens the root's capability.
func openGrant(p []byte, r *record, key, companyKey [32]byte, own hpke.PrivateKey) (root ref, err error) {
	f, err := document(p, "tripod 1 grant\n")
	if err != nil {
		return root, err
	}
	companyID, machine, source, seq, recipient, sealed := f.id(), f.id(), f.id(), f.uint(8), f.hash(), f.counted(3)
	if f.done("") != nil || companyID != r.company || machine != r.machine || source != r.source || seq != r.seq || !signedBy(p, key) && !signedBy(p, companyKey) {
		return root, errors.New("not signed for this snapshot by its machine or the company")
	}
	if recipient != blake3.Sum256(own.PublicKey().Bytes()) {
		return root, errors.New("is for another recipient")
	}
	info := slices.Concat([]byte("tripod 1 grant\n"), companyID[:], machine[:], source[:],
		binary.LittleEndian.AppendUint64(nil, seq), r.root[:])
	plain, err := hpke.Open(own, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil || len(plain) != refLen {
		return root, errors.New("does not open")
	}
	if root = refFrom(plain); root.id() != r.root {
		return root, errors.New("opens another root than the record names")
	}
	return root, nil
}

// openLabel fills in what people know a snapshot by.
func (s *Snapshot) openLabel(sealed []byte) error {
	id := s.root.id()
	plain, err := unseal(derive("tripod 1 label", s.root.h), id[:], sealed)
	if err != nil {
		return fmt.Errorf("label: %w", err)
	}
	f := &fields{b: plain}
	if f.byte() != 1 {
		return errors.New("label: unknown version")
	}
	s.Host = string(f.counted(3))
	for range f.uint(2) {
		s.Paths = append(s.Paths, string(f.counted(3)))
	}
	for range f.uint(2) {
		s.Tags = append(s.Tags, string(f.counted(3)))
	}
	f.counted(3) // program
	s.Files, s.Bytes = int64(f.uint(8)), int64(f.uint(8))
	f.uint(8) // skipped
	return f.done("label")
}
