package snapshot

import (
	"crypto/ed25519"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

// Descriptor introduces a vault: whose it is and which keys speak for the
// company. The company signs it; machines pin what it says when they enrol. Each
// Succession that follows it puts other keys in force.
type Descriptor struct {
	Company tripod.CompanyID
	Vault   [16]byte          // names this vault, random
	Box     []byte            // HPKE public key that grants are sealed to
	Sign    ed25519.PublicKey // endorses machines, signs orders
	Created time.Time
	Since   time.Time // when these keys came in force; zero for the first ones

	former []Former
	kept   map[Hash]bool // documents signed by former keys that count
}

const (
	descriptorTag  = "tripod 1 vault\n"
	certificateTag = "tripod 1 machine\n"
	invitationTag  = "tripod 1 invitation\n"
	orderTag       = "tripod 1 forget\n"
	grantTag       = "tripod 1 grant\n"
)

// Encode encodes and signs the descriptor with the company's key.
func (d *Descriptor) Encode(key ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(descriptorTag))
	b.AddUint8(Version)
	b.AddBytes(d.Company[:])
	b.AddBytes(d.Vault[:])
	addBytes(b, d.Box)
	b.AddBytes(d.Sign)
	addTime(b, d.Created)
	return sign(b, key)
}

// ParseDescriptor decodes a descriptor and checks that it is signed by the key
// it names. That the key is the right company's is for the caller to know.
func ParseDescriptor(p []byte) (*Descriptor, error) {
	s, err := open(p, descriptorTag, "vault descriptor")
	if err != nil {
		return nil, err
	}
	d := &Descriptor{Sign: make([]byte, ed25519.PublicKeySize)}
	if !s.CopyBytes(d.Company[:]) || !s.CopyBytes(d.Vault[:]) || !readBytes(&s, &d.Box) || !s.CopyBytes(d.Sign) ||
		!readTime(&s, &d.Created) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "vault descriptor: malformed")
	}
	if err := Verify(p, d.Sign); err != nil {
		return nil, tripod.Errorf(tripod.Corrupt, "vault descriptor: %w", err)
	}
	return d, nil
}

// Invitation lets its holder endorse machines on the company's behalf until
// it expires.
type Invitation struct {
	Company tripod.CompanyID
	Key     ed25519.PublicKey
	Expires time.Time // zero: never; already enrolled machines stay
}

// Encode encodes and signs the invitation with the company's key.
func (i *Invitation) Encode(company ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(invitationTag))
	b.AddUint8(Version)
	b.AddBytes(i.Company[:])
	b.AddBytes(i.Key)
	addTime(b, i.Expires)
	return sign(b, company)
}

// parseInvitation decodes the invitation in a certificate.
func parseInvitation(p, certificate []byte, d *Descriptor) (*Invitation, error) {
	s, err := open(p, invitationTag, "invitation")
	if err != nil {
		return nil, err
	}
	i := &Invitation{Key: make([]byte, ed25519.PublicKeySize)}
	if !s.CopyBytes(i.Company[:]) || !s.CopyBytes(i.Key) || !readTime(&s, &i.Expires) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "invitation: malformed")
	}
	if err := d.verify(p, certificate); err != nil || i.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "invitation: not signed by this company")
	}
	return i, nil
}

// Certificate says that a machine may sign records for the company. It
// carries the invitation it was made under.
type Certificate struct {
	Company    tripod.CompanyID
	Machine    tripod.MachineID
	Key        ed25519.PublicKey
	Enrolled   time.Time
	Invitation []byte
}

// Encode encodes and signs the certificate with the invitation's key.
func (c *Certificate) Encode(invitation ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(certificateTag))
	b.AddUint8(Version)
	b.AddBytes(c.Company[:])
	b.AddBytes(c.Machine[:])
	b.AddBytes(c.Key)
	addTime(b, c.Enrolled)
	addBytes(b, c.Invitation)
	return sign(b, invitation)
}

