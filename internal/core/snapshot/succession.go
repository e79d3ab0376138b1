package snapshot

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/tripod"
)

// Succession puts a new company key in the place of the one before. Both sign it:
// the old one says who follows, the new one whom it follows. What the old one has
// signed until then counts on because it is listed here, and nothing that it signs
// afterwards does, whatever time it bears.
type Succession struct {
	Company tripod.CompanyID
	Vault   [16]byte
	Number  uint32 // of the new key: the descriptor's is 1
	Box     []byte
	Sign    ed25519.PublicKey
	Time    time.Time
	Kept    []Hash // of documents signed by earlier keys that count on, ascending
}

// MaxKept is how many documents a succession can list.
const MaxKept = 32_000

const (
	successionTag = "tripod 1 succession\n"
	shredTag      = "tripod 1 shred\n"
)

// Encode encodes the succession and signs it with both keys.
func (n *Succession) Encode(old, fresh ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(successionTag))
	b.AddUint8(Version)
	b.AddBytes(n.Company[:])
	b.AddBytes(n.Vault[:])
	b.AddUint32(n.Number)
	addBytes(b, n.Box)
	b.AddBytes(n.Sign)
	addTime(b, n.Time)
	b.AddUint32(uint32(len(n.Kept))) //nolint:gosec // at most MaxKept
	for _, h := range n.Kept {
		b.AddBytes(h[:])
	}
	return sign(cryptobyte.NewBuilder(sign(b, fresh)), old)
}

// Succeed gives the descriptor as it is after a succession: the keys in force are
// the new ones. It returns Denied unless this descriptor's key and the new one
// signed it.
func (d *Descriptor) Succeed(p []byte) (*Descriptor, error) {
	s, err := open(p, successionTag, "succession of the company key")
	if err != nil {
		return nil, err
	}
	n := &Succession{Sign: make([]byte, ed25519.PublicKeySize)}
	var count uint32
	malformed := tripod.Errorf(tripod.Corrupt, "succession of the company key: malformed")
	if !s.CopyBytes(n.Company[:]) || !s.CopyBytes(n.Vault[:]) || !s.ReadUint32(&n.Number) || !readBytes(&s, &n.Box) ||
		!s.CopyBytes(n.Sign) || !readTime(&s, &n.Time) || !s.ReadUint32(&count) || count > MaxKept {
		return nil, malformed
	}
	next := &Descriptor{
		Company: d.Company, Vault: d.Vault, Box: n.Box, Sign: n.Sign, Created: d.Created,
		Since: n.Time, former: append(slices.Clone(d.former), Former{d.Box, d.Sign}), kept: make(map[Hash]bool, count),
	}
	for range count {
		var h Hash
		if !s.CopyBytes(h[:]) {
			return nil, malformed
		}
		next.kept[h] = true
	}
	if len(s) != sigLen {
		return nil, malformed
	}
	if Verify(p, d.Sign) != nil || Verify(p[:len(p)-sigLen], n.Sign) != nil {
		return nil, tripod.Errorf(tripod.Denied, "succession of the company key: not signed by the key before and the new one")
	}
	if n.Company != d.Company || n.Vault != d.Vault || n.Number != d.Number()+1 {
		return nil, tripod.Errorf(tripod.Denied, "succession of the company key: of another vault, or out of order")
	}
	return next, nil
}

// Former is a company key of before.
type Former struct {
	Box  []byte
	Sign ed25519.PublicKey
}

// Number tells the how manieth company key is in force, from 1.
func (d *Descriptor) Number() uint32 { return uint32(len(d.former)) + 1 } //nolint:gosec // never as many

// Former gives the company's keys of before, the first one first.
func (d *Descriptor) Former() []Former { return slices.Clone(d.former) }

// Succeeds reports whether this key was the company's once and is no more.
func (d *Descriptor) Succeeds(box []byte, key ed25519.PublicKey) bool {
	return slices.ContainsFunc(d.former, func(f Former) bool { return bytes.Equal(f.Box, box) && f.Sign.Equal(key) })
}

// Verify returns Denied unless the company signed a document: by the key that is
// in force, or by one before while that was in force.
func (d *Descriptor) Verify(encoded []byte) error { return d.verify(encoded, encoded) }

// verify checks a signed part of the document that stands in the vault.
func (d *Descriptor) verify(part, document []byte) error {
	err := Verify(part, d.Sign)
	if err == nil || len(d.former) == 0 || !d.kept[HashOf(document)] {
		return err
	}
	for _, f := range d.former {
		if Verify(part, f.Sign) == nil {
			return nil
		}
	}
	return err
}

// VerifyGrantOf decodes a grant and checks it against the certificate of the
// machine that made the snapshot, or against the company that d describes: it
// makes grants anew when its key is replaced. A grant to one of its keys of before
// counts when that key signed it: it opens the snapshot until the next key has its
// own, and nobody gains by it who does not hold the old key.
func VerifyGrantOf(p []byte, c *Certificate, d *Descriptor) (*Grant, error) {
	g, err := VerifyGrant(p, c)
	if tripod.KindOf(err) != tripod.Denied {
		return g, err
	}
	own := *c
	own.Key = d.Sign
	if g, err := VerifyGrant(p, &own); err == nil {
		return g, nil
	}
	for _, f := range d.former {
		own.Key = f.Sign
		if g, err := VerifyGrant(p, &own); err == nil && g.Recipient == HashOf(f.Box) {
			return g, nil
		}
	}
	return nil, tripod.Errorf(tripod.Denied, "grant: signed neither by machine %.8s nor by the company", c.Machine)
}

// Shred is the company's order that all that a machine has backed up must never
// be opened again: its grants go, and it may not commit any more. The order stays
// as the proof that it was given.
type Shred struct {
	Company tripod.CompanyID
	Machine tripod.MachineID
	Time    time.Time
}

// Encode encodes and signs the order with the company's key.
func (o *Shred) Encode(company ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(shredTag))
	b.AddUint8(Version)
	b.AddBytes(o.Company[:])
	b.AddBytes(o.Machine[:])
	addTime(b, o.Time)
	return sign(b, company)
}

// ParseShred decodes an order to shred and checks the company's signature.
func ParseShred(p []byte, d *Descriptor) (*Shred, error) {
	s, err := open(p, shredTag, "order to shred")
	if err != nil {
		return nil, err
	}
	o := new(Shred)
	if !s.CopyBytes(o.Company[:]) || !s.CopyBytes(o.Machine[:]) || !readTime(&s, &o.Time) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "order to shred: malformed")
	}
	if err := d.Verify(p); err != nil || o.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "order to shred: not signed by this company")
	}
	return o, nil
}
