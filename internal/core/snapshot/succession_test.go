package snapshot

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"

	"tripod/internal/core/tripod"
)

func seeded(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }

// succession names key as the company's next.
func (t *trust) succession(key ed25519.PrivateKey, kept ...[]byte) *Succession {
	n := &Succession{Company: t.d.Company, Vault: t.d.Vault, Number: t.d.Number() + 1, Box: []byte("new box"), Sign: publicOf(key), Time: time.Unix(99, 0).UTC()}
	for _, k := range kept {
		n.Kept = append(n.Kept, HashOf(k))
	}
	slices.SortFunc(n.Kept, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	return n
}

// What the old key signed counts as far as the succession lists it, and nothing
// that it signs afterwards.
func TestWhatAnOldKeySignedCountsWhenListed(t *testing.T) {
	w := newTrust()
	second, third := seeded(41), seeded(42)
	o := Order{Company: w.d.Company, Key: w.record().Key}
	certificate, order := w.c.Encode(w.invitation), o.Encode(w.company)
	shred := (&Shred{Company: w.d.Company, Machine: w.c.Machine}).Encode(w.company)
	d, err := w.d.Succeed(w.succession(second, certificate, order, shred).Encode(w.company, second))
	if err != nil {
		t.Fatal(err)
	}
	if d.Number() != 2 || !bytes.Equal(d.Box, []byte("new box")) || !d.Sign.Equal(publicOf(second)) || !d.Succeeds(w.d.Box, w.d.Sign) || d.Succeeds(d.Box, d.Sign) {
		t.Errorf("%+v", d)
	}
	check := func(what string, d *Descriptor, want error) {
		t.Helper()
		_, e1 := ParseCertificate(certificate, d)
		_, e2 := ParseOrder(order, d)
		_, e3 := ParseShred(shred, d)
		for _, err := range []error{e1, e2, e3} {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	check("listed", d, nil)
	o.Time = time.Unix(5, 0)
	if _, err := ParseOrder(o.Encode(w.company), d); !errors.Is(err, tripod.Denied) {
		t.Errorf("signed by the old key, and not listed: %v", err)
	}
	late := Certificate{Company: w.c.Company, Machine: w.c.Machine, Key: w.c.Key, Enrolled: time.Unix(1, 0), Invitation: w.c.Invitation}
	if _, err := ParseCertificate(late.Encode(w.invitation), d); !errors.Is(err, tripod.Denied) {
		t.Errorf("a machine invited by the old key: %v", err)
	}
	if _, err := ParseOrder(o.Encode(second), d); err != nil {
		t.Errorf("signed by the new key: %v", err)
	}
	if _, err := ParseOrder(o.Encode(second), w.d); !errors.Is(err, tripod.Denied) {
		t.Errorf("the new key before it is in force: %v", err)
	}
	// The next succession decides anew.
	w.d = d
	d3, err := d.Succeed(w.succession(third, certificate, order, shred).Encode(second, third))
	if err != nil || d3.Number() != 3 {
		t.Fatal(err)
	}
	check("listed twice", d3, nil)
	d3, err = d.Succeed(w.succession(third).Encode(second, third))
	if err != nil {
		t.Fatal(err)
	}
	check("listed once", d3, tripod.Denied)
	// To be listed does not make up for a signature.
	forged := o.Encode(seeded(43))
	if d3, err = d.Succeed(w.succession(third, forged).Encode(second, third)); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseOrder(forged, d3); !errors.Is(err, tripod.Denied) {
		t.Errorf("a stranger's, listed: %v", err)
	}
}

func TestBothKeysSignASuccession(t *testing.T) {
	w := newTrust()
	second, evil := seeded(41), seeded(44)
	n := w.succession(second, []byte("a"), []byte("b"))
	good := n.Encode(w.company, second)
	if _, err := w.d.Succeed(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"not the old key": n.Encode(evil, second), "not the new key": n.Encode(w.company, evil), "the old key twice": n.Encode(w.company, w.company),
	} {
		if _, err := w.d.Succeed(bad); !errors.Is(err, tripod.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(n *Succession){
		"company": func(n *Succession) { n.Company[0] ^= 1 }, "vault": func(n *Succession) { n.Vault[0] ^= 1 },
		"one left out": func(n *Succession) { n.Number++ }, "the first": func(n *Succession) { n.Number = 1 },
	} {
		other := *n
		change(&other)
		if _, err := w.d.Succeed(other.Encode(w.company, second)); !errors.Is(err, tripod.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := w.d.Succeed(bad); err == nil {
			t.Fatalf("byte %d changed unseen", i)
		}
		if _, err := w.d.Succeed(good[:i]); err == nil {
			t.Fatalf("cut to %d unseen", i)
		}
	}
}

// The company signs grants that it made anew, with the key in force.
func TestTheCompanySignsGrants(t *testing.T) {
	w := newTrust()
	g := Grant{Company: w.d.Company, Key: w.record().Key, Recipient: Hash{1}, Sealed: []byte("x")}
	for _, key := range []ed25519.PrivateKey{w.machine, w.company} {
		if _, err := VerifyGrantOf(g.Encode(key), &w.c, w.d); err != nil {
			t.Error(err)
		}
	}
	if _, err := VerifyGrantOf(g.Encode(seeded(45)), &w.c, w.d); !errors.Is(err, tripod.Denied) {
		t.Errorf("a stranger's: %v", err)
	}
	second := seeded(41)
	d, err := w.d.Succeed(w.succession(second).Encode(w.company, second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyGrantOf(g.Encode(w.company), &w.c, d); !errors.Is(err, tripod.Denied) {
		t.Errorf("the old key's: %v", err)
	}
	if _, err := VerifyGrantOf(g.Encode(second), &w.c, d); err != nil {
		t.Errorf("the new key's: %v", err)
	}
	own := g
	own.Recipient = HashOf(w.d.Box)
	if _, err := VerifyGrantOf(own.Encode(w.company), &w.c, d); err != nil {
		t.Errorf("the old key's, to the old key: %v", err)
	}
	g.Key.Machine[0] ^= 1
	if _, err := VerifyGrantOf(g.Encode(second), &w.c, d); !errors.Is(err, tripod.Denied) {
		t.Errorf("another machine's snapshot: %v", err)
	}
}

func TestShredComesBack(t *testing.T) {
	w := newTrust()
	o := &Shred{Company: w.d.Company, Machine: w.c.Machine, Time: time.Unix(77, 0).UTC()}
	good := o.Encode(w.company)
	if got, err := ParseShred(good, w.d); err != nil || *got != *o {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseShred(o.Encode(w.machine), w.d); !errors.Is(err, tripod.Denied) {
		t.Errorf("the machine's: %v", err)
	}
	for i := range good {
		if _, err := ParseShred(good[:i], w.d); err == nil {
			t.Fatalf("cut to %d unseen", i)
		}
	}
}

func FuzzSucceed(f *testing.F) {
	w := newTrust()
	second := seeded(41)
	f.Add(w.succession(second, []byte("a")).Encode(w.company, second))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = w.d.Succeed(b) })
}

func FuzzParseShred(f *testing.F) {
	w := newTrust()
	f.Add((&Shred{Company: w.d.Company}).Encode(w.company))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseShred(b, w.d)
		if err == nil && !bytes.Equal(o.Encode(w.company), b) {
			t.Fatal("read two ways")
		}
	})
}