// ParseCertificate decodes a certificate and checks that it goes back to the
// company that d names, and that the machine's id is the one of its key: else
// whoever holds an invitation could pass for a machine that exists.
func ParseCertificate(p []byte, d *Descriptor) (*Certificate, error) {
	s, err := open(p, certificateTag, "machine certificate")
	if err != nil {
		return nil, err
	}
	c := &Certificate{Key: make([]byte, ed25519.PublicKeySize)}
	if !s.CopyBytes(c.Company[:]) || !s.CopyBytes(c.Machine[:]) || !s.CopyBytes(c.Key) || !readTime(&s, &c.Enrolled) ||
		!readBytes(&s, &c.Invitation) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "machine certificate: malformed")
	}
	i, err := parseInvitation(c.Invitation, p, d)
	if err != nil {
		return nil, tripod.Errorf(tripod.KindOf(err), "machine %.8s: %w", c.Machine, err)
	}
	if err := Verify(p, i.Key); err != nil || c.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "machine %.8s: not endorsed by this company", c.Machine)
	}
	if c.Machine != frame.MachineIDOf(c.Key) {
		return nil, tripod.Errorf(tripod.Denied, "machine %.8s: its certificate is for the key of another machine", c.Machine)
	}
	if !i.Expires.IsZero() && c.Enrolled.After(i.Expires) {
		return nil, tripod.Errorf(tripod.Denied, "machine %.8s: enrolled after its invitation expired", c.Machine)
	}
	return c, nil
}

// VerifyRecord decodes a record and checks it against the certificate of its
// machine.
func VerifyRecord(p []byte, c *Certificate) (*Record, error) {
	r, err := ParseRecord(p)
	if err != nil {
		return nil, err
	}
	if r.Company != c.Company || r.Key.Machine != c.Machine {
		return nil, tripod.Errorf(tripod.Denied, "snapshot record: belongs to another company or machine")
	}
	if err := Verify(p, c.Key); err != nil {
		return nil, tripod.Errorf(tripod.Denied, "snapshot %d of machine %.8s: %w", r.Key.Seq, r.Key.Machine, err).
			WithHint("the record was forged or damaged; it is not used")
	}
	return r, nil
}

// Order is the company's order to forget one snapshot. The record stays in
// the log; what only it needs may be collected.
type Order struct {
	Company tripod.CompanyID
	Key     Key
	Record  Hash // of the record it means
	Time    time.Time
}

// Encode encodes and signs the order with the company's key.
func (o *Order) Encode(company ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(orderTag))
	b.AddUint8(Version)
	b.AddBytes(o.Company[:])
	o.Key.add(b)
	b.AddBytes(o.Record[:])
	addTime(b, o.Time)
	return sign(b, company)
}

// ParseOrder decodes an order and checks the company's signature.
func ParseOrder(p []byte, d *Descriptor) (*Order, error) {
	s, err := open(p, orderTag, "order to forget")
	if err != nil {
		return nil, err
	}
	o := new(Order)
	if !s.CopyBytes(o.Company[:]) || !o.Key.read(&s) || !s.CopyBytes(o.Record[:]) || !readTime(&s, &o.Time) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "order to forget: malformed")
	}
	if err := d.Verify(p); err != nil || o.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "order to forget: not signed by this company")
	}
	return o, nil
}

// Grant gives one recipient the root of one snapshot. The sealed part is made
// and opened by package seal.
type Grant struct {
	Company   tripod.CompanyID
	Key       Key
	Recipient Hash // BLAKE3 of the recipient's public key
	Sealed    []byte
}

// Encode encodes and signs the grant with the machine's key.
func (g *Grant) Encode(machine ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(grantTag))
	b.AddUint8(Version)
	b.AddBytes(g.Company[:])
	g.Key.add(b)
	b.AddBytes(g.Recipient[:])
	addBytes(b, g.Sealed)
	return sign(b, machine)
}

// VerifyGrant decodes a grant and checks it against the certificate of the
// machine that made the snapshot.
func VerifyGrant(p []byte, c *Certificate) (*Grant, error) {
	s, err := open(p, grantTag, "grant")
	if err != nil {
		return nil, err
	}
	g := new(Grant)
	if !s.CopyBytes(g.Company[:]) || !g.Key.read(&s) || !s.CopyBytes(g.Recipient[:]) || !readBytes(&s, &g.Sealed) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "grant: malformed")
	}
	if err := Verify(p, c.Key); err != nil || g.Company != c.Company || g.Key.Machine != c.Machine {
		return nil, tripod.Errorf(tripod.Denied, "grant: not signed by machine %.8s", c.Machine)
	}
	return g, nil
}
