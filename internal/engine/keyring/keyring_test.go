package keyring

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

var cheap = seal.Argon{Time: 1, Memory: 64, Threads: 1}

const passphrase = "correct horse battery staple"

func newShelf(t *testing.T) (shelf, *Made) {
	t.Helper()
	made, err := New(passphrase, time.Now(), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return shelf{vault.DescriptorName: made.Descriptor, documentName(1): made.Keyring}, made
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

func TestChangePassphrase(t *testing.T) {
	s, made := newShelf(t)
	if err := load(t, s).ChangePassphrase(t.Context(), s, seal.PassphraseSlot, passphrase, "a second one", cheap); err != nil {
		t.Fatal(err)
	}
	sealed := load(t, s)
	if sealed.Number != 2 {
		t.Errorf("keyring %d, want 2", sealed.Number)
	}
	if _, err := sealed.OpenPassphrase(passphrase); !errors.Is(err, tripod.Denied) {
		t.Errorf("old passphrase: %v", err)
	}
	if _, err := sealed.OpenPassphrase("a second one"); err != nil {
		t.Errorf("new passphrase: %v", err)
	}
	if err := sealed.ChangePassphrase(t.Context(), s, seal.RecoverySlot, string(made.Code[:]), "a third one", cheap); err != nil {
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
	s[documentName(2)] = []byte("rubbish")
	s["keyring/notes"] = []byte("not ours")
	sealed := load(t, s)
	if _, err := sealed.OpenPassphrase(passphrase); err != nil {
		t.Error(err)
	}
	if sealed.Number != 2 || !errors.Is(sealed.Damage, tripod.Corrupt) || tripod.HintOf(sealed.Damage) == "" {
		t.Errorf("number %d, want 2; damage %v", sealed.Number, sealed.Damage)
	}
	s[documentName(3)] = s[documentName(1)]
	if sealed = load(t, s); sealed.Damage != nil {
		t.Errorf("damaged and replaced: %v", sealed.Damage)
	}
	delete(s, documentName(3))
	delete(s, documentName(1))
	if _, err := Load(t.Context(), s); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("only a damaged one: %v", err)
	}
	delete(s, documentName(2))
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
	ring := s[documentName(1)]
	at := len("tripod 1 keyring\n") + 16 + 1 + 26 + 2 + 60 + 1 // the code slot's salt
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

func TestHeads(t *testing.T) {
	name := filepath.Join(t.TempDir(), "vaults", "v", "heads")
	c, d := Chain{Machine: tripod.MachineID{1}}, Chain{Machine: tripod.MachineID{2}}
	seen := Heads{c: {3, snapshot.Hash{3}}}
	if empty, err := ReadHeads(name); err != nil || len(empty) != 0 {
		t.Fatalf("before: %v, %v", empty, err)
	}
	if !seen.Merge(Heads{d: {1, snapshot.Hash{1}}, c: {2, snapshot.Hash{2}}}) || seen[c].Seq != 3 || seen[d].Seq != 1 {
		t.Errorf("merged: %v", seen)
	}
	if seen.Merge(Heads{d: {1, snapshot.Hash{1}}}) {
		t.Error("merging what is known changed something")
	}
	if err := seen.Write(name); err != nil {
		t.Fatal(err)
	}
	got, err := ReadHeads(name)
	if err != nil || !maps.Equal(got, seen) {
		t.Errorf("read back %v, %v", got, err)
	}
	if !Under(vault.RecordPrefix, c) || !Under(vault.RecordPrefix+c.Machine.String()+"/", c) || Under(vault.RecordPrefix+c.Machine.String()+"/", d) {
		t.Error("under")
	}
	if err := os.WriteFile(name, []byte("what\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadHeads(name); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("damaged: %v", err)
	}
}

func TestRollback(t *testing.T) {
	s, made := newShelf(t)
	m, err := made.Company.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	var prev snapshot.Hash
	put := func(seq uint64, began time.Time) string {
		r := snapshot.Record{
			Company: made.Company.ID, Key: snapshot.Key{Machine: m.Machine, Seq: seq}, Prev: prev,
			Type: tripod.Files, Time: began,
		}
		encoded := r.Sign(m.Sign)
		prev = snapshot.HashOf(encoded)
		name := vault.RecordPrefix + vault.KeyPath(r.Key)
		s[name] = encoded
		return name
	}
	put(1, time.Unix(1, 0))
	second := put(2, time.Unix(2, 0))
	seen, problems, err := ScanAll(t.Context(), s, Heads{})
	if err != nil || len(problems) != 0 || len(seen) != 1 {
		t.Fatalf("first look: %v, %v, %v", seen, problems, err)
	}
	third := put(3, time.Unix(3, 0))
	if _, problems, _ := ScanAll(t.Context(), s, seen); len(problems) != 0 {
		t.Errorf("grown: %v", problems)
	}
	delete(s, third)
	delete(s, second)
	_, problems, _ = ScanAll(t.Context(), s, seen)
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "up to number 1, but this machine has seen number 2") {
		t.Errorf("rolled back: %v", problems)
	}
	put(2, time.Unix(9, 0))
	if _, problems, _ = ScanAll(t.Context(), s, seen); len(problems) != 1 || !strings.Contains(problems[0].Error(), "not the one") {
		t.Errorf("replaced: %v", problems)
	}
	clear(s)
	if _, problems, _ = ScanAll(t.Context(), s, seen); len(problems) != 1 {
		t.Errorf("gone: %v", problems)
	}
}
