package tree_test

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// nodes keeps what builders emit and fetches it again.
type nodes struct {
	sealer *seal.Sealer
	opener *seal.Opener
	frames map[tripod.ID][]byte
	emits  int
}

func newNodes() *nodes {
	return &nodes{
		sealer: seal.NewSealer(tripod.CompanyID{1}, seal.Secret{2}, seal.Secret{3}, seal.Fast),
		opener: seal.NewOpener(), frames: map[tripod.ID][]byte{},
	}
}

func (n *nodes) emit(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
	ref := n.sealer.Ref(kind, refs, plain)
	n.emits++
	n.frames[ref.ID()] = n.sealer.Seal(nil, kind, &ref, refs, plain)
	return ref, nil
}

func (n *nodes) open(kind tripod.BlobKind, ref *seal.Ref) ([]byte, []tripod.ID) {
	plain, refs, err := n.opener.Open(nil, tripod.CompanyID{1}, kind, ref, n.frames[ref.ID()])
	if err != nil {
		panic(err)
	}
	return plain, refs
}

func (n *nodes) query(root seal.Ref, q tree.Query) (out []tree.Entry) {
	plain, refs := n.open(tripod.Tree, &root)
	node, err := tree.DecodeNode(plain, refs)
	if err != nil {
		panic(err)
	}
	entries, want := tree.Next(node, q)
	out = append(out, entries...)
	for _, c := range want {
		out = append(out, n.query(c.Ref, q)...)
	}
	return out
}

func build(t require, n *nodes, entries []tree.Entry) seal.Ref {
	b := tree.NewBuilder(seal.Secret{4}, n.emit)
	for i := range entries {
		if err := b.Add(&entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

type require interface{ Fatal(args ...any) }

func genEntry(t *rapid.T, path string) tree.Entry {
	e := tree.Entry{Type: tree.FileType(rapid.IntRange(1, 7).Draw(t, "type"))}
	e.Parent, e.Name = tree.SplitPath(path)
	e.Mode = rapid.Uint32Range(0, 0o7777).Draw(t, "mode")
	e.Owner = tree.Owner{UID: rapid.Uint32Range(0, 3).Draw(t, "uid"), User: "u"}
	e.Sec, e.Nsec = rapid.Int64().Draw(t, "sec"), rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec")
	if rapid.Bool().Draw(t, "xattr") {
		e.Xattrs = []tree.Xattr{{Name: "user.a", Value: "1"}, {Name: "user.b", Value: ""}}
	}
	switch e.Type {
	case tree.Symlink:
		e.Link = rapid.String().Draw(t, "link")
	case tree.BlockDevice, tree.CharDevice:
		e.Major, e.Minor = 8, rapid.Uint32().Draw(t, "minor")
	case tree.Regular:
		genContent(t, &e)
	}
	return e
}

func genContent(t *rapid.T, e *tree.Entry) {
	e.Torn = rapid.Bool().Draw(t, "torn")
	if rapid.Bool().Draw(t, "linked") {
		e.Group = rapid.Uint64Range(1, 5).Draw(t, "group")
	}
	switch rapid.IntRange(0, 2).Draw(t, "form") {
	case 0:
		e.Content.Inline = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "inline")
		e.Size = int64(len(e.Content.Inline))
	case 1:
		e.Size = rapid.Int64Range(0, 1<<50).Draw(t, "size")
		e.Content.List = &seal.Ref{H: seal.Secret{rapid.Byte().Draw(t, "list"), 1}}
	default:
		for range rapid.IntRange(1, 4).Draw(t, "pieces") {
			p := tree.Piece{Ref: seal.Ref{H: seal.Secret{rapid.Byte().Draw(t, "blob")}}}
			p.Offset, p.Length = rapid.Uint32Range(0, 1<<20).Draw(t, "off"), rapid.Uint32Range(1, 1<<20).Draw(t, "len")
			e.Content.Pieces = append(e.Content.Pieces, p)
			e.Size += int64(p.Length)
		}
		if rapid.Bool().Draw(t, "sparse") {
			e.Ranges = []tree.Range{{Offset: 4096, Length: e.Size}}
			e.Size += 8192
		}
	}
}

func genEntries(t *rapid.T) []tree.Entry {
	part := rapid.StringMatching(`[ab./\-]{1,3}`).Filter(func(s string) bool {
		return tree.ValidName(s) == nil
	})
	paths := rapid.SliceOfN(rapid.SliceOfN(part, 1, 4), 1, 40).Draw(t, "paths")
	seen := map[string]bool{}
	var out []tree.Entry
	for _, p := range paths {
		path := strings.Join(p, "/")
		if !seen[path] {
			seen[path] = true
			out = append(out, genEntry(t, path))
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return tree.Compare(out[i].Parent, out[i].Name, out[j].Parent, out[j].Name) < 0
	})
	return out
}

func TestTreeGivesBackEveryEntry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, entries := newNodes(), genEntries(t)
		root := build(t, n, entries)
		got := n.query(root, tree.All())
		if len(got) != len(entries) {
			t.Fatalf("%d entries of %d", len(got), len(entries))
		}
		for i := range got {
			if len(got[i].Content.Inline) == 0 {
				got[i].Content.Inline = nil
			}
			if len(entries[i].Content.Inline) == 0 {
				entries[i].Content.Inline = nil
			}
			if !reflect.DeepEqual(got[i], entries[i]) {
				t.Fatalf("entry %d:\n got %+v\nwant %+v", i, got[i], entries[i])
			}
		}
	})
}

