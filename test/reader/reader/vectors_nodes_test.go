package reader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"

	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"

	"tripod/internal/core/chunk"
	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

type nodeVector struct {
	Name    string `json:"name"`
	Kind    byte   `json:"kind"`
	Plain   hx     `json:"plain"`
	Refs    []hx   `json:"refs"`
	Meaning any    `json:"meaning"`
}

type refVector struct {
	H hx `json:"h"`
	U hx `json:"u"`
}

func refOf(r *seal.Ref) *refVector { return &refVector{H: r.H[:], U: r.U[:]} }

type entryVector struct {
	Parent   hx           `json:"parent"`
	Name     hx           `json:"name"`
	Type     byte         `json:"type"`
	Mode     uint32       `json:"mode"`
	UID      uint32       `json:"uid"`
	GID      uint32       `json:"gid"`
	User     string       `json:"user"`
	Group    string       `json:"group"`
	Sec      int64        `json:"sec"`
	Nsec     uint32       `json:"nsec"`
	Size     int64        `json:"size"`
	Link     hx           `json:"link,omitempty"`
	Device   []uint32     `json:"major_minor,omitempty"`
	Hardlink uint64       `json:"hard_link_group,omitempty"`
	Xattrs   [][2]hx      `json:"xattrs,omitempty"`
	Ranges   []tree.Range `json:"ranges,omitempty"`
	Torn     bool         `json:"torn,omitempty"`
	Inline   hx           `json:"inline,omitempty"`
	Pieces   []any        `json:"pieces,omitempty"`
	List     *refVector   `json:"list,omitempty"`
}

func entryOf(e *tree.Entry) (v entryVector) {
	v = entryVector{
		Parent: hx(e.Parent), Name: hx(e.Name), Type: byte(e.Type), Mode: e.Mode, UID: e.Owner.UID, GID: e.Owner.GID,
		User: e.Owner.User, Group: e.Owner.Group, Sec: e.Sec, Nsec: e.Nsec, Size: e.Size, Link: hx(e.Link), Hardlink: e.Group,
		Ranges: e.Ranges, Torn: e.Torn, Inline: e.Content.Inline,
	}
	if e.Type == tree.CharDevice || e.Type == tree.BlockDevice {
		v.Device = []uint32{e.Major, e.Minor}
	}
	for _, x := range e.Xattrs {
		v.Xattrs = append(v.Xattrs, [2]hx{hx(x.Name), hx(x.Value)})
	}
	for i := range e.Content.Pieces {
		p := &e.Content.Pieces[i]
		v.Pieces = append(v.Pieces, map[string]any{"ref": refOf(&p.Ref), "offset": p.Offset, "length": p.Length})
	}
	if e.Content.List != nil {
		v.List = refOf(e.Content.List)
	}
	return v
}

func testRef(n byte) seal.Ref { return seal.Ref{H: counting(n), U: counting(n + 1)} }

