package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/restore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// latest opens the world's newest snapshot.
func latest(t testing.TB, w *World) catalog.Snapshot {
	t.Helper()
	c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Problems(); len(p) > 0 {
		t.Fatalf("problems: %v", p)
	}
	s, err := c.Find(catalog.Latest, catalog.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mixed is a tree of files of all sizes.
func mixed(seed uint64) []File {
	r := rand.New(rand.NewPCG(seed, 1))
	files := Parents("home/me/x")
	add := func(f File) {
		f.Mode = []uint32{0o644, 0o600, 0o755, 0o444, 0o4755}[r.IntN(5)]
		f.Nsec = r.Uint32N(1_000_000_000)
		f.Sec = int64(r.IntN(2_000_000_000))
		f.Owner = tree.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
		files = append(files, f)
	}
	for _, dir := range []string{"home/me/", "home/me/a/", "home/me/a/b/", "home/me/a-b/", "home/me/c/"} {
		if dir != "home/me/" {
			files = append(files, Dir(strings.TrimSuffix(dir, "/")))
		}
		for i, n := range []int{0, 1, 8, 9, 50, 64, 65, 100, 101, 999, 1700, 5000} {
			add(Text(dir+fmt.Sprint("f", i), random(r, n)))
		}
	}
	files = append(files, Dir("home/me/empty"), Link("home/me/link", "a/f1"), Link("home/me/dangling", "/nowhere"))
	return files
}

func random(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// compare checks that dir holds exactly the files below base.
func compare(t testing.TB, dir, base string, files []File) {
	t.Helper()
	var want []string
	for _, f := range files {
		path := f.Path()
		if path == base || !tree.Below(path, base) {
			continue
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, base), "/")
		want = append(want, rel)
		compareOne(t, filepath.Join(dir, rel), &f)
	}
	var got []string
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if rel, _ := filepath.Rel(dir, p); rel != "." {
			got = append(got, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("names differ:\n got %q\nwant %q", got, want)
	}
}

func compareOne(t testing.TB, path string, f *File) {
	t.Helper()
	i, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if got := i.ModTime(); got.Unix() != f.Sec || got.Nanosecond() != int(f.Nsec) {
		t.Errorf("%s: time %v, not %d.%09d", path, got, f.Sec, f.Nsec)
	}
	switch f.Type {
	case tree.Symlink:
		if target, _ := os.Readlink(path); target != f.Link {
			t.Errorf("%s: leads to %q, not %q", path, target, f.Link)
		}
		return
	case tree.Dir:
		if !i.IsDir() {
			t.Errorf("%s: is no folder", path)
		}
	case tree.Regular:
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, content(f)) {
			t.Errorf("%s: content differs (%d bytes, %d wanted): %v", path, len(got), f.Size, err)
		}
	}
	mode := uint32(i.Mode().Perm())
	if i.Mode()&os.ModeSticky != 0 {
		mode |= 0o1000
	}
	if i.Mode()&os.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if mode != f.Mode {
		t.Errorf("%s: mode %o, not %o", path, mode, f.Mode)
	}
}

// content is what the file holds, holes included.
func content(f *File) []byte {
	if f.Ranges == nil {
		return f.Data
	}
	out := make([]byte, f.Size)
	data := f.Data
	for _, g := range f.Ranges {
		copy(out[g.Offset:g.Offset+g.Length], data)
		data = data[g.Length:]
	}
	return out
}

func restoreAll(t testing.TB, w *World, o restore.Options) (*restore.Report, error) {
	t.Helper()
	return restore.Files(context.Background(), w.Vault, latest(t, w), o)
}

func TestEverythingComesBack(t *testing.T) {
	for _, sizes := range []Sizes{TinySizes(), DefaultSizes()} {
		w, want := New(t), mixed(1)
		w.Snapshot("/home/me", want, sizes)
		dir := filepath.Join(t.TempDir(), "new")
		r, err := restoreAll(t, w, restore.Options{To: dir})
		if err != nil || r.Warnings != 0 || r.Failed != 0 {
			t.Fatalf("%+v: %v", r, err)
		}
		compare(t, dir, "home/me", want)
		if r.Files != 62 || r.Folders != 5 {
			t.Errorf("report %+v", r)
		}
		for id, n := range w.Vault.Delivered() {
			if n > 3 { // the log, the lookup, the walk
				t.Errorf("blob %.8s was read %d times", id, n)
			}
		}
	}
}

func TestPathsGoWhereTheyAreExpected(t *testing.T) {
	w, want := New(t), mixed(2)
	w.Snapshot("/home/me", want, TinySizes())
	for _, c := range []struct{ path, at string }{
		{"/home/me/a/f3", "f3"},
		{"a/f3", "f3"},
		{"home/me/a/f3", "f3"},
		{"/home/me/a", "a/f3"},
		{"a/", "a/f3"},
		{"a/b", "b/f3"},
		{"/home/me", "me/a/f3"},
		{"/home", "home/me/a/f3"},
		{"/", "home/me/a/f3"},
		{"", "a/f3"},
	} {
		dir := t.TempDir()
		if _, err := restoreAll(t, w, restore.Options{To: dir, Path: c.path}); err != nil {
			t.Fatalf("%q: %v", c.path, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, c.at)); err != nil {
			t.Errorf("%q: %v", c.path, err)
		}
	}
	_, err := restoreAll(t, w, restore.Options{To: t.TempDir(), Path: "a/nosuch"})
	if !errors.Is(err, tripod.NotFound) || !strings.Contains(tripod.HintOf(err), "tripod find nosuch") {
		t.Errorf("missing path: %v, hint %q", err, tripod.HintOf(err))
	}
}

func TestSeveralPathsKeepTheirStructure(t *testing.T) {
	w := New(t)
	all := append(Parents("etc/x"), Dir("home"), Text("etc/x", "1"), Dir("home/me"), Text("home/me/y", "2"))
	w.Commit("two", tripod.Files, w.Tree(all, TinySizes()), snapshot.Label{Host: "h", Paths: []string{"/etc", "/home/me"}})
	dir := t.TempDir()
	if _, err := restoreAll(t, w, restore.Options{To: dir}); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{"etc/x": "1", "home/me/y": "2"} {
		if got, err := os.ReadFile(filepath.Join(dir, at)); string(got) != want {
			t.Errorf("%s: %q, %v", at, got, err)
		}
	}
}

func TestOneProtectedFile(t *testing.T) {
	w := New(t)
	w.Snapshot("/home/me/doc.txt", append(Parents("home/me/doc.txt"), Text("home/me/doc.txt", "hello")), TinySizes())
	dir := t.TempDir()
	if _, err := restoreAll(t, w, restore.Options{To: dir}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "doc.txt")); string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// A protected file is also named by its own name, as ls shows it.
func TestOneProtectedFileByItsName(t *testing.T) {
	w := New(t)
	w.Snapshot("/etc/hostname", append(Parents("etc/hostname"), Text("etc/hostname", "vm")), TinySizes())
	for _, path := range []string{"", "hostname", "/etc/hostname"} {
		dir := t.TempDir()
		if _, err := restoreAll(t, w, restore.Options{To: dir, Path: path}); err != nil {
			t.Errorf("%q: %v", path, err)
		}
		holds(t, filepath.Join(dir, "hostname"), []byte("vm"))
	}
	w.Snapshot("/etc", append(Parents("etc/hostname"), Text("etc/hostname", "vm")), TinySizes())
	if _, err := restoreAll(t, w, restore.Options{To: t.TempDir(), Path: "nothing"}); !errors.Is(err, tripod.NotFound) {
		t.Errorf("what is not there: %v", err)
	}
}

func TestOverwriteRules(t *testing.T) {
	w, want := New(t), mixed(3)
	w.Snapshot("/home/me", want, Sizes{Inline: 8, Bundled: 64, Bundle: 200, Chunk: 128 << 10})
	spoiled := func(t *testing.T) string {
		dir := t.TempDir()
		if _, err := restoreAll(t, w, restore.Options{To: dir}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"f1", "f4", "a/f11"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(dir, "c/f7")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Run("never", func(t *testing.T) {
		dir := spoiled(t)
		r, err := restoreAll(t, w, restore.Options{To: dir})
		if err != nil || r.Files != 1 || r.Conflicts != 61 {
			t.Fatalf("%+v: %v", r, err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "f1")); string(got) != "mine" {
			t.Error("a file in the way was overwritten")
		}
	})
	t.Run("changed", func(t *testing.T) {
		dir := spoiled(t)
		r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Changed})
		if err != nil || r.Files != 4 || r.Conflicts != 0 || r.Warnings != 0 {
			t.Fatalf("%+v: %v", r, err)
		}
		compare(t, dir, "home/me", want)
	})
	t.Run("always", func(t *testing.T) {
		dir := spoiled(t)
		r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Always})
		if err != nil || r.Files != 62 {
			t.Fatalf("%+v: %v", r, err)
		}
		compare(t, dir, "home/me", want)
	})
	t.Run("dry run", func(t *testing.T) {
		dir := spoiled(t)
		w.Vault.ResetCounts()
		told := map[restore.Action]int{}
		r, err := restoreAll(t, w, restore.Options{
			To: dir, Overwrite: restore.Changed, DryRun: true, Each: func(_ string, a restore.Action) { told[a]++ },
		})
		if err != nil || r.Files != 4 || r.Unchanged != 58 || told[restore.Replace] != 3 {
			t.Fatalf("%+v: %v, %v", r, told, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "c/f7")); err == nil {
			t.Error("a dry run made a file")
		}
		missing := filepath.Join(dir, "not/there")
		if r, err = restoreAll(t, w, restore.Options{To: missing, DryRun: true}); err != nil || r.Files != 62 || r.Folders != 5 {
			t.Fatalf("%+v: %v", r, err)
		}
		if _, err := os.Lstat(missing); err == nil {
			t.Error("a dry run made the target")
		}
	})
}

