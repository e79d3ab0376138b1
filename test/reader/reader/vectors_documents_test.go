package reader

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"
	"github.com/zeebo/blake3"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

// referenceChunks cuts a stream as spec/vault.md says.
func referenceChunks(key [32]byte, b []byte) (ends []int) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err)
	}
	for _, g := range fastcdc.G {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, g))
	}
	var raw [8 * 256]byte
	_, _ = h.Digest().Read(raw[:])
	var gear [256]uint64
	for i := range gear {
		gear[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	const least, normal, most = 512 << 10, 1 << 20, 4 << 20
	mask := func(ones, step int) (m uint64) {
		for i := range ones {
			m |= 1 << (63 - i*step)
		}
		return m
	}
	strict, loose := mask(22, 2), mask(18, 3)
	for at := 0; at < len(b); {
		n := min(len(b)-at, most)
		end, fp := n, uint64(0)
		for i := least; i < n; i++ {
			m := strict
			if i >= normal {
				m = loose
			}
			if fp = fp<<1 + gear[b[at+i]]; fp&m == 0 {
				end = i
				break
			}
		}
		at += end
		ends = append(ends, at)
	}
	return ends
}

func signer(first byte) (ed25519.PrivateKey, hx) {
	seed := counting(first)
	return ed25519.NewKeyFromSeed(seed[:]), seed[:]
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[32:]) }

func TestVectorsOfDocuments(t *testing.T) {
	company, companySeed := signer(1)
	invitation, invitationSeed := signer(2)
	machine, machineSeed := signer(3)
	box := xof("tripod box vector", 1216)
	created := time.Unix(1_700_000_000, 123_456_789)
	d := snapshot.Descriptor{Company: vectorID(0), Vault: vectorID(0x10), Box: box, Sign: public(company), Created: created}
	inv := snapshot.Invitation{Company: d.Company, Key: public(invitation), Expires: created.Add(time.Hour)}
	cert := snapshot.Certificate{
		Company: d.Company, Machine: frame.MachineIDOf(public(machine)), Key: public(machine), Enrolled: created.Add(time.Minute), Invitation: inv.Encode(company),
	}
	key := snapshot.Key{Machine: cert.Machine, Source: vectorID(0x30), Seq: 1}
	rec := snapshot.Record{
		Company: d.Company, Key: key, Incarnation: 1, Type: tripod.Files, Root: counting(0x50), Time: created.Add(2 * time.Minute),
		SizeClass: 31, AddedClass: 20, LockUntil: created.Add(720 * time.Hour), Label: xof("label", 60),
	}
	first := rec.Sign(machine)
	second := rec
	second.Key.Seq, second.Prev, second.LockUntil, second.Label = 2, snapshot.HashOf(first), time.Time{}, nil
	order := snapshot.Order{Company: d.Company, Key: key, Record: snapshot.HashOf(first), Time: created}
	grant := snapshot.Grant{Company: d.Company, Key: key, Recipient: blake3.Sum256(box), Sealed: xof("grant", 1200)}
	next, nextSeed := signer(4)
	certificate := cert.Encode(invitation)
	succession := snapshot.Succession{
		Company: d.Company, Vault: d.Vault, Number: 2, Box: xof("tripod box vector 2", 1216), Sign: public(next), Time: created.Add(3 * time.Minute),
		Kept: []snapshot.Hash{snapshot.HashOf(certificate)},
	}
	shred := snapshot.Shred{Company: d.Company, Machine: cert.Machine, Time: created}
	policy := snapshot.Policy{
		Company: d.Company, Number: 1, Time: created, Last: 1, Hourly: 24, Daily: 7, Weekly: 5, Monthly: 12, Yearly: 10, Within: 72 * time.Hour,
		Zone: "Europe/Berlin", Tags: []string{"tax", "audit"},
	}
	expiry := snapshot.Expiry{
		Company: d.Company, Key: key, Record: snapshot.HashOf(first), Time: created.Add(4 * time.Minute), Policy: 1, Newest: 2, Reason: "no rule keeps it",
	}
	hold := snapshot.Hold{Company: d.Company, Name: "case-17", Reason: "letter of a lawyer", Time: created}
	label := snapshot.Label{Host: "host", Paths: []string{"/home", "/etc"}, Tags: []string{"daily"}, Program: "tripod 1", Files: 3, Bytes: 4, Skipped: 1}
	docs := map[string]hx{
		"descriptor": d.Encode(company), "invitation": inv.Encode(company), "certificate": certificate,
		"record_1": first, "record_2": second.Sign(machine), "order": order.Encode(company), "grant": grant.Encode(machine), "label": label.Marshal(),
		"succession": succession.Encode(company, next), "shred": shred.Encode(company),
		"policy": policy.Encode(company), "expiry": expiry.Encode(), "hold": hold.Encode(),
	}
	golden(t, "document.json", map[string]any{
		"note":  "Ed25519 seeds, the fields in plain words, and the signed documents",
		"seeds": map[string]hx{"company": companySeed, "invitation": invitationSeed, "machine": machineSeed, "next": nextSeed},
		"fields": map[string]any{
			"company": hx(d.Company[:]), "vault": hx(d.Vault[:]), "box": "BLAKE3 extended output over \"tripod box vector\", 1216 bytes",
			"created_ns": created.UnixNano(), "expires_ns": inv.Expires.UnixNano(), "enrolled_ns": cert.Enrolled.UnixNano(),
			"machine": hx(cert.Machine[:]), "source": hx(key.Source[:]), "incarnation": 1, "type": 1, "root": hx(rec.Root[:]),
			"time_ns": rec.Time.UnixNano(), "size_class": 31, "added_class": 20, "lock_until_ns_1": rec.LockUntil.UnixNano(),
			"policy": map[string]any{
				"number": 1, "time_ns": created.UnixNano(), "last": 1, "hourly": 24, "daily": 7, "weekly": 5, "monthly": 12, "yearly": 10,
				"within_s": 259_200, "zone": policy.Zone, "tags": policy.Tags,
			},
			"expiry_time_ns": expiry.Time.UnixNano(), "expiry_policy": 1, "expiry_newest": 2, "expiry_reason": expiry.Reason,
			"hold_name": hold.Name, "hold_reason": hold.Reason, "hold_time_ns": hold.Time.UnixNano(),
			"lock_until_ns_2": 0, "label_1": hx(rec.Label), "order_time_ns": created.UnixNano(), "label": label,
		},
		"documents": docs,
	})
	checkDocuments(t, docs, first)
	cert.Machine[0] ^= 1 // its holder may endorse machines, but not pass for one
	about, err := parseDescriptor(docs["descriptor"])
	must(t, err)
	if _, err := machineKey(cert.Encode(invitation), cert.Machine, about); err == nil {
		t.Error("the reader takes a machine's id for another key")
	}
}

