package snapshot

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

func keyOf(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func publicOf(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[32:]) }

// trust is a company, an invitation and a machine under it.
type trust struct {
	company, invitation, machine ed25519.PrivateKey
	d                            *Descriptor
	i                            Invitation
	c                            Certificate
}

func newTrust() *trust {
	t := &trust{company: keyOf(1), invitation: keyOf(2), machine: keyOf(3)}
	t.d = &Descriptor{Company: tripod.CompanyID{1}, Vault: [16]byte{2}, Box: []byte("box"), Sign: publicOf(t.company), Created: time.Unix(10, 0).UTC()}
	t.i = Invitation{Company: t.d.Company, Key: publicOf(t.invitation), Expires: time.Unix(1000, 0).UTC()}
	t.c = Certificate{Company: t.d.Company, Machine: frame.MachineIDOf(publicOf(t.machine)), Key: publicOf(t.machine), Enrolled: time.Unix(500, 0).UTC()}
	t.c.Invitation = t.i.Encode(t.company)
	return t
}

func (t *trust) record() *Record {
	return &Record{
		Company: t.d.Company, Key: Key{Machine: t.c.Machine, Source: tripod.SourceID{4}, Seq: 1}, Incarnation: 1,
		Type: tripod.Files, Root: tripod.ID{5}, Time: time.Unix(600, 0).UTC(), Label: []byte("sealed"),
	}
}

func (t *trust) documents() map[string][]byte {
	r := t.record()
	o := Order{Company: r.Company, Key: r.Key, Record: Hash{6}, Time: time.Unix(700, 0).UTC()}
	g := Grant{Company: r.Company, Key: r.Key, Recipient: Hash{7}, Sealed: []byte("sealed")}
	return map[string][]byte{
		"descriptor": t.d.Encode(t.company), "invitation": t.c.Invitation, "certificate": t.c.Encode(t.invitation),
		"record": r.Sign(t.machine), "order": o.Encode(t.company), "grant": g.Encode(t.machine),
		"policy": t.policy().Encode(t.company), "expiry": t.expiry().Encode(), "hold": t.hold().Encode(),
		"archive": t.archive().Encode(), "manifest": t.manifest().Encode(),
	}
}

func (t *trust) policy() *Policy {
	return &Policy{
		Company: t.d.Company, Number: 1, Time: time.Unix(800, 0).UTC(), Last: 1, Hourly: 2, Daily: 3, Weekly: 4, Monthly: 5, Yearly: 6,
		Within: 7 * time.Second, Zone: "Europe/Berlin", Tags: []string{"keep"},
	}
}

func (t *trust) expiry() *Expiry {
	return &Expiry{
		Company: t.d.Company, Key: t.record().Key, Record: Hash{6}, Time: time.Unix(900, 0).UTC(), Policy: 1, Newest: 9, Reason: "no rule keeps it",
	}
}

func (t *trust) hold() *Hold {
	return &Hold{Company: t.d.Company, Name: "a-hold", Reason: "why", Time: time.Unix(950, 0).UTC()}
}

func (t *trust) archive() *Archive {
	return &Archive{Company: t.d.Company, Vault: t.d.Vault, Created: time.Unix(960, 0).UTC()}
}

func (t *trust) manifest() *Manifest {
	return &Manifest{
		Company: t.d.Company, Key: t.record().Key, Record: Hash{6}, Time: time.Unix(970, 0).UTC(), Until: time.Unix(980, 0).UTC(),
		Segments: []tripod.PackID{{1}, {2}},
	}
}

