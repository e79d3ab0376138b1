// Package sourcetest holds the suites that sources pass. They say in code what
// the contract in package source says in words; an adapter's test makes
// something to read and hands it over.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// Tree walks a tree that nothing changes meanwhile and checks every entry. It
// returns them all for the adapter's own checks.
func Tree(t *testing.T, tree source.Tree) []source.Entry {
	t.Helper()
	entries := walk(t, tree)
	if again := walk(t, tree); len(again) != len(entries) {
		t.Errorf("a second walk gave %d entries, the first %d", len(again), len(entries))
	}
	order(t, entries)
	for i := range entries {
		e := &entries[i]
		content(t, tree, e)
		a, err := tree.Attributes(e)
		if err != nil {
			t.Errorf("attributes of %q: %v", e.Path(), err)
		}
		if e.Type == source.Regular {
			sameXattrs(t, tree, e, a.Xattrs)
		}
		if (a.Target != "") != (e.Type == source.Symlink) {
			t.Errorf("%q is a %v and points to %q", e.Path(), e.Type, a.Target)
		}
		for j := 1; j < len(a.Xattrs); j++ {
			if a.Xattrs[j-1].Name >= a.Xattrs[j].Name {
				t.Errorf("%q: attributes out of order", e.Path())
			}
		}
	}
	ends(t, tree, len(entries))
	return entries
}

// sameXattrs checks that the open file tells what its name told.
func sameXattrs(t *testing.T, tree source.Tree, e *source.Entry, want []source.Xattr) {
	t.Helper()
	f, err := tree.Open(e)
	if err != nil {
		t.Errorf("open %q: %v", e.Path(), err)
		return
	}
	defer f.Close()
	if got, err := f.Xattrs(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, opened, has the attributes %v (%v); by name it has %v", e.Path(), got, err, want)
	}
}

func walk(t *testing.T, tree source.Tree) []source.Entry {
	t.Helper()
	var entries []source.Entry
	err := tree.Walk(t.Context(), func(batch []source.Entry) error {
		if len(batch) == 0 {
			t.Error("an empty batch")
		}
		for i := range batch {
			if batch[i].Parent != batch[0].Parent {
				t.Errorf("one batch holds entries of %q and %q", batch[0].Parent, batch[i].Parent)
			}
		}
		entries = append(entries, batch...)
		return nil
	})
	if err != nil {
		t.Fatalf("walk: %v", err)
	}
	return entries
}

// order checks that the entries are one tree in tree order.
func order(t *testing.T, entries []source.Entry) {
	t.Helper()
	if len(entries) == 0 || entries[0].Path() != "" || entries[0].Type != source.Directory {
		t.Fatal("a tree begins with its root")
	}
	folders := map[string]bool{}
	for i := range entries {
		e := &entries[i]
		if i > 0 {
			last := &entries[i-1]
			if source.Compare(last.Parent, last.Name, e.Parent, e.Name) >= 0 {
				t.Errorf("%q, %q comes after %q, %q", e.Parent, e.Name, last.Parent, last.Name)
			}
			if !folders[e.Parent] {
				t.Errorf("%q comes before its folder", e.Path())
			}
			if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
				t.Errorf("name %q", e.Name)
			}
		}
		if e.Type == source.Directory {
			folders[e.Path()] = true
		}
		if e.Type < source.Regular || e.Type > source.BlockDevice {
			t.Errorf("%q has type %d", e.Path(), e.Type)
		}
		if e.Type != source.Regular && e.Size != 0 {
			t.Errorf("%q is a %v and has size %d", e.Path(), e.Type, e.Size)
		}
		if e.Mode > 0o7777 || e.MTime.Nsec < 0 || e.MTime.Nsec >= 1e9 || e.CTime.Nsec < 0 || e.CTime.Nsec >= 1e9 {
			t.Errorf("%q: mode %o, times %v, %v", e.Path(), e.Mode, e.MTime, e.CTime)
		}
	}
}