func checkDocuments(t *testing.T, docs map[string]hx, first []byte) {
	machine, _ := signer(3)
	about, err := parseDescriptor(docs["descriptor"])
	must(t, err)
	mk, err := machineKey(docs["certificate"], frame.MachineIDOf(public(machine)), about)
	must(t, err)
	one, err := parseRecord(docs["record_1"], mk)
	must(t, err)
	two, err := parseRecord(docs["record_2"], mk)
	must(t, err, forgotten(docs["order"], one, about))
	if two.prev != one.hash || two.seq != 2 || one.root != counting(0x50) {
		t.Error("the reader reads other records")
	}
	desc, err := snapshot.ParseDescriptor(docs["descriptor"])
	must(t, err)
	cert, err := snapshot.ParseCertificate(docs["certificate"], desc)
	must(t, err)
	last, err := snapshot.VerifyRecord(docs["record_1"], cert)
	must(t, err)
	next, err := snapshot.VerifyRecord(docs["record_2"], cert)
	must(t, err, snapshot.Chain(last, snapshot.HashOf(first), next))
	_, err = snapshot.ParseOrder(docs["order"], desc)
	must(t, err)
	_, err = snapshot.VerifyGrant(docs["grant"], cert)
	must(t, err)
	_, err = snapshot.UnmarshalLabel(docs["label"])
	must(t, err)
	_, err = snapshot.ParseShred(docs["shred"], desc)
	must(t, err, shredded(docs["shred"], machineID(mk), about))
	by, err := expired(docs["expiry"], one)
	must(t, err)
	if _, err := expired(docs["expiry"], two); err == nil || by.number != 1 || by.newest != 2 || by.reason != "no rule keeps it" {
		t.Error("the reader reads another expiry")
	}
	kept, err := parsePolicy(docs["policy"], about)
	must(t, err)
	if kept.number != 1 || kept.hourly != 24 || kept.yearly != 10 || kept.within != 72*time.Hour || kept.zone != "Europe/Berlin" || len(kept.tags) != 2 {
		t.Errorf("the reader reads another policy: %+v", kept)
	}
	_, err = snapshot.ParseExpiry(docs["expiry"], desc)
	_, err2 := snapshot.ParsePolicy(docs["policy"], desc)
	_, err3 := snapshot.ParseHold(docs["hold"], desc)
	must(t, err, err2, err3)
	// Under the next key the certificate counts, which is listed, and the orders do not.
	desc, err = desc.Succeed(docs["succession"])
	must(t, err)
	about, err = about.succeed(docs["succession"])
	must(t, err)
	_, err = snapshot.ParseCertificate(docs["certificate"], desc)
	must(t, err)
	_, err = machineKey(docs["certificate"], machineID(mk), about)
	must(t, err)
	_, byProduct := snapshot.ParseOrder(docs["order"], desc)
	_, byProduct2 := snapshot.ParseShred(docs["shred"], desc)
	if byProduct == nil || byProduct2 == nil || forgotten(docs["order"], one, about) == nil || shredded(docs["shred"], machineID(mk), about) == nil {
		t.Error("what an old key signed counts, and is not listed")
	}
}

