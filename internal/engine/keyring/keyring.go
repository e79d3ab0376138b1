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
	"strings"
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
	ring, err := seal.NewKeyring(company, passphrase, m.Code, cost, now)
	if err != nil {
		return nil, err
	}
	d := snapshot.Descriptor{Company: public.ID, Vault: m.Vault, Box: public.Box, Sign: public.Sign, Created: now}
	m.Descriptor = d.Encode(company.Sign)
	m.Keyring = ring.Marshal()
	return m, nil
}

const hintAnew = "look at the disk that damaged it; tripod vault passphrase writes the keyring anew, twice"

const (
	minPassphrase = 8 // characters
	copies        = 2 // of a keyring that are stored
)

// Spare stores the second copy of a new vault's keyring: a keyring is all that
// there is of the keys, and a bad place on a disk must not take it.
func (m *Made) Spare(ctx context.Context, a vault.Admin) error {
	if err := a.PutDocument(ctx, vault.KeyringName(copies), m.Keyring); err != nil {
		return fmt.Errorf("copy of the keyring: %w", err)
	}
	return nil
}

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
	// Unlocked is what the keyring holds, once it was opened. Its keys in force are
	// those of the descriptor; others are left from a change of the company's key
	// that has not ended.
	Unlocked *seal.Unlocked

	unread error        // the part of Damage that loading found
	name   string       // of the keyring's object
	spares []sealedCopy // of it, stored under other names with other bytes
}

// sealedCopy is a keyring as stored.
type sealedCopy struct {
	name string
	ring *seal.Keyring
}

// Documents is the part of vault.Reader that keys need.
type Documents interface {
	Documents(ctx context.Context, prefix string, fn func(name string, content []byte) error) error
}

// Writable is where documents are read and changed: a session with a vault.
type Writable interface {
	Documents
	vault.Admin
}