func TestOrderIsTheOrderOfAWalk(t *testing.T) {
	paths := []string{"a", "a-b", "b", "a/x", "a/y", "a/x/1", "a-b/z", "b/c", "b/c/d"}
	got := slices.Clone(paths)
	sort.Slice(got, func(i, j int) bool {
		pi, ni := tree.SplitPath(got[i])
		pj, nj := tree.SplitPath(got[j])
		return tree.Compare(pi, ni, pj, nj) < 0
	})
	if !slices.Equal(got, paths) {
		t.Fatalf("got %v", got)
	}
}

// large is a tree of many leaves with known keys.
func large(n int) []tree.Entry {
	var out []tree.Entry
	out = append(out, tree.Entry{Type: tree.Dir})
	for d := range n / 100 {
		out = append(out, tree.Entry{Name: fmt.Sprintf("d%05d", d), Type: tree.Dir})
	}
	for d := range n / 100 {
		for f := range 100 {
			e := tree.Entry{Parent: fmt.Sprintf("d%05d", d), Name: fmt.Sprintf("f%02d", f), Type: tree.Regular, Size: 1}
			e.Content.Pieces = []tree.Piece{{Ref: seal.Ref{H: seal.Secret{byte(d), byte(d >> 8)}}, Offset: uint32(f), Length: 1}}
			out = append(out, e)
		}
	}
	return out
}

func TestOneChangedFileRewritesAHandfulOfNodes(t *testing.T) {
	n, entries := newNodes(), large(300_000)
	build(t, n, entries)
	all := len(n.frames)
	entries[150_000].Sec++
	build(t, n, entries)
	if fresh := len(n.frames) - all; fresh > 4 {
		t.Fatalf("%d of %d nodes rewritten", fresh, all)
	}
}

func TestOnePathIsFoundInFewReads(t *testing.T) {
	n, entries := newNodes(), large(300_000)
	root := build(t, n, entries)
	reads := 0
	var find func(ref seal.Ref) []tree.Entry
	find = func(ref seal.Ref) (out []tree.Entry) {
		reads++
		plain, refs := n.open(tripod.Tree, &ref)
		node, err := tree.DecodeNode(plain, refs)
		if err != nil {
			t.Fatal(err)
		}
		found, want := tree.Next(node, tree.One("d01234/f56"))
		for _, c := range want {
			found = append(found, find(c.Ref)...)
		}
		return found
	}
	found := find(root)
	if len(found) != 1 || found[0].Path() != "d01234/f56" || reads > 4 {
		t.Fatalf("found %v in %d reads", found, reads)
	}
	if got := n.query(root, tree.ListOf("d00077")); len(got) != 100 {
		t.Fatalf("a folder of 100 lists %d", len(got))
	}
	if got := n.query(root, tree.ListOf("")); len(got) != 3000 {
		t.Fatalf("the root lists %d of 3000", len(got))
	}
	if got := n.query(root, tree.Under("")); len(got) != 303_000 {
		t.Fatalf("%d below the root", len(got))
	}
}

func TestQueriesEqualAScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, entries := newNodes(), genEntries(t)
		root := build(t, n, entries)
		dir := rapid.SampledFrom(entries).Draw(t, "dir")
		path := dir.Path()
		var list, under, one int
		for i := range entries {
			if entries[i].Parent == path {
				list++
			}
			if tree.Below(entries[i].Parent, path) {
				under++
			}
			if entries[i].Path() == path {
				one++
			}
		}
		if g := len(n.query(root, tree.ListOf(path))); g != list {
			t.Fatalf("list: %d, want %d", g, list)
		}
		if g := len(n.query(root, tree.Under(path))); g != under {
			t.Fatalf("under: %d, want %d", g, under)
		}
		if g := len(n.query(root, tree.One(path))); g != one {
			t.Fatalf("one: %d, want %d", g, one)
		}
	})
}

