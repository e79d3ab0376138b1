package tree_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// wild is an entry that may or may not make sense.
func wild(t *rapid.T) tree.Entry {
	text := rapid.SampledFrom([]string{"", "a", "b/c", "..", "a/", "\x00", "/x", strings.Repeat("n", 70_000)})
	size := rapid.SampledFrom([]int64{-1, 0, 1, 3, 600, 1 << 62, 1<<63 - 1})
	e := tree.Entry{
		Parent: text.Draw(t, "parent"), Name: text.Draw(t, "name"), Type: tree.FileType(rapid.IntRange(0, 8).Draw(t, "type")),
		Mode: rapid.SampledFrom([]uint32{0, 0o7777, 0o10000, 1 << 31}).Draw(t, "mode"),
		Nsec: rapid.SampledFrom([]uint32{0, 999_999_999, 1e9}).Draw(t, "nsec"), Sec: rapid.Int64().Draw(t, "sec"),
		Size: size.Draw(t, "size"), Link: text.Draw(t, "link"), Group: rapid.Uint64().Draw(t, "group"), Torn: rapid.Bool().Draw(t, "torn"),
		Owner: tree.Owner{UID: rapid.Uint32().Draw(t, "uid"), User: text.Draw(t, "user")},
	}
	for range rapid.IntRange(0, 2).Draw(t, "xattrs") {
		e.Xattrs = append(e.Xattrs, tree.Xattr{Name: text.Draw(t, "xname"), Value: text.Draw(t, "xvalue")})
	}
	for range rapid.IntRange(0, 2).Draw(t, "ranges") {
		e.Ranges = append(e.Ranges, tree.Range{Offset: size.Draw(t, "at"), Length: size.Draw(t, "long")})
	}
	for range rapid.IntRange(0, 2).Draw(t, "pieces") {
		p := tree.Piece{Offset: rapid.Uint32Range(0, 1<<25).Draw(t, "off"), Length: rapid.SampledFrom([]uint32{0, 1, 3, 1 << 24, 1<<32 - 1}).Draw(t, "len")}
		e.Content.Pieces = append(e.Content.Pieces, p)
	}
	if rapid.Bool().Draw(t, "inline") {
		e.Content.Inline = make([]byte, rapid.SampledFrom([]int{0, 1, 3, 600}).Draw(t, "inlined"))
	}
	if rapid.Bool().Draw(t, "list") {
		e.Content.List = &seal.Ref{}
	}
	return e
}

// What a writer accepts a reader must accept: a leaf that does not decode
// takes a thousand neighbours with it.
func TestWhatIsAddedCanBeRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNodes()
		b := tree.NewBuilder(seal.Secret{4}, n.emit)
		var want []tree.Entry
		for range rapid.IntRange(1, 8).Draw(t, "entries") {
			e := wild(t)
			if rapid.Bool().Draw(t, "tame") {
				e = genEntry(t, rapid.StringMatching(`[a-c](/[a-c]){0,3}`).Draw(t, "path"))
			}
			err := b.Add(&e)
			if err == nil {
				want = append(want, e)
			} else if tripod.KindOf(err) != tripod.Invalid {
				t.Fatal(err)
			}
		}
		if len(want) == 0 {
			return
		}
		root, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		got := n.query(root, tree.All())
		if len(got) != len(want) {
			t.Fatalf("%d entries of %d", len(got), len(want))
		}
		for i := range got {
			for _, c := range []*tree.Content{&got[i].Content, &want[i].Content} {
				if len(c.Inline) == 0 {
					c.Inline = nil
				}
			}
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("entry %d:\n got %+v\nwant %+v", i, got[i], want[i])
			}
		}
	})
}

func TestAHeavilyFragmentedFileIsRefusedNotLost(t *testing.T) {
	e := tree.Entry{Name: "image", Type: tree.Regular, Size: 1 << 40, Content: tree.Content{List: &seal.Ref{}}}
	for i := range int64(1<<16 + 1) {
		e.Ranges = append(e.Ranges, tree.Range{Offset: i * 8192, Length: 4096})
	}
	b := tree.NewBuilder(seal.Secret{4}, newNodes().emit)
	if err := b.Add(&e); !errors.Is(err, tripod.Invalid) {
		t.Fatalf("got %v", err)
	}
	e.Ranges = e.Ranges[:1<<16]
	if err := b.Add(&e); err != nil {
		t.Fatal(err)
	}
}

