package snapshot

import (
	"crypto/ed25519"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/tripod"
)

const (
	policyTag = "tripod 1 policy\n"
	expiryTag = "tripod 1 expiry\n"
	holdTag   = "tripod 1 hold\n"
)

// Policy says which snapshots of each source the company wants kept. The newest
// one counts. What its rules mean is in package policy.
type Policy struct {
	Company tripod.CompanyID
	Number  uint32 // counts from 1
	Time    time.Time
	Last    uint32 // the newest so many; 0 for no such rule, in all of them
	Hourly  uint32 // the newest of each of the newest so many hours that have one
	Daily   uint32
	Weekly  uint32
	Monthly uint32
	Yearly  uint32
	Within  time.Duration // all that are no older; whole seconds
	Zone    string        // in which days begin, a name of the IANA time zone database; "" for UTC
	Tags    []string      // all that bear one of them
}

// Limits on policies and holds.
const (
	maxZone   = 64
	maxName   = 64
	maxReason = 4 << 10
	// maxWithin is what a time.Duration holds, in whole seconds.
	maxWithin = uint64((1<<63 - 1) / time.Second)
)

// Encode encodes and signs the policy with the company's key.
func (p *Policy) Encode(company ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(policyTag))
	b.AddUint8(Version)
	b.AddBytes(p.Company[:])
	b.AddUint32(p.Number)
	addTime(b, p.Time)
	for _, n := range p.counts() {
		b.AddUint32(*n)
	}
	b.AddUint64(uint64(p.Within / time.Second))
	addText(b, p.Zone)
	addTexts(b, p.Tags)
	return sign(b, company)
}

func (p *Policy) counts() []*uint32 {
	return []*uint32{&p.Last, &p.Hourly, &p.Daily, &p.Weekly, &p.Monthly, &p.Yearly}
}

// ParsePolicy decodes a policy and checks the company's signature.
func ParsePolicy(encoded []byte, d *Descriptor) (*Policy, error) {
	s, err := open(encoded, policyTag, "policy")
	if err != nil {
		return nil, err
	}
	p := new(Policy)
	ok := s.CopyBytes(p.Company[:]) && s.ReadUint32(&p.Number) && readTime(&s, &p.Time)
	for _, n := range p.counts() {
		ok = ok && s.ReadUint32(n)
	}
	var within uint64
	ok = ok && s.ReadUint64(&within) && readText(&s, &p.Zone) && readTexts(&s, &p.Tags) && s.Empty()
	if !ok || p.Number == 0 || within > maxWithin || len(p.Zone) > maxZone {
		return nil, tripod.Errorf(tripod.Corrupt, "policy: malformed")
	}
	p.Within = time.Duration(within) * time.Second
	if err := d.Verify(encoded); err != nil || p.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "policy %d: not signed by this company", p.Number)
	}
	return p, nil
}

// Expiry tells that retention let a snapshot go. The record stays in the log;
// what only the snapshot needs may be collected. Whoever keeps the vault writes
// it without a key: it says what is needed to check that the policy allowed it.
type Expiry struct {
	Company tripod.CompanyID
	Key     Key
	Record  Hash      // of the record it means
	Time    time.Time // by the retention clock
	Policy  uint32    // number of the policy that was applied
	Newest  uint64    // the source's highest sequence at that time
	Reason  string
}

// Encode encodes the document.
func (e *Expiry) Encode() []byte {
	b := cryptobyte.NewBuilder([]byte(expiryTag))
	b.AddUint8(Version)
	b.AddBytes(e.Company[:])
	e.Key.add(b)
	b.AddBytes(e.Record[:])
	addTime(b, e.Time)
	b.AddUint32(e.Policy)
	b.AddUint64(e.Newest)
	addText(b, e.Reason)
	return sum(b)
}

// ParseExpiry decodes what Encode made.
func ParseExpiry(encoded []byte, d *Descriptor) (*Expiry, error) {
	s, err := openSum(encoded, expiryTag, "expiry")
	if err != nil {
		return nil, err
	}
	e := new(Expiry)
	if !s.CopyBytes(e.Company[:]) || !e.Key.read(&s) || !s.CopyBytes(e.Record[:]) || !readTime(&s, &e.Time) || !s.ReadUint32(&e.Policy) ||
		!s.ReadUint64(&e.Newest) || !readText(&s, &e.Reason) || !s.Empty() || e.Key.Seq == 0 || len(e.Reason) > maxReason {
		return nil, tripod.Errorf(tripod.Corrupt, "expiry: malformed")
	}
	if e.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "expiry: belongs to another company")
	}
	return e, nil
}

// Hold keeps every snapshot of a vault from expiring for as long as it is there.
type Hold struct {
	Company tripod.CompanyID
	Name    string
	Reason  string
	Time    time.Time // when it was opened
}

// CheckHoldName returns Invalid unless a hold can bear a name: 1 to 64 lower-case
// letters, digits, '-', '_' and '.', not beginning with a dot.
func CheckHoldName(name string) error {
	bad := name == "" || len(name) > maxName || name[0] == '.'
	for i := range len(name) {
		c := name[i]
		bad = bad || !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if bad {
		return tripod.Errorf(tripod.Invalid, "hold %q: a name has 1 to %d letters a-z, digits, '-', '_' and '.'", name, maxName)
	}
	return nil
}

// Encode encodes the hold. A reason that is too long is cut.
func (h *Hold) Encode() []byte {
	b := cryptobyte.NewBuilder([]byte(holdTag))
	b.AddUint8(Version)
	b.AddBytes(h.Company[:])
	addText(b, h.Name)
	addText(b, h.Reason[:min(len(h.Reason), maxReason)])
	addTime(b, h.Time)
	return sum(b)
}

// ParseHold decodes what Encode made.
func ParseHold(encoded []byte, d *Descriptor) (*Hold, error) {
	s, err := openSum(encoded, holdTag, "hold")
	if err != nil {
		return nil, err
	}
	h := new(Hold)
	if !s.CopyBytes(h.Company[:]) || !readText(&s, &h.Name) || !readText(&s, &h.Reason) || !readTime(&s, &h.Time) || !s.Empty() ||
		CheckHoldName(h.Name) != nil || len(h.Reason) > maxReason {
		return nil, tripod.Errorf(tripod.Corrupt, "hold: malformed")
	}
	if h.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "hold: belongs to another company")
	}
	return h, nil
}

// sum ends a document that nobody signs, because whoever keeps the vault writes
// it: with BLAKE3 over what b holds, which tells damage and nothing more.
func sum(b *cryptobyte.Builder) []byte {
	body := b.BytesOrPanic()
	h := blake3.Sum256(body)
	return append(body, h[:]...)
}

// openSum is open for documents that end with a sum.
func openSum(p []byte, tag, what string) (cryptobyte.String, error) {
	const sumLen = len(Hash{})
	n := len(p) - sumLen
	if len(p) == 0 {
		return nil, tripod.Errorf(tripod.Corrupt, "%s: is empty, or cannot be read", what)
	}
	if len(p) > MaxDocument || n < len(tag)+1 || string(p[:len(tag)]) != tag {
		return nil, tripod.Errorf(tripod.Corrupt, "%s: malformed", what)
	}
	if v := p[len(tag)]; v != Version {
		return nil, newer(what, v)
	}
	if HashOf(p[:n]) != Hash(p[n:]) {
		return nil, tripod.Errorf(tripod.Corrupt, "%s: damaged", what)
	}
	return cryptobyte.String(p[len(tag)+1 : n]), nil
}
