package keyring

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/vault"
)

// Modes of what holds keys.
const (
	privateDir  = 0o700
	privateFile = 0o600
)

const machineFile = "machine.key"

// machineHead begins the file, so that whoever finds it knows what it is.
const machineHead = `# Write keys of this machine for company %s. They let it back up, not read back.
# Keep this file secret. If it is lost, the next backup asks for the passphrase and makes new ones.
`

// MachineFile is where a machine's keys for a company lie below its
// configuration.
func MachineFile(config string, company tripod.CompanyID) string {
	return filepath.Join(config, "companies", company.String(), machineFile)
}

// SaveMachine keeps a machine's keys in its configuration, durably.
func SaveMachine(config string, m *seal.MachineKeys) error {
	name := MachineFile(config, m.Company.ID)
	if err := durable.MakeDir(filepath.Dir(name), privateDir); err != nil {
		return fmt.Errorf("keys of this machine: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, machineHead, m.Company.ID)
	text := base64.StdEncoding.EncodeToString(m.Marshal())
	for len(text) > 0 {
		n := min(len(text), 76)
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	if err := durable.ReplaceFile(name, privateFile, []byte(b.String())); err != nil {
		return fmt.Errorf("keys of this machine: %w", err)
	}
	return nil
}

// LoadMachine reads this machine's keys for a company: NotFound when it has
// none. exposed tells that other users of the machine may read the file.
func LoadMachine(config string, company tripod.CompanyID) (m *seal.MachineKeys, exposed bool, err error) {
	name := MachineFile(config, company)
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, tripod.Errorf(tripod.NotFound, "this machine has no keys for company %s", company)
	}
	if err != nil {
		return nil, false, durable.Classify(err, "read", name)
	}
	if info, err := os.Stat(name); err == nil && runtime.GOOS != "windows" {
		exposed = info.Mode().Perm()&0o077 != 0
	}
	m, err = parseMachine(content)
	if err == nil && m.Company.ID != company {
		err = tripod.Errorf(tripod.Corrupt, "holds keys for company %s", m.Company.ID)
	}
	if err != nil {
		return nil, exposed, tripod.Errorf(tripod.Corrupt, "%s: %w", name, err).
			WithHint("move the file away; the next backup asks for the passphrase and makes new keys")
	}
	return m, exposed, nil
}

func parseMachine(content []byte) (*seal.MachineKeys, error) {
	var text strings.Builder
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			text.WriteString(line)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(text.String())
	if err != nil {
		return nil, tripod.Errorf(tripod.Corrupt, "machine keys: not base64")
	}
	return seal.UnmarshalMachine(raw)
}

// KeepCertificate copies this machine's certificate from the vault into its
// configuration, for PutBack. It holds nothing secret. That it could not be kept
// is no reason not to back up.
func KeepCertificate(ctx context.Context, r Documents, d *snapshot.Descriptor, config string, m *seal.MachineKeys) error {
	encoded, err := certificate(ctx, r, d, m)
	if err != nil || encoded == nil {
		return err
	}
	name := certificateFile(config, m.Company.ID)
	if kept, err := os.ReadFile(name); err == nil && bytes.Equal(kept, encoded) {
		return nil
	}
	if err := durable.ReplaceFile(name, privateFile, encoded); err != nil {
		return fmt.Errorf("copy of this machine's certificate: %w", err)
	}
	return nil
}

// PutBack puts this machine's certificate back into a vault that has lost it,
// without which nobody can use the machine's snapshots. It returns NotFound when
// no copy of it was kept that is valid.
func PutBack(ctx context.Context, a vault.Admin, d *snapshot.Descriptor, config string, m *seal.MachineKeys) error {
	kept, err := os.ReadFile(certificateFile(config, m.Company.ID))
	if err != nil || certifies(kept, d, m) != nil {
		return tripod.Errorf(tripod.NotFound, "this machine kept no copy of its certificate")
	}
	return a.PutDocument(ctx, vault.CertificateName(m.Machine), kept)
}

func certificateFile(config string, company tripod.CompanyID) string {
	return filepath.Join(filepath.Dir(MachineFile(config, company)), "machine.certificate")
}

// ed25519Key gives a public key its type.
func ed25519Key(k crypto.PublicKey) ed25519.PublicKey {
	key, _ := k.(ed25519.PublicKey) // seal makes no others
	return key
}
