package reader

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

const keyringTag = "tripod 1 keyring\n"

// company is what a keyring holds.
type company struct {
	id     [16]byte
	pairs  []pair // one, but for more while the company's key is replaced
	domain [32]byte
}

type pair struct {
	box  []byte // HPKE private key
	sign ed25519.PrivateKey
}

// openKeyring opens a keyring with a passphrase, or with a recovery code when
// the secret is one. The warning is of damage to others' slots.
func openKeyring(doc []byte, secret string) (c *company, warning, err error) {
	f := &fields{b: doc}
	f.tag(keyringTag)
	id := f.id()
	number := f.take(4)
	count := f.uint(1)
	if count < 1 || count > 16 {
		return nil, nil, errors.New("keyring: no slots, or more than 16")
	}
	code, isCode := parseCode(secret)
	var content [32]byte
	found := false
	var slots []byte // parameters and sum of each, as they are
	for range count {
		slot := f.b
		f.take(1 + 16 + 4 + 4 + 1)
		f.counted(2) // public key
		params := slot[:len(slot)-len(f.b)]
		wrapped := f.counted(2)
		if f.bad {
			break
		}
		sum := blake3.Sum256(slot[:len(slot)-len(f.b)])
		slots = append(append(slots, params...), sum[:]...)
		key, ok := wrapKey(params, secret, code, isCode)
		if !ok || found {
			continue
		}
		private, err := hpke.MLKEM768X25519().NewPrivateKey(key[:])
		if err != nil {
			return nil, nil, err
		}
		info := slices.Concat([]byte(keyringTag), id[:], params)
		if plain, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), info, wrapped); err == nil && len(plain) == 32 {
			content, found = fixed32(plain), true
		}
	}
	sealed := f.counted(2)
	if err := f.done("keyring"); err != nil {
		return nil, nil, err
	}
	if !found {
		return nil, nil, errors.New("keyring: neither a passphrase nor a recovery code of this vault")
	}
	plain, err := unseal(content, slices.Concat([]byte(keyringTag), id[:], number), sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("keyring content: %w", err)
	}
	in := &fields{b: plain}
	var made []byte
	for range in.uint(1) {
		holder := in.b
		in.take(1 + 16 + 4 + 4 + 1)
		in.counted(2)
		in.hash()
		if in.bad {
			break
		}
		made = append(made, holder[:len(holder)-len(in.b)]...)
		in.counted(2) // the holder's name
		in.take(8)    // added
	}
	if in.bad {
		return nil, nil, errors.New("keyring content: malformed")
	}
	if !bytes.Equal(made, slots) {
		warning = errors.New("keyring: its slots are not those that the company made: another holder's secret may open it no more, or an old one again")
	}
	c, err = parseCompany(in.b, id)
	return c, warning, err
}

// wrapKey derives the key that opens a slot; ok is false for slots of another
// kind than the secret and for impossible ones.
func wrapKey(params []byte, secret string, code []byte, isCode bool) (key [32]byte, ok bool) {
	f := &fields{b: params}
	kind, salt := f.byte(), f.take(16)
	passes, memory, threads := f.uint(4), f.uint(4), f.uint(1)
	switch kind {
	case 1:
		if passes < 1 || passes > 16 || threads < 1 || threads > 8 || memory < 8*threads || memory > 64<<10 {
			return key, false
		}
		// Letters composed, words one space apart.
		secret = strings.Join(strings.FieldsFunc(norm.NFC.String(secret), unicode.IsSpace), " ")
		return fixed32(argon2.IDKey([]byte(secret), salt, uint32(passes), uint32(memory), uint8(threads), 32)), true
	case 2:
		if isCode {
			blake3.DeriveKey("tripod 1 recovery code", slices.Concat(code, salt), key[:])
		}
		return key, isCode
	}
	return key, false
}

func parseCompany(plain []byte, id [16]byte) (*company, error) {
	f := &fields{b: plain}
	f.tag("tripod 1 company keys")
	c := &company{id: f.id(), domain: f.hash()}
	for range f.uint(1) {
		p := pair{box: f.counted(2)}
		seed := f.hash()
		p.sign = ed25519.NewKeyFromSeed(seed[:])
		c.pairs = append(c.pairs, p)
	}
	if err := f.done("company keys"); err != nil {
		return nil, err
	}
	if c.id != id || len(c.pairs) == 0 || len(c.pairs) > 16 {
		return nil, errors.New("keyring: holds another company's keys")
	}
	return c, nil
}

// parseCode reads a recovery code as people type it and reports whether text
// is one.
func parseCode(text string) ([]byte, bool) {
	clean := strings.Map(func(r rune) rune {
		switch r {
		case '-', ' ', '\t', '\n', '\r':
			return -1
		case 'O':
			return '0'
		case 'I', 'L':
			return '1'
		}
		return r
	}, strings.ToUpper(text))
	b, err := base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding).DecodeString(clean)
	if err != nil || len(b) != 20 {
		return nil, false
	}
	sum := blake3.Sum256(b[:18])
	return b, sum[0] == b[18] && sum[1] == b[19]
}

// unseal opens nonce, ciphertext and tag under AES-256-GCM.
func unseal(key [32]byte, additional, sealed []byte) ([]byte, error) {
	if len(sealed) < 12 {
		return nil, errors.New("too short")
	}
	return gcm(key).Open(nil, sealed[:12], sealed[12:], additional)
}

func gcm(key [32]byte) cipher.AEAD {
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

func derive(context string, from [32]byte) (out [32]byte) {
	blake3.DeriveKey(context, from[:], out[:])
	return out
}
