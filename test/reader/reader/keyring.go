package reader

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/argon2"
)

const keyringTag = "tripod 1 keyring\n"

// company is what a keyring holds.
type company struct {
	id     [16]byte
	box    []byte // HPKE private key
	sign   ed25519.PrivateKey
	domain [32]byte
}

// openKeyring opens a keyring with a passphrase, or with a recovery code when
// the secret is one.
func openKeyring(doc []byte, secret string) (*company, error) {
	f := &fields{b: doc}
	f.tag(keyringTag)
	id := f.id()
	count := f.uint(1)
	if count > 64 {
		return nil, errors.New("keyring: more than 64 slots")
	}
	code, isCode := parseCode(secret)
	var content [32]byte
	found := false
	for range count {
		params := f.take(1 + 16 + 4 + 4 + 1)
		wrapped := f.counted(2)
		if f.bad || found {
			continue
		}
		key, ok, err := wrapKey(params, secret, code, isCode)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if plain, err := unseal(key, slices.Concat([]byte(keyringTag), id[:], params), wrapped); err == nil && len(plain) == 32 {
			content, found = fixed32(plain), true
		}
	}
	sealed := f.counted(2)
	if err := f.done("keyring"); err != nil {
		return nil, err
	}
	if !found {
		return nil, errors.New("keyring: neither a passphrase nor a recovery code of this vault")
	}
	plain, err := unseal(content, slices.Concat([]byte(keyringTag), id[:]), sealed)
	if err != nil {
		return nil, fmt.Errorf("keyring content: %w", err)
	}
	return parseCompany(plain, id)
}

// wrapKey derives the key that opens a slot; ok is false for slots of another
// kind than the secret.
func wrapKey(params []byte, secret string, code []byte, isCode bool) (key [32]byte, ok bool, err error) {
	f := &fields{b: params}
	kind, salt := f.byte(), f.take(16)
	passes, memory, threads := f.uint(4), f.uint(4), f.uint(1)
	switch kind {
	case 1:
		if passes < 1 || passes > 16 || threads < 1 || threads > 8 || memory < 8*threads || memory > 64<<10 {
			return key, false, errors.New("keyring: impossible passphrase costs")
		}
		return fixed32(argon2.IDKey([]byte(secret), salt, uint32(passes), uint32(memory), uint8(threads), 32)), true, nil
	case 2:
		if isCode {
			blake3.DeriveKey("tripod 1 recovery code", slices.Concat(code, salt), key[:])
		}
		return key, isCode, nil
	}
	return key, false, nil
}

func parseCompany(plain []byte, id [16]byte) (*company, error) {
	f := &fields{b: plain}
	f.tag("tripod 1 company keys")
	c := &company{id: f.id(), box: f.counted(2)}
	seed := f.hash()
	c.domain = f.hash()
	if err := f.done("company keys"); err != nil {
		return nil, err
	}
	if c.id != id {
		return nil, errors.New("keyring: holds another company's keys")
	}
	c.sign = ed25519.NewKeyFromSeed(seed[:])
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
