package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/files"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/enginetest"
	"tripod/internal/vault"
)

// world is a vault that takes only what is closed, and a folder to protect.
type world struct {
	*enginetest.World
	t     testing.TB
	mu    sync.Mutex
	dir   string
	cache string
	now   time.Time
	puts  int  // blobs put
	fresh bool // files are read shortly after they changed
	fail  func(op string) error
	seen  func(tripod.SourceID) (uint64, snapshot.Hash)
}

func newWorld(t testing.TB) *world {
	return &world{World: enginetest.New(t), t: t, dir: t.TempDir(), cache: t.TempDir(), now: time.Unix(1_700_000_000, 0)}
}

func (w *world) failing(op string) error {
	if w.fail != nil {
		return w.fail(op)
	}
	return nil
}

func (w *world) Have(ctx context.Context, ids []tripod.ID) ([][]tripod.Sum, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([][]tripod.Sum, len(ids))
	for i, id := range ids {
		if b, ok := w.Vault.Frames[id]; ok {
			f, _, _ := frame.Parse(b)
			out[i] = []tripod.Sum{f.Sum}
		}
	}
	return out, w.failing("have")
}

func (w *world) Put(ctx context.Context, class frame.Class, frames [][]byte) (n int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("put"); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for _, b := range frames {
		f, _, err := frame.Parse(b)
		if err != nil || f.Check() != nil || frame.ClassOf(f.Kind) != class {
			return n, errors.New("a bad frame was put")
		}
		for _, id := range f.Refs {
			if w.Vault.Frames[id] == nil {
				return n, tripod.Errorf(tripod.NotFound, "blob %.8s: needs %.8s, which is not there", f.ID, id)
			}
		}
		if w.Vault.Frames[f.ID] == nil {
			w.Vault.Frames[f.ID] = bytes.Clone(b)
			w.puts++
			n += int64(len(b))
		}
	}
	return n, nil
}

func (w *world) Commit(_ context.Context, record []byte, grants [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("commit"); err != nil {
		return err
	}
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		return err
	}
	if w.Vault.Frames[r.Root] == nil {
		return errors.New("the root is missing")
	}
	w.Vault.Docs[vault.RecordPrefix+vault.KeyPath(r.Key)] = record
	for _, g := range grants {
		w.Vault.Docs[vault.GrantName(r.Key, snapshot.HashOf(w.Public.Box))] = g
	}
	return nil
}

func (w *world) Head(_ context.Context, m tripod.MachineID, s tripod.SourceID) (uint64, []byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var last string
	prefix := vault.RecordPrefix + m.String() + "/" + s.String() + "/"
	for name := range w.Vault.Docs {
		if len(name) > len(prefix) && name[:len(prefix)] == prefix {
			last = max(last, name)
		}
	}
	k, _ := vault.ParseKeyPath(strings.TrimPrefix(last, vault.RecordPrefix))
	return k.Seq, w.Vault.Docs[last], nil
}

func (w *world) Documents(ctx context.Context, prefix string, fn func(string, []byte) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing("documents"); err != nil {
		return err
	}
	return w.Vault.Documents(ctx, prefix, fn)
}

func (w *world) PutDocument(ctx context.Context, name string, content []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Vault.PutDocument(ctx, name, content)
}

func (w *world) RemoveDocument(ctx context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Vault.RemoveDocument(ctx, name)
}

func (w *world) options(warnings *backup.Warnings, paths ...string) backup.Options {
	w.now = w.now.Add(time.Minute)
	o := backup.Options{
		Keys: w.Machine.MachineKeys, Vault: w, CacheDir: w.cache, Host: "here", Paths: paths, Program: "test",
		Now: w.now, Warnings: warnings, Seen: w.seen,
	}
	if !w.fresh {
		// An hour on, so that no file's last change is too fresh to be trusted.
		o = backup.WithClock(o, func() time.Time { return time.Now().Add(time.Hour) })
	}
	return o
}

func (w *world) try(ctx context.Context) (*backup.Report, error) {
	warnings := new(backup.Warnings)
	t, err := files.New(files.Options{Paths: []string{w.dir}, Watcher: warnings.Watcher()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer t.Close()
	return backup.Files(ctx, t, w.options(warnings, w.dir))
}

func (w *world) backup() *backup.Report {
	w.t.Helper()
	r, err := w.try(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// held is one entry as the vault holds it.
type held struct {
	entry   tree.Entry
	content string
}

// latest reads the newest snapshot back.
func (w *world) latest() map[string]held {
	w.t.Helper()
	ctx := context.Background()
	c, err := catalog.Open(ctx, w.Vault, w.Keys)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range c.Problems() {
		w.t.Fatal(p)
	}
	s, err := c.Find("latest", catalog.Filter{})
	if err != nil {
		w.t.Fatal(err)
	}
	r := blobs.New(w.Vault, w.Keys.ID)
	out := map[string]held{}
	err = r.Walk(ctx, s.Root, tree.All(), func(entries []tree.Entry) error {
		for i := range entries {
			var content bytes.Buffer
			if entries[i].Type == tree.Regular {
				if err := r.CopyFile(ctx, &content, &entries[i]); err != nil {
					return fmt.Errorf("%s: %w", entries[i].Path(), err)
				}
			}
			out[entries[i].Path()] = held{entries[i], content.String()}
		}
		return nil
	}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// compare checks the newest snapshot against the folder as it is.
func (w *world) compare() {
	w.t.Helper()
	got := w.latest()
	want := map[string]bool{}
	err := files.Walk(context.Background(), files.Options{Paths: []string{w.dir}}, func(batch []source.Entry) error {
		for i := range batch {
			e := &batch[i]
			want[e.Path()] = true
			if !tree.Below("/"+e.Path(), w.dir) {
				continue // above the folder: only its names matter
			}
			w.compareEntry(e, got[e.Path()])
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for path := range got {
		if !want[path] {
			w.t.Errorf("%s: in the snapshot, not in the folder", path)
		}
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func (w *world) compareEntry(e *source.Entry, h held) {
	w.t.Helper()
	g := &h.entry
	if uint8(g.Type) != uint8(e.Type) || g.Mode != e.Mode || g.Owner.UID != e.UID || g.Sec != e.MTime.Sec || int64(g.Nsec) != e.MTime.Nsec {
		w.t.Errorf("%s: kept as %+v, is %+v", e.Path(), g, e)
		return
	}
	path := "/" + e.Path()
	switch e.Type {
	case source.Regular:
		content, err := os.ReadFile(path)
		if err != nil || h.content != string(content) {
			w.t.Errorf("%s: %d bytes kept, %d there (%v)", e.Path(), len(h.content), len(content), err)
		}
		if (g.Group != 0) != (e.Nlink > 1) {
			w.t.Errorf("%s: hard-link group %d with %d names", e.Path(), g.Group, e.Nlink)
		}
	case source.Symlink:
		if target, _ := os.Readlink(path); target != g.Link {
			w.t.Errorf("%s: link kept as %q", e.Path(), g.Link)
		}
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, content []byte) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), content, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// blobsOf counts the blobs that hold the content of files below a folder.
func (w *world) blobsOf(prefix string) int {
	refs := map[seal.Ref]bool{}
	for path, h := range w.latest() {
		if strings.HasPrefix("/"+path, w.path(prefix)) {
			for _, p := range h.entry.Content.Pieces {
				refs[p.Ref] = true
			}
		}
	}
	return len(refs)
}
