package files

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tripod/internal/core/tripod"
)

func TestPatterns(t *testing.T) {
	cases := []struct {
		patterns string // separated by blanks
		path     string // ends in / for a folder
		want     bool
	}{
		// A name at any depth.
		{"*.o", "a.o", true},
		{"*.o", "x/y/a.o", true},
		{"*.o", "a.oo", false},
		{"*.o", "x.o/y", false}, // below an excluded folder the walk does not get
		{"core", "x/core", true},
		{"core", "x/Core", false},
		{"core", "x/core1", false},
		{"?", "é", true},
		{"?", "\xff", true},
		{"?", "ab", false},
		{"*", "anything", true},

		// Folders only.
		{"build/", "x/build/", true},
		{"build/", "x/build", false},
		{"/a/b/", "a/b/", true},
		{"/a/b/", "a/b", false},

		// The end of a path, at any depth.
		{"docs/*.pdf", "docs/a.pdf", true},
		{"docs/*.pdf", "x/y/docs/a.pdf", true},
		{"docs/*.pdf", "docs/x/a.pdf", false},
		{"docs/*.pdf", "mydocs/a.pdf", false},

		// The whole path.
		{"/var/cache", "var/cache/", true},
		{"/var/cache", "x/var/cache/", false},
		{"/var/*/x", "var/a/x", true},
		{"/var/*/x", "var/a/b/x", false},
		{"/tmp", "tmp/", true},
		{"/tmp", "var/tmp/", false},

		// Any number of folders.
		{"**/x", "x", true},
		{"**/x", "a/b/x", true},
		{"a/**/x", "a/x", true},
		{"a/**/x", "a/b/c/x", true},
		{"a/**/x", "z/a/b/x", true},
		{"/a/**/x", "z/a/b/x", false},
		{"a/**", "a/", false},
		{"a/**", "a/b", true},
		{"a/**", "a/b/c", true},
		{"a/**/**/b/**/c", "a/b/b/c", true},
		{"a/**/b/**/c", "a/c", false},
		{"**", "x/y", true},
		{"a**b", "axxb", true},

		// Classes and escapes.
		{"[a-c]x", "bx", true},
		{"[a-c]x", "dx", false},
		{"[!a-c]x", "dx", true},
		{"[^a-c]x", "bx", false},
		{"[]a]", "]", true},
		{"[a-]", "-", true},
		{`[\]]`, "]", true},
		{`[\a-c]`, "b", true},
		{"[ä-ü]", "ö", true},
		{"[\xff]", "\xff", true},
		{"[\xff]", "\xfe", false},
		{"*[!é]", "é", false},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{`\!a`, "!a", true},
		{`a\?`, "a?", true},

		// The last one that matches decides.
		{"*.o !keep.o", "keep.o", false},
		{"*.o !keep.o", "x.o", true},
		{"!keep.o *.o", "keep.o", true},
		{"* !*.go", "x.go", false},
		{"*.o !/a/*.o", "a/x.o", false},
		{"*.o !/a/*.o", "b/x.o", true},
		{"", "a", false},
	}
	for _, c := range cases {
		ps, err := ParsePatterns(strings.Fields(c.patterns))
		if err != nil {
			t.Errorf("%q: %v", c.patterns, err)
			continue
		}
		p, dir := strings.CutSuffix(c.path, "/")
		parent, name := split(p)
		if got := ps.excluded(components(parent), name, dir); got != c.want {
			t.Errorf("%q excludes %q: %v, want %v", c.patterns, c.path, got, c.want)
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, text := range []string{
		"", "!", "/", "//", "[", "[a", "[]", "[!]", "[z-a]", `a\`, `[\`, "a/[/]", "./a", "../a", "a/../b", "a\x00",
	} {
		_, err := ParsePatterns([]string{"good", text})
		if !errors.Is(err, tripod.Invalid) || !strings.Contains(err.Error(), "pattern") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReadPatterns(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "list=\xef\xbb\xbf# comment\r\n\r\n  *.o  \t\r\n\\#real\n!keep\nblank\\ \nlast", "bad=ok\n\n[x\n")
	ps, err := ReadPatterns(filepath.Join(dir, "list"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ps {
		got = append(got, strings.Join(p.segments, "/"))
	}
	expect(t, got, "*.o", `\#real`, "keep", `blank\ `, "last")
	if !ps[2].keep || !ps.excluded(nil, "#real", false) || !ps.excluded(nil, "blank ", false) {
		t.Error("rules as read")
	}
	if _, err := ReadPatterns(dir + "/bad"); !errors.Is(err, tripod.Invalid) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("bad line: %v", err)
	}
}

func components(p string) []string {
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// slowPath is matchPath as its meaning reads.
func slowPath(segments, parts []string) bool {
	if len(segments) == 0 {
		return len(parts) == 0
	}
	if segments[0] == deep {
		return slowPath(segments[1:], parts) || (len(parts) > 0 && slowPath(segments, parts[1:]))
	}
	return len(parts) > 0 && glob(segments[0], parts[0]) && slowPath(segments[1:], parts[1:])
}

func TestMatchPathProperty(t *testing.T) {
	segment := rapid.SampledFrom([]string{deep, deep, "a", "b", "*", "?b"})
	part := rapid.SampledFrom([]string{"a", "b", "ab"})
	rapid.Check(t, func(t *rapid.T) {
		segments := rapid.SliceOfN(segment, 0, 7).Draw(t, "segments")
		parts := rapid.SliceOfN(part, 0, 7).Draw(t, "parts")
		if got, want := matchPath(segments, parts), slowPath(segments, parts); got != want {
			t.Fatalf("%q on %q: %v", segments, parts, got)
		}
	})
}

// Of names that are text, glob says what path.Match does, negation aside.
func TestGlobProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?[]-\\é")), 1, 10, -1).Draw(t, "pattern")
		name := rapid.StringOfN(rapid.SampledFrom([]rune("ab-]é\\")), 1, 8, -1).Draw(t, "name")
		want, err := path.Match(pattern, name)
		if err != nil || strings.Contains(pattern, "[]") || strings.Contains(pattern, "[-") || strings.Contains(pattern, "-]") {
			t.Skip("where path.Match is stricter about classes")
		}
		if why := checkGlob(pattern); why != "" {
			t.Skip("path.Match looks at no more than it needs: " + why)
		}
		if got := glob(pattern, name); got != want {
			t.Fatalf("%q on %q: %v", pattern, name, got)
		}
	})
}

// Whatever people write, parsing and matching end and do not panic.
func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"*.o", "!/a/**/b/", `[a-z\]]x`, "[!\xff]", "a**b*?", `\`} {
		f.Add(seed, "a/b/c.o")
	}
	f.Fuzz(func(t *testing.T, text, p string) {
		if len(text) > 300 || len(p) > 300 {
			return // no name is longer, and it takes time by their product
		}
		ps, err := ParsePatterns([]string{text})
		if err != nil {
			if !errors.Is(err, tripod.Invalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		parent, name := split(p)
		got := ps.excluded(components(parent), name, true)
		if len(p) > 50 || strings.Count(text, deep) > 3 {
			return // the reference tries all ways
		}
		one := ps[0]
		want := one.byName() && glob(one.segments[0], name) ||
			!one.byName() && slowPath(one.segments, append(components(parent), name))
		if got != (want && !one.keep) {
			t.Errorf("%q on %q: %v", text, p, got)
		}
	})
}

func TestWindowsPaths(t *testing.T) {
	for abs, want := range map[string]string{
		`C:\`: "C", `c:\Users\me`: "C/Users/me", `\\server\share\x`: "UNC/server/share/x",
	} {
		got := windowsTreePath(abs)
		if got != want {
			t.Errorf("%s is %s in the tree, want %s", abs, got, want)
		}
		if back := windowsSystemPath(got); !strings.EqualFold(back, abs) {
			t.Errorf("%s became %s", abs, back)
		}
	}
	for _, virtual := range []string{"", "UNC", "UNC/server"} {
		if got := windowsSystemPath(virtual); got != "" {
			t.Errorf("%q is %q", virtual, got)
		}
	}
}
