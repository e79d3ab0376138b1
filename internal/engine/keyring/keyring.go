// Package keyring is how people and machines get hold of a company's keys: it
// makes a company and what its vault begins with, opens the sealed keyring with
// a passphrase or a recovery code, changes the passphrase, and enrols machines.
//
// Two other things lie on a machine and belong to keys: its own write keys
// (machine.go), and what it has seen of each vault (memory.go), by which a vault
// that was rolled back is found out (look.go).
//
//	made, err := keyring.New(passphrase, time.Now(), seal.DefaultArgon())
//	...local.Create(ctx, store, made.Descriptor, made.Keyring)
//
//	sealed, err := keyring.Load(ctx, reader)
//	company, err := sealed.OpenPassphrase(passphrase)
//	machine, err := company.NewMachine()
//	err = keyring.Endorse(ctx, admin, sealed.Descriptor, company, machine, time.Now())
package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// Made is a new company and what its first vault begins with.
type Made struct {
	Company    *seal.CompanyKeys
	Vault      [16]byte
	Code       seal.RecoveryCode // shown once, kept nowhere
	Descriptor []byte            // signed; see snapshot.Descriptor
	Keyring    []byte            // sealed for the passphrase and the code
}

// New makes a company, a recovery code for it, and the two documents that its
// first vault begins with.
func New(passphrase string, now time.Time, cost seal.Argon) (*Made, error) {
	company, err := seal.NewCompany()
	if err != nil {
		return nil, err
	}
	public, err := company.Public()
	if err != nil {
		return nil, err
	}
	m := &Made{Company: company, Code: seal.NewRecoveryCode()}
	_, _ = rand.Read(m.Vault[:]) // never fails
	ring, err := seal.NewKeyring(company, passphrase, m.Code, cost)
	if err != nil {
		return nil, err
	}
	d := snapshot.Descriptor{Company: public.ID, Vault: m.Vault, Box: public.Box, Sign: public.Sign, Created: now}
	m.Descriptor = d.Encode(company.Sign)
	m.Keyring = ring.Marshal()
	return m, nil
}

const minPassphrase = 8 // characters

// StrongEnough refuses a new passphrase that anyone who gets hold of the vault
// would guess at once.
func StrongEnough(passphrase string) error {
	if utf8.RuneCountInString(passphrase) >= minPassphrase {
		return nil
	}
	return tripod.Errorf(tripod.Invalid, "passphrase: needs %d characters or more", minPassphrase).
		WithHint("whoever gets a copy of the vault can try passphrases as fast as their machines allow; several random words are best")
}

// Sealed is a vault's descriptor and its newest keyring, which a holder opens.
type Sealed struct {
	Descriptor *snapshot.Descriptor
	Keyring    *seal.Keyring
	Number     int // of the keyring: the highest counts
	// Damage is set by loading and opening: Corrupt when a newer keyring cannot be
	// read or another holder's way in is not what it was, which someone should
	// know before it is needed.
	Damage error
	unread error // the part of it that loading found
}

// Documents is the part of vault.Reader that keys need.
type Documents interface {
	Documents(ctx context.Context, prefix string, fn func(name string, content []byte) error) error
}

// Describe reads a vault's descriptor; NotFound when there is none.
func Describe(ctx context.Context, r Documents) (*snapshot.Descriptor, error) {
	var d *snapshot.Descriptor
	err := r.Documents(ctx, vault.DescriptorName, func(name string, content []byte) (err error) {
		if name == vault.DescriptorName {
			d, err = snapshot.ParseDescriptor(content)
		}
		return err
	})
	if err == nil && d == nil {
		err = tripod.Errorf(tripod.NotFound, "vault descriptor: missing")
	}
	return d, err
}

