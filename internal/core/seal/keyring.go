package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"encoding/base32"
	"strings"
	"time"

	"github.com/sethvargo/go-diceware/diceware"
	"github.com/zeebo/blake3"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/text/unicode/norm"

	"tripod/internal/core/tripod"
)

// A keyring is the company's keys sealed under a random secret, which is sealed
// in turn to one key pair per holder: of a passphrase (by Argon2id), of a printed
// recovery code. It lies in every zone, so that any one zone and any one holder
// bring everything back. Beside the keys it seals who its holders are, with their
// public keys. So any of them can seal the next keyring to all, under a fresh
// secret, and whoever was left out does not open it with what an old one held;
// and whoever opens it notices that another holder's way in was damaged or taken
// away, and need not wait for the day it is needed. Layout in spec/vault.md.
type Keyring struct {
	Company tripod.CompanyID
	Number  uint32 // of the company's keyrings, from 1: an old one cannot pass for a new one
	Slots   []Slot
	sealed  []byte
}

// Slot is one holder's way in.
type Slot struct {
	Type    SlotType
	Salt    [16]byte
	Argon   Argon  // zero for recovery codes
	public  []byte // HPKE public key that follows from what the holder knows
	wrapped []byte // the keyring's secret, sealed to it
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
	maxSlots    = 16
	saltedNonce = 12
)

// NewKeyring seals keys for a first passphrase, of the holder FirstHolder, and a
// recovery code.
func NewKeyring(keys *CompanyKeys, passphrase string, code RecoveryCode, cost Argon, now time.Time) (*Keyring, error) {
	u := &Unlocked{Keys: keys, company: keys.ID}
	if err := u.AddPassphrase(FirstHolder, passphrase, cost, now); err != nil {
		return nil, err
	}
	if err := u.SetCode(code, now); err != nil {
		return nil, err
	}
	return u.Seal(1)
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

// newSlot makes the way in of a holder, without what it opens.
func newSlot(t SlotType, cost Argon, holder string) (Slot, error) {
	s := Slot{Type: t, Argon: cost}
	fill(s.Salt[:])
	private, err := s.private(holder)
	if err != nil {
		return s, err
	}
	s.public = private.PublicKey().Bytes()
	return s, nil
}

// private is the key that opens a slot, of what its holder knows.
func (s *Slot) private(holder string) (hpke.PrivateKey, error) {
	var seed Secret
	if s.Type == PassphraseSlot {
		seed = Secret(argon2.IDKey([]byte(normal(holder)), s.Salt[:], s.Argon.Time, s.Argon.Memory, s.Argon.Threads, 32))
	} else {
		// A recovery code carries 144 random bits: no stretching is needed.
		blake3.DeriveKey(contextCode, append([]byte(holder), s.Salt[:]...), seed[:])
	}
	private, err := kem().NewPrivateKey(seed[:])
	if err != nil {
		return nil, tripod.Errorf(tripod.Internal, "keyring: %w", err)
	}
	return private, nil
}

// wrap seals the keyring's secret to a slot.
func (s *Slot) wrap(company tripod.CompanyID, secret Secret) error {
	public, err := kem().NewPublicKey(s.public)
	if err == nil {
		s.wrapped, err = hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), s.info(company), secret[:])
	}
	if err != nil {
		return tripod.Errorf(tripod.Internal, "keyring: %w", err)
	}
	return nil
}

// unwrap gives the keyring's secret to its holder.
func (s *Slot) unwrap(company tripod.CompanyID, holder string) (secret Secret, ok bool) {
	private, err := s.private(holder)
	if err != nil {
		return secret, false
	}
	plain, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), s.info(company), s.wrapped)
	if err != nil || len(plain) != len(secret) {
		return secret, false
	}
	return Secret(plain), true
}

// info binds a slot to its parameters and its company.
func (s *Slot) info(company tripod.CompanyID) []byte {
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
	addBytes(b, s.public)
}

func (s *Slot) readParameters(from *cryptobyte.String) bool {
	var t uint8
	ok := from.ReadUint8(&t) && from.CopyBytes(s.Salt[:]) && from.ReadUint32(&s.Argon.Time) &&
		from.ReadUint32(&s.Argon.Memory) && from.ReadUint8(&s.Argon.Threads) && readBytes(from, &s.public)
	s.Type = SlotType(t)
	return ok
}

// sum is what a keyring seals of each of its slots.
func (s *Slot) sum() [32]byte {
	b := cryptobyte.NewBuilder(nil)
	s.add(b)
	return blake3.Sum256(b.BytesOrPanic())
}

// additional binds what a keyring seals to its company and number.
func (k *Keyring) additional() []byte {
	b := cryptobyte.NewBuilder([]byte(keyringTag))
	b.AddBytes(k.Company[:])
	b.AddUint32(k.Number)
	return b.BytesOrPanic()
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
// The spacing of its words does not matter. What it gives may carry Damage, which
// is for a person to know.
func (k *Keyring) OpenPassphrase(passphrase string) (*Unlocked, error) {
	u, err := k.open(PassphraseSlot, passphrase)
	if tripod.KindOf(err) == tripod.Denied {
		err = tripod.Errorf(tripod.Denied, "wrong passphrase").
			WithHint("try again, or open the vault with its recovery code: tripod recovery open")
	}
	return u, err
}

// OpenCode opens the keyring with a recovery code; Denied when it is wrong.
func (k *Keyring) OpenCode(code RecoveryCode) (*Unlocked, error) {
	u, err := k.open(RecoverySlot, string(code[:]))
	if tripod.KindOf(err) == tripod.Denied {
		err = tripod.Errorf(tripod.Denied, "this recovery code does not open this vault").
			WithHint("check that the printed kit belongs to company %s, and that no newer code was made", k.Company)
	}
	return u, err
}

func (k *Keyring) open(t SlotType, holder string) (*Unlocked, error) {
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
		secret, ok := s.unwrap(k.Company, holder)
		if !ok {
			continue
		}
		plain, ok := openWith(secret, k.additional(), k.sealed)
		if !ok {
			return nil, tripod.Errorf(tripod.Corrupt, "keyring: its content does not decrypt")
		}
		return k.unlocked(plain, s)
	}
	return nil, refused
}

// Marshal encodes the keyring. It is safe to show to anyone, but for guesses
// at a weak passphrase.
func (k *Keyring) Marshal() []byte {
	b := cryptobyte.NewBuilder([]byte(keyringTag))
	b.AddBytes(k.Company[:])
	b.AddUint32(k.Number)
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
	if !readTag(&s, keyringTag) || !s.CopyBytes(k.Company[:]) || !s.ReadUint32(&k.Number) || !s.ReadUint8(&n) || n == 0 || n > maxSlots {
		return nil, bad
	}
	for range n {
		var slot Slot
		if !slot.readParameters(&s) || !readBytes(&s, &slot.wrapped) {
			return nil, bad
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