// content checks that a file is read as it was described.
func content(t *testing.T, tree source.Tree, e *source.Entry) {
	t.Helper()
	f, err := tree.Open(e)
	if e.Type != source.Regular {
		if !errors.Is(err, tripod.Invalid) {
			t.Errorf("open %q, a %v: %v", e.Path(), e.Type, err)
		}
		return
	}
	if err != nil {
		t.Errorf("open %q: %v", e.Path(), err)
		return
	}
	now, err := f.Stat()
	if err != nil || now != *e {
		t.Errorf("stat of %q: %+v, %v; the walk said %+v", e.Path(), now, err, *e)
	}
	var all bytes.Buffer
	if n, err := io.Copy(&all, struct{ io.Reader }{f}); err != nil || n != e.Size {
		t.Errorf("%q has %d bytes, read %d: %v", e.Path(), e.Size, n, err)
	}
	readAt(t, f, all.Bytes())
	ranges(t, f, all.Bytes())
	if err := f.Close(); err != nil {
		t.Errorf("close %q: %v", e.Path(), err)
	}
}

// ends checks the ways in which a walk ends early.
func ends(t *testing.T, tree source.Tree, entries int) {
	t.Helper()
	enough := errors.New("enough")
	for after := range min(entries, 20) {
		seen := 0
		err := tree.Walk(t.Context(), func([]source.Entry) error {
			if seen++; seen > after {
				return enough
			}
			return nil
		})
		if err != nil && !errors.Is(err, enough) {
			t.Errorf("walk stopped by its function: %v", err)
		}
		if seen > after+1 {
			t.Error("a walk went on after its function's error")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := tree.Walk(ctx, func([]source.Entry) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("walk with an ended context: %v", err)
	}
}

// Disk reads a disk that holds want and checks what it says.
func Disk(t *testing.T, disk source.Disk, want []byte) {
	t.Helper()
	info := disk.Info()
	if info.Size != int64(len(want)) {
		t.Errorf("size %d, want %d", info.Size, len(want))
	}
	if now, err := disk.Stat(); err != nil || now != info {
		t.Errorf("stat: %+v, %v; opened as %+v", now, err, info)
	}
	readAt(t, disk, want)
	ranges(t, disk, want)
}

// readAt checks io.ReaderAt at the places where adapters go wrong.
func readAt(t *testing.T, r io.ReaderAt, want []byte) {
	t.Helper()
	size := len(want)
	for _, off := range []int{0, 1, size / 2, size - 1, size, size + 1} {
		for _, length := range []int{0, 1, 4097, size + 1} {
			if off < 0 {
				continue
			}
			var expect []byte
			if off < size {
				expect = want[off:min(off+length, size)]
			}
			p := make([]byte, length)
			n, err := r.ReadAt(p, int64(off))
			if !bytes.Equal(p[:n], expect) || (n < length) != (err == io.EOF && length > 0) { //nolint:errorlint // io.EOF itself
				t.Errorf("read %d bytes at %d of %d: %d, %v", length, off, size, n, err)
			}
		}
	}
}

// ranges checks that what NextData leaves out is zeros.
func ranges(t *testing.T, s source.Sparse, want []byte) {
	t.Helper()
	end := int64(0)
	for r, err := range source.DataRanges(s) {
		if err != nil {
			t.Fatalf("ranges: %v", err)
		}
		if r.Offset < end || r.Length <= 0 || r.End() > int64(len(want)) {
			t.Fatalf("range %+v after %d, of %d", r, end, len(want))
		}
		zeros(t, want[end:r.Offset])
		end = r.End()
	}
	zeros(t, want[end:])
	if _, err := s.NextData(int64(len(want))); err != io.EOF { //nolint:errorlint // io.EOF itself
		t.Errorf("data behind the end: %v", err)
	}
}

func zeros(t *testing.T, p []byte) {
	t.Helper()
	if len(bytes.Trim(p, "\x00")) > 0 {
		t.Error("a hole holds data")
	}
}