// parse reads a document as what it is called.
func (t *trust) parse(as string, b []byte) (err error) {
	switch as {
	case "descriptor":
		var d *Descriptor
		if d, err = ParseDescriptor(b); err == nil && !reflect.DeepEqual(d, t.d) {
			err = tripod.Errorf(tripod.Denied, "another descriptor")
		}
	case "invitation":
		_, err = parseInvitation(b, b, t.d)
	case "certificate":
		_, err = ParseCertificate(b, t.d)
	case "record":
		_, err = VerifyRecord(b, &t.c)
	case "order":
		_, err = ParseOrder(b, t.d)
	case "grant":
		_, err = VerifyGrant(b, &t.c)
	case "policy":
		_, err = ParsePolicy(b, t.d)
	case "expiry":
		_, err = ParseExpiry(b, t.d)
	case "hold":
		_, err = ParseHold(b, t.d)
	case "archive":
		_, err = ParseArchive(b, t.d)
	case "manifest":
		_, err = ParseManifest(b, t.d)
	}
	return err
}

func genTime(t *rapid.T, name string) time.Time {
	ns := rapid.Int64().Draw(t, name)
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func gen16(t *rapid.T, name string) (out [16]byte) {
	copy(out[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
	return out
}

func gen32(t *rapid.T, name string) (out [32]byte) {
	copy(out[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name))
	return out
}

func TestDocumentsComeBack(t *testing.T) {
	w := newTrust()
	rapid.Check(t, func(t *rapid.T) {
		key := Key{Machine: w.c.Machine, Source: gen16(t, "source"), Seq: rapid.Uint64Range(1, math.MaxUint64).Draw(t, "seq")}
		r := &Record{
			Company: w.d.Company, Key: key, Incarnation: rapid.Uint64().Draw(t, "incarnation"), Prev: gen32(t, "prev"),
			Type: tripod.SourceType(rapid.IntRange(1, 3).Draw(t, "type")), Root: gen32(t, "root"), Time: genTime(t, "time"),
			SizeClass: rapid.Byte().Draw(t, "size"), AddedClass: rapid.Byte().Draw(t, "added"), LockUntil: genTime(t, "lock"),
		}
		if l := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "label"); len(l) > 0 {
			r.Label = l
		}
		got, err := VerifyRecord(r.Sign(w.machine), &w.c)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("record %+v\nnot %+v: %v", got, r, err)
		}
		o := &Order{Company: w.d.Company, Key: key, Record: gen32(t, "record"), Time: genTime(t, "ordered")}
		if got, err := ParseOrder(o.Encode(w.company), w.d); err != nil || !reflect.DeepEqual(got, o) {
			t.Fatal("order", err)
		}
		g := &Grant{Company: w.d.Company, Key: key, Recipient: gen32(t, "recipient"), Sealed: rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "sealed")}
		if got, err := VerifyGrant(g.Encode(w.machine), &w.c); err != nil || !reflect.DeepEqual(got, g) {
			t.Fatal("grant", err)
		}
		count := func(name string) uint32 { return rapid.Uint32().Draw(t, name) }
		p := &Policy{
			Company: w.d.Company, Number: rapid.Uint32Min(1).Draw(t, "number"), Time: genTime(t, "made"), Last: count("last"), Hourly: count("hourly"),
			Daily: count("daily"), Weekly: count("weekly"), Monthly: count("monthly"), Yearly: count("yearly"),
			Within: time.Duration(rapid.Int64Range(0, math.MaxInt64/int64(time.Second)).Draw(t, "within")) * time.Second,
			Zone:   rapid.StringN(0, 10, maxZone).Draw(t, "zone"), Tags: rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "kept tags"),
		}
		if got, err := ParsePolicy(p.Encode(w.company), w.d); err != nil || !reflect.DeepEqual(got, p) {
			t.Fatal("policy", err)
		}
		e := &Expiry{
			Company: w.d.Company, Key: key, Record: gen32(t, "expired"), Time: genTime(t, "expiry"), Policy: count("policy"), Newest: 7,
			Reason: rapid.String().Draw(t, "reason"),
		}
		if got, err := ParseExpiry(e.Encode(), w.d); err != nil || !reflect.DeepEqual(got, e) {
			t.Fatal("expiry", err)
		}
		h := &Hold{Company: w.d.Company, Name: rapid.StringMatching(`[a-z0-9_-][a-z0-9._-]{0,63}`).Draw(t, "hold"), Reason: e.Reason, Time: genTime(t, "held")}
		if got, err := ParseHold(h.Encode(), w.d); err != nil || !reflect.DeepEqual(got, h) {
			t.Fatal("hold", err)
		}
		a := &Archive{Company: w.d.Company, Vault: w.d.Vault, Created: genTime(t, "created")}
		if got, err := ParseArchive(a.Encode(), w.d); err != nil || !reflect.DeepEqual(got, a) {
			t.Fatal("archive", err)
		}
		m := &Manifest{Company: w.d.Company, Key: key, Record: e.Record, Time: genTime(t, "made"), Until: genTime(t, "until"), Segments: []tripod.PackID{}}
		for range rapid.IntRange(0, 3).Draw(t, "segments") {
			m.Segments = append(m.Segments, gen32(t, "segment"))
		}
		if got, err := ParseManifest(m.Encode(), w.d); err != nil || !reflect.DeepEqual(got, m) {
			t.Fatal("manifest", err)
		}
		l := &Label{
			Host: rapid.String().Draw(t, "host"), Paths: rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "paths"),
			Tags: rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "tags"), Files: rapid.Int64().Draw(t, "files"), Bytes: 1, Skipped: -1,
		}
		if got, err := UnmarshalLabel(l.Marshal()); err != nil || !reflect.DeepEqual(got, l) {
			t.Fatal("label", err)
		}
	})
	c, err := ParseCertificate(w.c.Encode(w.invitation), w.d)
	if err != nil || !reflect.DeepEqual(*c, w.c) {
		t.Fatal("certificate", err)
	}
}

