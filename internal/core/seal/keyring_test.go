package seal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

func cheap() Argon { return Argon{Time: 1, Memory: 64, Threads: 1} }

func testKeyring(t testing.TB) (*CompanyKeys, RecoveryCode, *Keyring) {
	t.Helper()
	keys, err := NewCompany()
	if err != nil {
		t.Fatal(err)
	}
	code := NewRecoveryCode()
	ring, err := NewKeyring(keys, "right", code, cheap(), time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return keys, code, ring
}

func sameKeys(a, b *CompanyKeys) bool {
	return a.ID == b.ID && bytes.Equal(a.Box, b.Box) && bytes.Equal(a.Sign, b.Sign) && a.Domain == b.Domain
}

func reread(t *testing.T, k *Keyring) *Keyring {
	t.Helper()
	again, err := UnmarshalKeyring(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestKeyringOpensForItsHoldersAlone(t *testing.T) {
	keys, code, ring := testKeyring(t)
	ring = reread(t, ring)
	got, err := ring.OpenPassphrase("right")
	if err != nil || got.Damage != nil || !sameKeys(got.Keys, keys) || got.By.Name != FirstHolder {
		t.Fatal("passphrase:", err, got)
	}
	if got, err = ring.OpenCode(code); err != nil || got.Damage != nil || !sameKeys(got.Keys, keys) || got.By.Name != CodeHolder {
		t.Fatal("code:", err, got)
	}
	for _, wrong := range []string{"", "Right", "righ t", string(code[:]), code.String()} {
		if _, err := ring.OpenPassphrase(wrong); !errors.Is(err, tripod.Denied) || tripod.HintOf(err) == "" {
			t.Errorf("passphrase %q: %v", wrong, err)
		}
	}
	if _, err := ring.OpenCode(NewRecoveryCode()); !errors.Is(err, tripod.Denied) || tripod.HintOf(err) == "" {
		t.Errorf("another code: %v", err)
	}
	_, _, foreign := testKeyring(t)
	foreign.Slots = ring.Slots
	if _, err := foreign.OpenPassphrase("right"); !errors.Is(err, tripod.Denied) {
		t.Errorf("slots moved to another company: %v", err)
	}
}

func change(t *testing.T, u *Unlocked, err error, changes ...error) *Keyring {
	t.Helper()
	for _, e := range append(changes, err) {
		if e != nil {
			t.Fatal(e)
		}
	}
	next, err := u.Seal(2)
	if err != nil {
		t.Fatal(err)
	}
	return reread(t, next)
}

func opens(t *testing.T, k *Keyring, passphrase string, want bool) {
	t.Helper()
	_, err := k.OpenPassphrase(passphrase)
	if want && err != nil || !want && !errors.Is(err, tripod.Denied) {
		t.Errorf("%q: %v, want it to open: %v", passphrase, err, want)
	}
}

// Any holder changes the ways in, and needs no other's secret for it.
func TestHoldersComeAndGo(t *testing.T) {
	keys, code, ring := testKeyring(t)
	u, err := ring.OpenCode(code)
	ring = change(t, u, err, u.AddPassphrase("ann", "ann's", cheap(), time.Unix(2, 0)))
	for _, passphrase := range []string{"right", "ann's"} {
		opens(t, ring, passphrase, true)
	}
	u, err = ring.OpenPassphrase("ann's")
	if err != nil || u.By.Name != "ann" || !u.By.Added.Equal(time.Unix(2, 0)) || len(u.Holders()) != 3 {
		t.Fatalf("%+v, %v", u, err)
	}
	for _, name := range []string{"", " ann", "an\n", "\xff", strings.Repeat("a", 65)} {
		if err := u.AddPassphrase(name, "x", cheap(), time.Now()); !errors.Is(err, tripod.Invalid) {
			t.Errorf("named %q: %v", name, err)
		}
	}
	for _, name := range []string{"ann", FirstHolder, CodeHolder} {
		if err := u.AddPassphrase(name, "x", cheap(), time.Now()); !errors.Is(err, tripod.Exists) {
			t.Errorf("named %q: %v", name, err)
		}
	}
	if err := u.SetPassphrase("bob", "x", cheap(), time.Now()); !errors.Is(err, tripod.NotFound) {
		t.Error(err)
	}
	ring = change(t, u, nil, u.SetPassphrase(FirstHolder, "new", cheap(), time.Now()))
	opens(t, ring, "right", false)
	opens(t, ring, "new", true)
	u, err = ring.OpenPassphrase("new")
	if err := u.Remove(CodeHolder); !errors.Is(err, tripod.Denied) {
		t.Errorf("without a recovery code: %v", err)
	}
	ring = change(t, u, err, u.Remove("ann"))
	opens(t, ring, "ann's", false)
	if err := u.Remove(FirstHolder); !errors.Is(err, tripod.Denied) || tripod.HintOf(err) == "" {
		t.Errorf("the last passphrase: %v", err)
	}
	if err := u.Remove("ann"); !errors.Is(err, tripod.NotFound) {
		t.Errorf("twice: %v", err)
	}
	got, err := ring.OpenCode(code)
	if err != nil || got.Damage != nil || !sameKeys(got.Keys, keys) {
		t.Errorf("the code: %v", err)
	}
	fresh := NewRecoveryCode()
	ring = change(t, got, nil, got.SetCode(fresh, time.Now()))
	if _, err := ring.OpenCode(code); !errors.Is(err, tripod.Denied) {
		t.Errorf("the old code: %v", err)
	}
	if _, err := ring.OpenCode(fresh); err != nil {
		t.Errorf("the new code: %v", err)
	}
	for i := range maxSlots - 2 {
		if err := got.AddPassphrase(strings.Repeat("x", i+1), "p", cheap(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := got.AddPassphrase("one more", "p", cheap(), time.Now()); !errors.Is(err, tripod.Exhausted) {
		t.Errorf("more holders than slots: %v", err)
	}
}

// Who was removed and kept an old keyring gets nothing out of the next ones: each
// has a secret of its own.
func TestARemovedHoldersOldKeyringOpensNoNewOne(t *testing.T) {
	_, code, ring := testKeyring(t)
	u, err := ring.OpenCode(code)
	old := change(t, u, err, u.AddPassphrase("eve", "eve's", cheap(), time.Now()))
	secret, ok := old.Slots[2].unwrap(old.Company, "eve's")
	if !ok {
		t.Fatal("eve is no holder")
	}
	u, err = old.OpenCode(code)
	next := change(t, u, err, u.Remove("eve"))
	if _, ok := openWith(secret, next.additional(), next.sealed); ok {
		t.Error("one secret for two keyrings")
	}
	next.Slots = append(next.Slots, old.Slots[2])
	if _, err := next.OpenPassphrase("eve's"); err == nil {
		t.Error("an old slot opens a new keyring")
	}
}

// While the company's key is replaced a keyring holds more than one.
func TestPairsOfACompanysKeys(t *testing.T) {
	keys, code, ring := testKeyring(t)
	first := KeyPair{keys.Box, keys.Sign}
	public := func(k *CompanyKeys) ed25519.PublicKey {
		p, err := k.Public()
		if err != nil {
			t.Fatal(err)
		}
		return p.Sign
	}
	before := public(keys)
	u, err := ring.OpenCode(code)
	ring = change(t, u, err, u.Keys.Renew())
	after := public(u.Keys)
	got, err := ring.OpenPassphrase("right")
	if err != nil || !sameKeys(got.Keys, u.Keys) || len(got.Keys.Others) != 1 || !bytes.Equal(got.Keys.Others[0].Box, first.Box) || after.Equal(before) {
		t.Fatalf("%+v, %v", got, err)
	}
	if !got.Keys.Use(before) || !sameKeys(got.Keys, keys) || !got.Keys.Use(before) || !got.Keys.Use(after) || got.Keys.Use(ed25519.PublicKey(make([]byte, 32))) {
		t.Error("uses another pair")
	}
}

// A keyring that no reader opens would be the end of the vault.
func TestCostsThatReadersRefuseAreNotWritten(t *testing.T) {
	keys, code, ring := testKeyring(t)
	for _, bad := range []Argon{
		{},
		{Time: 1, Memory: 7, Threads: 1},
		{Time: 1, Memory: 64, Threads: 9},
		{Time: 17, Memory: 64, Threads: 1},
		{Time: 1, Memory: maxArgonMemory + 1, Threads: 1},
		{Time: 1, Memory: 1 << 31, Threads: 255},
	} {
		if _, err := NewKeyring(keys, "right", code, bad, time.Now()); !errors.Is(err, tripod.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
		if u, err := ring.OpenCode(code); err != nil || !errors.Is(u.SetPassphrase(FirstHolder, "new", bad, time.Now()), tripod.Invalid) {
			t.Errorf("changed %+v: %v", bad, err)
		}
		ring.Slots[0].Argon = bad
		read := reread(t, ring)
		if _, err := read.OpenPassphrase("right"); !errors.Is(err, tripod.Corrupt) || tripod.HintOf(err) == "" {
			t.Errorf("read %+v: %v", bad, err)
		}
		if got, err := read.OpenCode(code); err != nil || !errors.Is(got.Damage, tripod.Corrupt) || !sameKeys(got.Keys, keys) {
			t.Errorf("the code beside %+v: %v", bad, err)
		}
		ring.Slots[0].Argon = cheap()
	}
	if err := DefaultArgon().check(); err != nil {
		t.Error(err)
	}
}

func TestNoDamageToAKeyringOpensAnotherKey(t *testing.T) {
	keys, code, ring := testKeyring(t)
	good := ring.Marshal()
	open := func(b []byte) {
		k, err := UnmarshalKeyring(b)
		if err != nil {
			if kind := tripod.KindOf(err); kind != tripod.Corrupt && kind != tripod.Invalid {
				t.Fatalf("unmarshal: %v", err)
			}
			return
		}
		for _, s := range k.Slots {
			if s.Argon.Memory > 1024 || s.Argon.Time > 4 {
				return // costs a test does not pay
			}
		}
		for _, f := range []func() (*Unlocked, error){
			func() (*Unlocked, error) { return k.OpenPassphrase("right") },
			func() (*Unlocked, error) { return k.OpenCode(code) },
		} {
			got, err := f()
			if err == nil && !sameKeys(got.Keys, keys) {
				t.Fatal("another key, and no error")
			}
			if err == nil && !errors.Is(got.Damage, tripod.Corrupt) {
				t.Fatalf("opened, and the damage went unseen: %v", got.Damage)
			}
		}
	}
	for i := range good {
		if i > 64 && i%41 != 0 && testing.Short() {
			continue
		}
		for _, bit := range []byte{0x01, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= bit
			open(bad)
		}
		open(good[:i])
	}
	open(append(bytes.Clone(good), 0))
	// An old one that passes for a new one opens for nobody.
	ring.Number++
	if _, err := ring.OpenPassphrase("right"); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("another number: %v", err)
	}
	// What both holders need is noticed by both.
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	k, err := UnmarshalKeyring(bad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.OpenPassphrase("right"); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("damaged content: %v", err)
	}
}

// Who opens the keyring learns that another way in is gone, and which; the next
// keyring has it whole again.
func TestDamageToAnotherSlotIsToldAndHealed(t *testing.T) {
	keys, code, ring := testKeyring(t)
	expect := func(what, want string, k *Keyring) {
		t.Helper()
		got, err := k.OpenPassphrase("right")
		if err != nil || !sameKeys(got.Keys, keys) || !errors.Is(got.Damage, tripod.Corrupt) || tripod.HintOf(got.Damage) == "" || !strings.Contains(got.Damage.Error(), want) {
			t.Errorf("%s: %v, %+v", what, err, got)
			return
		}
		next := change(t, got, nil)
		if again, err := next.OpenCode(code); err != nil || again.Damage != nil || len(next.Slots) != 2 {
			t.Errorf("%s, the next: %v", what, err)
		}
	}
	ring.Slots[1].wrapped[0] ^= 1
	expect("damaged", "recovery code", reread(t, ring))
	ring.Slots[1].wrapped[0] ^= 1
	ring.Slots[1].public[0] ^= 1
	expect("exchanged", "recovery code", reread(t, ring))
	ring.Slots[1].public[0] ^= 1
	ring.Slots = append(ring.Slots, ring.Slots[0])
	expect("one more", "not those that the company made", reread(t, ring))
	ring.Slots = ring.Slots[:1]
	expect("taken away", "recovery code", reread(t, ring))
}

func TestAKeyringHasOneToSixteenSlots(t *testing.T) {
	_, _, ring := testKeyring(t)
	for n, want := range map[int]error{0: tripod.Corrupt, maxSlots: nil, maxSlots + 1: tripod.Corrupt} {
		k := &Keyring{Company: ring.Company, Number: 1, sealed: ring.sealed}
		for range n {
			k.Slots = append(k.Slots, ring.Slots[0])
		}
		if _, err := UnmarshalKeyring(k.Marshal()); !errors.Is(err, want) {
			t.Errorf("%d slots: %v", n, err)
		}
	}
}

// Words on paper have no spacing, and letters no composition.
func TestPassphrasesOpenAsTheyRead(t *testing.T) {
	keys, err := NewCompany()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := NewKeyring(keys, "vier gro\u0308ßere Kühe", NewRecoveryCode(), cheap(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for text, opens := range map[string]bool{
		"vier größere Kühe":                     true,
		"  vier\tgrößere \u3000 Ku\u0308he\r\n": true,
		"vier\u00a0größere\nKühe":               true,
		"viergrößere Kühe":                      false,
		"Vier größere Kühe":                     false,
		"vier grössere Kühe":                    false,
		"vier größere\u200bKühe":                false,
	} {
		if _, err := ring.OpenPassphrase(text); (err == nil) != opens {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, empty := range []string{"", " ", "\n\t\u3000"} {
		if _, err := NewKeyring(keys, empty, NewRecoveryCode(), cheap(), time.Now()); !errors.Is(err, tripod.Invalid) {
			t.Errorf("%q: %v", empty, err)
		}
		if u, err := ring.OpenPassphrase("vier größere Kühe"); err != nil || !errors.Is(u.SetPassphrase(FirstHolder, empty, cheap(), time.Now()), tripod.Invalid) {
			t.Errorf("changed to %q: %v", empty, err)
		}
	}
}

func TestAMistypedCodeIsInvalidAndSaysSo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c RecoveryCode
		copy(c[:], rapid.SliceOfN(rapid.Byte(), codeRandom, codeRandom).Draw(t, "code"))
		copy(c[codeRandom:], codeCheck(&c))
		text := c.String()
		got, err := ParseRecoveryCode(strings.ToLower(strings.ReplaceAll(text, "-", rapid.SampledFrom([]string{"", " ", "-", " - "}).Draw(t, "gap"))))
		if err != nil || got != c {
			t.Fatal(err)
		}
		bad := []byte(text)
		i := rapid.IntRange(0, len(bad)-1).Draw(t, "at")
		bad[i] = rapid.SampledFrom([]byte("0123456789ABCDEFGHJKMNPQRSTVWXYZ")).Draw(t, "letter")
		if _, err := ParseRecoveryCode(string(bad)); string(bad) != text && text[i] != '-' {
			// Two check bytes: one slip in 65,536 goes unseen.
			if err != nil && (!errors.Is(err, tripod.Invalid) || tripod.HintOf(err) == "") {
				t.Fatalf("%v, hint %q", err, tripod.HintOf(err))
			}
		}
	})
	c := NewRecoveryCode()
	text := []byte(c.String())
	text[0] = map[bool]byte{true: '7', false: '8'}[text[0] != '7']
	if _, err := ParseRecoveryCode(string(text)); err != nil && !strings.Contains(err.Error(), "mistyped") {
		t.Errorf("got %v", err)
	}
	for _, s := range []string{"", "-", "0", "U000-0000-0000-0000-0000-0000-0000-0000", strings.Repeat("0", 1<<16)} {
		if _, err := ParseRecoveryCode(s); !errors.Is(err, tripod.Invalid) || tripod.HintOf(err) == "" {
			t.Errorf("%.10q: %v", s, err)
		}
	}
}

func TestANewerKeyringIsNotCalledDamaged(t *testing.T) {
	for text, want := range map[string]error{
		"tripod 2 keyring\n...": tripod.Invalid, "tripod 10 keyring\n": tripod.Invalid,
		"tripod x keyring\n": tripod.Corrupt, "tripod 1 keyring\n": tripod.Corrupt, "tripod 2 machine keys": tripod.Corrupt, "": tripod.Corrupt,
	} {
		if _, err := UnmarshalKeyring([]byte(text)); !errors.Is(err, want) || (want == tripod.Invalid) != (tripod.HintOf(err) != "") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNewPassphrasesAreEightWords(t *testing.T) {
	a, err := NewPassphrase()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewPassphrase()
	if err != nil || a == b || len(strings.Fields(a)) != 8 {
		t.Fatal(a, b, err)
	}
}

func TestGrantsOpenForOneSnapshotAndOneHolder(t *testing.T) {
	keys, _, _ := testKeyring(t)
	pub, err := keys.Public()
	if err != nil {
		t.Fatal(err)
	}
	root := Ref{H: Secret{1}, U: [32]byte{2}}
	c := GrantContext{Company: keys.ID, Machine: tripod.MachineID{1}, Source: tripod.SourceID{2}, Seq: 3, Root: root.ID()}
	sealed, err := SealGrant(pub.Box, &c, &root)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenGrant(keys.Box, &c, sealed); err != nil || got != root {
		t.Fatal(got, err)
	}
	for name, change := range map[string]func(c *GrantContext){
		"company": func(c *GrantContext) { c.Company[0] ^= 1 },
		"machine": func(c *GrantContext) { c.Machine[0] ^= 1 },
		"source":  func(c *GrantContext) { c.Source[15] ^= 1 },
		"seq":     func(c *GrantContext) { c.Seq ^= 1 << 40 },
		"root":    func(c *GrantContext) { c.Root[31] ^= 1 },
	} {
		other := c
		change(&other)
		if _, err := OpenGrant(keys.Box, &other, sealed); !errors.Is(err, tripod.Corrupt) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	other, _, _ := testKeyring(t)
	if _, err := OpenGrant(other.Box, &c, sealed); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("another holder: %v", err)
	}
	for i := 0; i < len(sealed); i += 37 {
		bad := bytes.Clone(sealed)
		bad[i] ^= 4
		if _, err := OpenGrant(keys.Box, &c, bad); !errors.Is(err, tripod.Corrupt) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for _, n := range []int{0, 1, 1119, 1120, 1136, len(sealed) - 1} {
		if _, err := OpenGrant(keys.Box, &c, sealed[:n]); !errors.Is(err, tripod.Corrupt) {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
	// A root that is not the record's.
	c.Root[0] ^= 1
	lying, err := SealGrant(pub.Box, &c, &root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenGrant(keys.Box, &c, lying); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("a lying grant: %v", err)
	}
	if _, err := SealGrant([]byte("short"), &c, &root); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("a recipient without a key: %v", err)
	}
	if _, err := OpenGrant(nil, &c, sealed); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("no key: %v", err)
	}
}

func TestLabelsOpenWithTheirRoot(t *testing.T) {
	root := Ref{H: Secret{1}}
	sealed := SealLabel(&root, []byte("label"))
	if got, err := OpenLabel(&root, sealed); err != nil || string(got) != "label" {
		t.Fatal(got, err)
	}
	if bytes.Equal(sealed, SealLabel(&root, []byte("label"))) {
		t.Error("two labels share a nonce")
	}
	other := Ref{H: Secret{2}}
	if _, err := OpenLabel(&other, sealed); !errors.Is(err, tripod.Corrupt) {
		t.Error(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := OpenLabel(&root, bad); err == nil {
			t.Fatalf("byte %d changed unseen", i)
		}
		if _, err := OpenLabel(&root, sealed[:i]); err == nil {
			t.Fatalf("cut to %d unseen", i)
		}
	}
}

func testMachine(t testing.TB) *MachineKeys {
	t.Helper()
	keys, _, _ := testKeyring(t)
	m, err := keys.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMachineKeysComeBack(t *testing.T) {
	m := testMachine(t)
	m.Incarnation = 1 << 60
	raw := m.Marshal()
	got, err := UnmarshalMachine(raw)
	if err != nil || !bytes.Equal(got.Marshal(), raw) || got.Machine != m.Machine || !got.Sign.Equal(m.Sign) || got.Incarnation != m.Incarnation {
		t.Fatal(err)
	}
	for n := range raw {
		if _, err := UnmarshalMachine(raw[:n]); !errors.Is(err, tripod.Corrupt) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	if m.Machine != frame.MachineIDOf(ed25519.PublicKey(m.Sign[32:])) {
		t.Error("the machine's id does not fit its key")
	}
	derived := map[Secret]bool{m.ChunkKey(): true, m.BundleKey(): true, m.TreeKey(): true, m.CacheKey(): true, m.Domain: true, m.Node: true}
	if len(derived) != 6 {
		t.Error("two uses share a key")
	}
	if m.SourceID("a") == m.SourceID("b") || testMachine(t).SourceID("a") == m.SourceID("a") {
		t.Error("sources are not told apart")
	}
}

func FuzzUnmarshalKeyring(f *testing.F) {
	_, _, ring := testKeyring(f)
	f.Add(ring.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := UnmarshalKeyring(b)
		if err == nil && !bytes.Equal(k.Marshal(), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzUnmarshalMachine(f *testing.F) {
	f.Add(testMachine(f).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := UnmarshalMachine(b)
		if err == nil && !bytes.Equal(m.Marshal(), b) {
			t.Fatal("read two ways")
		}
	})
}

func FuzzParseRecoveryCode(f *testing.F) {
	f.Add(NewRecoveryCode().String())
	f.Add("0000-0000-0000-0000-0000-0000-0000-0000")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseRecoveryCode(text)
		if err != nil {
			return
		}
		if again, err := ParseRecoveryCode(c.String()); err != nil || again != c {
			t.Fatal("does not survive printing")
		}
	})
}

func FuzzOpenGrant(f *testing.F) {
	keys, _, _ := testKeyring(f)
	pub, err := keys.Public()
	if err != nil {
		f.Fatal(err)
	}
	root := Ref{H: Secret{1}}
	c := GrantContext{Company: keys.ID, Seq: 1, Root: root.ID()}
	sealed, err := SealGrant(pub.Box, &c, &root)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := OpenGrant(keys.Box, &c, b); err == nil && got.ID() != root.ID() {
			t.Fatal("opens another root")
		}
		_, _ = OpenLabel(&root, b)
	})
}

func TestSignersAreEd25519(t *testing.T) {
	pub, key, err := NewSigner()
	if err != nil || !ed25519.Verify(pub, []byte("m"), ed25519.Sign(key, []byte("m"))) {
		t.Fatal(err)
	}
}