// everyEntry is a leaf's worth of entries: each type, each form of content.
func everyEntry() []tree.Entry {
	owner, root := tree.Owner{UID: 1000, GID: 100, User: "ann", Group: "users"}, tree.Owner{User: "root", Group: "root"}
	long := testRef(0x30)
	piece := func(r byte, offset, length uint32) tree.Piece {
		return tree.Piece{Ref: testRef(r), Offset: offset, Length: length}
	}
	file := func(parent, name string, size int64, c tree.Content) tree.Entry {
		return tree.Entry{Parent: parent, Name: name, Type: tree.Regular, Mode: 0o644, Owner: owner, Sec: 1_700_000_000, Nsec: 5, Size: size, Content: c}
	}
	linked := file("", "linked", 3, tree.Content{Inline: []byte("abc")})
	linked.Group = 7
	sparse := file("dir", "sparse", 1<<20, tree.Content{Pieces: []tree.Piece{piece(0x20, 0, 8192)}})
	sparse.Ranges = []tree.Range{{Offset: 0, Length: 4096}, {Offset: 65536, Length: 4096}}
	hole := file("dir", "hole", 1<<30, tree.Content{})
	hole.Ranges = []tree.Range{}
	again := linked
	again.Parent, again.Name = "dir", "linked-too"
	odd := file("dir/sub", "caf\xe9", 0, tree.Content{})
	odd.Sec, odd.Nsec, odd.Torn = -1, 999_999_999, true
	odd.Xattrs = []tree.Xattr{{Name: "user.a", Value: "1"}, {Name: "user.b", Value: ""}}
	return []tree.Entry{
		{Type: tree.Dir, Mode: 0o755, Owner: root},
		{Name: "block", Type: tree.BlockDevice, Mode: 0o660, Owner: root, Major: 8, Minor: 1},
		{Name: "char", Type: tree.CharDevice, Mode: 0o666, Owner: root, Major: 1, Minor: 3},
		{Name: "dir", Type: tree.Dir, Mode: 0o1777, Owner: owner},
		{Name: "fifo", Type: tree.Fifo, Mode: 0o600, Owner: owner},
		{Name: "link", Type: tree.Symlink, Mode: 0o777, Owner: owner, Link: "dir/sub"},
		linked,
		{Name: "socket", Type: tree.Socket, Mode: 0o755, Owner: owner},
		file("dir", "bundled-1", 700, tree.Content{Pieces: []tree.Piece{piece(0x10, 0, 700)}}),
		file("dir", "bundled-2", 900, tree.Content{Pieces: []tree.Piece{piece(0x10, 700, 900)}}),
		hole,
		again,
		file("dir", "long", 40<<20, tree.Content{List: &long}),
		sparse,
		{Parent: "dir", Name: "sub", Type: tree.Dir, Mode: 0o755, Owner: owner},
		odd,
		file("dir/sub", "two", 3<<20, tree.Content{Pieces: []tree.Piece{piece(0x21, 0, 1<<21), piece(0x22, 0, 1<<20)}}),
	}
}

// capture collects what builders emit and answers with made-up refs.
type capture struct{ nodes []nodeVector }

func (c *capture) emit(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
	v := nodeVector{Kind: byte(kind), Plain: bytes.Clone(plain), Refs: []hx{}}
	for i := range refs {
		v.Refs = append(v.Refs, bytes.Clone(refs[i][:]))
	}
	c.nodes = append(c.nodes, v)
	return testRef(byte(0xb0 + len(c.nodes))), nil
}

