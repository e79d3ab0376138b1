package reader

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source/files"
	"tripod/internal/driver/source/stream"
	storefs "tripod/internal/driver/store/fs"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault"
	"tripod/internal/vault/archive"
	"tripod/internal/vault/local"
)

// The whole way: the product's engine backs up this repository into a vault
// in a directory, twice, and the reader restores it.
func TestReaderRestoresWhatTheProductBackedUp(t *testing.T) {
	ctx := context.Background()
	source, err := filepath.Abs("../../..")
	must(t, err)
	source = filepath.Join(source, "internal", "core")
	dir := t.TempDir()
	store, err := storefs.Open(dir)
	must(t, err)
	made, err := keyring.New(testPassphrase, time.Unix(1, 0), seal.Argon{Time: 1, Memory: 256, Threads: 1})
	must(t, err, local.Create(ctx, store, made.Descriptor, made.Keyring))
	v, err := local.Open(ctx, store, local.Options{IndexDir: t.TempDir()})
	must(t, err)
	session, err := v.Begin(ctx, vault.Holder{Text: "test"}, nil)
	must(t, err)
	machine, err := made.Company.NewMachine()
	must(t, err, keyring.Endorse(ctx, session, v.Descriptor(), made.Company, machine, time.Unix(2, 0)))
	o := backup.Options{Keys: machine, Vault: patient{session}, CacheDir: t.TempDir(), Host: "here", Paths: []string{source}, Now: time.Unix(3, 0)}
	for range 2 {
		in, err := files.New(files.Options{Paths: []string{source}})
		must(t, err)
		o.Now = o.Now.Add(time.Hour)
		_, err = backup.Files(ctx, in, o)
		must(t, err, in.Close())
	}
	piped := xof("piped", 5<<20)
	in, err := stream.New(ctx, "dump", bytes.NewReader(piped))
	must(t, err)
	o.Paths = []string{"dump"}
	_, err = backup.Stream(ctx, in, o)
	must(t, err, session.Close(), v.Close())

	r, err := Open(dir, made.Code.String())
	must(t, err)
	snaps, err := r.Snapshots()
	must(t, err)
	if len(snaps) != 3 {
		t.Fatalf("%d snapshots", len(snaps))
	}
	for _, s := range snaps {
		out := t.TempDir()
		_, err := r.Restore(s, out)
		must(t, err)
		if s.Kind == "stream" {
			compare(t, out, map[string][]byte{"stream": piped})
			continue
		}
		same(t, source, filepath.Join(out, source))
	}

	// What expired is there no more, whatever else can be said of it.
	var key snapshot.Key
	machineID, sourceID := unhex(snaps[0].Machine), unhex(snaps[0].Source)
	copy(key.Machine[:], machineID)
	copy(key.Source[:], sourceID)
	key.Seq = snaps[0].Seq
	raw, err := r.object(vault.RecordName(key))
	must(t, err)
	e := snapshot.Expiry{Company: made.Company.ID, Key: key, Record: snapshot.HashOf(raw), Time: o.Now, Policy: 1, Newest: 2}
	must(t, store.Put(ctx, vault.ExpiryName(key), e.Encode()))
	left, err := r.Snapshots()
	must(t, err)
	if len(left) != 2 || len(r.Warnings) != 0 {
		t.Errorf("%d snapshots are left, warnings %q", len(left), r.Warnings)
	}
}

// An archive and the recovery code bring back everything, when the vault is gone.
func TestReaderRestoresFromTheArchiveAlone(t *testing.T) {
	ctx := context.Background()
	source, err := filepath.Abs("../../../internal/core")
	must(t, err)
	dir := t.TempDir()
	store, err := storefs.Open(dir)
	must(t, err)
	made, err := keyring.New(testPassphrase, time.Unix(1, 0), seal.Argon{Time: 1, Memory: 256, Threads: 1})
	must(t, err, local.Create(ctx, store, made.Descriptor, made.Keyring))
	v, err := local.Open(ctx, store, local.Options{IndexDir: t.TempDir()})
	must(t, err)
	session, err := v.Begin(ctx, vault.Holder{Text: "test"}, nil)
	must(t, err)
	machine, err := made.Company.NewMachine()
	must(t, err, keyring.Endorse(ctx, session, v.Descriptor(), made.Company, machine, time.Unix(2, 0)))
	o := backup.Options{Keys: machine, Vault: patient{session}, CacheDir: t.TempDir(), Host: "here", Paths: []string{source}, Now: time.Unix(3, 0)}
	for range 2 {
		in, err := files.New(files.Options{Paths: []string{source}})
		must(t, err)
		o.Now = o.Now.Add(time.Hour)
		_, err = backup.Files(ctx, in, o)
		must(t, err, in.Close())
	}
	must(t, session.Close())

	place := t.TempDir()
	to, err := storefs.Open(place)
	must(t, err, archive.Create(ctx, v, to, time.Now(), time.Time{}))
	a, err := local.Open(ctx, to, local.Options{IndexDir: t.TempDir()})
	must(t, err)
	session, err = a.Begin(ctx, vault.Holder{Text: "test"}, nil)
	must(t, err)
	report, err := archive.Run(ctx, v, a, session, archive.Options{Now: time.Now(), Segment: 256 << 10})
	must(t, err, report.Err(), session.Close(), a.Close(), v.Close(), os.RemoveAll(dir))

	r, err := Open(place, made.Code.String())
	must(t, err)
	snaps, err := r.Snapshots()
	must(t, err)
	if len(snaps) != 2 || report.Segments < 2 {
		t.Fatalf("%d snapshots in %d segments", len(snaps), report.Segments)
	}
	for _, s := range snaps {
		out := t.TempDir()
		_, err := r.Restore(s, out)
		must(t, err)
		same(t, source, filepath.Join(out, source))
	}
}

// same compares two folders: names, modes, times and content.
func same(t *testing.T, a, b string) {
	t.Helper()
	count := 0
	must(t, filepath.WalkDir(a, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(a, path)
		must(t, err)
		want, err := d.Info()
		must(t, err)
		got, err := os.Lstat(filepath.Join(b, rel))
		if err != nil || got.Mode() != want.Mode() || (d.Type() != fs.ModeSymlink && !got.ModTime().Equal(want.ModTime())) {
			t.Errorf("%s: %v", rel, err)
			return nil
		}
		if d.Type().IsRegular() {
			count++
			x, err := os.ReadFile(path)
			must(t, err)
			y, err := os.ReadFile(filepath.Join(b, rel))
			if err != nil || !bytes.Equal(x, y) {
				t.Errorf("%s: content differs: %v", rel, err)
			}
		}
		return nil
	}))
	if count == 0 {
		t.Error("nothing was compared")
	}
}

// patient goes on when its context ends: the engine closes its trees under one
// that has.
type patient struct{ *local.Session }

func (p patient) Put(ctx context.Context, class frame.Class, frames [][]byte) (int64, error) {
	return p.Session.Put(context.WithoutCancel(ctx), class, frames)
}

func (p patient) Have(ctx context.Context, ids []tripod.ID) ([][]tripod.Sum, error) {
	return p.Session.Have(context.WithoutCancel(ctx), ids)
}
