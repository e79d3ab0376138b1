//go:build unix

package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// Between the walk and the opening anything can happen to a name.
func TestOpenAfterChange(t *testing.T) {
	cases := []struct {
		name   string
		change func(root string) error
		want   error // nil: opens
	}{
		{"nothing", func(string) error { return nil }, nil},
		{"grew", func(root string) error { return os.WriteFile(root+"/d/f", []byte("longer than before"), 0o644) }, nil},
		{"vanished", func(root string) error { return os.Remove(root + "/d/f") }, tripod.NotFound},
		{"folder vanished", func(root string) error { return os.RemoveAll(root + "/d") }, tripod.NotFound},
		{"another file", func(root string) error {
			return errors.Join(os.WriteFile(root+"/new", nil, 0o644), os.Rename(root+"/new", root+"/d/f"))
		}, tripod.Conflict},
		{"a link", func(root string) error {
			return errors.Join(os.Rename(root+"/d/f", root+"/d/g"), os.Symlink("g", root+"/d/f"))
		}, tripod.Conflict},
		{"a fifo", func(root string) error {
			return errors.Join(os.Rename(root+"/d/f", root+"/d/g"), syscall.Mkfifo(root+"/d/f", 0o644))
		}, tripod.Conflict},
		{"a folder", func(root string) error {
			return errors.Join(os.Remove(root+"/d/f"), os.Mkdir(root+"/d/f", 0o755))
		}, tripod.Conflict},
		{"folder renamed away and back in place", func(root string) error {
			return errors.Join(os.Rename(root+"/d", root+"/e"), os.Mkdir(root+"/d", 0o755), os.Link(root+"/e/f", root+"/d/f"), os.Remove(root+"/e/f"))
		}, nil},
	}
	for system, s := range both() {
		for _, c := range cases {
			t.Run(system+"/"+c.name, func(t *testing.T) {
				root := t.TempDir()
				plant(t, root, "d/f=content")
				before := descriptors(t)
				tree := open(t, s, Options{Paths: []string{root}})
				defer func() {
					must(t, tree.Close())
					if open := descriptors(t) - before; open != 0 {
						t.Errorf("%d descriptors stay open", open)
					}
				}()
				e := find(t, collect(t, tree), root+"/d/f")
				if f, err := tree.Open(e); err != nil { // so that the folder is kept open
					t.Fatal(err)
				} else if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if err := c.change(root); err != nil {
					t.Fatal(err)
				}
				f, err := tree.Open(e)
				if err == nil {
					defer f.Close() // lint:errcheck a test's
				}
				if (c.want == nil) != (err == nil) || (c.want != nil && !errors.Is(err, c.want)) {
					t.Fatalf("open: %v, want %v", err, c.want)
				}
				if err != nil && !strings.Contains(err.Error(), root+"/d/f") {
					t.Errorf("the error names no file: %v", err)
				}
				if c.name == "grew" {
					if now, err := f.Stat(); err != nil || now.Size == e.Size {
						t.Errorf("stat: %+v, %v", now, err)
					}
				}
			})
		}
	}
}

func TestAttributesAfterChange(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "f=content", "g=other")
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	e := find(t, collect(t, tree), root+"/f")
	if err := os.Rename(root+"/g", root+"/f"); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Attributes(e); !errors.Is(err, tripod.Conflict) {
		t.Errorf("attributes of another file: %v", err)
	}
	if err := os.Remove(root + "/f"); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Attributes(e); !errors.Is(err, tripod.NotFound) {
		t.Errorf("attributes of a file that vanished: %v", err)
	}
}

// More folders than stay open, opened by several goroutines at once.
func TestHandles(t *testing.T) {
	root := t.TempDir()
	const folders = 3 * maxHandles
	for i := range folders {
		plant(t, root, fmt.Sprintf("%03d/a=%d", i, i), fmt.Sprintf("%03d/b=%d", i, i))
	}
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	entries := collect(t, tree)
	before := descriptors(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range entries {
				e := &entries[i]
				if e.Type != source.Regular {
					continue
				}
				f, err := tree.Open(e)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(f)
				if want := strings.TrimLeft(e.Parent[len(e.Parent)-3:], "0"); err != nil || string(got) != want && want != "" {
					t.Errorf("%s holds %q, %v", e.Path(), got, err)
				}
				if err := errors.Join(f.Close(), f.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if open := descriptors(t) - before; open > maxHandles+4 {
		t.Errorf("%d folders stay open", open)
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	if open := descriptors(t) - before; open != 0 {
		t.Errorf("%d stay open behind Close", open)
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("not proved: no descriptor is left open, needs /proc")
	}
	return len(entries)
}

// A folder in use is not closed to make room.
func TestHandlesInUse(t *testing.T) {
	root := t.TempDir()
	h := newHandles(newSystem())
	var held []*handle
	for i := range maxHandles + 5 {
		plant(t, root, fmt.Sprintf("%d/", i))
		d, err := h.acquire(fmt.Sprintf("%s/%d", root, i)[1:])
		must(t, err)
		held = append(held, d)
	}
	var e source.Entry
	for _, d := range held {
		must(t, d.self(&e))
		h.release(d)
	}
	h.forget()
}
