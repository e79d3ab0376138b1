package tree_test

import (
	"reflect"
	"testing"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// Whatever decodes takes little memory; and a builder that takes its entries
// makes a leaf of the same entries.
func FuzzDecodeLeaf(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	emit := func(plain *[]byte, refs *[]tripod.ID) tree.Emit {
		return func(_ tripod.BlobKind, r []tripod.ID, p []byte) (seal.Ref, error) {
			*plain, *refs = append([]byte(nil), p...), append([]tripod.ID(nil), r...)
			return seal.Ref{}, nil
		}
	}
	var plain []byte
	var refs []tripod.ID
	for _, entries := range [][]tree.Entry{large(300)[:60], {
		{Type: tree.Dir},
		{Name: "link", Type: tree.Symlink, Link: "x"},
		{Name: "sparse", Type: tree.Regular, Size: 9, Ranges: []tree.Range{{Offset: 1, Length: 2}}, Content: tree.Content{Inline: []byte("ab")}},
		{Name: "x", Type: tree.Regular, Size: 3, Xattrs: []tree.Xattr{{Name: "a", Value: "b"}}, Content: tree.Content{Inline: []byte("abc")}},
	}} {
		b := tree.NewBuilder(seal.Secret{4}, emit(&plain, &refs))
		for i := range entries {
			if err := b.Add(&entries[i]); err != nil {
				f.Fatal(err)
			}
		}
		if _, err := b.Finish(); err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var n *tree.Node
		if got := spent(func() { n, _ = tree.DecodeNode(b, nil) }); got > 64<<20 {
			t.Fatalf("%d MiB for %d bytes", got>>20, len(b))
		}
		if n == nil || n.Level > 0 || len(n.Entries) == 0 {
			return
		}
		var plain []byte
		var refs []tripod.ID
		again := tree.NewBuilder(seal.Secret{4}, emit(&plain, &refs))
		cut := tree.NewCutter(seal.Secret{4})
		for i := range n.Entries {
			e := &n.Entries[i]
			if cut.Level(e.Parent, e.Name) > 0 || again.Add(e) != nil {
				return // two leaves, or longer than writers write
			}
		}
		if _, err := again.Finish(); err != nil {
			t.Fatal(err)
		}
		back, err := tree.DecodeNode(plain, refs)
		if err != nil || len(back.Entries) != len(n.Entries) {
			t.Fatal(err)
		}
		for i := range n.Entries {
			if a, b := back.Entries[i], n.Entries[i]; !reflect.DeepEqual(a.Xattrs, b.Xattrs) || a.Path() != b.Path() || a.Size != b.Size ||
				len(a.Ranges) != len(b.Ranges) || a.Mode != b.Mode || a.Sec != b.Sec || string(a.Content.Inline) != string(b.Content.Inline) {
				t.Fatalf("%+v becomes %+v", b, a)
			}
		}
	})
}

func FuzzDecodeListAndDisk(f *testing.F) {
	n := newNodes()
	emit := func(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
		f.Add(append([]byte(nil), plain...))
		return n.emit(kind, refs, plain)
	}
	l := tree.NewListBuilder(emit)
	d, err := tree.NewDiskBuilder(300<<16, 1<<16, emit)
	if err != nil {
		f.Fatal(err)
	}
	for i := range int64(3) {
		if l.Add(seal.Ref{H: seal.Secret{byte(i)}}, i) != nil || d.Add(i*100, seal.Ref{}) != nil {
			f.Fatal("not added")
		}
	}
	_, _ = l.Finish()
	_, _ = d.Finish()
	f.Fuzz(func(t *testing.T, b []byte) {
		got := spent(func() {
			if l, err := tree.DecodeList(b, nil); err == nil && l.Size() < 0 {
				t.Fatal("a list of less than nothing")
			}
			if d, err := tree.DecodeDisk(b, nil); err == nil && (len(d.Slots) > tree.DiskFan || d.Block < tree.MinBlock) {
				t.Fatal("an impossible disk node")
			}
		})
		if got > 64<<20 {
			t.Fatalf("%d MiB for %d bytes", got>>20, len(b))
		}
	})
}

func BenchmarkLeaf(b *testing.B) {
	entries := large(1000)
	var plain []byte
	var refs []tripod.ID
	emit := func(_ tripod.BlobKind, r []tripod.ID, p []byte) (seal.Ref, error) {
		plain, refs = append(plain[:0], p...), append(refs[:0], r...)
		return seal.Ref{}, nil
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			t := tree.NewBuilder(seal.Secret{5}, emit)
			for i := range entries {
				_ = t.Add(&entries[i])
			}
			_, _ = t.Finish()
		}
	})
	t := tree.NewBuilder(seal.Secret{5}, emit)
	for i := range entries {
		_ = t.Add(&entries[i])
		if i == 0 {
			continue
		}
		if n := tree.NewCutter(seal.Secret{5}).Level(entries[i].Parent, entries[i].Name); n > 0 {
			break // one leaf
		}
	}
	_, _ = t.Finish()
	leaf, ids := append([]byte(nil), plain...), append([]tripod.ID(nil), refs...)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = tree.DecodeNode(leaf, ids)
		}
	})
}
