package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base32"
	"slices"
	"strings"

	"github.com/sethvargo/go-diceware/diceware"
	"github.com/zeebo/blake3"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/text/unicode/norm"

	"tripod/internal/core/tripod"
)

// A keyring is the company's keys sealed under one random secret, which is
// wrapped once per holder: by a passphrase (Argon2id), by a printed recovery
// code. It lies in every zone, so that any one zone and any one holder bring
// everything back. Beside the keys it seals what every slot was, so that whoever
// opens it notices that another holder's way in was damaged or taken away, and
// need not wait for the day it is needed. Layout in spec/vault.md.
type Keyring struct {
	Company tripod.CompanyID
	Slots   []Slot
	sealed  []byte
}

// Slot is one holder's way in.
type Slot struct {
	Type    SlotType
	Salt    [16]byte
	Argon   Argon // zero for recovery codes
	wrapped []byte
}

// SlotType tells what opens a slot.
type SlotType uint8

// The types of slot.
const (
	PassphraseSlot SlotType = 1
	RecoverySlot   SlotType = 2
)

func (t SlotType) String() string {
	switch t {
	case PassphraseSlot:
		return "passphrase"
	case RecoverySlot:
		return "recovery code"
	}
	return "holder of another kind"
}

// Argon holds Argon2id's cost (RFC 9106).
type Argon struct {
	Time    uint32 // passes
	Memory  uint32 // KiB
	Threads uint8
}

// DefaultArgon costs 64 MiB and about 0.15 s.
func DefaultArgon() Argon { return Argon{Time: 3, Memory: 64 << 10, Threads: 2} }

// A reader accepts no more than this, so that a crafted keyring cannot
// exhaust it.
const maxArgonMemory, maxArgonTime, maxArgonThreads = 64 << 10, 16, 8

func (a Argon) valid() bool {
	return a.Time > 0 && a.Time <= maxArgonTime && a.Threads > 0 && a.Threads <= maxArgonThreads &&
		a.Memory >= 8*uint32(a.Threads) && a.Memory <= maxArgonMemory
}

// check keeps a writer from making a keyring that no reader would open.
func (a Argon) check() error {
	if a.valid() {
		return nil
	}
	return tripod.Errorf(tripod.Invalid, "passphrase costs: %d passes over %d KiB by %d threads", a.Time, a.Memory, a.Threads).
		WithHint("choose 1 to %d passes, at most %d KiB, 1 to %d threads", maxArgonTime, maxArgonMemory, maxArgonThreads)
}

const (
	keyringTag  = "tripod 1 keyring\n"
	contextCode = "tripod 1 recovery code"
	maxSlots    = 8
	saltedNonce = 12
)

// NewKeyring seals keys for a passphrase and a recovery code.
func NewKeyring(keys *CompanyKeys, passphrase string, code RecoveryCode, cost Argon) (*Keyring, error) {
	if err := checkNew(passphrase, cost); err != nil {
		return nil, err
	}
	secret := randomSecret()
	k := &Keyring{Company: keys.ID}
	k.addSlot(secret, PassphraseSlot, cost, passphrase)
	k.addSlot(secret, RecoverySlot, Argon{}, string(code[:]))
	k.seal(secret, keys, k.marks())
	return k, nil
}

func checkNew(passphrase string, cost Argon) error {
	if normal(passphrase) == "" {
		return tripod.Errorf(tripod.Invalid, "passphrase: must not be empty")
	}
	return cost.check()
}

// normal is a passphrase as it is hashed: what looks the same on paper opens
// the same, however a keyboard composes letters and a person spaces words.
func normal(passphrase string) string {
	return strings.Join(strings.Fields(norm.NFC.String(passphrase)), " ")
}

// mark tells what one slot was when the keyring was sealed.
type mark struct {
	slot SlotType
	sum  [32]byte // BLAKE3 of the slot's encoding
}

func (k *Keyring) marks() []mark {
	var marks []mark
	for i := range k.Slots {
		b := cryptobyte.NewBuilder(nil)
		k.Slots[i].add(b)
		marks = append(marks, mark{k.Slots[i].Type, blake3.Sum256(b.BytesOrPanic())})
	}
	return marks
}

