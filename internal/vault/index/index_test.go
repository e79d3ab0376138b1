package index_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/vault/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// idOf spreads numbers over the ids as hashes would.
func idOf(n int) (id tripod.ID) {
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	for i := range 4 {
		x ^= x >> 31
		x *= 0xd6e8feb86659fd93
		binary.BigEndian.PutUint64(id[8*i:], x)
	}
	return id
}

func entries(from, n int, kind tripod.BlobKind) []index.Entry {
	all := make([]index.Entry, n)
	for i := range all {
		all[i] = index.Entry{
			ID: idOf(from + i), Sum: tripod.Sum(idOf(-from - i - 1)), Offset: uint32(i * 1000), Len: 1000, Kind: kind,
		}
	}
	return all
}

func packOf(n int, class frame.Class) index.Pack {
	return index.Pack{Name: tripod.PackID(idOf(1<<40 + n)), Size: 1 << 20, Class: class}
}

func open(t testing.TB, dir string) *index.Index {
	t.Helper()
	x, err := index.Open(dir, index.VaultID{1})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func closeIndex(t testing.TB, x *index.Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

// find gives the copies of one id.
func find(t testing.TB, x *index.Index, id tripod.ID) (all []index.Entry) {
	t.Helper()
	err := x.Find([]tripod.ID{id}, func(_ int, e *index.Entry) error {
		all = append(all, *e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func fill(t testing.TB, x *index.Index, packs, each int) {
	t.Helper()
	for p := range packs {
		if err := x.Add(packOf(p, frame.DataClass), entries(p*each, each, tripod.Data), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsAddedIsFoundAlsoAfterReopening(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir)
	if o := x.Origin(); !o.Fresh || o.Private || o.Reason != nil {
		t.Errorf("origin of a new index: %+v", o)
	}
	fill(t, x, 3, 10)
	if err := x.Add(packOf(7, frame.DataClass), entries(5, 1, tripod.Data), nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if found := find(t, x, idOf(5)); len(found) != 2 || found[0].Offset != 5000 || found[0].Sum != tripod.Sum(idOf(-6)) || found[1].Pack == found[0].Pack {
			t.Errorf("found %+v", found)
		}
		if found := find(t, x, idOf(99)); len(found) != 0 {
			t.Errorf("found what was never added: %+v", found)
		}
		if p, ok := x.Named(packOf(2, 0).Name); !ok || p.Size != 1<<20 || len(x.Packs()) != 4 {
			t.Errorf("packs: %+v", x.Packs())
		}
		if n, err := x.Blobs(); n != 30 || err != nil {
			t.Errorf("%d blobs, %v", n, err)
		}
		closeIndex(t, x)
		if x = open(t, dir); x.Origin().Fresh {
			t.Error("reopened index is fresh")
		}
	}
	closeIndex(t, x)
}

func TestClosedBits(t *testing.T) {
	x := open(t, t.TempDir())
	defer closeIndex(t, x)
	nodes := packOf(1, frame.NodeClass)
	nodes.Open = true
	if err := x.Add(nodes, entries(0, 3, tripod.Tree), nil); err != nil {
		t.Fatal(err)
	}
	fill(t, x, 1, 10) // shares ids, another kind: only ordinals differ
	if ok, err := x.Settled(); ok || err != nil {
		t.Errorf("settled: %v %v", ok, err)
	}
	e := find(t, x, idOf(1))[0]
	if e.Held() {
		t.Error("an open node counts as held")
	}
	if err := x.MarkClosed([]index.Entry{e}); err != nil {
		t.Fatal(err)
	}
	if e = find(t, x, idOf(1))[0]; !e.Held() {
		t.Error("a closed node does not count as held")
	}
	if err := x.Settle(map[uint32]bool{}); err != nil {
		t.Fatal(err)
	}
	if ok, err := x.Settled(); !ok || err != nil || x.Packs()[0].Open {
		t.Errorf("settled: %v %v", ok, err)
	}
}

// TestFoundPacksDoNotReplace: a list that is older than a Put must not take back
// what the Put knows.
func TestFoundPacksDoNotReplace(t *testing.T) {
	x := open(t, t.TempDir())
	defer closeIndex(t, x)
	node := entries(0, 1, tripod.Tree)
	node[0].Closed = true
	if err := x.Add(packOf(1, frame.NodeClass), node, nil); err != nil {
		t.Fatal(err)
	}
	found := packOf(1, frame.NodeClass)
	found.Open = true
	if err := x.AddFound(found, entries(0, 1, tripod.Tree)); err != nil {
		t.Fatal(err)
	}
	if ok, _ := x.Settled(); !ok || !find(t, x, idOf(0))[0].Closed {
		t.Error("a node that was closed is open")
	}
}

func TestDroppingALastCopyOpensNodes(t *testing.T) {
	x := open(t, t.TempDir())
	defer closeIndex(t, x)
	node := entries(100, 1, tripod.Tree)
	node[0].Closed = true
	if err := x.Add(packOf(9, frame.NodeClass), node, nil); err != nil {
		t.Fatal(err)
	}
	fill(t, x, 2, 10)
	if err := x.Add(packOf(2, frame.DataClass), entries(0, 10, tripod.Data), nil); err != nil { // copies of pack 0
		t.Fatal(err)
	}
	if err := x.Drop([]tripod.PackID{packOf(0, 0).Name}); err != nil {
		t.Fatal(err)
	}
	if found := find(t, x, idOf(3)); len(found) != 1 {
		t.Errorf("after the first copy went: %+v", found)
	}
	if ok, _ := x.Settled(); !ok || !find(t, x, idOf(100))[0].Closed {
		t.Error("a copy was left, and yet nodes were opened")
	}
	if err := x.Drop([]tripod.PackID{packOf(2, 0).Name}); err != nil {
		t.Fatal(err)
	}
	if found := find(t, x, idOf(3)); len(found) != 0 {
		t.Errorf("after the last copy went: %+v", found)
	}
	if ok, _ := x.Settled(); ok || find(t, x, idOf(100))[0].Closed {
		t.Error("a last copy went, and nodes stayed closed")
	}
}

// TestEveryFileDamagedOrGone: an index is rebuilt, or shown to be whole, never
// wrong.
func TestEveryFileDamagedOrGone(t *testing.T) {
	filled := t.TempDir()
	x := open(t, filled)
	fill(t, x, 5, 100)
	closeIndex(t, x)
	damages := map[string]func(string, []byte) error{
		"gone":    func(name string, _ []byte) error { return os.Remove(name) },
		"empty":   func(name string, _ []byte) error { return os.WriteFile(name, nil, 0o600) },
		"halved":  func(name string, b []byte) error { return os.WriteFile(name, b[:len(b)/2], 0o600) },
		"zeroed":  func(name string, b []byte) error { return os.WriteFile(name, make([]byte, len(b)), 0o600) },
		"flipped": func(name string, b []byte) error { b[len(b)/3] ^= 4; return os.WriteFile(name, b, 0o600) },
		"text":    func(name string, _ []byte) error { return os.WriteFile(name, []byte("a text"), 0o600) },
	}
	for what, damage := range damages {
		eachFile(t, filled, func(rel string) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(filled)); err != nil {
				t.Fatal(err)
			}
			os.Remove(filepath.Join(dir, filepath.Dir(filepath.Dir(rel)), "boot")) // as after a power cut
			name := filepath.Join(dir, rel)
			b, err := os.ReadFile(name)
			if err != nil || len(b) == 0 {
				return
			}
			if err := damage(name, b); err != nil {
				t.Fatal(err)
			}
			y := open(t, dir)
			defer closeIndex(t, y)
			packs := len(y.Packs())
			n, err := y.Blobs()
			if err != nil || n != int64(packs*100) {
				t.Errorf("%s %s: %d packs, %d blobs, %v", what, rel, packs, n, err)
			}
			if y.Origin().Private {
				t.Errorf("%s %s: private: %v", what, rel, y.Origin().Reason)
			}
		})
	}
}

func eachFile(t *testing.T, dir string, fn func(rel string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			fn(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamageFoundWhileInUseEndsTheIndex(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir)
	fill(t, x, 20, 500)
	closeIndex(t, x)
	eachFile(t, dir, func(rel string) {
		if filepath.Ext(rel) == ".sst" {
			name := filepath.Join(dir, rel)
			b, _ := os.ReadFile(name)
			for i := 100; i < len(b)*3/4; i += 64 {
				b[i] ^= 1
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	// The note of the boot is there: a machine whose disk decays while it runs.
	x = open(t, dir)
	if x.Origin().Reason == nil {
		err := x.Each(func(*index.Entry) error { return nil })
		if !errors.Is(err, tripod.Corrupt) || tripod.HintOf(err) == "" {
			t.Errorf("got %v", err)
		}
		if err := x.Find([]tripod.ID{idOf(1)}, func(int, *index.Entry) error { return nil }); !errors.Is(err, tripod.Corrupt) {
			t.Errorf("after damage was met: %v", err)
		}
	}
	x.Close()
	x = open(t, dir)
	defer closeIndex(t, x)
	if !x.Origin().Fresh {
		t.Error("the damaged index was opened again")
	}
}

func TestAnotherVaultsOrASecondOpener(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir)
	fill(t, x, 1, 10)
	second := open(t, dir)
	if o := second.Origin(); !o.Private || !o.Fresh || !errors.Is(o.Reason, tripod.Conflict) {
		t.Errorf("second opener: %+v", o)
	}
	private := second.Origin().Dir
	closeIndex(t, second)
	if _, err := os.Stat(private); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the private index stays: %v", err)
	}
	other, err := index.Open(dir, index.VaultID{2})
	if err != nil || !other.Origin().Fresh || other.Origin().Private {
		t.Errorf("another vault in the same cache directory: %+v %v", other.Origin(), err)
	}
	closeIndex(t, other)
	closeIndex(t, x)
}

func TestWhereNothingCanBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	x := open(t, dir)
	if o := x.Origin(); !o.Private || o.Dir == "" || o.Reason == nil {
		t.Errorf("a file for a cache directory: %+v", o)
	}
	closeIndex(t, x)
	t.Setenv("TMPDIR", dir)
	x = open(t, dir)
	if o := x.Origin(); !o.Private || o.Dir != "" {
		t.Errorf("no temporary directory either: %+v", o)
	}
	fill(t, x, 2, 100)
	if len(find(t, x, idOf(150))) != 1 {
		t.Error("an index in memory does not find")
	}
	closeIndex(t, x)
}

func BenchmarkOpenClose(b *testing.B) {
	dir := b.TempDir()
	x := open(b, dir)
	fill(b, x, 300, 16)
	closeIndex(b, x)
	for b.Loop() {
		closeIndex(b, open(b, dir))
	}
}

func BenchmarkFind(b *testing.B) {
	x := open(b, b.TempDir())
	defer closeIndex(b, x)
	const each, packs = 500, 2000 // a million rows
	fill(b, x, packs, each)
	for _, miss := range []int{0, 1} {
		b.Run([]string{"held", "new"}[miss], func(b *testing.B) {
			ids := make([]tripod.ID, 1000)
			n := 0
			for b.Loop() {
				for i := range ids {
					n += 7919
					ids[i] = idOf(n%(each*packs) + miss*each*packs)
				}
				if err := x.Find(ids, func(int, *index.Entry) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*len(ids))/b.Elapsed().Seconds(), "ids/s")
		})
	}
}