// big is a tree with one large file of many whole blobs.
func big(n int) (*File, []File) {
	f := Text("d/big", random(rand.New(rand.NewPCG(9, 9)), n))
	f.Owner = tree.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	return &f, append(Parents("d/big"), f)
}

func TestBlocksThatAreRightAreNotReadAgain(t *testing.T) {
	for _, chunks := range []int{5, 40} { // pieces, a list
		w := New(t)
		const chunk = 128 << 10
		f, all := big(chunks*chunk - 100)
		w.Snapshot("/d", all, Sizes{Chunk: chunk})
		dir := t.TempDir()
		path := filepath.Join(dir, "big")
		damaged := bytes.Clone(f.Data)
		damaged[2*chunk+5] ^= 1
		if err := os.WriteFile(path, append(damaged, "longer"...), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Changed})
		if err != nil || r.Bytes != chunk || r.Reused != f.Size-chunk {
			t.Fatalf("%+v: %v", r, err)
		}
		compareOne(t, path, f)
	}
}

func TestReadingFailsAtEveryStep(t *testing.T) {
	w, want := New(t), mixed(4)
	w.Snapshot("/home/me", want, TinySizes())
	snap := latest(t, w)
	outage := tripod.Errorf(tripod.Unavailable, "out of reach")
	for n := 0; ; n++ {
		w.Vault.ResetCounts()
		w.Vault.OnGet = func(i int) error {
			if i == n {
				return outage
			}
			return nil
		}
		dir := filepath.Join(t.TempDir(), "new")
		_, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: dir})
		if w.Vault.Gets() <= n {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if !errors.Is(err, tripod.Unavailable) {
			t.Fatalf("read %d: %v", n, err)
		}
		noneLooksComplete(t, dir, want)
		w.Vault.OnGet = nil
		if _, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: dir, Overwrite: restore.Changed}); err != nil {
			t.Fatalf("second try after read %d: %v", n, err)
		}
		compare(t, dir, "home/me", slices.DeleteFunc(slices.Clone(want), func(f File) bool { return f.Type == tree.Dir && false }))
	}
}

