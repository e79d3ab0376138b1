package keyring

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// shelf is a vault's documents in memory.
type shelf map[string][]byte

func (s shelf) Documents(_ context.Context, prefix string, fn func(string, []byte) error) error {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if strings.HasPrefix(name, prefix) {
			if err := fn(name, s[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s shelf) PutDocument(_ context.Context, name string, content []byte) error {
	if _, taken := s[name]; taken {
		return tripod.Exists
	}
	s[name] = content
	return nil
}

func (s shelf) RemoveDocument(_ context.Context, name string) error {
	delete(s, name)
	return nil
}

var cheap = seal.Argon{Time: 1, Memory: 64, Threads: 1}

const passphrase = "correct horse battery staple"

func newShelf(t *testing.T) (shelf, *Made) {
	t.Helper()
	made, err := New(passphrase, time.Now(), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return shelf{vault.DescriptorName: made.Descriptor, vault.KeyringName(1): made.Keyring}, made
}

func load(t *testing.T, s shelf) *Sealed {
	t.Helper()
	sealed, err := Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestOpen(t *testing.T) {
	s, made := newShelf(t)
	sealed := load(t, s)
	byPassphrase, err := sealed.OpenPassphrase(passphrase)
	if err != nil || byPassphrase.ID != made.Company.ID {
		t.Fatalf("passphrase: %v", err)
	}
	byCode, err := sealed.OpenCode(made.Code)
	if err != nil || byCode.ID != made.Company.ID {
		t.Fatalf("code: %v", err)
	}
	if _, err := sealed.OpenPassphrase("another"); !errors.Is(err, tripod.Denied) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := sealed.OpenCode(seal.NewRecoveryCode()); !errors.Is(err, tripod.Denied) {
		t.Errorf("wrong code: %v", err)
	}
	if _, err := New("", time.Now(), cheap); !errors.Is(err, tripod.Invalid) {
		t.Errorf("empty passphrase: %v", err)
	}
}

// change gives the holder of a passphrase another one.
func change(t *testing.T, s shelf, old, next string) {
	t.Helper()
	sealed := load(t, s)
	_, err := sealed.OpenPassphrase(old)
	if err == nil {
		err = sealed.ChangePassphrase(t.Context(), s, "", next, cheap)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Where several passphrases are, someone has to say whose changes.
func TestWhosePassphraseChanges(t *testing.T) {
	s, made := newShelf(t)
	sealed := load(t, s)
	_, err := sealed.OpenCode(made.Code)
	if err == nil {
		err = sealed.Change(t.Context(), s, func(u *seal.Unlocked) error { return u.AddPassphrase("ann", "what ann knows", cheap, time.Now()) })
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := sealed.ChangePassphrase(t.Context(), s, "", "new", cheap); !errors.Is(err, tripod.Invalid) || !strings.Contains(tripod.HintOf(err), "--holder owner") {
		t.Errorf("by the code: %v", err)
	}
	change(t, s, "what ann knows", "what ann knows now")
	for _, p := range []string{passphrase, "what ann knows now"} {
		if _, err := load(t, s).OpenPassphrase(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestChangePassphrase(t *testing.T) {
	s, made := newShelf(t)
	change(t, s, passphrase, "a second one")
	sealed := load(t, s)
	if sealed.Number != 3 || len(s) != 3 {
		t.Errorf("keyring %d of %d documents: want two new ones, and the old one gone", sealed.Number, len(s))
	}
	if _, err := sealed.OpenPassphrase(passphrase); !errors.Is(err, tripod.Denied) {
		t.Errorf("old passphrase: %v", err)
	}
	if _, err := sealed.OpenPassphrase("a second one"); err != nil {
		t.Errorf("new passphrase: %v", err)
	}
	if err := load(t, s).ChangePassphrase(t.Context(), s, "", "a third one", cheap); !errors.Is(err, tripod.Denied) {
		t.Errorf("not opened: %v", err)
	}
	if _, err := sealed.OpenCode(made.Code); err != nil {
		t.Fatal(err)
	}
	if err := sealed.ChangePassphrase(t.Context(), s, "", "a third one", cheap); err != nil {
		t.Errorf("with the code: %v", err)
	}
	if _, err := load(t, s).OpenPassphrase("a third one"); err != nil {
		t.Errorf("third passphrase: %v", err)
	}
}

// A damaged newest keyring does not lock anyone out who knows the one before,
// and the next gets a number of its own.
func TestDamagedKeyring(t *testing.T) {
	s, _ := newShelf(t)
	s[vault.KeyringName(2)] = []byte("rubbish")
	s["keyring/notes"] = []byte("not ours")
	sealed := load(t, s)
	if _, err := sealed.OpenPassphrase(passphrase); err != nil {
		t.Error(err)
	}
	if sealed.Number != 2 || !errors.Is(sealed.Damage, tripod.Corrupt) || tripod.HintOf(sealed.Damage) == "" {
		t.Errorf("number %d, want 2; damage %v", sealed.Number, sealed.Damage)
	}
	change(t, s, passphrase, "a second one")
	if sealed = load(t, s); sealed.Damage != nil || sealed.Number != 4 {
		t.Errorf("damaged and replaced: %v", sealed.Damage)
	}
	delete(s, vault.KeyringName(3))
	delete(s, vault.KeyringName(4))
	s[vault.KeyringName(2)] = []byte("rubbish")
	delete(s, vault.KeyringName(1))
	if _, err := Load(t.Context(), s); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("only a damaged one: %v", err)
	}
	delete(s, vault.KeyringName(2))
	if _, err := Load(t.Context(), s); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("none: %v", err)
	}
	delete(s, vault.DescriptorName)
	if _, err := Load(t.Context(), s); !errors.Is(err, tripod.NotFound) {
		t.Errorf("no vault: %v", err)
	}
}

// The holder who gets in learns that the other would not.
func TestDamagedSlot(t *testing.T) {
	s, made := newShelf(t)
	ring := s[vault.KeyringName(1)]
	at := len("tripod 1 keyring\n") + 16 + 4 + 1 + 26 + 2 + 1216 + 2 + 1168 + 1 // the code slot's salt
	ring[at] ^= 1
	sealed := load(t, s)
	if _, err := sealed.OpenPassphrase(passphrase); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(sealed.Damage, tripod.Corrupt) || !strings.Contains(sealed.Damage.Error(), "recovery code") || tripod.HintOf(sealed.Damage) == "" {
		t.Errorf("damage: %v", sealed.Damage)
	}
	if _, err := sealed.OpenCode(made.Code); !errors.Is(err, tripod.Denied) {
		t.Errorf("the damaged slot: %v", err)
	}
	ring[at] ^= 1
	sealed = load(t, s)
	if _, err := sealed.OpenCode(made.Code); err != nil || sealed.Damage != nil {
		t.Errorf("whole again: %v, %v", err, sealed.Damage)
	}
}

// Whoever keeps the vault could put keys of its own into the descriptor.
func TestExchangedDescriptor(t *testing.T) {
	s, made := newShelf(t)
	evil, err := New("whatever", time.Now(), cheap)
	if err != nil {
		t.Fatal(err)
	}
	public, err := evil.Company.Public()
	if err != nil {
		t.Fatal(err)
	}
	d := snapshot.Descriptor{Company: made.Company.ID, Vault: made.Vault, Box: public.Box, Sign: public.Sign, Created: time.Now()}
	s[vault.DescriptorName] = d.Encode(evil.Company.Sign)
	if _, err := load(t, s).OpenPassphrase(passphrase); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("got %v", err)
	}
}

func TestEndorse(t *testing.T) {
	s, made := newShelf(t)
	sealed := load(t, s)
	m, err := made.Company.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	if known, err := Endorsed(t.Context(), s, sealed.Descriptor, m); err != nil || known {
		t.Fatalf("before: %v, %v", known, err)
	}
	if err := Endorse(t.Context(), s, sealed.Descriptor, made.Company, m, time.Now()); err != nil {
		t.Fatal(err)
	}
	if known, err := Endorsed(t.Context(), s, sealed.Descriptor, m); err != nil || !known {
		t.Errorf("after: %v, %v", known, err)
	}
	if n, err := Machines(t.Context(), s); n != 1 || err != nil {
		t.Errorf("%d machines, %v", n, err)
	}
	twin, err := made.Company.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	twin.Machine = m.Machine
	if _, err := Endorsed(t.Context(), s, sealed.Descriptor, twin); !errors.Is(err, tripod.Conflict) {
		t.Errorf("same machine, another key: %v", err)
	}
	if err := Endorse(t.Context(), shelf{}, sealed.Descriptor, made.Company, twin, time.Now()); !errors.Is(err, tripod.Denied) {
		t.Errorf("endorsed a second key for a machine: %v", err)
	}
	other, err := New(passphrase, time.Now(), cheap)
	if err != nil {
		t.Fatal(err)
	}
	if err := Endorse(t.Context(), s, sealed.Descriptor, other.Company, twin, time.Now()); err == nil {
		t.Error("another company endorsed a machine")
	}
}

func TestMachineFile(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config", "tripod")
	_, made := newShelf(t)
	m, err := made.Company.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadMachine(config, m.Company.ID); !errors.Is(err, tripod.NotFound) {
		t.Errorf("before: %v", err)
	}
	if err := SaveMachine(config, m); err != nil {
		t.Fatal(err)
	}
	got, exposed, err := LoadMachine(config, m.Company.ID)
	if err != nil || exposed || string(got.Marshal()) != string(m.Marshal()) {
		t.Errorf("read back: exposed %v, %v", exposed, err)
	}
	name := MachineFile(config, m.Company.ID)
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, exposed, err := LoadMachine(config, m.Company.ID); err != nil || !exposed {
		t.Errorf("mode 0644: exposed %v, %v", exposed, err)
	}
	if err := os.WriteFile(name, []byte("# cut short\nAAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadMachine(config, m.Company.ID); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("damaged: %v", err)
	}
}

// machineIn is a machine that the vault knows.
func machineIn(t *testing.T, s shelf, made *Made) *seal.MachineKeys {
	t.Helper()
	m, err := made.Company.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	if err := Endorse(t.Context(), s, load(t, s).Descriptor, made.Company, m, time.Now()); err != nil {
		t.Fatal(err)
	}
	return m
}

// A machine has a copy of its certificate, and puts it back where it is lost.
func TestALostCertificateComesBack(t *testing.T) {
	config := t.TempDir()
	s, made := newShelf(t)
	d := load(t, s).Descriptor
	m := machineIn(t, s, made)
	if err := SaveMachine(config, m); err != nil {
		t.Fatal(err)
	}
	if err := PutBack(t.Context(), s, d, config, m); !errors.Is(err, tripod.NotFound) {
		t.Errorf("no copy: %v", err)
	}
	if err := KeepCertificate(t.Context(), s, d, config, m); err != nil {
		t.Fatal(err)
	}
	name := vault.CertificateName(m.Machine)
	kept := s[name]
	s[name] = []byte("noise")
	if known, err := Endorsed(t.Context(), s, d, m); err != nil || known {
		t.Errorf("damaged: %v, %v", known, err)
	}
	delete(s, name)
	if err := KeepCertificate(t.Context(), s, d, config, m); err != nil {
		t.Fatal(err) // which does not forget what was kept
	}
	if err := PutBack(t.Context(), s, d, config, m); err != nil || string(s[name]) != string(kept) {
		t.Errorf("put back: %v", err)
	}
	twin := machineIn(t, s, made)
	if err := PutBack(t.Context(), shelf{}, d, config, twin); !errors.Is(err, tripod.NotFound) {
		t.Errorf("another machine's copy: %v", err)
	}
}

func TestMemoryFile(t *testing.T) {
	name := MemoryFile(t.TempDir(), [16]byte{1})
	if empty, err := ReadMemory(name); err != nil || len(empty.Heads) != 0 {
		t.Fatalf("before: %v, %v", empty, err)
	}
	m := NewMemory()
	c, d := Chain{Machine: tripod.MachineID{1}}, Chain{Machine: tripod.MachineID{2}, Source: tripod.SourceID{3}}
	m.Heads[c] = Head{3, snapshot.Hash{3}, time.Unix(1_700_000_000, 0).UTC()}
	m.Heads[d] = Head{1, snapshot.Hash{1}, time.Unix(0, 0).UTC()}
	m.Forgotten[d] = Numbers{{1, 40}, {42, 42}}
	m.Keyring = Ring{2, snapshot.Hash{2}, map[snapshot.Hash]bool{{1}: true}}
	if err := m.Write(name); err != nil {
		t.Fatal(err)
	}
	got, err := ReadMemory(name)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("read back %+v, %v", got, err)
	}
	for _, line := range []string{"what", "head x y 1 z", "forgotten " + strings.Repeat("0", 32) + " " + strings.Repeat("0", 32) + " 3-1", "keyring x y", "replaced 1"} {
		if err := os.WriteFile(name, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadMemory(name); !errors.Is(err, tripod.Corrupt) || tripod.HintOf(err) == "" || len(got.Heads) != 0 {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (map[uint64]bool, Numbers) {
			list := rapid.SliceOf(rapid.Uint64Range(1, 30)).Draw(t, label)
			slices.Sort(list)
			set, s := map[uint64]bool{}, Numbers(nil)
			for _, n := range list {
				set[n] = true
				s = s.add(n)
			}
			return set, s
		}
		a, as := draw("a")
		b, bs := draw("b")
		maps.Copy(a, b)
		both := as.and(bs)
		if both.Count() != uint64(len(a)) {
			t.Fatalf("%s and %s make %s", as, bs, both)
		}
		if len(a) > 0 {
			if again, ok := parseNumbers(both.String()); !ok || !slices.Equal(again, both) {
				t.Fatalf("%s is read as %s", both, again)
			}
		}
	})
}

// looker is a machine that looks at a vault from time to time.
type looker struct {
	t      *testing.T
	s      shelf
	d      *snapshot.Descriptor
	memory *Memory
}

// wants looks and wants losses that say this, in order. Then it remembers.
func (l *looker) wants(what string, texts ...string) *View {
	l.t.Helper()
	v, err := l.memory.Look(l.t.Context(), l.s, l.d, "")
	if err != nil {
		l.t.Fatal(err)
	}
	var got []string
	for i := range v.Losses {
		err := v.Losses[i].Err(func(Chain) string { return "WHO" })
		if !errors.Is(err, tripod.Corrupt) || !strings.Contains(tripod.HintOf(err), "accept-rollback") {
			l.t.Errorf("%s: %v, hint %q", what, err, tripod.HintOf(err))
		}
		got = append(got, err.Error())
	}
	ok := len(got) == len(texts)
	for i := range got {
		ok = ok && strings.Contains(got[i], texts[i])
	}
	if !ok {
		l.t.Errorf("%s: told %q, want %q", what, got, texts)
	}
	l.memory.Merge(v)
	return v
}

// history puts records of one chain into a vault.
type history struct {
	made *Made
	m    *seal.MachineKeys
	s    shelf
	prev snapshot.Hash
}

func (h *history) put(seq uint64, began int64) (name string) {
	r := snapshot.Record{
		Company: h.made.Company.ID, Key: snapshot.Key{Machine: h.m.Machine, Source: tripod.SourceID{1}, Seq: seq}, Prev: h.prev,
		Type: tripod.Files, Time: time.Unix(began, 0),
	}
	encoded := r.Sign(h.m.Sign)
	h.prev = snapshot.HashOf(encoded)
	name = vault.RecordName(r.Key)
	h.s[name] = encoded
	return name
}

func newLooker(t *testing.T) (*looker, *history) {
	s, made := newShelf(t)
	return &looker{t, s, load(t, s).Descriptor, NewMemory()}, &history{made: made, m: machineIn(t, s, made), s: s}
}

func TestRollback(t *testing.T) {
	l, h := newLooker(t)
	h.put(1, 1)
	second := h.put(2, 2)
	l.wants("first look")
	third := h.put(3, 3)
	l.wants("grown")
	kept := h.s[third]
	h.s[third] = []byte("damaged")
	l.wants("damaged, which the catalog tells")
	h.s[third] = kept
	delete(h.s, third)
	delete(h.s, second)
	const less = "snapshots of WHO up to number 1, but this machine has seen number 3, made 1970-01-01 00:00 UTC"
	l.wants("rolled back", less)
	l.wants("as long as it is", less)
	h.put(2, 9)
	l.wants("written to again", "up to number 2")
	h.put(3, 9)
	const other = "snapshot number 3 of WHO is not the one"
	l.wants("replaced", other)
	h.put(4, 10)
	l.wants("and gone on from there", other)
	v := l.wants("which does not make it right", other)
	if v2, err := l.memory.Look(t.Context(), h.s, l.d, tripod.MachineID{9}.String()+"/"); err != nil || len(v2.Losses) != 0 {
		t.Errorf("another machine's snapshots: %v, %v", v2.Losses, err)
	}
	l.memory.Accept(v)
	l.wants("accepted")
	for name := range h.s {
		if strings.HasPrefix(name, vault.RecordPrefix) {
			delete(h.s, name)
		}
	}
	l.wants("gone", "no snapshot of WHO, but this machine has seen number 4")
}

func TestForgottenSnapshotsThatComeBackAreTold(t *testing.T) {
	l, h := newLooker(t)
	var orders []string
	for seq := uint64(1); seq <= 4; seq++ {
		record := snapshot.HashOf(h.s[h.put(seq, int64(seq))])
		o := snapshot.Order{Company: h.made.Company.ID, Key: snapshot.Key{Machine: h.m.Machine, Source: tripod.SourceID{1}, Seq: seq}, Record: record, Time: time.Unix(9, 0)}
		name := vault.OrderName(o.Key)
		if seq != 3 {
			h.s[name] = o.Encode(h.made.Company.Sign)
			orders = append(orders, name)
		}
	}
	forged := snapshot.Key{Machine: h.m.Machine, Source: tripod.SourceID{1}, Seq: 3}
	h.s[vault.OrderName(forged)] = []byte("noise")
	l.wants("first look")
	delete(h.s, vault.OrderName(forged))
	l.wants("what was no order is gone")
	delete(h.s, orders[0])
	l.wants("one is gone", "1 snapshot of WHO, forgotten by an order that this machine has seen, is in the vault again")
	h.s[orders[1]] = []byte("damaged")
	const two = "2 snapshots of WHO, forgotten by an order that this machine has seen, are in the vault again"
	l.wants("one more is damaged", two)
	l.memory.Accept(l.wants("as long as it is", two))
	l.wants("accepted")
}

// A passphrase that was changed must not become valid again in silence.
func TestAnOlderKeyringThatComesBackIsTold(t *testing.T) {
	l, _ := newLooker(t)
	l.wants("first look")
	first := l.s[vault.KeyringName(1)]
	change(t, l.s, passphrase, "a second one")
	second := l.s[vault.KeyringName(2)]
	change(t, l.s, "a second one", "a third one")
	newest, copied := vault.KeyringName(4), vault.KeyringName(5)
	l.wants("changed twice meanwhile")
	l.wants("again")
	third := l.s[copied]
	delete(l.s, newest)
	l.wants("one of two copies")
	const older = "keyring is an older one than this machine has seen: number 5 came after it"
	delete(l.s, copied)
	l.s[vault.KeyringName(1)] = first
	l.wants("the first again", older)
	delete(l.s, vault.KeyringName(1))
	l.s[vault.KeyringName(3)] = second
	l.wants("one that it has never seen", older)
	for _, old := range [][]byte{first, second, []byte("noise")} {
		l.s[copied] = old
		l.wants("under the newest one's name, which is told by Load")
		if got := load(t, l.s); !errors.Is(got.Damage, tripod.Corrupt) {
			t.Errorf("loaded: %v", got.Damage)
		}
	}
	l.s[copied] = third
	l.wants("put back")
	other, err := New(passphrase, time.Now(), cheap)
	if err != nil {
		t.Fatal(err)
	}
	at := len("tripod 1 keyring\n")
	copy(other.Keyring[at:], l.d.Company[:])
	other.Keyring[at+19] = 5
	l.s[copied] = other.Keyring
	l.wants("another one under its name", "keyring number 5 is not the one that this machine has seen")
	delete(l.s, copied)
	l.memory.Accept(l.wants("removed", older))
	l.wants("accepted")
	change(t, l.s, "a second one", "a fourth one")
	l.wants("changed")
	clear(l.s)
	l.wants("none", "keyring is missing")
}

// Of a newest record that is damaged, the owner's word makes nothing known.
func TestAcceptingKeepsWhatIsKnownOfADamagedRecord(t *testing.T) {
	l, h := newLooker(t)
	h.put(1, 1)
	l.wants("first look")
	second := h.put(2, 2)
	kept := h.s[second]
	h.s[second] = []byte{}
	l.memory.Accept(l.wants("damaged, and never seen whole"))
	l.wants("accepted")
	h.s[second] = kept
	l.wants("mended")
	h.s[second] = []byte("damaged")
	l.memory.Accept(l.wants("damaged, and seen before"))
	if got := l.memory.Heads[Chain{h.m.Machine, tripod.SourceID{1}}]; got.Seq != 2 || got.Hash != snapshot.HashOf(kept) {
		t.Errorf("remembers %+v", got)
	}
	delete(h.s, second)
	l.wants("gone", "up to number 1, but this machine has seen number 2, made 1970-01-01 00:00 UTC")
}

// A bad place in one of two copies costs nothing, wherever it is.
func TestADamagedKeyringIsOpenedByItsCopy(t *testing.T) {
	for _, bad := range []int{1, 2} {
		s, made := newShelf(t)
		if err := made.Spare(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		whole := s[vault.KeyringName(bad)]
		for at := range whole {
			if at%41 != 0 && at < len(whole)-1 {
				continue // some of them are enough
			}
			spoiled := slices.Clone(whole)
			spoiled[at] ^= 4
			s[vault.KeyringName(bad)] = spoiled
			sealed, err := Load(t.Context(), s)
			if err != nil {
				t.Fatalf("byte %d of copy %d: %v", at, bad, err)
			}
			if _, err := sealed.OpenPassphrase(passphrase); err != nil {
				t.Fatalf("byte %d of copy %d: %v", at, bad, err)
			}
			if _, err := sealed.OpenCode(made.Code); err != nil {
				t.Fatalf("byte %d of copy %d, by the code: %v", at, bad, err)
			}
		}
	}
}

func TestADamagedKeyringIsNamed(t *testing.T) {
	s, made := newShelf(t)
	name := vault.KeyringName(1)
	spoiled := slices.Clone(s[name])
	spoiled[len(spoiled)-1] ^= 1
	s[name] = spoiled
	for _, spare := range []bool{false, true} {
		if spare {
			s[vault.KeyringName(2)] = made.Keyring[:len(made.Keyring)-1]
		}
		_, err := load(t, s).OpenPassphrase(passphrase)
		if !errors.Is(err, tripod.Corrupt) || !strings.Contains(err.Error(), name) || !strings.Contains(tripod.HintOf(err), "another copy") {
			t.Errorf("no whole copy: %v: %s", err, tripod.HintOf(err))
		}
	}
	s[vault.KeyringName(2)] = made.Keyring
	s[name], s[vault.KeyringName(2)] = s[vault.KeyringName(2)], s[name]
	sealed := load(t, s)
	if _, err := sealed.OpenPassphrase(passphrase); err != nil || sealed.Damage == nil || !strings.Contains(sealed.Damage.Error(), vault.KeyringName(2)) {
		t.Errorf("%v, damage %v", err, sealed.Damage)
	}
	// Whoever sees this has it written anew.
	if err := sealed.ChangePassphrase(t.Context(), s, "", "something else", cheap); err != nil {
		t.Fatal(err)
	}
	sealed = load(t, s)
	if _, err := sealed.OpenPassphrase("something else"); err != nil || sealed.Damage != nil {
		t.Errorf("%v, damage %v", err, sealed.Damage)
	}
	if _, err := sealed.OpenPassphrase(passphrase); !errors.Is(err, tripod.Denied) {
		t.Errorf("the one before: %v", err)
	}
}

// Nothing may be stored into a vault that is half another company's.
func TestAnExchangedDescriptorIsRefused(t *testing.T) {
	s, _ := newShelf(t)
	other, _ := newShelf(t)
	if err := Mixed(t.Context(), s, load(t, s).Descriptor); err != nil {
		t.Error(err)
	}
	d := load(t, other).Descriptor
	if err := Mixed(t.Context(), s, d); !errors.Is(err, tripod.Corrupt) || tripod.HintOf(err) == "" {
		t.Errorf("another's descriptor: %v", err)
	}
	s[vault.KeyringName(1)] = []byte("damaged")
	if err := Mixed(t.Context(), s, d); err != nil {
		t.Errorf("a damaged keyring: %v", err)
	}
}