// Describe reads a vault's descriptor and follows the company's keys to the one in
// force; NotFound when there is none.
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
	if err != nil {
		return nil, err
	}
	err = r.Documents(ctx, vault.SuccessionPrefix, func(name string, content []byte) (err error) {
		// What is not next has no place in the chain, and is not needed for it.
		if name == vault.SuccessionName(d.Number()+1) {
			d, err = d.Succeed(content)
		}
		return err
	})
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
	var damaged int  // the highest of these
	var all []sealedCopy
	err = r.Documents(ctx, vault.KeyringPrefix, func(name string, content []byte) error {
		n, ok := vault.ParseKeyringName(name)
		if !ok {
			return nil // not one of ours
		}
		ring, err := seal.UnmarshalKeyring(content)
		switch {
		case err != nil:
			damage = fmt.Errorf("%s: %w", name, err)
		case ring.Company != d.Company:
			damage = tripod.Errorf(tripod.Corrupt, "%s: belongs to another company", name)
		case !belongs(ring, n):
			damage = tripod.Errorf(tripod.Corrupt, "%s: is keyring number %d, an older one", name, ring.Number)
		default:
			s.Keyring, s.name, damage = ring, name, nil
			all = append(all, sealedCopy{name, ring})
		}
		if damage != nil {
			damaged = n
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
	case damage != nil && belongs(s.Keyring, damaged):
		s.unread = tripod.Errorf(tripod.Corrupt, "one copy of the vault's keyring cannot be read, the other is used: %w", damage).
			WithHint(hintAnew)
	case damage != nil:
		s.unread = tripod.Errorf(tripod.Corrupt, "the vault's newest keyring cannot be read, one before it is used: %w", damage).
			WithHint("copy the files below keyring/ from another copy of this vault; until then a passphrase from before the last change is the one that opens")
	}
	for _, c := range all {
		if c.ring.Number == s.Keyring.Number && !bytes.Equal(c.ring.Marshal(), s.Keyring.Marshal()) {
			s.spares = append(s.spares, c)
		}
	}
	s.Damage = s.unread
	return s, nil
}

// belongs tells whether a keyring lies under its own number, or its copy's.
func belongs(ring *seal.Keyring, n int) bool {
	return n >= int(ring.Number) && n < int(ring.Number)+copies
}

// OpenPassphrase opens the keyring with a passphrase; Denied when it is wrong.
func (s *Sealed) OpenPassphrase(passphrase string) (*seal.CompanyKeys, error) {
	return s.opened(s.try(func(k *seal.Keyring) (*seal.Unlocked, error) { return k.OpenPassphrase(passphrase) }))
}

// OpenCode opens the keyring with a recovery code; Denied when it is another
// company's.
func (s *Sealed) OpenCode(code seal.RecoveryCode) (*seal.CompanyKeys, error) {
	return s.opened(s.try(func(k *seal.Keyring) (*seal.Unlocked, error) { return k.OpenCode(code) }))
}

// try opens the newest keyring, or the copy of it that was stored along with it:
// when the two differ, one is damaged.
func (s *Sealed) try(open func(*seal.Keyring) (*seal.Unlocked, error)) (*seal.Unlocked, error) {
	u, err := open(s.Keyring)
	if err == nil {
		return u, nil
	}
	for _, c := range s.spares {
		if u, spareErr := open(c.ring); spareErr == nil {
			s.unread = errors.Join(s.unread, tripod.Errorf(tripod.Corrupt, "%s is damaged, its copy %s was used: %w", s.name, c.name, err).
				WithHint(hintAnew))
			s.Keyring = c.ring
			return u, nil
		}
	}
	if errors.Is(err, tripod.Corrupt) {
		return nil, tripod.Errorf(tripod.Corrupt, "%s is damaged: %w", s.name, err).
			WithHint("copy the files below keyring/ from another copy of this vault, or from beside the recovery kit")
	}
	if len(s.spares) > 0 && errors.Is(err, tripod.Denied) {
		hint := tripod.HintOf(err)
		return nil, tripod.Errorf(tripod.Denied, "%w", err).
			WithHint("%s; %s or its copy is damaged too, so the files below keyring/ of another copy of this vault may open where these do not", hint, s.name)
	}
	return nil, err
}

// Mixed returns Corrupt when the vault's descriptor is not of the company whose
// keyring lies beside it: then what a machine stores would come among the data of
// someone else, who cannot open it.
func Mixed(ctx context.Context, r Documents, d *snapshot.Descriptor) error {
	return r.Documents(ctx, vault.KeyringPrefix, func(name string, content []byte) error {
		if _, ok := vault.ParseKeyringName(name); !ok {
			return nil
		}
		ring, err := seal.UnmarshalKeyring(content)
		if err != nil || ring.Company == d.Company {
			return nil //nolint:nilerr // a damaged one says nothing of whose it is
		}
		return tripod.Errorf(tripod.Corrupt, "the vault's descriptor is of company %.8s, %s of company %.8s: one of them was exchanged", d.Company, name, ring.Company).
			WithHint("nothing was stored; put the file %s and the folder %s of another copy of this vault in their places", vault.DescriptorName, vault.KeyringPrefix)
	})
}

// opened refuses a descriptor that was signed by someone else's key: whoever
// keeps the vault could have exchanged it, and would then be the company.
func (s *Sealed) opened(u *seal.Unlocked, err error) (*seal.CompanyKeys, error) {
	if err != nil {
		return nil, err
	}
	s.Damage = errors.Join(s.unread, u.Damage)
	u.Keys.Use(s.Descriptor.Sign) // if not, the descriptor does not fit
	public, err := u.Keys.Public()
	if err != nil {
		return nil, err
	}
	if s.Descriptor.Succeeds(public.Box, public.Sign) {
		// A copy of the vault takes over the next key before the keyring that holds it.
		s.Damage = errors.Join(s.Damage, tripod.Errorf(tripod.Corrupt, "the keyring is from before company key %d, and opens only what is older", s.Descriptor.Number()).
			WithHint("bring this copy of the vault up to date, or copy the files below keyring/ from another one"))
	} else if err := Pinned(s.Descriptor, &public); err != nil {
		return nil, err
	}
	s.Unlocked = u
	return u.Keys, nil
}

// Pinned returns Corrupt unless the vault speaks for the company that was
// pinned: when this machine was enrolled, or in the keyring.
func Pinned(d *snapshot.Descriptor, pinned *seal.CompanyPublic) error {
	if d.Company != pinned.ID || !bytes.Equal(d.Box, pinned.Box) || !bytes.Equal(d.Sign, pinned.Sign) {
		return tripod.Errorf(tripod.Corrupt, "the vault's descriptor does not carry the keys of company %s: it was exchanged, or rolled back", pinned.ID).
			WithHint("do not use this vault; ask whoever keeps it what happened")
	}
	return nil
}

// Follow is Pinned for a machine that may have pinned a company key of before: then
// it pins the one in force, to which the keys in between lead, and reports so.
func Follow(d *snapshot.Descriptor, pinned *seal.CompanyPublic) (changed bool, err error) {
	if d.Company == pinned.ID && d.Succeeds(pinned.Box, pinned.Sign) {
		pinned.Box, pinned.Sign = d.Box, d.Sign
		return true, nil
	}
	return false, Pinned(d, pinned)
}

// Change stores the next keyring, as change leaves it of the one that was opened,
// and removes those before. They are still there, for whoever has the secrets of
// then, when removing is what fails.
func (s *Sealed) Change(ctx context.Context, a Writable, change func(u *seal.Unlocked) error) error {
	if s.Unlocked == nil {
		return tripod.Errorf(tripod.Denied, "keyring: was not opened")
	}
	if !s.Descriptor.Sign.Equal(s.Unlocked.Keys.Sign.Public()) {
		return tripod.Errorf(tripod.Conflict, "the keyring is from before the company's key was replaced, and must not be changed").
			WithHint("bring this copy of the vault up to date first")
	}
	if err := change(s.Unlocked); err != nil {
		return err
	}
	next, err := s.Unlocked.Seal(uint32(s.Number) + 1) //nolint:gosec // never as many
	if err != nil {
		return err
	}
	// Twice, see Spare.
	encoded := next.Marshal()
	for range copies {
		if err := a.PutDocument(ctx, vault.KeyringName(s.Number+1), encoded); err != nil {
			return fmt.Errorf("new keyring: %w", err)
		}
		s.Number++
	}
	s.Keyring = next
	return s.clear(ctx, a)
}

// clear removes the keyrings that were replaced.
func (s *Sealed) clear(ctx context.Context, a Writable) error {
	var old []string
	err := a.Documents(ctx, vault.KeyringPrefix, func(name string, _ []byte) error {
		if n, ok := vault.ParseKeyringName(name); ok && n <= s.Number-copies {
			old = append(old, name)
		}
		return nil
	})
	for _, name := range old {
		if err == nil {
			err = a.RemoveDocument(ctx, name)
		}
	}
	if err != nil {
		return fmt.Errorf("the new keyring is stored and counts, but the one before could not be removed: %w", err)
	}
	return nil
}

// ChangePassphrase gives a holder a new passphrase: the one whose passphrase opened
// the keyring when name is empty, or the only one. The recovery code stays.
func (s *Sealed) ChangePassphrase(ctx context.Context, a Writable, name, passphrase string, cost seal.Argon) error {
	return s.Change(ctx, a, func(u *seal.Unlocked) error {
		if name == "" {
			var err error
			if name, err = s.holder(); err != nil {
				return err
			}
		}
		return u.SetPassphrase(name, passphrase, cost, time.Now())
	})
}

// holder is whose passphrase it is that changes when nobody says.
func (s *Sealed) holder() (string, error) {
	if s.Unlocked.By.Type == seal.PassphraseSlot {
		return s.Unlocked.By.Name, nil
	}
	var names []string
	for _, h := range s.Unlocked.Holders() {
		if h.Type == seal.PassphraseSlot {
			names = append(names, h.Name)
		}
	}
	if len(names) != 1 {
		return "", tripod.Errorf(tripod.Invalid, "there are %d passphrases, of %s: which one shall change?", len(names), strings.Join(names, ", ")).
			WithHint("name its holder: --holder %s", names[0])
	}
	return names[0], nil
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
