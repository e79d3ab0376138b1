package restore_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tripod/internal/driver/source"
	"tripod/internal/driver/source/files"
	"tripod/internal/driver/store"
	storefs "tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/catalog"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/restore"
	"tripod/internal/engine/verify"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

// vanishing is a tree whose files of some names are gone when they are opened.
type vanishing struct {
	source.Tree
	gone func(*source.Entry) bool
}

func (v vanishing) Open(e *source.Entry) (source.File, error) {
	if v.gone != nil && v.gone(e) {
		return nil, fs.ErrNotExist
	}
	return v.Tree.Open(e)
}

// backedUp backs up a folder into a real vault in a store; what gone, if set,
// says cannot be read any more.
func backedUp(t testing.TB, s store.Store, dir string, gone func(*source.Entry) bool) (*World, *local.Vault) {
	t.Helper()
	ctx := context.Background()
	w := New(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(local.Create(ctx, s, w.Vault.Docs[vault.DescriptorName], []byte("keyring")))
	v, err := local.Open(ctx, s, local.Options{IndexDir: t.TempDir()})
	check(err)
	session, err := v.Begin(ctx, vault.Holder{Machine: w.Machine.Machine}, nil)
	check(err)
	name := vault.CertificatePrefix + w.Machine.Machine.String()
	check(session.PutDocument(ctx, name, w.Vault.Docs[name]))
	src, err := files.New(files.Options{Paths: []string{dir}})
	check(err)
	_, err = backup.Files(ctx, vanishing{src, gone}, backup.Options{
		Keys: w.Machine.MachineKeys, Vault: session, Host: "h", Paths: []string{dir}, Program: "test", Now: time.Unix(1_700_000_000, 0),
		Warnings: &backup.Warnings{},
	})
	check(err)
	check(src.Close())
	check(session.Close())
	return w, v
}

func openLatest(t testing.TB, w *World, v *local.Vault) (*catalog.Catalog, catalog.Snapshot) {
	t.Helper()
	c, err := catalog.Open(context.Background(), v, w.Keys)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Find(catalog.Latest, catalog.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestARealBackupComesBack(t *testing.T) {
	w, want := New(t), mixed(21)
	w.Snapshot("/home/me", want, TinySizes())
	first := filepath.Join(t.TempDir(), "first")
	if _, err := restoreAll(t, w, restore.Options{To: first}); err != nil {
		t.Fatal(err)
	}
	w2, v := backedUp(t, mem.New(), first, nil)
	defer v.Close() //nolint:errcheck // read only
	c, s := openLatest(t, w2, v)
	second := filepath.Join(t.TempDir(), "second")
	r, err := restore.Files(context.Background(), v, s, restore.Options{To: second})
	if err != nil || r.Warnings > 0 {
		t.Fatalf("%+v: %v", r, err)
	}
	compare(t, second, "home/me", want)
	if r, err := verify.Run(context.Background(), v, c, verify.Options{}); err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
}

// Backup, the snapshot's label and restore count files by one rule.
func TestBackupAndRestoreCountTheSame(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("sub"), 0o755),
		os.WriteFile(at("a"), []byte("a"), 0o600),
		os.WriteFile(at("big"), make([]byte, 300<<10), 0o600),
		os.Link(at("a"), at("sub/b")),
		os.Link(at("a"), at("c")),
		os.Symlink("a", at("link")),
		os.Symlink("/nowhere", at("sub/dangling")),
		unix.Mkfifo(at("fifo"), 0o600),
		unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0),
		os.WriteFile(at("gone"), []byte("gone"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, v := backedUp(t, mem.New(), dir, func(e *source.Entry) bool { return e.Name == "gone" })
	defer v.Close() //nolint:errcheck // read only
	_, s := openLatest(t, w, v)
	const files = 8 // all names but two folders and the one that went before it was read
	if s.Label.Files != files {
		t.Errorf("the label says %d files", s.Label.Files)
	}
	to := filepath.Join(t.TempDir(), "new")
	for _, o := range []restore.Options{{To: to, DryRun: true}, {To: to}} {
		r, err := restore.Files(context.Background(), v, s, o)
		if err != nil || r.Files != files {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, dry := range []bool{true, false} {
		r, err := restore.Files(context.Background(), v, s, restore.Options{To: to, Overwrite: restore.Changed, DryRun: dry})
		if err != nil || r.Files+r.Unchanged != files {
			t.Errorf("again: %+v: %v", r, err)
		}
	}
}

// BenchmarkReal restores and verifies TRIPOD_BENCH_TREE, backed up into a vault
// on files, and tells this process's highest memory use.
func BenchmarkReal(b *testing.B) {
	dir := os.Getenv("TRIPOD_BENCH_TREE")
	if dir == "" {
		b.Skip("not proved: set TRIPOD_BENCH_TREE to a folder")
	}
	at, err := os.MkdirTemp(os.Getenv("TRIPOD_BENCH_DIR"), "real")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(at)
	s, err := storefs.Create(filepath.Join(at, "vault"))
	if err != nil {
		b.Fatal(err)
	}
	w, v := backedUp(b, s, dir, nil)
	defer v.Close() //nolint:errcheck // read only
	c, snap := openLatest(b, w, v)
	b.Run("restore", func(b *testing.B) {
		var used time.Duration
		n, peak := 0, 0.0
		for b.Loop() {
			to := filepath.Join(at, "new")
			debug.FreeOSMemory()
			// Linux begins its account of the highest memory use anew.
			if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
				b.Log(err)
			}
			idle := resident()
			before := cpu(b)
			r, err := restore.Files(context.Background(), v, snap, restore.Options{To: to})
			used += cpu(b) - before
			if err != nil || r.Warnings > 0 {
				b.Fatalf("%+v: %v", r, err)
			}
			b.SetBytes(r.Bytes)
			b.StopTimer()
			peak = max(peak, resident()-idle)
			if n++; n == 1 {
				if out, err := exec.Command("diff", "-r", "--no-dereference", dir, to).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, bytes.TrimSpace(out))
				}
			}
			if err := os.RemoveAll(to); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		b.ReportMetric(used.Seconds()/float64(b.N), "cpu-s/op")
		b.ReportMetric(peak/1024, "extra-peak-MB")
	})
	b.Run("verify", func(b *testing.B) {
		before := cpu(b)
		for b.Loop() {
			if r, err := verify.Run(context.Background(), v, c, verify.Options{}); err != nil {
				b.Fatalf("%+v: %v", r, err)
			}
		}
		b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N), "cpu-s/op")
	})
}

// resident is the process's highest memory use since the account was begun, in KiB.
func resident() (n float64) {
	status, _ := os.ReadFile("/proc/self/status")
	if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
		_, _ = fmt.Sscan(rest, &n)
	}
	return n
}