func TestReusedLeavesMakeTheSameTree(t *testing.T) {
	n, entries := newNodes(), large(50_000)
	b := tree.NewBuilder(seal.Secret{4}, n.emit)
	var leaves []tree.Leaf
	b.Finished = func(l tree.Leaf) { leaves = append(leaves, l) }
	for i := range entries {
		if err := b.Add(&entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	want, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	again := tree.NewBuilder(seal.Secret{4}, n.emit)
	at := 0
	for i, l := range leaves {
		if i%3 == 1 {
			for k := range l.Count {
				if err := again.Add(&entries[at+k]); err != nil {
					t.Fatal(err)
				}
			}
		} else if err := again.AddLeaf(l); err != nil {
			t.Fatal(err)
		}
		at += l.Count
	}
	got, err := again.Finish()
	if err != nil || got != want {
		t.Fatalf("another root: %v", err)
	}
}

func (n *nodes) list(ref seal.Ref) (out []tree.ListItem) {
	plain, refs := n.open(tripod.List, &ref)
	node, err := tree.DecodeList(plain, refs)
	if err != nil {
		panic(err)
	}
	for _, i := range node.Items {
		if node.Level == 0 {
			out = append(out, i)
		} else {
			out = append(out, n.list(i.Ref)...)
		}
	}
	return out
}

func TestListGivesBackItsItems(t *testing.T) {
	for _, count := range []int{0, 1, 2, 500, 20_000} {
		n := newNodes()
		b := tree.NewListBuilder(n.emit)
		var want []tree.ListItem
		for i := range count {
			item := tree.ListItem{Ref: seal.Ref{H: seal.Secret{byte(i), byte(i >> 8)}}, Length: int64(i)}
			want = append(want, item)
			if err := b.Add(item.Ref, item.Length); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.Finish()
		if err != nil || !slices.Equal(n.list(root), want) {
			t.Fatalf("%d items: %v", count, err)
		}
	}
}

func (n *nodes) disk(ref seal.Ref, base int64, out map[int64]seal.Ref) {
	plain, refs := n.open(tripod.Disk, &ref)
	node, err := tree.DecodeDisk(plain, refs)
	if err != nil {
		panic(err)
	}
	for _, s := range node.Slots {
		if node.Level == 0 {
			out[base+int64(s.Index)] = s.Ref
		} else {
			n.disk(s.Ref, base+int64(s.Index)*node.SlotBlocks(), out)
		}
	}
}

func TestDiskMapGivesBackItsBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 70_000<<16).Draw(t, "size")
		blocks := (size + 1<<16 - 1) >> 16
		n, want := newNodes(), map[int64]seal.Ref{}
		b, err := tree.NewDiskBuilder(size, 1<<16, n.emit)
		if err != nil {
			t.Fatal(err)
		}
		for i := int64(0); i < blocks; i += rapid.Int64Range(1, 3000).Draw(t, "step") {
			want[i] = seal.Ref{H: seal.Secret{byte(i)}}
			if err := b.Add(i, want[i]); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		got := map[int64]seal.Ref{}
		n.disk(root, 0, got)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%d blocks, want %d", len(got), len(want))
		}
	})
}

func FuzzDecode(f *testing.F) {
	n := newNodes()
	build(f, n, large(300)[:50])
	for _, fr := range n.frames {
		_, _, _ = frame.Parse(fr)
	}
	b := tree.NewBuilder(seal.Secret{4}, func(_ tripod.BlobKind, _ []tripod.ID, plain []byte) (seal.Ref, error) {
		f.Add(append([]byte(nil), plain...))
		return seal.Ref{}, nil
	})
	e := tree.Entry{Name: "x", Type: tree.Regular, Size: 3, Content: tree.Content{Inline: []byte("abc")}}
	_ = b.Add(&e)
	_, _ = b.Finish()
	f.Fuzz(func(_ *testing.T, plain []byte) {
		_, _ = tree.DecodeNode(plain, nil)
		_, _ = tree.DecodeList(plain, nil)
		_, _ = tree.DecodeDisk(plain, nil)
	})
}
