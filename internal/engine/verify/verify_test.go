package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, w *World) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(context.Background(), w.Vault, w.Keys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func data(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// world has two snapshots of files that share most, a disk and a stream.
func world(t testing.TB) *World {
	t.Helper()
	w := New(t)
	files := append(Parents("home/x"), Dir("home/d"))
	for i := range 300 {
		files = append(files, Text(fmt.Sprintf("home/f%03d", i), string(data(uint64(i), i))))
	}
	files = append(files, Text("home/d/long", string(data(1000, 6000))))
	w.Snapshot("/home", files, TinySizes())
	files = append(files, Text("home/new", string(data(2000, 50))))
	w.Snapshot("/home", files, TinySizes())
	image := data(3000, 300*tree.MinBlock+7)
	clear(image[tree.MinBlock : 290*tree.MinBlock])
	w.Commit("sda", tripod.DiskImage, w.Disk(image, tree.MinBlock), snapshot.Label{Host: "h", Paths: []string{"/dev/sda"}})
	w.Commit("db", tripod.Stream, w.List(data(4000, 20_000), 100), snapshot.Label{Host: "h", Paths: []string{"db.sql"}})
	return w
}

func TestAWholeVaultIsFoundWhole(t *testing.T) {
	w := world(t)
	c := open(t, w)
	w.Vault.ResetCounts()
	r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{})
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	if got := r.Nodes + r.Data; got != int64(len(w.Vault.Frames)) {
		t.Errorf("%d nodes and %d data blobs of %d were checked", r.Nodes, r.Data, len(w.Vault.Frames))
	}
	again := 0
	for id, n := range w.Vault.Delivered() {
		if again += n - 1; n < 1 {
			t.Errorf("blob %.8s was read %d times", id, n)
		}
	}
	if again > 2 { // the node before one that was added has another end
		t.Errorf("%d blobs were read again", again)
	}
}

func TestNodesThatDoNotFitTogetherAreFound(t *testing.T) {
	w := New(t)
	hostile := map[tripod.SourceType]map[string]seal.Ref{
		tripod.Files: w.HostileTrees(), tripod.DiskImage: w.HostileDisks(), tripod.Stream: w.HostileLists(),
	}
	for kind, roots := range hostile {
		for name, root := range roots {
			w.Commit(name, kind, root, snapshot.Label{Host: name, Paths: []string{"/d"}})
		}
	}
	c := open(t, w)
	for _, s := range c.Snapshots() { // each on its own: they share nodes
		r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{Snapshots: []catalog.Snapshot{s}})
		if !errors.Is(err, tripod.Corrupt) || r.Damaged == 0 || len(r.Files) == 0 {
			t.Errorf("%s: %+v, %v", s.Label.Host, r, err)
		}
	}
}

// A node of one snapshot may have another end in the next, and a list may go on.
func TestWhatGrowsIsNotCalledDamaged(t *testing.T) {
	w := New(t)
	leaf := w.Leaf("a", "b")
	up := w.Inner(1, At("a", leaf))
	part := w.List(data(1, 300), 100)
	w.Commit("t", tripod.Files, leaf, snapshot.Label{Host: "h", Paths: []string{"/d"}})
	w.Commit("t", tripod.Files, up, snapshot.Label{Host: "h", Paths: []string{"/d"}})
	w.Commit("t", tripod.Files, w.Inner(1, At("a", leaf), At("c", w.Leaf("c"))), snapshot.Label{Host: "h", Paths: []string{"/d"}})
	w.Commit("t", tripod.Files, w.Inner(2, At("a", up), At("x", w.Inner(1, At("x", w.Leaf("x"))))), snapshot.Label{Host: "h", Paths: []string{"/d"}})
	long := w.Lists(tree.ListNode{Level: 1, Items: []tree.ListItem{{Ref: part, Length: 300}, {Ref: w.List(data(2, 100), 100), Length: 100}}})
	w.Commit("s", tripod.Stream, long, snapshot.Label{Host: "h", Paths: []string{"db"}})
	w.Commit("s", tripod.Stream, part, snapshot.Label{Host: "h", Paths: []string{"db"}})
	e := Text("f", "").Entry
	e.Content.List, e.Size = &part, 300
	b := tree.NewBuilder(seal.Secret{}, w.Emit)
	if err := b.Add(&e); err != nil {
		t.Fatal(err)
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	w.Commit("f", tripod.Files, root, snapshot.Label{Host: "h", Paths: []string{"/d"}})
	r, err := verify.Run(context.Background(), w.Vault, open(t, w), verify.Options{})
	if err != nil || r.Nodes+r.Data != int64(len(w.Vault.Frames)) {
		t.Fatalf("%d nodes and %d data blobs of %d, %v", r.Nodes, r.Data, len(w.Vault.Frames), err)
	}
}

func TestEveryDamagedBlobIsFoundAndNamed(t *testing.T) {
	w := world(t)
	c := open(t, w)
	other := w.Vault.Frames[w.Vault.Order[0]]
	for k, id := range w.Vault.Order {
		if k%37 != 0 {
			continue
		}
		how := []func(b []byte) []byte{
			func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b },
			func([]byte) []byte { return nil },
			func([]byte) []byte { return other },
			func(b []byte) []byte { return b[:len(b)-1] },
		}[k/37%4]
		if k == 0 {
			how = func([]byte) []byte { return nil }
		}
		w.Vault.OnFrame = func(at tripod.ID, b []byte) []byte {
			if at == id {
				return how(b)
			}
			return b
		}
		r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{})
		if !errors.Is(err, tripod.Corrupt) || r.Missing+r.Damaged != 1 || len(r.Files) == 0 || len(r.Files[0].Snapshots) == 0 {
			t.Fatalf("blob %d: %+v, %v", k, r, err)
		}
	}
}

