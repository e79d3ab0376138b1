package source_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tripod/internal/driver/source"
)

func TestRoots(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"real/in", "real/inner", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("real", filepath.Join(dir, "alias")); err != nil {
		t.Skip("not proved: one place under two names, no symbolic links here")
	}
	for _, c := range []struct {
		name                   string
		paths, distinct, roots []string
	}{
		{"in any order", []string{"real", "other"}, []string{"other", "real"}, []string{"other", "real"}},
		{"twice", []string{"real", "real/", "other/../real"}, []string{"real"}, []string{"real"}},
		{"one below the other", []string{"real/in", "real"}, []string{"real", "real/in"}, []string{"real"}},
		{"a name that begins alike", []string{"real/in", "real/inner"}, []string{"real/in", "real/inner"}, []string{"real/in", "real/inner"}},
		{"by another name", []string{"alias/in", "real/in"}, []string{"real/in"}, []string{"real/in"}},
		{"by another name alone", []string{"alias/in"}, []string{"alias/in"}, []string{"alias/in"}},
		{"below by another name", []string{"alias/in", "real"}, []string{"alias/in", "real"}, []string{"real"}},
		{"a link beside its target", []string{"alias", "real"}, []string{"alias", "real"}, []string{"alias", "real"}},
		{"what is not there", []string{"none", "none", "none/at/all"}, []string{"none", "none/at/all"}, []string{"none"}},
	} {
		distinct, roots := source.Roots(in(dir, c.paths))
		if !slices.Equal(distinct, in(dir, c.distinct)) || !slices.Equal(roots, in(dir, c.roots)) {
			t.Errorf("%s: distinct %q, roots %q", c.name, distinct, roots)
		}
	}
	top := filepath.VolumeName(dir) + string(filepath.Separator)
	if _, roots := source.Roots([]string{dir, top}); !slices.Equal(roots, []string{top}) {
		t.Errorf("below the top: %q", roots)
	}
}

func in(dir string, paths []string) (out []string) {
	for _, p := range paths {
		out = append(out, dir+string(filepath.Separator)+p)
	}
	return out
}