func TestEveryByteOfADocumentIsSigned(t *testing.T) {
	w := newTrust()
	for name, good := range w.documents() {
		if err := w.parse(name, good); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := 0; i < len(good)*8; i += 7 { // a bit of every byte, each time another
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			if w.parse(name, bad) == nil {
				t.Fatalf("%s: bit %d flipped unseen", name, i)
			}
		}
		for n := range good {
			if w.parse(name, good[:n]) == nil {
				t.Fatalf("%s: cut to %d bytes unseen", name, n)
			}
		}
		if w.parse(name, append(bytes.Clone(good), 0)) == nil {
			t.Fatalf("%s: a byte too many unseen", name)
		}
	}
}

// Whoever may sign one kind of document may not sign another with the same bytes.
func TestADocumentIsNeverOneOfAnotherKind(t *testing.T) {
	w := newTrust()
	docs := w.documents()
	for as := range docs {
		for name, b := range docs {
			if err := w.parse(as, b); (err == nil) != (as == name) {
				t.Errorf("%s read as %s: %v", name, as, err)
			}
		}
	}
	tags := []string{successionTag, shredTag, recordTag, descriptorTag, certificateTag, invitationTag, orderTag, grantTag, policyTag, expiryTag, holdTag, archiveTag, manifestTag}
	for i, a := range tags {
		for _, b := range tags[i+1:] {
			if strings.HasPrefix(a, b) || strings.HasPrefix(b, a) {
				t.Errorf("%q begins %q", a, b)
			}
		}
	}
	// A signature moved to another document with the same fields.
	order := docs["order"]
	for name, b := range docs {
		if name != "order" {
			moved := append(bytes.Clone(order[:len(order)-sigLen]), b[len(b)-sigLen:]...)
			if w.parse("order", moved) == nil {
				t.Errorf("the signature of the %s serves an order", name)
			}
		}
	}
}