// noneLooksComplete checks that each file there has its time only with its content.
func noneLooksComplete(t testing.TB, dir string, want []File) {
	t.Helper()
	for i := range want {
		f := &want[i]
		path := filepath.Join(dir, strings.TrimPrefix(f.Path(), "home/me"))
		info, err := os.Lstat(path)
		if err != nil || f.Type != tree.Regular || info.ModTime().Unix() != f.Sec || info.Size() != f.Size {
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s looks complete and is not: %v", path, err)
		}
	}
}

func TestCancelledAtEveryStep(t *testing.T) {
	w, want := New(t), mixed(5)
	w.Snapshot("/home/me", want, TinySizes())
	snap := latest(t, w)
	cancelled := 0
	for n := range 16 {
		for _, byGet := range []bool{true, false} {
			ctx, cancel := context.WithCancel(context.Background())
			events := 0
			w.Vault.ResetCounts()
			w.Vault.OnGet = func(i int) error {
				if byGet && i == n {
					cancel()
				}
				return nil
			}
			progress := func(run.Event) {
				if events++; !byGet && events == n+1 {
					cancel()
				}
			}
			dir := filepath.Join(t.TempDir(), "new")
			_, err := restore.Files(ctx, w.Vault, snap, restore.Options{To: dir, Progress: progress})
			if err != nil {
				cancelled++
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("step %d: %v", n, err)
				}
			}
			noneLooksComplete(t, dir, want)
			cancel()
		}
	}
	if cancelled < 4 {
		t.Errorf("only %d restores were cancelled", cancelled)
	}
}