func TestDamageIsNamedByPathAndSnapshots(t *testing.T) {
	w := world(t)
	c := open(t, w)
	chunk := w.Data(data(1000, 6000)[:100])
	delete(w.Vault.Frames, chunk.ID())
	r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{})
	if !errors.Is(err, tripod.Corrupt) || len(r.Files) != 1 || r.Files[0].Path != "/home/d/long" || len(r.Files[0].Snapshots) != 2 || r.Missing != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if !strings.Contains(err.Error(), "/home/d/long") {
		t.Errorf("the error names no file: %v", err)
	}
}

func TestContradictionsAreFound(t *testing.T) {
	for name, make := range map[string]func(w *World, e *tree.Entry){
		"piece beyond its blob": func(w *World, e *tree.Entry) {
			e.Content.Pieces = []tree.Piece{{Ref: w.Data([]byte("short")), Length: 6}}
			e.Size = 6
		},
		"list of another length": func(w *World, e *tree.Entry) {
			root := w.List(data(1, 1000), 100)
			e.Content.List, e.Size = &root, 999
		},
		"list item of another length": func(w *World, e *tree.Entry) {
			l := tree.NewListBuilder(w.Emit)
			_ = l.Add(w.Data([]byte("short")), 4)
			root, _ := l.Finish()
			e.Content.List, e.Size = &root, 4
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := New(t)
			e := Text("d/f", "").Entry
			make(w, &e)
			b := tree.NewBuilder(seal.Secret{}, w.Emit)
			if err := b.Add(&e); err != nil {
				t.Fatal(err)
			}
			root, err := b.Finish()
			if err != nil {
				t.Fatal(err)
			}
			w.Commit("/d", tripod.Files, root, snapshot.Label{Host: "h", Paths: []string{"/d"}})
			r, err := verify.Run(context.Background(), w.Vault, open(t, w), verify.Options{})
			if !errors.Is(err, tripod.Corrupt) || len(r.Files) != 1 || r.Files[0].Path != "/d/f" {
				t.Fatalf("%+v, %v", r, err)
			}
		})
	}
}