func TestOnlyTheRightKeySigns(t *testing.T) {
	w := newTrust()
	r := w.record()
	denied := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, tripod.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := VerifyRecord(r.Sign(w.company), &w.c)
	denied("a record of the company's", err)
	other := *r
	other.Company = tripod.CompanyID{9}
	_, err = VerifyRecord(other.Sign(w.machine), &w.c)
	denied("a record of another company", err)
	other = *r
	other.Key.Machine = tripod.MachineID{9}
	_, err = VerifyRecord(other.Sign(w.machine), &w.c)
	denied("a record of another machine", err)
	o := Order{Company: w.d.Company, Key: r.Key}
	_, err = ParseOrder(o.Encode(w.machine), w.d)
	denied("an order of the machine's", err)
	o.Company = tripod.CompanyID{9}
	_, err = ParseOrder(o.Encode(w.company), w.d)
	denied("an order for another company", err)
	p := w.policy()
	_, err = ParsePolicy(p.Encode(w.machine), w.d)
	denied("a policy of the machine's", err)
	p.Company = tripod.CompanyID{9}
	_, err = ParsePolicy(p.Encode(w.company), w.d)
	denied("a policy for another company", err)
	e, h := w.expiry(), w.hold()
	e.Company, h.Company = tripod.CompanyID{9}, tripod.CompanyID{9}
	_, err = ParseExpiry(e.Encode(), w.d)
	denied("an expiry of another company", err)
	_, err = ParseHold(h.Encode(), w.d)
	denied("a hold of another company", err)
	g := Grant{Company: w.d.Company, Key: r.Key}
	_, err = VerifyGrant(g.Encode(w.company), &w.c)
	denied("a grant of the company's", err)
	g.Key.Machine = tripod.MachineID{9}
	_, err = VerifyGrant(g.Encode(w.machine), &w.c)
	denied("a grant of another machine", err)
	denied("no signature", Verify(nil, publicOf(w.company)))
	denied("no key", Verify(w.c.Invitation, nil))
	if _, err := ParseDescriptor(w.d.Encode(w.machine)); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("a descriptor of the machine's: %v", err)
	}
}

