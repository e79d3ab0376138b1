package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/keyring"
	"tripod/internal/engine/restore"
	"tripod/internal/engine/verify"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

// long reports whether the big numbers were asked for.
func long() bool { return os.Getenv("TRIPOD_LONG") == "1" }

// size picks how much a lane does.
func size(quick, ci, big int) int {
	switch {
	case long():
		return big
	case testing.Short():
		return quick
	}
	return ci
}

// seed is the lane's seed: TRIPOD_SEED, or another one each day, so that the
// histories differ and a whole day's failures can be repeated.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().Unix() / 86400)
	if text := os.Getenv("TRIPOD_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("TRIPOD_SEED: %v", err)
		}
		s = n
	}
	t.Logf("TRIPOD_SEED=%d", s)
	return s
}

// company is the keys of a company with one machine.
type company struct {
	made    *keyring.Made
	machine *seal.MachineKeys
}

const passphrase = "correct horse battery staple"

func newCompany(t *testing.T) *company {
	t.Helper()
	made, err := keyring.New(passphrase, time.Unix(1_700_000_000, 0), seal.Argon{Time: 1, Memory: 64, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	machine, err := made.Company.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	return &company{made, machine}
}

// places are where a process keeps what it can do without.
type places struct {
	index string // directory for indexes
	cache string // directory for the caches of sources; "" for none
}

// create makes the vault unless an earlier call, cut short or not, has made it,
// and enrols the machine.
func (c *company) create(ctx context.Context, s store.Store, p places) error {
	err := local.Create(ctx, s, c.made.Descriptor, c.made.Keyring)
	if err != nil && !errors.Is(err, tripod.Exists) {
		return fmt.Errorf("create: %w", err)
	}
	return c.session(ctx, s, p, func(v *local.Vault, w *local.Session) error { return c.enrol(ctx, v, w) })
}

func (c *company) enrol(ctx context.Context, v *local.Vault, w *local.Session) error {
	known, err := keyring.Endorsed(ctx, v, v.Descriptor(), c.machine)
	if known || err != nil {
		return err
	}
	return keyring.Endorse(ctx, w, v.Descriptor(), c.made.Company, c.machine, time.Unix(1_700_000_000, 0))
}

// session opens the vault to write.
func (c *company) session(ctx context.Context, s store.Store, p places, fn func(*local.Vault, *local.Session) error) (err error) {
	v, err := local.Open(ctx, s, local.Options{IndexDir: p.index})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	w, err := v.Begin(ctx, vault.Holder{Machine: c.machine.Machine, Text: "test"}, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return fn(v, w)
}

// backup backs up the tree, as one process does.
func (c *company) backup(ctx context.Context, s store.Store, p places, in *memTree, hour int) (report *backup.Report, err error) {
	err = c.session(ctx, s, p, func(_ *local.Vault, w *local.Session) error {
		report, err = c.into(ctx, w, p, in, hour)
		return err
	})
	return report, err
}

// into backs up the tree into an open vault.
func (c *company) into(ctx context.Context, w *local.Session, p places, in *memTree, hour int) (*backup.Report, error) {
	warnings := new(backup.Warnings)
	in.warn = warnings.Watcher().Warn
	return backup.Files(ctx, in, backup.Options{
		Keys: c.machine, Vault: w, CacheDir: p.cache, Host: "here", Paths: []string{"/" + protected}, Program: "test",
		Now: time.Unix(1_700_000_000+int64(hour)*3600, 0), Warnings: warnings, Progress: in.told,
	})
}

// looked is what a company finds in a vault.
type looked struct {
	v   *local.Vault
	cat *catalog.Catalog
}

// look opens the vault to read.
func (c *company) look(ctx context.Context, s store.Store, p places, fn func(looked) error) (err error) {
	v, err := local.Open(ctx, s, local.Options{IndexDir: p.index})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	cat, err := catalog.Open(ctx, v, c.made.Company)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return fn(looked{v, cat})
}

// perfect returns an error unless the vault is whole in every respect.
func (l looked) perfect(ctx context.Context) error {
	for _, p := range l.cat.Problems() {
		return fmt.Errorf("problem %s: %w", p.Document, p.Err)
	}
	if _, err := verify.Run(ctx, l.v, l.cat, verify.Options{}); err != nil {
		return err
	}
	for _, d := range l.v.Damaged() {
		return fmt.Errorf("damaged pack: %w", d.Err)
	}
	return l.v.CheckPacks(ctx, 1, nil, func(object string, _ tripod.ID, err error) error {
		return fmt.Errorf("object %s: %w", object, err)
	})
}

// restored restores a snapshot into a new folder below dir and compares.
func (l looked) restored(ctx context.Context, s catalog.Snapshot, dir string, want map[string]memFile) (err error) {
	to, err := os.MkdirTemp(dir, "restored-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	if _, err := restore.Files(ctx, l.v, s, restore.Options{To: to}); err != nil {
		return err
	}
	return compareFiles(to, want)
}

// compareFiles compares a folder with files of a memTree.
func compareFiles(dir string, want map[string]memFile) error {
	seen := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, ok := want[protected+"/"+filepath.ToSlash(rel)]
		switch {
		case !ok:
			return fmt.Errorf("%s: was never backed up", rel)
		case !bytes.Equal(got, f.data):
			return fmt.Errorf("%s: %d bytes differ from the %d backed up", rel, len(got), len(f.data))
		}
		seen++
		return nil
	})
	if err == nil && seen != len(want) {
		err = fmt.Errorf("%d of %d files are there", seen, len(want))
	}
	return err
}

// scratch is a folder for a test's files, in memory where there is such a place.
func scratch(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "tripod-fault-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