func (c *capture) name(i int, name string, meaning any) {
	c.nodes[i].Name, c.nodes[i].Meaning = name, meaning
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestVectorsOfNodes(t *testing.T) {
	var c capture
	entries := everyEntry()
	b := tree.NewBuilder(counting(0xc0), c.emit)
	var meaning []entryVector
	var cuts []int
	cutter := tree.NewCutter(counting(0xc0))
	for i := range entries {
		if cutter.Level(entries[i].Parent, entries[i].Name) > 0 {
			cuts = append(cuts, i)
		}
		must(t, b.Add(&entries[i]))
		meaning = append(meaning, entryOf(&entries[i]))
	}
	_, err := b.Finish()
	must(t, err)
	if len(cuts) > 0 || len(c.nodes) != 1 {
		t.Fatal("choose another key: the entries are cut")
	}
	c.name(0, "leaf with every type of entry", meaning)

	b = tree.NewBuilder(counting(0xc0), c.emit)
	must(t, b.AddLeaf(tree.Leaf{Ref: testRef(1)}), b.AddLeaf(tree.Leaf{Ref: testRef(2), Parent: "dir", Name: "m"}))
	_, err = b.Finish()
	must(t, err)
	one, two := testRef(1), testRef(2)
	c.name(1, "inner node over two leaves", []map[string]any{
		{"ref": refOf(&one), "parent": hx(""), "name": hx("")}, {"ref": refOf(&two), "parent": hx("dir"), "name": hx("m")},
	})

	l := tree.NewListBuilder(c.emit)
	must(t, l.Add(testRef(1), 1<<20), l.Add(testRef(2), 1<<19), l.Add(testRef(1), 1<<20))
	_, err = l.Finish()
	must(t, err)
	c.name(2, "list of three blobs, one twice", []map[string]any{
		{"ref": refOf(&one), "length": 1 << 20}, {"ref": refOf(&two), "length": 1 << 19}, {"ref": refOf(&one), "length": 1 << 20},
	})

	d, err := tree.NewDiskBuilder(300<<20+512, 1<<20, c.emit)
	must(t, err, d.Add(0, testRef(1)), d.Add(5, testRef(2)), d.Add(300, testRef(3)))
	_, err = d.Finish()
	must(t, err)
	diskMeaning := func(level int, slots ...int) map[string]any {
		return map[string]any{"level": level, "size": 300<<20 + 512, "block": 1 << 20, "slots": slots}
	}
	c.name(3, "disk leaf: blocks 0 and 5", diskMeaning(0, 0, 5))
	c.name(4, "disk leaf: block 300, of 512 bytes", diskMeaning(0, 44))
	c.name(5, "disk root over both", diskMeaning(1, 0, 1))
	golden(t, "node.json", c.nodes)
	checkNodes(t, c.nodes, entries)
}

func checkNodes(t *testing.T, nodes []nodeVector, entries []tree.Entry) {
	for _, v := range nodes {
		refs := make([]tripod.ID, len(v.Refs))
		for i := range refs {
			refs[i] = tripod.ID(v.Refs[i])
		}
		var err error
		switch tripod.BlobKind(v.Kind) {
		case tripod.Tree:
			_, err = tree.DecodeNode(v.Plain, refs)
		case tripod.List:
			_, err = tree.DecodeList(v.Plain, refs)
		default:
			_, err = tree.DecodeDisk(v.Plain, refs)
		}
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	f := &fields{b: nodes[0].Plain[2:]}
	got, _, err := parseLeaf(f)
	if err != nil || len(got) != len(entries) {
		t.Fatalf("the reader: %d entries, %v", len(got), err)
	}
	for i := range got {
		g, w := &got[i], &entries[i]
		same := g.path() == w.Path() && g.kind == byte(w.Type) && g.mode == w.Mode && g.uid == w.Owner.UID && g.gid == w.Owner.GID &&
			g.sec == w.Sec && g.nsec == w.Nsec && g.size == w.Size && g.link == w.Link && g.group == w.Group &&
			g.stored() == w.Stored() && len(g.pieces) == len(w.Content.Pieces) && bytes.Equal(g.inline, w.Content.Inline) &&
			(g.list != nil) == (w.Content.List != nil)
		for k := 0; same && k < len(g.pieces); k++ {
			p := w.Content.Pieces[k]
			same = g.pieces[k].offset == int64(p.Offset) && g.pieces[k].length == int64(p.Length) && g.pieces[k].ref.h == p.Ref.H
		}
		if !same {
			t.Errorf("the reader reads %+v, not %+v", g, w)
		}
	}
}

func TestVectorsOfCuts(t *testing.T) {
	key := counting(0xd0)
	type level struct {
		Parent string `json:"parent"`
		Name   string `json:"name"`
		Level  int    `json:"level"`
	}
	var levels []level
	cutter := tree.NewCutter(key)
	wanted := map[int]int{0: 3, 1: 3, 2: 2}
	for i := 0; len(wanted) > 0 && i < 1<<20; i++ {
		parent, name := fmt.Sprintf("d%d", i/100), fmt.Sprintf("f%d", i)
		l := cutter.Level(parent, name)
		if wanted[l]--; wanted[l] < 0 {
			delete(wanted, l)
			continue
		}
		levels = append(levels, level{parent, name, l})
	}
	type file struct {
		Name string `json:"name"`
		Size int    `json:"size"`
		Cut  bool   `json:"cut"`
	}
	var files []file
	bundler := chunk.NewBundler(key)
	sizes := xof("tripod bundle vector", 600)
	for i := range 300 {
		f := file{Name: fmt.Sprintf("f%d", i), Size: int(binary.LittleEndian.Uint16(sizes[2*i:]))}
		f.Cut = bundler.CutBefore(f.Name, f.Size)
		files = append(files, f)
	}
	var chunks []int
	at := 0
	must(t, chunk.NewSplitter(key).Split(bytes.NewReader(xof("tripod chunk vector", 24<<20)), func(c []byte) error {
		at += len(c)
		chunks = append(chunks, at)
		return nil
	}))
	gear := make([]string, len(fastcdc.G))
	for i, v := range fastcdc.G {
		gear[i] = fmt.Sprintf("%016x", v)
	}
	golden(t, "cuts.json", map[string]any{
		"key": hx(key[:]), "tree_levels": levels, "bundle_files": files,
		"chunk_stream": "BLAKE3 extended output over \"tripod chunk vector\", 25165824 bytes", "chunk_ends": chunks,
		"gear_base": gear,
	})
	if got := referenceChunks(key, xof("tripod chunk vector", 24<<20)); !reflect.DeepEqual(got, chunks) {
		t.Errorf("the specification's chunker cuts at %v, the product at %v", got, chunks)
	}
}
