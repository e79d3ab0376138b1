// Package reader is a second, independent reader of vaults, written from
// spec/vault.md and sharing no code with the product. It checks everything the
// specification demands of a reader, restores into a folder, and is as simple
// and slow as that allows.
//
//	v, err := reader.Open(dir, "passphrase or recovery code")
//	snaps, err := v.Snapshots()
//	report, err := v.Restore(snaps[len(snaps)-1], out)
//
// It does not restore extended attributes, devices, pipes and sockets, or the
// times of symbolic links.
package reader

import (
	"bytes"
	"crypto/hpke"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Vault is an opened vault directory. It is for one goroutine.
type Vault struct {
	// Warnings is what is wrong and did not keep the vault from opening.
	Warnings []string

	dir     string
	company *company
	about   *descriptor
	private []hpke.PrivateKey // that open grants: the one in force first
	index   map[[32]byte][]place
	decoder *zstd.Decoder
	recent  []cached
}

// Snapshot is one snapshot that is neither forgotten nor expired, its signatures, chain and
// grant checked.
type Snapshot struct {
	Machine, Source string // hex
	Seq             uint64
	Time            time.Time
	Kind            string // files, disk or stream
	Host            string
	Paths, Tags     []string
	Files, Bytes    int64
	root            ref
}

// Name is how the reader's command names a snapshot.
func (s *Snapshot) Name() string { return fmt.Sprintf("%s/%s/%d", s.Machine, s.Source, s.Seq) }

// Open opens the vault in a directory with a passphrase or a recovery code. It
// reads the newest keyring and the table of contents of every pack.
func Open(dir, secret string) (*Vault, error) {
	v := &Vault{dir: dir}
	raw, err := v.object("vault")
	if err != nil {
		return nil, fmt.Errorf("no vault in %s: %w", dir, err)
	}
	if v.about, err = parseDescriptor(raw); err != nil {
		return nil, fmt.Errorf("vault descriptor: %w", err)
	}
	successions, err := v.names("key")
	if err != nil {
		return nil, err
	}
	for _, name := range successions {
		if name != fmt.Sprintf("key/%08d", v.about.number+1) {
			continue
		}
		if raw, err = v.object(name); err == nil {
			v.about, err = v.about.succeed(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	rings, err := v.names("keyring")
	if err != nil || len(rings) == 0 {
		return nil, errors.Join(errors.New("the vault has no keyring"), err)
	}
	if raw, err = v.object(rings[len(rings)-1]); err != nil {
		return nil, err
	}
	var warning error
	if v.company, warning, err = openKeyring(raw, secret); err != nil {
		return nil, err
	}
	if warning != nil {
		v.Warnings = append(v.Warnings, warning.Error())
	}
	if err := v.pair(); err != nil {
		return nil, err
	}
	v.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain))
	if err != nil {
		return nil, err
	}
	return v, v.readTables()
}

// pair finds the company's keys in force among those of the keyring. The
// descriptor is only as good as the keys that the secret opened.
func (v *Vault) pair() error {
	found := false
	for _, p := range v.company.pairs {
		private, err := hpke.MLKEM768X25519().NewPrivateKey(p.box)
		if err != nil {
			return fmt.Errorf("company key: %w", err)
		}
		v.private = append(v.private, private)
		if bytes.Equal(v.about.sign[:], p.sign[32:]) && bytes.Equal(v.about.box, private.PublicKey().Bytes()) {
			found = true
			slices.Reverse(v.private)
		}
	}
	if !found && slices.Contains(v.about.former, fixed32(v.company.pairs[0].sign[32:])) {
		v.Warnings = append(v.Warnings, "the keyring is from before the company's key was replaced, and opens only what is older")
		found = true
	}
	if v.about.company != v.company.id || !found {
		return errors.New("vault descriptor: not of the company whose keyring this is")
	}
	return nil
}

// Snapshots checks every record of the vault and returns those that are not
// forgotten and have not expired, by time.
func (v *Vault) Snapshots() ([]Snapshot, error) {
	names, err := v.names("record")
	if err != nil {
		return nil, err
	}
	var out []Snapshot
	var last *record
	for _, name := range names {
		r, key, err := v.record(name, last)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		last = r
		path := strings.TrimPrefix(name, "record/")
		order, err := v.object("forget/" + path)
		if err == nil {
			if err = forgotten(order, r, v.about); err != nil {
				return nil, fmt.Errorf("forget/%s: %w", path, err)
			}
			continue
		}
		if order, err := v.object("shred/" + hexOf(r.machine[:])); err == nil {
			if err = shredded(order, r.machine, v.about); err != nil {
				return nil, fmt.Errorf("shred/%s: %w", hexOf(r.machine[:]), err)
			}
			continue
		}
		expiry, err := v.object("expire/" + path)
		if err == nil {
			if _, err = expired(expiry, r); err != nil {
				v.Warnings = append(v.Warnings, "expire/"+path+": "+err.Error()) // gone all the same
			}
			continue
		}
		s, err := v.snapshot(r, path, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b Snapshot) int { return a.Time.Compare(b.Time) })
	return out, nil
}

// record reads a record, checks it against its machine's certificate and its
// place in the chain behind last.
func (v *Vault) record(name string, last *record) (r *record, key [32]byte, err error) {
	parts := strings.Split(name, "/")
	if len(parts) != 4 {
		return nil, key, errors.New("not a record's name")
	}
	raw, err := v.object(name)
	if err != nil {
		return nil, key, err
	}
	certificate, err := v.object("machine/" + parts[1])
	if err != nil {
		return nil, key, err
	}
	if key, err = machineKey(certificate, fixed16(unhex(parts[1])), v.about); err != nil {
		return nil, key, fmt.Errorf("certificate: %w", err)
	}
	if r, err = parseRecord(raw, key); err != nil {
		return nil, key, err
	}
	if want := fmt.Sprintf("record/%s/%s/%020d", hexOf(r.machine[:]), hexOf(r.source[:]), r.seq); name != want || r.company != v.company.id {
		return nil, key, fmt.Errorf("is the record of %s", want)
	}
	var seq uint64
	var prev [32]byte
	if last != nil && last.machine == r.machine && last.source == r.source {
		seq, prev = last.seq, last.hash
	}
	if r.seq != seq+1 || r.prev != prev {
		return nil, key, fmt.Errorf("does not follow record %d: one is missing or was replaced", seq)
	}
	return r, key, nil
}

func (v *Vault) snapshot(r *record, path string, key [32]byte) (s Snapshot, err error) {
	kinds := [...]string{1: "files", 2: "disk", 3: "stream"}
	s = Snapshot{Machine: hexOf(r.machine[:]), Source: hexOf(r.source[:]), Seq: r.seq, Time: r.time, Kind: kinds[r.kind]}
	for _, private := range v.private {
		recipient := blakeOf(private.PublicKey().Bytes())
		var raw []byte
		if raw, err = v.object("grant/" + path + "/" + hexOf(recipient[:8])); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			s.root, err = openGrant(raw, r, key, v.about.signer(recipient), private)
		}
		if err == nil {
			return s, s.openLabel(r.label)
		}
		return s, fmt.Errorf("grant: %w", err)
	}
	return s, fmt.Errorf("grant: %w", err)
}

// object reads a small object of the vault.
func (v *Vault) object(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(v.dir, filepath.FromSlash(name)))
}

// names lists the objects below a folder of the vault, ascending.
func (v *Vault) names(folder string) (names []string, err error) {
	root := filepath.Join(v.dir, folder)
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		rel, err := filepath.Rel(v.dir, path)
		names = append(names, filepath.ToSlash(rel))
		return err
	})
	slices.Sort(names)
	return names, err
}
