package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base32"
	"strings"

	"github.com/sethvargo/go-diceware/diceware"
	"github.com/zeebo/blake3"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/tripod"
)

// A keyring is the company's keys sealed under one random secret, which is
// wrapped once per holder: by a passphrase (Argon2id), by a printed recovery
// code. It lies in every zone, so that any one zone and any one holder bring
// everything back. Layout in spec/vault.md.
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
	maxSlots    = 64
	saltedNonce = 12
)

// NewKeyring seals keys for a passphrase and a recovery code.
func NewKeyring(keys *CompanyKeys, passphrase string, code RecoveryCode, cost Argon) (*Keyring, error) {
	if err := cost.check(); err != nil {
		return nil, err
	}
	secret := randomSecret()
	k := &Keyring{Company: keys.ID}
	k.sealed = sealWith(secret, []byte(keyringTag+string(keys.ID[:])), keys.marshal())
	k.addSlot(secret, PassphraseSlot, cost, passphrase)
	k.addSlot(secret, RecoverySlot, Argon{}, string(code[:]))
	return k, nil
}

func (k *Keyring) addSlot(secret Secret, t SlotType, cost Argon, holder string) {
	s := Slot{Type: t, Argon: cost}
	fill(s.Salt[:])
	s.wrapped = sealWith(s.wrapKey(holder), s.additional(k.Company), secret[:])
	k.Slots = append(k.Slots, s)
}

func (s *Slot) wrapKey(holder string) Secret {
	if s.Type == PassphraseSlot {
		return Secret(argon2.IDKey([]byte(holder), s.Salt[:], s.Argon.Time, s.Argon.Memory, s.Argon.Threads, 32))
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
func (k *Keyring) OpenPassphrase(passphrase string) (*CompanyKeys, error) {
	keys, _, err := k.open(PassphraseSlot, passphrase)
	if err == nil {
		return keys, nil
	}
	if tripod.KindOf(err) == tripod.Denied {
		return nil, tripod.Errorf(tripod.Denied, "wrong passphrase").
			WithHint("try again, or open the vault with its recovery code: tripod recovery open")
	}
	return nil, err
}

// OpenCode opens the keyring with a recovery code; Denied when it is wrong.
func (k *Keyring) OpenCode(code RecoveryCode) (*CompanyKeys, error) {
	keys, _, err := k.open(RecoverySlot, string(code[:]))
	if err != nil && tripod.KindOf(err) == tripod.Denied {
		return nil, tripod.Errorf(tripod.Denied, "this recovery code does not open this vault").
			WithHint("check that the printed kit belongs to company %s", k.Company)
	}
	return keys, err
}

func (k *Keyring) open(t SlotType, holder string) (*CompanyKeys, Secret, error) {
	for i := range k.Slots {
		s := &k.Slots[i]
		if s.Type != t {
			continue
		}
		secret, ok := openWith(s.wrapKey(holder), s.additional(k.Company), s.wrapped)
		if !ok || len(secret) != len(Secret{}) {
			continue
		}
		plain, ok := openWith(Secret(secret), []byte(keyringTag+string(k.Company[:])), k.sealed)
		if !ok {
			return nil, Secret{}, tripod.Errorf(tripod.Corrupt, "keyring: its content does not decrypt")
		}
		keys, err := unmarshalCompany(plain)
		if err == nil && keys.ID != k.Company {
			err = tripod.Errorf(tripod.Corrupt, "keyring: holds another company's keys")
		}
		return keys, Secret(secret), err
	}
	return nil, Secret{}, tripod.Errorf(tripod.Denied, "keyring: no holder fits")
}

// Rewrap returns a keyring that a new passphrase opens instead of every old
// one. Recovery codes stay. Any holder may do it: give a passphrase or a code.
func (k *Keyring) Rewrap(holder SlotType, old, passphrase string, cost Argon) (*Keyring, error) {
	if err := cost.check(); err != nil {
		return nil, err
	}
	_, secret, err := k.open(holder, old)
	if err != nil {
		return nil, err
	}
	next := &Keyring{Company: k.Company, sealed: k.sealed}
	next.addSlot(secret, PassphraseSlot, cost, passphrase)
	for _, s := range k.Slots {
		if s.Type != PassphraseSlot {
			next.Slots = append(next.Slots, s)
		}
	}
	return next, nil
}

// Marshal encodes the keyring. It is safe to show to anyone, but for guesses
// at a weak passphrase.
func (k *Keyring) Marshal() []byte {
	b := cryptobyte.NewBuilder([]byte(keyringTag))
	b.AddBytes(k.Company[:])
	b.AddUint8(uint8(len(k.Slots)))
	for i := range k.Slots {
		k.Slots[i].addParameters(b)
		addBytes(b, k.Slots[i].wrapped)
	}
	addBytes(b, k.sealed)
	return b.BytesOrPanic()
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
	if !readTag(&s, keyringTag) || !s.CopyBytes(k.Company[:]) || !s.ReadUint8(&n) || n > maxSlots {
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
		if slot.Type == PassphraseSlot && !slot.Argon.valid() {
			return nil, tripod.Errorf(tripod.Corrupt, "keyring: asks for impossible passphrase costs")
		}
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
