package keyring

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/driver/durable"
)

// A machine remembers when the recovery code was last tried on it, and which code
// that was, by the random salt of its slot.

func testedFile(config string, vault [16]byte) string {
	return filepath.Join(config, "vaults", hex.EncodeToString(vault[:]), "recovery-tested")
}

func codeSalt(k *seal.Keyring) string {
	for i := range k.Slots {
		if k.Slots[i].Type == seal.RecoverySlot {
			return hex.EncodeToString(k.Slots[i].Salt[:])
		}
	}
	return "none"
}

// Tested remembers that the recovery code has just opened the keyring.
func (s *Sealed) Tested(config string, now time.Time) error {
	name := testedFile(config, s.Descriptor.Vault)
	err := durable.MakeDir(filepath.Dir(name), privateDir)
	if err == nil {
		err = durable.ReplaceFile(name, privateFile, fmt.Appendf(nil, "%s %s\n", now.UTC().Format(time.RFC3339), codeSalt(s.Keyring)))
	}
	if err != nil {
		return fmt.Errorf("date of the test: %w", err)
	}
	return nil
}

// LastTest tells when the recovery code was last tried on this machine; zero for
// never, or not since a new one was made.
func (s *Sealed) LastTest(config string) (time.Time, error) {
	content, err := os.ReadFile(testedFile(config, s.Descriptor.Vault))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, durable.Classify(err, "read", testedFile(config, s.Descriptor.Vault))
	}
	when, salt, _ := strings.Cut(strings.TrimSpace(string(content)), " ")
	at, err := time.Parse(time.RFC3339, when)
	if err != nil || salt != codeSalt(s.Keyring) {
		return time.Time{}, nil //nolint:nilerr // a damaged note is none
	}
	return at, nil
}

// KeyHash is what the fingerprint of the company's key in force is made of.
func KeyHash(d *snapshot.Descriptor) snapshot.Hash {
	return snapshot.HashOf(append(append([]byte(nil), d.Box...), d.Sign...))
}