func TestCertificatesGoBackToTheCompany(t *testing.T) {
	for name, change := range map[string]func(w *trust) []byte{
		"signed by the machine itself": func(w *trust) []byte { return w.c.Encode(w.machine) },
		"signed by the company":        func(w *trust) []byte { return w.c.Encode(w.company) },
		"another company": func(w *trust) []byte {
			w.c.Company = tripod.CompanyID{9}
			return w.c.Encode(w.invitation)
		},
		"invitation of another company": func(w *trust) []byte {
			w.i.Company = tripod.CompanyID{9}
			w.c.Invitation = w.i.Encode(w.company)
			return w.c.Encode(w.invitation)
		},
		"invitation signed by itself": func(w *trust) []byte {
			w.c.Invitation = w.i.Encode(w.invitation)
			return w.c.Encode(w.invitation)
		},
		"a second key for a machine that exists": func(w *trust) []byte {
			w.c.Key = publicOf(keyOf(4))
			return w.c.Encode(w.invitation)
		},
		"another machine's id for the key": func(w *trust) []byte {
			w.c.Machine[15] ^= 1
			return w.c.Encode(w.invitation)
		},
		"expired invitation": func(w *trust) []byte {
			w.c.Enrolled = w.i.Expires.Add(1)
			return w.c.Encode(w.invitation)
		},
	} {
		w := newTrust()
		if _, err := ParseCertificate(change(w), w.d); !errors.Is(err, tripod.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := newTrust()
	w.c.Enrolled = w.i.Expires
	if _, err := ParseCertificate(w.c.Encode(w.invitation), w.d); err != nil {
		t.Errorf("at the last moment: %v", err)
	}
	w.i.Expires = time.Time{}
	w.c.Enrolled, w.c.Invitation = time.Unix(1<<33, 0), w.i.Encode(w.company)
	if _, err := ParseCertificate(w.c.Encode(w.invitation), w.d); err != nil {
		t.Errorf("an invitation without end: %v", err)
	}
}

func TestChain(t *testing.T) {
	w := newTrust()
	first := w.record()
	raw := first.Sign(w.machine)
	next := w.record()
	next.Key.Seq, next.Prev = 2, HashOf(raw)
	if err := errors.Join(Chain(nil, Hash{}, first), Chain(first, HashOf(raw), next)); err != nil {
		t.Fatal(err)
	}
	forked, skipped, again := *next, *next, *first
	forked.Prev[0] ^= 1
	skipped.Key.Seq = 3
	last := *first
	last.Key.Seq = math.MaxUint64
	for name, err := range map[string]error{
		"begins with 2":    Chain(nil, Hash{}, next),
		"another before":   Chain(first, HashOf(raw), &forked),
		"one is missing":   Chain(first, HashOf(raw), &skipped),
		"twice":            Chain(first, HashOf(raw), &again),
		"counts to zero":   Chain(&last, HashOf(raw), first),
		"a first with one": Chain(nil, Hash{}, &Record{Key: Key{Seq: 1}, Prev: Hash{1}}),
	} {
		if !errors.Is(err, tripod.Conflict) || tripod.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestANewerVersionIsNotCalledDamaged(t *testing.T) {
	w := newTrust()
	docs := w.documents()
	for name, tag := range map[string]string{
		"descriptor": descriptorTag, "certificate": certificateTag, "record": recordTag, "order": orderTag, "grant": grantTag,
		"policy": policyTag, "expiry": expiryTag, "hold": holdTag, "archive": archiveTag, "manifest": manifestTag,
	} {
		docs[name][len(tag)] = Version + 1
		if err := w.parse(name, docs[name]); !errors.Is(err, tripod.Invalid) || tripod.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	label := (&Label{}).Marshal()
	label[0] = Version + 1
	if _, err := UnmarshalLabel(label); !errors.Is(err, tripod.Invalid) || tripod.HintOf(err) == "" {
		t.Errorf("label: %v", err)
	}
}

// A lock must never end earlier than it was asked to.
func TestTimesBeyondTheFormatBecomeItsLast(t *testing.T) {
	w := newTrust()
	for _, c := range []struct{ in, want time.Time }{
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, math.MaxInt64).UTC()},
		{time.Unix(1<<40, 0), time.Unix(0, math.MaxInt64).UTC()},
		{time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), time.Unix(0, math.MinInt64).UTC()},
		{time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)},
		{time.Time{}, time.Time{}},
	} {
		r := w.record()
		r.LockUntil = c.in
		got, err := ParseRecord(r.Sign(w.machine))
		if err != nil || !got.LockUntil.Equal(c.want) {
			t.Errorf("%v becomes %v: %v", c.in, got.LockUntil, err)
		}
	}
}

// What Check lets pass is what a sealed label may take in a record, to the byte.
func TestALabelTooLongIsKnownBefore(t *testing.T) {
	w := newTrust()
	fits := func(l *Label) bool {
		r := w.record()
		r.Label = make([]byte, len(l.Marshal())+sealedLabel)
		_, err := ParseRecord(r.Sign(w.machine))
		return err == nil
	}
	full := Label{Host: "host", Program: "tripod", Tags: []string{"a", "tag"}, Paths: []string{""}}
	full.Paths[0] = strings.Repeat("p", maxLabel-sealedLabel-len(full.Marshal()))
	long := full
	long.Host += "s"
	many := Label{Paths: make([]string, 80_000), Tags: []string{"t"}}
	few := Label{Paths: make([]string, 40_000), Tags: make([]string, 40_000)}
	for name, c := range map[string]struct {
		l    *Label
		good bool
	}{"none": {new(Label), true}, "full": {&full, true}, "a byte too long": {&long, false}, "few": {&few, true}} {
		err := c.l.Check()
		if (err == nil) != c.good || fits(c.l) != c.good || (!c.good && (!errors.Is(err, tripod.Invalid) || tripod.HintOf(err) == "")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := many.Check(); !errors.Is(err, tripod.Invalid) { // would be counted as fewer
		t.Errorf("80,000 paths: %v", err)
	}
}

func TestClass(t *testing.T) {
	for bytes, want := range map[int64]uint8{-1: 0, 0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 1 << 30: 31, math.MaxInt64: 63} {
		if got := Class(bytes); got != want {
			t.Errorf("%d: %d, want %d", bytes, got, want)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	w := newTrust()
	f.Add(w.record().Sign(w.machine))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			return
		}
		if again := r.Sign(w.machine); !bytes.Equal(again[:len(again)-sigLen], b[:len(b)-sigLen]) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzUnmarshalLabel(f *testing.F) {
	f.Add((&Label{Host: "h", Paths: []string{"/a", "/b"}, Tags: []string{"t"}, Program: "p", Files: 1}).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := UnmarshalLabel(b)
		if err == nil && !bytes.Equal(l.Marshal(), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzParseDescriptor(f *testing.F) {
	w := newTrust()
	f.Add(w.d.Encode(w.company), []byte("box"))
	f.Fuzz(func(t *testing.T, b, box []byte) {
		_, _ = ParseDescriptor(b)
		if len(box) > MaxDocument/2 {
			return
		}
		d := *w.d
		d.Box = box
		if got, err := ParseDescriptor(d.Encode(w.company)); err != nil || !bytes.Equal(got.Box, box) {
			t.Fatal(err)
		}
	})
}

func FuzzParseCertificate(f *testing.F) {
	w := newTrust()
	f.Add(w.c.Encode(w.invitation), w.c.Invitation)
	f.Fuzz(func(t *testing.T, b, invitation []byte) {
		if c, err := ParseCertificate(b, w.d); err == nil && c.Machine != w.c.Machine {
			t.Fatal("endorses another machine")
		}
		if len(invitation) > MaxDocument/2 {
			return
		}
		c := w.c
		c.Invitation = invitation
		if _, err := ParseCertificate(c.Encode(w.machine), w.d); err == nil {
			t.Fatal("a machine endorsed itself")
		}
	})
}

func FuzzParseOrder(f *testing.F) {
	w := newTrust()
	f.Add(w.documents()["order"])
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOrder(b, w.d)
		if err == nil && !bytes.Equal(o.Encode(w.company), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzVerifyGrant(f *testing.F) {
	w := newTrust()
	f.Add(w.documents()["grant"])
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := VerifyGrant(b, &w.c)
		if err == nil && !bytes.Equal(g.Encode(w.machine), b) {
			t.Fatal("read two ways")
		}
	})
}

func TestNamesOfHolds(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "case-12.b_c": true, strings.Repeat("a", maxName): true,
		"": false, ".a": false, "A": false, "a/b": false, "a b": false, strings.Repeat("a", maxName+1): false,
	} {
		if err := CheckHoldName(name); (err == nil) != good || !good && !errors.Is(err, tripod.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	w := newTrust()
	f.Add(w.documents()["policy"])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePolicy(b, w.d)
		if err == nil && !bytes.Equal(p.Encode(w.company), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzParseExpiry(f *testing.F) {
	w := newTrust()
	f.Add(w.documents()["expiry"])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseExpiry(b, w.d)
		if err == nil && !bytes.Equal(e.Encode(), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzParseHold(f *testing.F) {
	w := newTrust()
	f.Add(w.documents()["hold"])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHold(b, w.d)
		if err == nil && !bytes.Equal(h.Encode(), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzParseArchive(f *testing.F) {
	w := newTrust()
	f.Add(w.documents()["archive"])
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseArchive(b, w.d)
		if err == nil && !bytes.Equal(a.Encode(), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	w := newTrust()
	f.Add(w.documents()["manifest"])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b, w.d)
		if err == nil && !bytes.Equal(m.Encode(), b) {
			t.Fatal("read two ways")
		}
	})
}

// The longest manifest is one that a reader of documents takes.
func TestTheLongestManifestFits(t *testing.T) {
	w := newTrust()
	m := w.manifest()
	m.Segments = make([]tripod.PackID, MostSegments)
	if _, err := ParseManifest(m.Encode(), w.d); err != nil {
		t.Error(err)
	}
}