func TestVectorsOfRecoveryCodes(t *testing.T) {
	type vector struct {
		Text  string `json:"text"`
		Bytes hx     `json:"bytes,omitempty"`
		Good  bool   `json:"good"`
	}
	var code seal.RecoveryCode
	copy(code[:], xof("code", 18))
	sum := blake3.Sum256(code[:18])
	copy(code[18:], sum[:])
	text := code.String()
	mistyped := []byte(text)
	mistyped[0] = map[bool]byte{true: 'A', false: 'B'}[text[0] != 'A']
	lower := bytes.ToLower([]byte(text))
	fresh := []vector{
		{text, code[:], true},
		{string(lower), code[:], true},
		{string(bytes.ReplaceAll([]byte(text), []byte("-"), []byte(" "))), code[:], true},
		{text + "\n", code[:], true},
		{string(bytes.ReplaceAll([]byte(text), []byte("0"), []byte("O"))), code[:], true},
		{string(mistyped), nil, false},
		{text[:len(text)-1], nil, false},
		{text + "-0000", nil, false},
		{"", nil, false},
	}
	golden(t, "recovery-code.json", fresh)
	for _, v := range fresh {
		b, ok := parseCode(v.Text)
		got, err := seal.ParseRecoveryCode(v.Text)
		if ok != v.Good || (err == nil) != v.Good {
			t.Errorf("%q: reader %v, product %v", v.Text, ok, err)
		}
		if v.Good && (!bytes.Equal(b, v.Bytes) || !bytes.Equal(got[:], v.Bytes)) {
			t.Errorf("%q: other bytes", v.Text)
		}
	}
}

type keyringVector struct {
	Passphrase string `json:"passphrase"`
	Typed      string `json:"passphrase_typed"` // opens it as well
	Code       string `json:"recovery_code"`
	Keyring    hx     `json:"keyring"`
	Company    hx     `json:"company"`
	Box        hx     `json:"box_private"`
	SignSeed   hx     `json:"sign_seed"`
	Domain     hx     `json:"domain"`
}

