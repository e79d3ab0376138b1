package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// modulePath is this module's path; every import of our own begins with it.
const modulePath = "tripod"

// A tree is the parsed source of a module: what rules look at.
type tree struct {
	fsys  fs.FS
	fset  *token.FileSet
	files []*file // in path order
}

// A file is one Go file.
type file struct {
	path   string // slash-separated, from the module's root
	folder string // the folder it lies in
	test   bool   // its name ends in _test.go
	syntax *ast.File
	lines  []string
	fset   *token.FileSet
}

// A problem is one broken rule at one place, as a sentence that says what to do
// instead.
type problem struct {
	where string // path or path:line
	text  string
}

func (p problem) String() string { return p.where + ": " + p.text }

// A rule finds what is wrong in a tree.
type rule struct {
	name  string
	check func(*tree) []problem
}

// load parses every Go file of the module except those of other modules, of
// test data and of what is generated or fetched.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fsys: fsys, fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return skipFolder(fsys, name)
		case !strings.HasSuffix(name, ".go"):
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(t.fset, name, src, parser.ParseComments)
		if err != nil {
			return err
		}
		t.files = append(t.files, &file{
			path: name, folder: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			syntax: syntax, lines: strings.Split(string(src), "\n"), fset: t.fset,
		})
		return nil
	})
	return t, err
}

func skipFolder(fsys fs.FS, name string) error {
	base := path.Base(name)
	switch {
	case name == ".":
		return nil
	case base[0] == '.' || base[0] == '_',
		slices.Contains([]string{"testdata", "node_modules", "bin", "dist", "gen"}, base):
		return fs.SkipDir
	}
	if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

// folders gives the files of each folder, in folder order.
func (t *tree) folders() [][]*file {
	byFolder := slices.Clone(t.files)
	slices.SortStableFunc(byFolder, func(a, b *file) int { return cmp.Compare(a.folder, b.folder) })
	var groups [][]*file
	for i := 0; i < len(byFolder); {
		j := i
		for j < len(byFolder) && byFolder[j].folder == byFolder[i].folder {
			j++
		}
		groups = append(groups, byFolder[i:j])
		i = j
	}
	return groups
}

// at reports a problem at a node of f.
func (f *file) at(n ast.Node, format string, args ...any) problem {
	return problem{fmt.Sprintf("%s:%d", f.path, f.line(n.Pos())), fmt.Sprintf(format, args...)}
}

func (f *file) line(p token.Pos) int { return f.fset.Position(p).Line }

// excused reports whether the line of n, or the one above it, carries the
// comment "// lint:WORD reason".
func (f *file) excused(n ast.Node, word string) bool {
	line := f.line(n.Pos())
	for _, l := range []int{line, line - 1} {
		if l < 1 || l > len(f.lines) {
			continue
		}
		_, reason, found := strings.Cut(f.lines[l-1], "// lint:"+word+" ")
		if found && strings.TrimSpace(reason) != "" {
			return true
		}
	}
	return false
}

// imports gives the imported paths of f and their nodes.
func (f *file) imports(yield func(string, *ast.ImportSpec) bool) {
	for _, spec := range f.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil && !yield(p, spec) {
			return
		}
	}
}

// selects reports whether n is PACKAGE.NAME for one of names, with the package
// imported from the path pkg under whatever local name.
func (f *file) selects(n ast.Node, pkg string, names ...string) bool {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok || !slices.Contains(names, sel.Sel.Name) {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok || x.Obj != nil { // a local variable of that name
		return false
	}
	for p, spec := range f.imports {
		if p == pkg {
			local := path.Base(pkg)
			if spec.Name != nil {
				local = spec.Name.Name
			}
			return x.Name == local
		}
	}
	return false
}

// match reports whether folder fits the pattern: * is any part of one name,
// {a,b} one of several, ** any number of names.
func match(pattern, folder string) bool {
	if head, tail, ok := strings.Cut(pattern, "{"); ok {
		choices, rest, _ := strings.Cut(tail, "}")
		for c := range strings.SplitSeq(choices, ",") {
			if match(head+c+rest, folder) {
				return true
			}
		}
		return false
	}
	return matchParts(strings.Split(pattern, "/"), strings.Split(folder, "/"))
}

func matchParts(pattern, folder []string) bool {
	if len(pattern) == 0 {
		return len(folder) == 0
	}
	if pattern[0] == "**" {
		for i := range len(folder) + 1 {
			if matchParts(pattern[1:], folder[i:]) {
				return true
			}
		}
		return false
	}
	if len(folder) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], folder[0])
	return err == nil && ok && matchParts(pattern[1:], folder[1:])
}

func matchAny(patterns []string, folder string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, folder) })
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, folder string
		want            bool
	}{
		{"internal/core/*", "internal/core/seal", true},
		{"internal/core/*", "internal/core/seal/sub", false},
		{"internal/core/*", "internal/core", false},
		{"internal/vault/**", "internal/vault", true},
		{"internal/vault/**", "internal/vault/local/x", true},
		{"internal/driver/*/*test", "internal/driver/store/storetest", true},
		{"internal/driver/*/{mem,fs}", "internal/driver/store/fs", true},
		{"internal/driver/*/{mem,fs}", "internal/driver/store/s3", false},
		{"os/**", "os/exec", true},
		{"os/**", "osx", false},
	} {
		if got := match(c.pattern, c.folder); got != c.want {
			t.Errorf("match(%q, %q) = %v, want %v", c.pattern, c.folder, got, c.want)
		}
	}
}

// sentences joins problems for a test's failure message.
func sentences(problems []problem) string {
	var b bytes.Buffer
	for _, p := range problems {
		fmt.Fprintf(&b, "\n  %s", p)
	}
	return b.String()
}
