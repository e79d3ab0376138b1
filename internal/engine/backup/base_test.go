package backup_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source/files"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
)

// A source is what its paths come down to, however they are given.
func TestPathsOfOneSourceMakeOneSeries(t *testing.T) {
	w := newWorld(t)
	w.write("in/file", []byte("x"))
	for n, paths := range [][]string{{w.dir}, {w.dir, w.dir}, {w.path("in"), w.dir + "/./"}, {w.path("in/../in/file"), w.dir}} {
		tree, err := files.New(files.Options{Paths: paths})
		if err != nil {
			t.Fatal(err)
		}
		r, err := backup.Files(context.Background(), tree, w.options(nil, paths...))
		if err != nil || r.Key.Seq != uint64(n+1) {
			t.Errorf("%q: snapshot %d of the series, want %d (%v)", paths, r.Key.Seq, n+1, err)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	}
	c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Snapshots() {
		if len(s.Label.Paths) != 1 || s.Label.Paths[0] != filepath.Clean(w.dir) {
			t.Errorf("the label names %q", s.Label.Paths)
		}
	}
}

// The next backup makes a lost grant of the last snapshot again, and tells.
func TestALostGrantIsMadeAgain(t *testing.T) {
	again := map[string]func(w *world) *backup.Report{
		"files": func(w *world) *backup.Report { return w.backup() },
		"stream": func(w *world) *backup.Report {
			r, err := backup.Stream(context.Background(), dump(w.t.(*testing.T), bytes.NewReader(noise(3<<20, uint64(w.puts)))), w.options(nil, "dump"))
			if err != nil {
				w.t.Fatal(err)
			}
			return r
		},
		"disk": func(w *world) *backup.Report { return w.backupDisk(w.path("file")) },
	}
	for kind, run := range again {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.write("file", noise(3<<20, 1))
			first := run(w)
			name := vault.GrantName(first.Key, snapshot.HashOf(w.Public.Box))
			if w.Vault.Docs[name] == nil {
				t.Fatal("the grant is not where the test looks for it")
			}
			delete(w.Vault.Docs, name)
			w.write("file", noise(3<<20, 2))
			if r := run(w); r.Skipped != 1 {
				t.Errorf("%d warnings, want one", r.Skipped)
			}
			c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
			if err != nil || len(c.Snapshots()) != 2 || len(c.Problems()) != 0 {
				t.Fatalf("%d snapshots, problems %v, %v", len(c.Snapshots()), c.Problems(), err)
			}
			if r := run(w); r.Skipped != 0 {
				t.Error("what is mended is told again")
			}
		})
	}
}

// A machine that does not remember the root can only tell.
func TestALostGrantIsTold(t *testing.T) {
	w := newWorld(t)
	w.write("file", []byte("x"))
	name := vault.GrantName(w.backup().Key, snapshot.HashOf(w.Public.Box))
	delete(w.Vault.Docs, name)
	w.write("file", []byte("y"))
	w.cache = t.TempDir()
	if r := w.backup(); r.Skipped != 1 || w.Vault.Docs[name] != nil {
		t.Errorf("%d warnings, want one", r.Skipped)
	}
}

// A forgotten snapshot keeps no grant.
func TestAForgottenSnapshotStaysSo(t *testing.T) {
	w := newWorld(t)
	w.write("file", []byte("x"))
	first := w.backup()
	record := w.Vault.Docs[vault.RecordName(first.Key)]
	name, order := catalog.Order(w.Keys, catalog.Snapshot{Key: first.Key, Hash: snapshot.HashOf(record)}, time.Unix(1, 0))
	w.Vault.Docs[name] = order
	grant := vault.GrantName(first.Key, snapshot.HashOf(w.Public.Box))
	delete(w.Vault.Docs, grant)
	if r := w.backup(); r.Skipped != 0 || w.Vault.Docs[grant] != nil {
		t.Errorf("%d warnings; the grant is back: %v", r.Skipped, w.Vault.Docs[grant] != nil)
	}
}

// That the vault cannot say whether the grant is there is no reason to lose the
// snapshot.
func TestTheSnapshotStandsWithoutTheLookAtTheLast(t *testing.T) {
	w := newWorld(t)
	w.write("file", []byte("x"))
	w.backup()
	w.fail = func(op string) error {
		if op == "documents" {
			return tripod.Errorf(tripod.Unavailable, "the disk is gone")
		}
		return nil
	}
	if r := w.backup(); r.ID == "" || r.Skipped != 1 {
		t.Errorf("%+v", r)
	}
}

// A record that was damaged is not the end: what this machine remembers of it
// joins the next one to it, and readers see what is missing until it is back.
func TestABackupGoesOnBehindADamagedRecord(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"emptied":        func([]byte) []byte { return []byte{} },
		"noise":          func([]byte) []byte { return []byte("noise") },
		"another's sign": func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.write("file", []byte("x"))
			w.backup()
			second := w.backup()
			record := vault.RecordName(second.Key)
			whole := bytes.Clone(w.Vault.Docs[record])
			w.Vault.Docs[record] = spoil(bytes.Clone(whole))
			if _, err := w.try(context.Background()); !errors.Is(err, tripod.Corrupt) || !strings.HasPrefix(err.Error(), record) || tripod.HintOf(err) == "" {
				t.Fatalf("not remembered: %v", err)
			}
			w.seen = func(s tripod.SourceID) (uint64, snapshot.Hash) {
				return map[tripod.SourceID]uint64{second.Key.Source: second.Key.Seq}[s], snapshot.HashOf(whole)
			}
			if r := w.backup(); r.Key.Seq != 3 || r.Skipped != 1 {
				t.Fatalf("%+v", r)
			}
			if r := w.backup(); r.Key.Seq != 4 || r.Skipped != 0 {
				t.Fatalf("the next: %+v", r)
			}
			c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
			if err != nil || len(c.Snapshots()) != 3 || len(c.Problems()) == 0 {
				t.Errorf("%d snapshots, problems %v, %v", len(c.Snapshots()), c.Problems(), err)
			}
			w.Vault.Docs[record] = whole
			if c, err = catalog.Open(context.Background(), w.Vault, w.Keys); err != nil || len(c.Snapshots()) != 4 || len(c.Problems()) != 0 {
				t.Errorf("back again: %d snapshots, problems %v, %v", len(c.Snapshots()), c.Problems(), err)
			}
		})
	}
}

// A record of a newer format is not damaged, and nothing is put behind it.
func TestANewerRecordIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.write("file", []byte("x"))
	name := vault.RecordName(w.backup().Key)
	at := bytes.IndexByte(w.Vault.Docs[name], snapshot.Version)
	w.Vault.Docs[name][at]++
	w.seen = func(tripod.SourceID) (uint64, snapshot.Hash) { return 1, snapshot.Hash{1} }
	if _, err := w.try(context.Background()); !errors.Is(err, tripod.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestAClockThatRanBackIsTold(t *testing.T) {
	w := newWorld(t)
	w.write("file", []byte("x"))
	w.backup()
	for _, x := range []struct {
		by   time.Duration
		want int64
	}{{-90 * time.Second, 0}, {-10 * time.Minute, 1}, {0, 0}} { // options adds a minute
		w.now = w.now.Add(x.by)
		if r := w.backup(); r.Skipped != x.want {
			t.Errorf("by %v: %d warnings", x.by, r.Skipped)
		}
	}
}
