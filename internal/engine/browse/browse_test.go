package browse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
	"tripod/internal/engine/catalog"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, w *World) (*catalog.Catalog, *browse.Browser) {
	t.Helper()
	c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
	if err != nil {
		t.Fatal(err)
	}
	return c, browse.New(w.Vault, w.Keys.ID)
}

func data(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func home() []File {
	return append(Parents("home/me/x"), Text("home/me/a.txt", "one"), Dir("home/me/d"), Text("home/me/d/B.txt", string(data(1, 90))),
		Text("home/me/d/long", string(data(2, 5000))), Link("home/me/l", "a.txt"))
}

func TestListAndCat(t *testing.T) {
	w := New(t)
	w.Snapshot("/home/me", home(), TinySizes())
	c, b := open(t, w)
	s := c.Snapshots()[0]
	ctx := context.Background()
	for path, want := range map[string]string{
		"": "a.txt d l", "/": "home", "/home": "me", "d": "B.txt long", "/home/me/d": "B.txt long", "a.txt": "a.txt",
	} {
		got, err := b.List(ctx, s, path)
		var names []string
		for _, e := range got {
			names = append(names, e.Name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%q: %q, %v", path, names, err)
		}
	}
	var out bytes.Buffer
	if err := b.Cat(ctx, s, "d/long", &out); err != nil || !bytes.Equal(out.Bytes(), data(2, 5000)) {
		t.Errorf("cat: %d bytes, %v", out.Len(), err)
	}
	if err := b.Cat(ctx, s, "d", &out); !errors.Is(err, tripod.Invalid) {
		t.Errorf("cat of a folder: %v", err)
	}
	if _, err := b.List(ctx, s, "nosuch"); !errors.Is(err, tripod.NotFound) {
		t.Errorf("list of nothing: %v", err)
	}
}

func TestFindGivesVersions(t *testing.T) {
	w := New(t)
	files := home()
	w.Snapshot("/home/me", files, TinySizes())
	w.Snapshot("/home/me", files, TinySizes())
	i := slices.IndexFunc(files, func(f File) bool { return f.Name == "a.txt" })
	files[i].Data, files[i].Sec = []byte("two"), files[i].Sec+5
	w.Snapshot("/home/me", files, TinySizes())
	c, b := open(t, w)
	ctx := context.Background()
	got, err := b.Find(ctx, c, browse.Query{Pattern: "a.txt"})
	if err != nil || len(got) != 1 || len(got[0].Versions) != 2 || len(got[0].Versions[0].Snapshots) != 2 || len(got[0].Versions[1].Snapshots) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	for pattern, want := range map[string]int{
		"*.txt": 2, "b.txt": 0, "/home/me/*.txt": 1, "home/**/*.txt": 2, "**/d/*": 2, "home/me/d": 1, "home/me/**": 6, "**/x/**": 0, "?.txt": 2,
	} {
		if got, err := b.Find(ctx, c, browse.Query{Pattern: pattern}); err != nil || len(got) != want {
			t.Errorf("%q: %d, not %d, %v", pattern, len(got), want, err)
		}
	}
	if got, err := b.Find(ctx, c, browse.Query{Pattern: "b.TXT", IgnoreCase: true}); err != nil || len(got) != 1 {
		t.Errorf("any case: %+v, %v", got, err)
	}
	if _, err := b.Find(ctx, c, browse.Query{Pattern: "[a"}); !errors.Is(err, tripod.Invalid) {
		t.Errorf("bad pattern: %v", err)
	}
}

// many is a tree of many leaves.
func many(n int) []File {
	files := []File{Dir("")}
	for d := range n / 50 {
		files = append(files, Dir(fmt.Sprintf("d%04d", d)))
		for f := range 50 {
			files = append(files, Text(fmt.Sprintf("d%04d/f%02d", d, f), fmt.Sprint(d, f)))
		}
	}
	return files
}

func TestSharedNodesAreReadOnce(t *testing.T) {
	w := New(t)
	files := many(20_000)
	w.Snapshot("/", files, DefaultSizes())
	first := len(w.Vault.Frames)
	files[777].Mode = 0o600
	w.Snapshot("/", files, DefaultSizes())
	changed := len(w.Vault.Frames) - first
	c, b := open(t, w)
	ctx := context.Background()
	w.Vault.ResetCounts()
	var got []browse.Change
	err := b.Diff(ctx, c.Snapshots()[0], c.Snapshots()[1], func(x browse.Change) error {
		got = append(got, x)
		return nil
	})
	if err != nil || len(got) != 1 || got[0].Kind != browse.Metadata || got[0].Path != files[777].Path() {
		t.Fatalf("%+v, %v", got, err)
	}
	if read := len(w.Vault.Delivered()); read > 2*changed+1 {
		t.Errorf("%d nodes were read to compare trees that differ in %d", read, changed)
	}
	b = browse.New(w.Vault, w.Keys.ID)
	w.Vault.ResetCounts()
	if found, err := b.Find(ctx, c, browse.Query{Pattern: "f07"}); err != nil || len(found) != 400 {
		t.Fatalf("%d, %v", len(found), err)
	}
	for id, n := range w.Vault.Delivered() {
		if n > 1 {
			t.Errorf("blob %.8s was read %d times", id, n)
		}
	}
}

func genFiles(t *rapid.T, name string) []File {
	dirs := []string{"", "a", "a/b", "a-b", "c"}
	files := []File{}
	for _, d := range dirs {
		files = append(files, Dir(d))
	}
	seen := map[string]bool{}
	for i := range rapid.IntRange(0, 60).Draw(t, name) {
		path := tree.Join(rapid.SampledFrom(dirs).Draw(t, "dir"), "f"+rapid.StringMatching(`[a-c]{1,3}`).Draw(t, "name"))
		if seen[path] {
			continue
		}
		seen[path] = true
		switch i % 5 {
		case 4:
			files = append(files, Link(path, rapid.SampledFrom([]string{"x", "y"}).Draw(t, "link")))
		default:
			f := Text(path, strings.Repeat("x", rapid.SampledFrom([]int{0, 3, 40, 300, 2500}).Draw(t, "size"))+rapid.SampledFrom([]string{"p", "q"}).Draw(t, "text"))
			f.Mode = rapid.SampledFrom([]uint32{0o644, 0o600}).Draw(t, "mode")
			files = append(files, f)
		}
	}
	return files
}

func TestDiffIsTheDifference(t *testing.T) {
	keep := New(t)
	rapid.Check(t, func(t *rapid.T) {
		w := keep
		a, b := genFiles(t, "a"), genFiles(t, "b")
		w.Snapshot("/"+rapid.StringMatching(`[a-z]{8}`).Draw(t, "source"), a, TinySizes())
		first := w.Tree(a, TinySizes())
		second := w.Tree(b, TinySizes())
		snap := func(root tripod.ID) catalog.Snapshot {
			return catalog.Snapshot{Record: &snapshot.Record{Type: tripod.Files, Root: root}, Label: &snapshot.Label{Paths: []string{"/"}}}
		}
		s1, s2 := snap(first.ID()), snap(second.ID())
		s1.Root, s2.Root = first, second
		got := map[string]browse.ChangeKind{}
		err := browse.New(w.Vault, w.Keys.ID).Diff(context.Background(), s1, s2, func(c browse.Change) error {
			got[c.Path] = c.Kind
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]browse.ChangeKind{}
		old := map[string]File{}
		for _, f := range a {
			old[f.Path()] = f
		}
		for _, f := range b {
			o, ok := old[f.Path()]
			delete(old, f.Path())
			switch {
			case !ok:
				want[f.Path()] = browse.Added
			case o.Type != f.Type:
				want[f.Path()] = browse.Retyped
			case !bytes.Equal(o.Data, f.Data) || o.Link != f.Link:
				want[f.Path()] = browse.Modified
			case o.Mode != f.Mode:
				want[f.Path()] = browse.Metadata
			}
		}
		for path := range old {
			want[path] = browse.Removed
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("\n got %v\nwant %v", got, want)
		}
	})
}

func TestReadAtAnyPlace(t *testing.T) {
	w := New(t)
	long := data(5, 5000)
	sparse := Text("d/sparse", string(data(6, 700)))
	sparse.Ranges = []tree.Range{{Offset: 10, Length: 300}, {Offset: 1000, Length: 400}}
	sparse.Size = 2000
	hole := make([]byte, 2000)
	copy(hole[10:310], sparse.Data)
	copy(hole[1000:1400], sparse.Data[300:])
	w.Snapshot("/d", append(Parents("d/x"), Text("d/long", string(long)), sparse, Text("d/tiny", "tiny"), Text("d/none", "")), TinySizes())
	image := data(7, 300*tree.MinBlock+99)
	clear(image[tree.MinBlock : 290*tree.MinBlock])
	w.Commit("sda", tripod.DiskImage, w.Disk(image, tree.MinBlock), snapshot.Label{Paths: []string{"/dev/sda"}})
	w.Commit("db", tripod.Stream, w.List(long, 100), snapshot.Label{Paths: []string{"db"}})
	c, b := open(t, w)
	snaps := c.Snapshots()
	r := rand.New(rand.NewPCG(8, 8))
	for _, x := range []struct {
		snap catalog.Snapshot
		path string
		want []byte
	}{
		{snaps[0], "long", long},
		{snaps[0], "sparse", hole},
		{snaps[0], "tiny", []byte("tiny")},
		{snaps[0], "none", nil},
		{snaps[1], "", image},
		{snaps[2], "", long},
	} {
		f, err := b.Open(context.Background(), x.snap, x.path)
		if err != nil || f.Size() != int64(len(x.want)) {
			t.Fatalf("%s: %v", x.path, err)
		}
		at := f.ReaderAt(context.Background())
		if got, err := io.ReadAll(io.NewSectionReader(at, 0, f.Size())); err != nil || !bytes.Equal(got, x.want) {
			t.Fatalf("%q front to back: %d bytes, %v", x.path, len(got), err)
		}
		for range 60 {
			p := make([]byte, r.IntN(400))
			off := r.Int64N(f.Size() + 20)
			n, err := at.ReadAt(p, off)
			want := x.want[min(off, f.Size()):]
			if !bytes.Equal(p[:n], want[:min(len(p), len(want))]) || (n < len(p)) != (err == io.EOF) {
				t.Fatalf("%q: %d bytes of %d at %d: %v", x.path, n, len(p), off, err)
			}
		}
	}
}

func TestDamageIsNamed(t *testing.T) {
	w := New(t)
	w.Snapshot("/home/me", home(), TinySizes())
	c, b := open(t, w)
	delete(w.Vault.Frames, c.Snapshots()[0].Root.ID())
	ctx := context.Background()
	if _, err := b.Find(ctx, c, browse.Query{Pattern: "*"}); !errors.Is(err, tripod.NotFound) || !strings.Contains(err.Error(), c.Snapshots()[0].ID) {
		t.Errorf("find: %v", err)
	}
	lost := 0
	if _, err := b.Find(ctx, c, browse.Query{Pattern: "*", Lost: func(catalog.Snapshot, string, error) { lost++ }}); err != nil || lost != 1 {
		t.Errorf("find that goes on: %d, %v", lost, err)
	}
}

func TestHostileSnapshotsAreTold(t *testing.T) {
	w := New(t)
	label := func(name string) snapshot.Label { return snapshot.Label{Host: name, Paths: []string{"/d"}} }
	w.Commit("good", tripod.Files, w.Leaf("a"), label("good"))
	for name, root := range w.HostileTrees() {
		w.Commit(name, tripod.Files, root, label(name))
	}
	for name, root := range w.HostileDisks() {
		w.Commit(name, tripod.DiskImage, root, label(name))
	}
	c, b := open(t, w)
	ctx := context.Background()
	for _, s := range c.Snapshots() {
		name := s.Label.Host
		if s.Record.Type == tripod.DiskImage {
			f, err := b.Open(ctx, s, "")
			for at := int64(0); err == nil && at < f.Size(); at += tree.MinBlock {
				_, err = f.ReadAt(ctx, make([]byte, 1), at)
			}
			if !errors.Is(err, tripod.Corrupt) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		err := b.Diff(ctx, c.Snapshots()[0], s, func(browse.Change) error { return nil })
		if (name != "good") != errors.Is(err, tripod.Corrupt) {
			t.Errorf("diff, %s: %v", name, err)
		}
	}
}