func TestEachLostBlobCostsItsFilesOnly(t *testing.T) {
	w, want := New(t), mixed(6)
	w.Snapshot("/home/me", want, TinySizes())
	snap := latest(t, w)
	for k, id := range w.Vault.Order {
		if k%19 != 0 && k != len(w.Vault.Order)-1 {
			continue
		}
		for _, how := range []func(tripod.ID, []byte) []byte{
			func(at tripod.ID, b []byte) []byte { // lost
				if at == id {
					return nil
				}
				return b
			},
			func(at tripod.ID, b []byte) []byte { // damaged
				if at == id {
					b = bytes.Clone(b)
					b[len(b)-20] ^= 4
				}
				return b
			},
		} {
			w.Vault.OnFrame = how
			dir := filepath.Join(t.TempDir(), "new")
			r, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: dir})
			if !errors.Is(err, tripod.Corrupt) && !(errors.Is(err, tripod.NotFound) && k == len(w.Vault.Order)-1) {
				t.Fatalf("blob %d: %v", k, err)
			}
			whole := 0
			for i := range want {
				f := &want[i]
				path := filepath.Join(dir, strings.TrimPrefix(f.Path(), "home/me"))
				if got, err := os.ReadFile(path); f.Type == tree.Regular && err == nil {
					if !bytes.Equal(got, f.Data) {
						t.Errorf("%s: is there with other content", path)
					}
					whole++
				}
			}
			if k < len(w.Vault.Order)-1 && whole+int(r.Failed) < 60 {
				t.Errorf("blob %d: %d files whole, %d failed of 60", k, whole, r.Failed)
			}
		}
	}
}

