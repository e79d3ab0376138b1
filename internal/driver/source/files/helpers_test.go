package files

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tripod/internal/driver/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// both are the systems that the walk is proved on.
func both() map[string]system {
	return map[string]system{"native": newSystem(), "portable": portable{}}
}

// make files: a name that ends in / is a folder, one with -> a link.
func plant(t interface{ Fatal(...any) }, root string, names ...string) {
	for _, name := range names {
		name, content, _ := strings.Cut(name, "=")
		name, target, link := strings.Cut(name, "->")
		path := root + "/" + name // not Join, which would clean the slash away
		var err error
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case link:
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path))
		default:
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// must is for the steps of a set-up.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// told records what a walk has to say.
type told struct {
	warnings []string
	errs     []error
	notes    []string
}

func (w *told) watcher() source.Watcher {
	return source.Watcher{
		Warn: func(path string, err error) {
			w.warnings = append(w.warnings, path)
			w.errs = append(w.errs, err)
		},
		Note: func(path, text string) { w.notes = append(w.notes, path+": "+text) },
	}
}

// open makes a tree that is closed with the test.
func open(t *testing.T, s system, o Options) *Tree {
	t.Helper()
	tree, err := newTree(o, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

func collect(t *testing.T, tree *Tree) []source.Entry {
	t.Helper()
	var all []source.Entry
	err := tree.Walk(t.Context(), func(batch []source.Entry) error {
		all = append(all, batch...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// below gives the paths under root, relative to it, in the order of the walk.
func below(entries []source.Entry, root string) []string {
	var paths []string
	for i := range entries {
		if p, ok := strings.CutPrefix("/"+entries[i].Path(), root+"/"); ok {
			paths = append(paths, p)
		}
	}
	return paths
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func find(t *testing.T, entries []source.Entry, path string) *source.Entry {
	t.Helper()
	path = strings.TrimPrefix(path, "/")
	for i := range entries {
		if entries[i].Path() == path {
			return &entries[i]
		}
	}
	t.Fatalf("no entry %q", path)
	return nil
}

// hooked runs code of a test at the moments when others change the files.
type hooked struct {
	system
	opening func(path string) error // before a folder is opened for listing
	listed  func(path string) error // after its names were read
}

func (h *hooked) opendir(path string, list, follow bool) (directory, error) {
	if list && h.opening != nil {
		if err := h.opening(path); err != nil {
			return nil, err
		}
	}
	d, err := h.system.opendir(path, list, follow)
	if err != nil {
		return nil, err
	}
	return &hookedDirectory{d, h, path}, nil
}

type hookedDirectory struct {
	directory
	hooks *hooked
	path  string
}

func (d *hookedDirectory) list(s *scratch) error {
	err := d.directory.list(s)
	if d.hooks.listed != nil {
		err = errors.Join(err, d.hooks.listed(d.path))
	}
	return err
}