func TestVectorsOfKeyrings(t *testing.T) {
	v := frozen(t, "keyring.json", func() keyringVector {
		box, domain := counting(0x70), counting(vectorDomain)
		sign, seed := signer(1)
		keys := seal.CompanyKeys{ID: vectorID(0), Box: box[:], Sign: sign, Domain: domain}
		v := keyringVector{
			Passphrase: "größere pferde brauchen kühle ställe", Typed: "\tgro\u0308ßere  pferde\u3000brauchen\n ku\u0308hle ställe ",
			Company: hx(keys.ID[:]), Box: box[:], SignSeed: seed, Domain: domain[:],
		}
		code := seal.NewRecoveryCode()
		ring, err := seal.NewKeyring(&keys, v.Passphrase, code, seal.Argon{Time: 2, Memory: 256, Threads: 2}, time.Unix(1_700_000_000, 0))
		must(t, err)
		v.Code, v.Keyring = code.String(), ring.Marshal()
		return v
	})
	for _, secret := range []string{v.Passphrase, v.Typed, v.Code} {
		c, warning, err := openKeyring(v.Keyring, secret)
		must(t, err, warning)
		if !bytes.Equal(c.id[:], v.Company) || len(c.pairs) != 1 || !bytes.Equal(c.pairs[0].box, v.Box) || !bytes.Equal(c.pairs[0].sign.Seed(), v.SignSeed) || !bytes.Equal(c.domain[:], v.Domain) {
			t.Error("the reader finds other keys")
		}
	}
	ring, err := seal.UnmarshalKeyring(v.Keyring)
	must(t, err)
	keys, err := ring.OpenPassphrase(v.Passphrase)
	must(t, err, keys.Damage)
	_, err = ring.OpenPassphrase(v.Typed)
	must(t, err)
	code, err := seal.ParseRecoveryCode(v.Code)
	must(t, err)
	same, err := ring.OpenCode(code)
	must(t, err, same.Damage)
	if !bytes.Equal(keys.Keys.Box, v.Box) || !bytes.Equal(same.Keys.Box, v.Box) || keys.Keys.Domain != fixed32(v.Domain) || !bytes.Equal(ring.Marshal(), v.Keyring) {
		t.Error("the product finds other keys")
	}
	if _, _, err := openKeyring(v.Keyring, "another passphrase"); err == nil {
		t.Error("the reader takes any passphrase")
	}
	if _, err := ring.OpenPassphrase("another passphrase"); !errors.Is(err, tripod.Denied) {
		t.Errorf("another passphrase: %v", err)
	}
}

type grantVector struct {
	Private hx        `json:"private"`
	Public  hx        `json:"public"`
	Company hx        `json:"company"`
	Machine hx        `json:"machine"`
	Source  hx        `json:"source"`
	Seq     uint64    `json:"seq"`
	Root    hx        `json:"root"`
	Ref     refVector `json:"ref"`
	Sealed  hx        `json:"sealed"`
	Label   hx        `json:"label"`
	SealedL hx        `json:"label_sealed"`
}

func (v *grantVector) context() seal.GrantContext {
	return seal.GrantContext{
		Company: tripod.CompanyID(v.Company), Machine: tripod.MachineID(v.Machine), Source: tripod.SourceID(v.Source), Seq: v.Seq, Root: tripod.ID(v.Root),
	}
}

func TestVectorsOfGrants(t *testing.T) {
	v := frozen(t, "grant.json", func() grantVector {
		private, root := counting(0x70), testRef(0x60)
		sk, err := hpke.MLKEM768X25519().NewPrivateKey(private[:])
		must(t, err)
		company, machine, source, id := vectorID(0), vectorID(0x20), vectorID(0x30), root.ID()
		v := grantVector{
			Private: private[:], Public: sk.PublicKey().Bytes(), Company: company[:], Machine: machine[:], Source: source[:], Seq: 258,
			Root: id[:], Ref: *refOf(&root), Label: xof("label", 60),
		}
		c := v.context()
		v.Sealed, err = seal.SealGrant(v.Public, &c, &root)
		must(t, err)
		v.SealedL = seal.SealLabel(&root, v.Label)
		return v
	})
	c := v.context()
	got, err := seal.OpenGrant(v.Private, &c, v.Sealed)
	must(t, err)
	if !bytes.Equal(got.H[:], v.Ref.H) || !bytes.Equal(got.U[:], v.Ref.U) {
		t.Error("the product opens another ref")
	}
	label, err := seal.OpenLabel(&got, v.SealedL)
	must(t, err)
	own, err := hpke.MLKEM768X25519().NewPrivateKey(v.Private)
	must(t, err)
	machine, _ := signer(3)
	doc := snapshot.Grant{
		Company: c.Company, Key: snapshot.Key{Machine: c.Machine, Source: c.Source, Seq: c.Seq},
		Recipient: blake3.Sum256(v.Public), Sealed: v.Sealed,
	}
	r := record{company: c.Company, machine: c.Machine, source: c.Source, seq: c.Seq, root: c.Root}
	mine, err := openGrant(doc.Encode(machine), &r, fixed32(public(machine)), [32]byte{}, own)
	must(t, err)
	id := mine.id()
	again, err := unseal(derive("tripod 1 label", mine.h), id[:], v.SealedL)
	if err != nil || !bytes.Equal(mine.u[:], v.Ref.U) || !bytes.Equal(label, v.Label) || !bytes.Equal(again, v.Label) {
		t.Errorf("the reader opens another ref or label: %v", err)
	}
}