func TestDisks(t *testing.T) {
	const block = tree.MinBlock
	image := make([]byte, 300*block+block/2)
	r := rand.New(rand.NewPCG(7, 7))
	for _, i := range []int{0, 1, 5, 255, 256, 299, 300} {
		copy(image[i*block:], random(r, 1000))
	}
	w := New(t)
	w.Commit("sda", tripod.DiskImage, w.Disk(image, block), snapshot.Label{Host: "h", Paths: []string{"/dev/sda"}, Bytes: int64(len(image))})
	snap := latest(t, w)
	ctx := context.Background()
	dir := t.TempDir()
	check := func(err error, want []byte, at string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(at)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes differ: %v", at, len(got), err)
		}
	}
	rep, err := restore.Disk(ctx, w.Vault, snap, restore.Options{To: dir})
	check(err, image, filepath.Join(dir, "sda"))
	if rep.Bytes >= int64(len(image))/2 {
		t.Errorf("holes were written: %+v", rep)
	}
	if _, err := restore.Disk(ctx, w.Vault, snap, restore.Options{To: dir}); !errors.Is(err, tripod.Conflict) {
		t.Errorf("an image in the way: %v", err)
	}
	at := filepath.Join(dir, "sda")
	spoiled := bytes.Clone(image)
	spoiled[5*block+3] ^= 1
	spoiled[100*block] = 1
	if err := os.WriteFile(at, append(spoiled, 1, 2, 3), 0o600); err != nil {
		t.Fatal(err)
	}
	rep, err = restore.Disk(ctx, w.Vault, snap, restore.Options{To: at, Overwrite: restore.Changed})
	check(err, image, at)
	if rep.Bytes != block {
		t.Errorf("one block differed: %+v", rep)
	}
	_, err = restore.Disk(ctx, w.Vault, snap, restore.Options{To: at, Overwrite: restore.Always})
	check(err, image, at)
	var out bytes.Buffer
	if _, err := restore.Stream(ctx, w.Vault, snap, restore.Options{}, &out); err != nil || !bytes.Equal(out.Bytes(), image) {
		t.Errorf("as a stream: %d bytes, %v", out.Len(), err)
	}
}

func TestStreams(t *testing.T) {
	for _, n := range []int{0, 1, 100, 5000, 300_000} {
		data := []byte(random(rand.New(rand.NewPCG(uint64(n), 7)), n))
		w := New(t)
		w.Commit("db", tripod.Stream, w.List(data, 100), snapshot.Label{Host: "h", Paths: []string{"db.sql"}, Bytes: int64(n)})
		var out bytes.Buffer
		if _, err := restore.Stream(context.Background(), w.Vault, latest(t, w), restore.Options{}, &out); err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Fatalf("%d bytes of %d: %v", out.Len(), n, err)
		}
		dir := t.TempDir()
		if _, err := restore.StreamTo(context.Background(), w.Vault, latest(t, w), restore.Options{To: dir}); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "db.sql")); !bytes.Equal(got, data) {
			t.Fatalf("%d bytes of %d in the file", len(got), n)
		}
		// A separator at the end makes a folder of what is not there.
		to, at := dir+"/new/", filepath.Join(dir, "new", "db.sql")
		for _, dry := range []bool{true, false} {
			r, err := restore.StreamTo(context.Background(), w.Vault, latest(t, w), restore.Options{To: to, DryRun: dry})
			if err != nil || r.At != at {
				t.Fatalf("to %s: %v", r.At, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "new")); dry && err == nil {
				t.Fatal("a dry run made the folder")
			}
		}
		holds(t, at, data)
	}
}

// A file of several parts gets its name when it is whole, and not before: a
// restore may be killed at any time.
func TestNoFileHasItsNameBeforeItIsWhole(t *testing.T) {
	for _, chunks := range []int{5, 40} { // pieces, a list
		w := New(t)
		f, all := big(chunks * (128 << 10))
		w.Snapshot("/d", all, Sizes{Chunk: 128 << 10})
		snap := latest(t, w)
		for _, rule := range []restore.Overwrite{restore.Never, restore.Always} {
			dir := t.TempDir()
			path := filepath.Join(dir, "big")
			parts := 0
			w.Vault.Workers = 1
			w.Vault.OnFrame = func(_ tripod.ID, b []byte) []byte {
				parts++
				if i, err := os.Lstat(path); err == nil {
					t.Errorf("part %d of %d: the file is there with %d bytes", parts, chunks, i.Size())
				}
				return b
			}
			if _, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: dir, Overwrite: rule}); err != nil || parts < chunks {
				t.Fatalf("%d parts: %v", parts, err)
			}
			w.Vault.OnFrame = nil
			compareOne(t, path, f)
		}
	}
}