func TestSamplesAreDrawnBySeed(t *testing.T) {
	w := world(t)
	c := open(t, w)
	var totals []int64
	for seed := range uint64(3) {
		r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{Sample: 20, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		if all := r.Data + r.Skipped; r.Data < all/10 || r.Data > all*3/10 {
			t.Errorf("seed %d: %d of %d", seed, r.Data, all)
		}
		totals = append(totals, r.Bytes)
	}
	if totals[0] == totals[1] && totals[1] == totals[2] {
		t.Error("all seeds draw the same")
	}
}

func TestReadingFailsAtEveryStep(t *testing.T) {
	w := world(t)
	c := open(t, w)
	outage := tripod.Errorf(tripod.Unavailable, "out of reach")
	for n := 0; ; n++ {
		w.Vault.ResetCounts()
		w.Vault.OnGet = func(i int) error {
			if i == n {
				return outage
			}
			return nil
		}
		_, err := verify.Run(context.Background(), w.Vault, c, verify.Options{})
		if w.Vault.Gets() <= n {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if !errors.Is(err, tripod.Unavailable) {
			t.Fatalf("read %d: %v", n, err)
		}
	}
}

func TestCancelledAtEveryStep(t *testing.T) {
	w := world(t)
	c := open(t, w)
	for n := range 12 {
		ctx, cancel := context.WithCancel(context.Background())
		w.Vault.ResetCounts()
		w.Vault.OnGet = func(i int) error {
			if i == n {
				cancel()
			}
			return nil
		}
		_, err := verify.Run(ctx, w.Vault, c, verify.Options{})
		if w.Vault.Gets() > n && !errors.Is(err, context.Canceled) {
			t.Errorf("read %d: %v", n, err)
		}
		w.Vault.OnGet = nil
		ctx2, cancel2 := context.WithCancel(context.Background())
		events := 0
		_, err = verify.Run(ctx2, w.Vault, c, verify.Options{Progress: func(run.Event) {
			if events++; events == n+1 {
				cancel2()
			}
		}})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("event %d: %v", n, err)
		}
		cancel()
		cancel2()
	}
}

func TestTheLogsProblemsCount(t *testing.T) {
	w := world(t)
	for name, b := range w.Vault.Docs {
		if strings.HasPrefix(name, "record/") && strings.HasSuffix(name, "02") {
			b[len(b)-1] ^= 1
		}
	}
	r, err := verify.Run(context.Background(), w.Vault, open(t, w), verify.Options{})
	if !errors.Is(err, tripod.Corrupt) || len(r.Problems) != 1 || r.Snapshots != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// BenchmarkRun verifies a source tree. TRIPOD_BENCH_TREE names a folder to
// measure with instead of generated files.
func BenchmarkRun(b *testing.B) {
	w := New(b)
	w.Snapshot("/", FolderOr(b, "TRIPOD_BENCH_TREE", func() []File { return SourceTree(8000) }), DefaultSizes())
	c := open(b, w)
	b.ReportAllocs()
	for b.Loop() {
		r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(r.Bytes)
	}
}

// A lost node of a tree costs every file that only it names, and all are counted.
func TestFilesWithoutNamesAreCounted(t *testing.T) {
	w := New(t)
	all := append(Parents("srv/d/x"), Dir("srv/d"))[:3]
	for i := range 6000 {
		all = append(all, Text(fmt.Sprintf("srv/d/f%04d", i), "content"))
	}
	for range 2 {
		w.Snapshot("/srv/d", all, DefaultSizes())
	}
	c := open(t, w)
	root, err := blobs.New(w.Vault, w.Public.ID).Node(context.Background(), c.Snapshots()[0].Root)
	if err != nil || root.Level == 0 {
		t.Fatalf("one leaf only: %v", err)
	}
	places := new(tree.Place).Below(root, nil)
	for _, at := range []tree.Placed{places[0], places[1], places[len(places)-1], {Ref: c.Snapshots()[0].Root}} {
		gone, span := at.Ref.ID(), blobs.SpanOf(&at.Place)
		w.Vault.OnFrame = func(id tripod.ID, b []byte) []byte {
			if id == gone {
				return nil
			}
			return b
		}
		var lost int64
		for i := range all {
			if all[i].Type == tree.Regular && span.Has(all[i].Path()) {
				lost++
			}
		}
		r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{})
		want := []verify.Unlisted{{Snapshot: c.Snapshots()[0].ID, Total: 6000, Files: lost}, {Snapshot: c.Snapshots()[1].ID, Total: 6000, Files: lost}}
		if !errors.Is(err, tripod.Corrupt) || r.NotWhole != lost || !r.AtLeast || !slices.Equal(r.Unlisted, want) || len(r.Files) != 1 || r.Files[0].What() != span.String() {
			t.Errorf("without %v: %d lost, and %+v: %v", span, lost, r, err)
		}
		if !strings.Contains(err.Error(), tripod.Count(lost, "file")+" not whole, first "+span.String()) {
			t.Errorf("the error does not count: %v", err)
		}
	}
}

// Of what is long, verify tells which bytes cannot be read: the same as restore.
func TestMissingBytesAreNamed(t *testing.T) {
	w := world(t)
	c := open(t, w)
	image := data(3000, 300*tree.MinBlock+7)
	for what, lost := range map[string]struct {
		piece []byte
		size  int64
		at    tree.Range
	}{
		"/home/d/long": {data(1000, 6000)[100:200], 6000, tree.Range{Offset: 100, Length: 100}},
		"db.sql":       {data(4000, 20_000)[300:400], 20_000, tree.Range{Offset: 300, Length: 100}},
		"/dev/sda":     {image[291*tree.MinBlock : 292*tree.MinBlock], int64(len(image)), tree.Range{Offset: 291 * tree.MinBlock, Length: tree.MinBlock}},
	} {
		gone := w.Data(lost.piece)
		w.Vault.OnFrame = func(id tripod.ID, b []byte) []byte {
			if id == gone.ID() {
				return nil
			}
			return b
		}
		r, err := verify.Run(context.Background(), w.Vault, c, verify.Options{})
		if !errors.Is(err, tripod.Corrupt) || r.NotWhole != 1 || r.AtLeast || len(r.Files) != 1 || r.Files[0].Path != what ||
			r.Files[0].Size != lost.size || !slices.Equal(r.Files[0].Missing, []tree.Range{lost.at}) {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
}