// seal seals the keys with the marks of the slots that there should be.
func (k *Keyring) seal(secret Secret, keys *CompanyKeys, marks []mark) {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint8(uint8(len(marks)))
	for _, m := range marks {
		b.AddUint8(uint8(m.slot))
		b.AddBytes(m.sum[:])
	}
	b.AddBytes(keys.marshal())
	k.sealed = sealWith(secret, []byte(keyringTag+string(k.Company[:])), b.BytesOrPanic())
}

// content is what a keyring seals.
type content struct {
	keys  *CompanyKeys
	marks []mark
}

func parseContent(p []byte) (c content, err error) {
	s := cryptobyte.String(p)
	var n uint8
	if !s.ReadUint8(&n) || n == 0 || n > maxSlots {
		return c, tripod.Errorf(tripod.Corrupt, "keyring: its content is malformed")
	}
	c.marks = make([]mark, n)
	for i := range c.marks {
		var t uint8
		if !s.ReadUint8(&t) || !s.CopyBytes(c.marks[i].sum[:]) {
			return c, tripod.Errorf(tripod.Corrupt, "keyring: its content is malformed")
		}
		c.marks[i].slot = SlotType(t)
	}
	c.keys, err = unmarshalCompany(s)
	return c, err
}

// damage compares the slots with what they were when the keyring was sealed.
func (k *Keyring) damage(sealed []mark) error {
	now := k.marks()
	if slices.Equal(now, sealed) {
		return nil
	}
	for _, m := range sealed {
		if !slices.Contains(now, m) {
			return tripod.Errorf(tripod.Corrupt, "keyring: the slot of its %s was changed or taken away, so that it opens this vault no more", m.slot).
				WithHint("copy the files below keyring/ from another copy of this vault")
		}
	}
	return tripod.Errorf(tripod.Corrupt, "keyring: has a slot that the company did not make, or has removed since").
		WithHint("an old passphrase may open this vault; change the passphrase, and ask whoever keeps the vault what happened")
}

func (k *Keyring) addSlot(secret Secret, t SlotType, cost Argon, holder string) {
	s := Slot{Type: t, Argon: cost}
	fill(s.Salt[:])
	s.wrapped = sealWith(s.wrapKey(holder), s.additional(k.Company), secret[:])
	k.Slots = append(k.Slots, s)
}

func (s *Slot) wrapKey(holder string) Secret {
	if s.Type == PassphraseSlot {
		return Secret(argon2.IDKey([]byte(normal(holder)), s.Salt[:], s.Argon.Time, s.Argon.Memory, s.Argon.Threads, 32))
	}
	// A recovery code carries 144 random bits: no stretching is needed.
	var out Secret
	blake3.DeriveKey(contextCode, append([]byte(holder), s.Salt[:]...), out[:])
	return out
}

// additional binds a slot's wrap to its parameters and its company.
func (s *Slot) additional(company tripod.CompanyID) []byte {
	b := cryptobyte.NewBuilder([]byte(keyringTag))
	b.AddBytes(company[:])
	s.addParameters(b)
	return b.BytesOrPanic()
}

func (s *Slot) addParameters(b *cryptobyte.Builder) {
	b.AddUint8(uint8(s.Type))
	b.AddBytes(s.Salt[:])
	b.AddUint32(s.Argon.Time)
	b.AddUint32(s.Argon.Memory)
	b.AddUint8(s.Argon.Threads)
}

// sealWith encrypts under a key that is used for this message only, or with
// a random nonce for the few times a holder's key is.
func sealWith(key Secret, additional, plain []byte) []byte {
	nonce := make([]byte, saltedNonce, saltedNonce+len(plain)+16)
	fill(nonce)
	return plainGCM(key).Seal(nonce, nonce, plain, additional)
}

func openWith(key Secret, additional, sealed []byte) ([]byte, bool) {
	if len(sealed) < saltedNonce {
		return nil, false
	}
	p, err := plainGCM(key).Open(nil, sealed[:saltedNonce], sealed[saltedNonce:], additional)
	return p, err == nil
}