// Inner nodes hold their children's first paths, which may be long.
func TestLongPathsDoNotMakeNodesThatCannotBeSealed(t *testing.T) {
	longest := 0
	n := newNodes()
	b := tree.NewBuilder(seal.Secret{4}, func(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
		longest = max(longest, len(plain))
		return n.sealer.Ref(kind, refs, plain), nil
	})
	long := strings.Repeat("d/", 30_000) + "d"
	for i := range 1000 {
		if err := b.AddLeaf(tree.Leaf{Parent: long, Name: fmt.Sprintf("%09d", i), Count: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Finish(); err != nil || longest > 8<<20 {
		t.Fatalf("a node of %d bytes, %v", longest, err)
	}
}

func TestDiskBuilderRefusesBlocksItCannotPlace(t *testing.T) {
	const block = 1 << 16
	for name, add := range map[string]func(b *tree.DiskBuilder) error{
		"negative":      func(b *tree.DiskBuilder) error { return b.Add(-1, seal.Ref{}) },
		"beyond":        func(b *tree.DiskBuilder) error { return b.Add(1000, seal.Ref{}) },
		"far beyond":    func(b *tree.DiskBuilder) error { return b.Add(1<<62, seal.Ref{}) },
		"twice":         func(b *tree.DiskBuilder) error { return errors.Join(b.Add(7, seal.Ref{}), b.Add(7, seal.Ref{})) },
		"descending":    func(b *tree.DiskBuilder) error { return errors.Join(b.Add(7, seal.Ref{}), b.Add(6, seal.Ref{})) },
		"the root":      func(b *tree.DiskBuilder) error { return b.AddNode(1, 0, seal.Ref{}) },
		"level -1":      func(b *tree.DiskBuilder) error { return b.AddNode(-1, 0, seal.Ref{}) },
		"node beyond":   func(b *tree.DiskBuilder) error { return b.AddNode(0, 4, seal.Ref{}) },
		"node wrapping": func(b *tree.DiskBuilder) error { return b.AddNode(0, 1<<60, seal.Ref{}) },
		"under a node": func(b *tree.DiskBuilder) error {
			return errors.Join(b.AddNode(0, 1, seal.Ref{}), b.Add(256, seal.Ref{}))
		},
	} {
		b, err := tree.NewDiskBuilder(1000*block, block, newNodes().emit)
		if err != nil {
			t.Fatal(err)
		}
		if err := add(b); !errors.Is(err, tripod.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// bomb is a leaf of many small files cut into pieces of one byte: few bytes
// each, but 72 once decoded.
func bomb() []byte {
	const entries, pieces = 1 << 14, 64
	var names, modes, times, sizes, content []byte
	for i := range entries {
		if i == 0 {
			names = append(names, 1) // a parent, of no bytes
		}
		names = append(names, 0, 0, 2, byte(128+i>>7), byte(128+i&127))
		modes = append(modes, byte(tree.Regular), 0, 0, 0)
		times = append(times, 0, 0)
		sizes = binary.AppendUvarint(sizes, pieces)
		content = binary.AppendUvarint(content, 2+pieces-1)
		for p := range pieces {
			content = append(content, 0, 0)
			content = binary.AppendVarint(content, int64(1-(pieces-p)))
		}
	}
	b := []byte{1, 0}
	b = binary.AppendUvarint(b, entries)
	b = append(b, 1, 0, 0, 0, 0, 1, byte(tripod.Data))
	b = append(b, make([]byte, seal.RefLen)...)
	for _, c := range [][]byte{names, modes, times, sizes, content, nil} {
		b = append(binary.AppendUvarint(b, uint64(len(c))), c...)
	}
	return b
}

// spent is the memory that f allocates, in bytes.
func spent(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestACraftedLeafDoesNotFillTheMemory(t *testing.T) {
	plain, id := bomb(), seal.Ref{}
	var err error
	n := spent(func() { _, err = tree.DecodeNode(plain, []tripod.ID{id.ID()}) })
	if n > 64<<20 || !errors.Is(err, tripod.Corrupt) || !strings.Contains(err.Error(), "more pieces") {
		t.Fatalf("%d MiB allocated for a leaf of %d bytes: %v", n>>20, len(plain), err)
	}
}

func TestANodeIsReadOneWay(t *testing.T) {
	var plain []byte
	b := tree.NewBuilder(seal.Secret{4}, func(_ tripod.BlobKind, _ []tripod.ID, p []byte) (seal.Ref, error) {
		plain = bytes.Clone(p)
		return seal.Ref{}, nil
	})
	e := tree.Entry{Name: "x", Type: tree.Regular, Size: 3, Content: tree.Content{Inline: []byte("abc")}}
	if err := b.Add(&e); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	for n := range plain {
		if _, err := tree.DecodeNode(plain[:n], nil); err == nil {
			t.Fatalf("cut to %d bytes unseen", n)
		}
	}
	if _, err := tree.DecodeNode(append(plain, 0), nil); err == nil {
		t.Fatal("a byte too many unseen")
	}
}