// Load reads a vault's descriptor and its newest readable keyring.
func Load(ctx context.Context, r Documents) (*Sealed, error) {
	d, err := Describe(ctx, r)
	if err != nil {
		return nil, err
	}
	s := &Sealed{Descriptor: d}
	var damage error // of those newer than s.Keyring
	err = r.Documents(ctx, vault.KeyringPrefix, func(name string, content []byte) error {
		var n int
		if _, err := fmt.Sscanf(name, vault.KeyringPrefix+"%d", &n); err != nil || n < 1 || name != documentName(n) {
			return nil // not one of ours
		}
		ring, err := seal.UnmarshalKeyring(content)
		switch {
		case err != nil:
			damage = fmt.Errorf("%s: %w", name, err)
		case ring.Company != d.Company:
			damage = tripod.Errorf(tripod.Corrupt, "%s: belongs to another company", name)
		default:
			s.Keyring, damage = ring, nil
		}
		// A damaged one keeps its number, so that the next is written behind it.
		s.Number = max(s.Number, n)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case s.Keyring == nil && damage != nil:
		return nil, tripod.Errorf(tripod.Corrupt, "the vault's keyring cannot be read: %w", damage).
			WithHint("copy the files below keyring/ from another copy of this vault")
	case s.Keyring == nil:
		return nil, tripod.Errorf(tripod.Corrupt, "the vault's keyring is missing").
			WithHint("copy the files below keyring/ from another copy of this vault")
	case damage != nil:
		s.unread = tripod.Errorf(tripod.Corrupt, "the vault's newest keyring cannot be read, one before it is used: %w", damage).
			WithHint("copy the files below keyring/ from another copy of this vault; until then a passphrase from before the last change is the one that opens")
	}
	s.Damage = s.unread
	return s, nil
}

func documentName(n int) string { return fmt.Sprintf("%s%08d", vault.KeyringPrefix, n) }

// OpenPassphrase opens the keyring with a passphrase; Denied when it is wrong.
func (s *Sealed) OpenPassphrase(passphrase string) (*seal.CompanyKeys, error) {
	keys, damage, err := s.Keyring.OpenPassphrase(passphrase)
	s.Damage = errors.Join(s.unread, damage)
	return s.checked(keys, err)
}

// OpenCode opens the keyring with a recovery code; Denied when it is another
// company's.
func (s *Sealed) OpenCode(code seal.RecoveryCode) (*seal.CompanyKeys, error) {
	keys, damage, err := s.Keyring.OpenCode(code)
	s.Damage = errors.Join(s.unread, damage)
	return s.checked(keys, err)
}

// checked refuses a descriptor that was signed by someone else's key: whoever
// keeps the vault could have exchanged it, and would then be the company.
func (s *Sealed) checked(keys *seal.CompanyKeys, err error) (*seal.CompanyKeys, error) {
	if err != nil {
		return nil, err
	}
	public, err := keys.Public()
	if err != nil {
		return nil, err
	}
	return keys, Pinned(s.Descriptor, &public)
}

// Pinned returns Corrupt unless the vault speaks for the company that was
// pinned: when this machine was enrolled, or in the keyring.
func Pinned(d *snapshot.Descriptor, pinned *seal.CompanyPublic) error {
	if d.Company != pinned.ID || !bytes.Equal(d.Box, pinned.Box) || !bytes.Equal(d.Sign, pinned.Sign) {
		return tripod.Errorf(tripod.Corrupt, "the vault's descriptor does not carry the keys of company %s: it was exchanged", pinned.ID).
			WithHint("do not use this vault; ask whoever keeps it what happened")
	}
	return nil
}

// ChangePassphrase seals the keyring for a new passphrase instead of every old
// one, and stores it. The recovery code stays.
func (s *Sealed) ChangePassphrase(ctx context.Context, a vault.Admin, holder seal.SlotType, old, passphrase string, cost seal.Argon) error {
	next, err := s.Keyring.Rewrap(holder, old, passphrase, cost)
	if err != nil {
		return err
	}
	if err := a.PutDocument(ctx, documentName(s.Number+1), next.Marshal()); err != nil {
		return fmt.Errorf("new keyring: %w", err)
	}
	s.Keyring = next
	s.Number++
	return nil
}

// Endorse makes the company's certificate for a machine and stores it. The
// invitation it is made under is used this once.
func Endorse(ctx context.Context, a vault.Admin, d *snapshot.Descriptor, company *seal.CompanyKeys, m *seal.MachineKeys, now time.Time) error {
	public, private, err := seal.NewSigner()
	if err != nil {
		return tripod.Errorf(tripod.Internal, "invitation key: %w", err)
	}
	i := snapshot.Invitation{Company: company.ID, Key: public, Expires: now}
	key := m.Sign.Public()
	c := snapshot.Certificate{
		Company: company.ID, Machine: m.Machine, Key: ed25519Key(key), Enrolled: now,
		Invitation: i.Encode(company.Sign),
	}
	encoded := c.Encode(private)
	if _, err := snapshot.ParseCertificate(encoded, d); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := a.PutDocument(ctx, vault.CertificatePrefix+m.Machine.String(), encoded); err != nil {
		return fmt.Errorf("certificate of this machine: %w", err)
	}
	return nil
}

// Endorsed reports whether the vault holds a valid certificate of this machine.
// One that is damaged counts as missing: PutBack and Endorse replace it.
func Endorsed(ctx context.Context, r Documents, d *snapshot.Descriptor, m *seal.MachineKeys) (bool, error) {
	encoded, err := certificate(ctx, r, d, m)
	return encoded != nil, err
}

func certificate(ctx context.Context, r Documents, d *snapshot.Descriptor, m *seal.MachineKeys) (encoded []byte, err error) {
	name := vault.CertificateName(m.Machine)
	err = r.Documents(ctx, name, func(n string, content []byte) error {
		if n != name {
			return nil
		}
		err := certifies(content, d, m)
		if err == nil {
			encoded = bytes.Clone(content)
		}
		if errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.Denied) {
			return nil
		}
		return err
	})
	return encoded, err
}

// certifies checks that a certificate is good for this machine.
func certifies(encoded []byte, d *snapshot.Descriptor, m *seal.MachineKeys) error {
	c, err := snapshot.ParseCertificate(encoded, d)
	if err != nil {
		return err
	}
	if c.Machine != m.Machine {
		return tripod.Errorf(tripod.Corrupt, "certificate of machine %.8s: lies under another's name", c.Machine)
	}
	if !bytes.Equal(c.Key, ed25519Key(m.Sign.Public())) {
		return tripod.Errorf(tripod.Conflict, "the vault's certificate of machine %.8s is for another key", m.Machine)
	}
	return nil
}

// Machines counts the machines that a vault has certificates of.
func Machines(ctx context.Context, r Documents) (n int, err error) {
	err = r.Documents(ctx, vault.CertificatePrefix, func(string, []byte) error {
		n++
		return nil
	})
	return n, err
}