func plainGCM(key Secret) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only a wrong block size fails
	}
	return aead
}

// OpenPassphrase opens the keyring with a passphrase; Denied when it is wrong.
// The spacing of its words does not matter. With the keys comes damage: Corrupt
// when another holder's slot is not what it was, which is for a person to know.
func (k *Keyring) OpenPassphrase(passphrase string) (keys *CompanyKeys, damage, err error) {
	c, _, err := k.open(PassphraseSlot, passphrase)
	if err == nil {
		return c.keys, k.damage(c.marks), nil
	}
	if tripod.KindOf(err) == tripod.Denied {
		err = tripod.Errorf(tripod.Denied, "wrong passphrase").
			WithHint("try again, or open the vault with its recovery code: tripod recovery open")
	}
	return nil, nil, err
}

// OpenCode opens the keyring with a recovery code; Denied when it is wrong.
// Damage is as OpenPassphrase says.
func (k *Keyring) OpenCode(code RecoveryCode) (keys *CompanyKeys, damage, err error) {
	c, _, err := k.open(RecoverySlot, string(code[:]))
	if err == nil {
		return c.keys, k.damage(c.marks), nil
	}
	if tripod.KindOf(err) == tripod.Denied {
		err = tripod.Errorf(tripod.Denied, "this recovery code does not open this vault").
			WithHint("check that the printed kit belongs to company %s", k.Company)
	}
	return nil, nil, err
}

func (k *Keyring) open(t SlotType, holder string) (c content, secret Secret, err error) {
	refused := tripod.Errorf(tripod.Denied, "keyring: no holder fits")
	for i := range k.Slots {
		s := &k.Slots[i]
		if s.Type != t {
			continue
		}
		if t == PassphraseSlot && !s.Argon.valid() {
			// Its own holder cannot pay for it, the others still get in.
			refused = tripod.Errorf(tripod.Corrupt, "keyring: asks for impossible passphrase costs").
				WithHint("open the vault with its recovery code: tripod recovery open")
			continue
		}
		secret, ok := openWith(s.wrapKey(holder), s.additional(k.Company), s.wrapped)
		if !ok || len(secret) != len(Secret{}) {
			continue
		}
		plain, ok := openWith(Secret(secret), []byte(keyringTag+string(k.Company[:])), k.sealed)
		if !ok {
			return c, Secret{}, tripod.Errorf(tripod.Corrupt, "keyring: its content does not decrypt")
		}
		c, err = parseContent(plain)
		if err == nil && c.keys.ID != k.Company {
			err = tripod.Errorf(tripod.Corrupt, "keyring: holds another company's keys")
		}
		return c, Secret(secret), err
	}
	return c, Secret{}, refused
}

// Rewrap returns a keyring that a new passphrase opens instead of every old
// one. Recovery codes stay. Any holder may do it: give a passphrase or a code.
// Slots that the company did not make are left out; one of its own that was
// damaged stays known, so that openers are told of it until it is whole again.
func (k *Keyring) Rewrap(holder SlotType, old, passphrase string, cost Argon) (*Keyring, error) {
	if err := checkNew(passphrase, cost); err != nil {
		return nil, err
	}
	c, secret, err := k.open(holder, old)
	if err != nil {
		return nil, err
	}
	next := &Keyring{Company: k.Company}
	next.addSlot(secret, PassphraseSlot, cost, passphrase)
	marks, now := next.marks(), k.marks()
	for _, m := range c.marks {
		if m.slot == PassphraseSlot {
			continue
		}
		marks = append(marks, m)
		if i := slices.Index(now, m); i >= 0 {
			next.Slots = append(next.Slots, k.Slots[i])
		}
	}
	if len(marks) > maxSlots {
		return nil, tripod.Errorf(tripod.Invalid, "keyring: has room for %d holders", maxSlots)
	}
	next.seal(secret, c.keys, marks)
	return next, nil
}

// Marshal encodes the keyring. It is safe to show to anyone, but for guesses
// at a weak passphrase.
func (k *Keyring) Marshal() []byte {
	b := cryptobyte.NewBuilder([]byte(keyringTag))
	b.AddBytes(k.Company[:])
	b.AddUint8(uint8(len(k.Slots)))
	for i := range k.Slots {
		k.Slots[i].add(b)
	}
	addBytes(b, k.sealed)
	return b.BytesOrPanic()
}

