package seal

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/tripod"
)

// Holder is one of those who can open a keyring.
type Holder struct {
	Name  string
	Type  SlotType
	Added time.Time // or when its secret was last changed
}

// Names of the holders that a new keyring has.
const (
	FirstHolder = "owner"
	CodeHolder  = "recovery code"
)

const maxHolderName = 64 // bytes

// Unlocked is what a keyring holds. Its methods change who opens the next one,
// which Seal makes; the keyring itself stays as it is.
type Unlocked struct {
	Keys *CompanyKeys
	By   Holder // whose secret opened the keyring
	// Damage is Corrupt when another holder's slot is not what it was. The next
	// keyring has it whole again.
	Damage error

	company tripod.CompanyID
	holders []holder
}

// holder is a holder as a keyring seals it: what it takes to seal to it again.
type holder struct {
	Holder
	slot Slot     // without what it opens
	sum  [32]byte // of the slot, with it
}

// Holders lists who opens the keyring, in the order in which they were added.
func (u *Unlocked) Holders() []Holder {
	var all []Holder
	for i := range u.holders {
		all = append(all, u.holders[i].Holder)
	}
	return all
}

// AddPassphrase adds a holder with a passphrase. It returns Exists when there is
// one of this name.
func (u *Unlocked) AddPassphrase(name, passphrase string, cost Argon, now time.Time) error {
	switch {
	case name == "" || len(name) > maxHolderName || !utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unprintable):
		return tripod.Errorf(tripod.Invalid, "holder %q: is no name", name).WithHint("give 1 to %d letters, as people read them", maxHolderName)
	case u.find(name) >= 0 || name == CodeHolder:
		return tripod.Errorf(tripod.Exists, "holder %q: is there already", name).
			WithHint("choose another name, or change its passphrase: tripod vault passphrase --holder")
	}
	return u.set(name, passphrase, cost, now)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// SetPassphrase gives a holder another passphrase. It returns NotFound when there
// is no holder of this name.
func (u *Unlocked) SetPassphrase(name, passphrase string, cost Argon, now time.Time) error {
	if i := u.find(name); i < 0 || u.holders[i].Type != PassphraseSlot {
		return noHolder(name)
	}
	return u.set(name, passphrase, cost, now)
}

func noHolder(name string) error {
	return tripod.Errorf(tripod.NotFound, "holder %q: there is no passphrase of this name", name).
		WithHint("list them: tripod vault holder list")
}

func (u *Unlocked) set(name, passphrase string, cost Argon, now time.Time) error {
	if err := checkNew(passphrase, cost); err != nil {
		return err
	}
	return u.put(Holder{name, PassphraseSlot, now}, cost, passphrase)
}

// SetCode makes a recovery code the only one.
func (u *Unlocked) SetCode(code RecoveryCode, now time.Time) error {
	return u.put(Holder{CodeHolder, RecoverySlot, now}, Argon{}, string(code[:]))
}

func (u *Unlocked) put(who Holder, cost Argon, secret string) error {
	slot, err := newSlot(who.Type, cost, secret)
	if err != nil {
		return err
	}
	h := holder{Holder: who, slot: slot}
	if i := u.find(who.Name); i >= 0 {
		u.holders[i] = h
		return nil
	}
	if len(u.holders) == maxSlots {
		return tripod.Errorf(tripod.Exhausted, "keyring: has room for %d holders", maxSlots).
			WithHint("remove one: tripod vault holder remove")
	}
	u.holders = append(u.holders, h)
	return nil
}

// Remove leaves a holder of a passphrase out of the next keyring. The last
// passphrase stays, and so does the recovery code, which can only be replaced.
func (u *Unlocked) Remove(name string) error {
	i := u.find(name)
	if i >= 0 && u.holders[i].Type == RecoverySlot {
		return tripod.Errorf(tripod.Denied, "the recovery code cannot be removed, it is the way in when all else is lost").
			WithHint("make a new one, then the old one opens nothing: tripod vault recovery-code")
	}
	if i < 0 {
		return noHolder(name)
	}
	left := 0
	for _, h := range u.holders {
		if h.Type == PassphraseSlot {
			left++
		}
	}
	if left == 1 {
		return tripod.Errorf(tripod.Denied, "holder %q: has the last passphrase, which stays", name).
			WithHint("change it, or add another holder first: tripod vault holder add")
	}
	u.holders = slices.Delete(u.holders, i, i+1)
	return nil
}

func (u *Unlocked) find(name string) int {
	return slices.IndexFunc(u.holders, func(h holder) bool { return h.Name == name })
}

// Seal makes the next keyring, of this number: the keys under a fresh secret, sealed to each
// holder. None of them is needed for it but the one who opened the last.
func (u *Unlocked) Seal(number uint32) (*Keyring, error) {
	k := &Keyring{Company: u.company, Number: number}
	secret := randomSecret()
	b := cryptobyte.NewBuilder(nil)
	b.AddUint8(uint8(len(u.holders)))
	for i := range u.holders {
		h := &u.holders[i]
		if err := h.slot.wrap(u.company, secret); err != nil {
			return nil, err
		}
		h.sum = h.slot.sum()
		k.Slots = append(k.Slots, h.slot)
		h.slot.addParameters(b)
		b.AddBytes(h.sum[:])
		addBytes(b, []byte(h.Name))
		b.AddUint64(uint64(h.Added.Unix())) //nolint:gosec // read back the same way
	}
	b.AddBytes(u.Keys.marshal())
	k.sealed = sealWith(secret, k.additional(), b.BytesOrPanic())
	return k, nil
}

// unlocked decodes what a keyring seals, opened by one of its slots.
func (k *Keyring) unlocked(plain []byte, by *Slot) (*Unlocked, error) {
	malformed := tripod.Errorf(tripod.Corrupt, "keyring: its content is malformed")
	s := cryptobyte.String(plain)
	u := &Unlocked{company: k.Company}
	var n uint8
	if !s.ReadUint8(&n) || n == 0 || n > maxSlots {
		return nil, malformed
	}
	opener := by.sum()
	for range n {
		var h holder
		var name []byte
		var added uint64
		if !h.slot.readParameters(&s) || !s.CopyBytes(h.sum[:]) || !readBytes(&s, &name) || !s.ReadUint64(&added) {
			return nil, malformed
		}
		h.Holder = Holder{string(name), h.slot.Type, time.Unix(int64(added), 0)} //nolint:gosec // as it was written
		u.holders = append(u.holders, h)
		if h.sum == opener {
			u.By = h.Holder
		}
	}
	var err error
	if u.Keys, err = unmarshalCompany(s); err != nil {
		return nil, err
	}
	if u.Keys.ID != k.Company {
		return nil, tripod.Errorf(tripod.Corrupt, "keyring: holds another company's keys")
	}
	u.Damage = k.damage(u.holders)
	return u, nil
}

// damage compares the slots with what they were when the keyring was sealed.
func (k *Keyring) damage(sealed []holder) error {
	now := make([][32]byte, len(k.Slots))
	for i := range k.Slots {
		now[i] = k.Slots[i].sum()
	}
	for _, h := range sealed {
		if !slices.Contains(now, h.sum) {
			return tripod.Errorf(tripod.Corrupt, "keyring: the slot of its %s was changed or taken away, so that it opens this vault no more", h.what()).
				WithHint("copy the files below keyring/ from another copy of this vault, or change any passphrase, which makes a whole keyring")
		}
	}
	for i := range now {
		if i >= len(sealed) || now[i] != sealed[i].sum {
			return tripod.Errorf(tripod.Corrupt, "keyring: its slots are not those that the company made").
				WithHint("change any passphrase, which makes a whole keyring, and ask whoever keeps the vault what happened")
		}
	}
	return nil
}

func (h *holder) what() string {
	if h.Type == RecoverySlot {
		return h.Type.String()
	}
	return h.Type.String() + " " + h.Name
}