func (s *Slot) add(b *cryptobyte.Builder) {
	s.addParameters(b)
	addBytes(b, s.wrapped)
}

// UnmarshalKeyring decodes a keyring.
func UnmarshalKeyring(p []byte) (*Keyring, error) {
	bad := tripod.Errorf(tripod.Corrupt, "keyring: malformed")
	if newerKeyring(p) {
		return nil, tripod.Errorf(tripod.Invalid, "keyring: of a newer format than this program reads").WithHint("use a newer tripod")
	}
	s := cryptobyte.String(p)
	k := new(Keyring)
	var n uint8
	if !readTag(&s, keyringTag) || !s.CopyBytes(k.Company[:]) || !s.ReadUint8(&n) || n == 0 || n > maxSlots {
		return nil, bad
	}
	for range n {
		var slot Slot
		var t uint8
		if !s.ReadUint8(&t) || !s.CopyBytes(slot.Salt[:]) || !s.ReadUint32(&slot.Argon.Time) ||
			!s.ReadUint32(&slot.Argon.Memory) || !s.ReadUint8(&slot.Argon.Threads) || !readBytes(&s, &slot.wrapped) {
			return nil, bad
		}
		slot.Type = SlotType(t)
		k.Slots = append(k.Slots, slot)
	}
	if !readBytes(&s, &k.sealed) || !s.Empty() {
		return nil, bad
	}
	return k, nil
}

// newerKeyring reports whether p begins as the keyrings of later versions will.
func newerKeyring(p []byte) bool {
	number, rest, ok := strings.Cut(strings.TrimPrefix(string(p[:min(len(p), 32)]), "tripod "), " ")
	return ok && strings.HasPrefix(rest, "keyring\n") && len(number) > 0 && strings.Trim(number, "0123456789") == "" && number != "1"
}

// NewPassphrase draws eight words of the EFF long list: 103 bits.
func NewPassphrase() (string, error) {
	words, err := diceware.Generate(8)
	if err != nil {
		return "", tripod.Errorf(tripod.Internal, "passphrase: %w", err)
	}
	return strings.Join(words, " "), nil
}

// RecoveryCode opens a keyring without its passphrase: 144 random bits and a
// checksum of 16, printed as eight groups of four letters and digits.
type RecoveryCode [20]byte

const codeRandom = 18

// NewRecoveryCode draws a code.
func NewRecoveryCode() (c RecoveryCode) {
	fill(c[:codeRandom])
	copy(c[codeRandom:], codeCheck(&c))
	return c
}

func codeCheck(c *RecoveryCode) []byte {
	sum := blake3.Sum256(c[:codeRandom])
	return sum[:len(c)-codeRandom]
}

// Crockford's alphabet: no letter that looks like a digit.
func codeText() *base32.Encoding {
	return base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)
}

func (c RecoveryCode) String() string {
	text := codeText().EncodeToString(c[:])
	var groups []string
	for ; text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, "-")
}

// ParseRecoveryCode reads a code as people type it: any case, any spacing, O
// for 0, I or L for 1. A mistyped one is Invalid.
func ParseRecoveryCode(text string) (c RecoveryCode, err error) {
	clean := strings.NewReplacer("-", "", " ", "", "\t", "", "\n", "", "\r", "", "O", "0", "I", "1", "L", "1").
		Replace(strings.ToUpper(text))
	b, err := codeText().DecodeString(clean)
	if err != nil || len(b) != len(c) {
		return c, tripod.Errorf(tripod.Invalid, "recovery code: must be eight groups of four letters and digits").
			WithHint("type it as printed; dashes and case do not matter")
	}
	copy(c[:], b)
	if string(c[codeRandom:]) != string(codeCheck(&c)) {
		return RecoveryCode{}, tripod.Errorf(tripod.Invalid, "recovery code: mistyped, its check digits do not fit").
			WithHint("compare it with the printed kit, group by group")
	}
	return c, nil
}
