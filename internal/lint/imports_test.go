package lint

import (
	"path"
	"slices"
	"strings"
)

// checkRings compares every import clause with importTable. Direct imports
// only: what an imported package imports is its own affair.
func checkRings(t *tree) []problem {
	table := append(coreRows(), importTable...)
	var problems []problem
	for _, files := range t.folders() {
		folder := files[0].folder
		i := slices.IndexFunc(table, func(r row) bool { return match(r.folder, folder) })
		if i < 0 {
			problems = append(problems, problem{folder, "this folder has no place in the house: " +
				"move the package into one of the rings of docs/architecture.md, or give it a row in internal/lint/tables_test.go"})
			continue
		}
		for _, f := range files {
			problems = append(problems, checkRow(f, table[i])...)
		}
	}
	return problems
}

func checkRow(f *file, r row) []problem {
	may := slices.Clone(r.may)
	if f.test {
		may = append(may, r.tests...)
	}
	for i, p := range may {
		if p == "CONTRACT" {
			may[i] = path.Dir(f.folder)
		}
	}
	var problems []problem
	for imported, spec := range f.imports {
		target, own := ownFolder(imported)
		switch {
		case own && target != f.folder && !matchAny(may, target):
			problems = append(problems, f.at(spec, "%s must not import %s: %s.", f.folder, target, r.why))
		case !own && !f.test && matchAny(r.never, imported):
			problems = append(problems, f.at(spec, "%s must not import %q: %s.", f.folder, imported, r.why))
		}
	}
	return problems
}

// ownFolder gives the folder of a package of this module.
func ownFolder(imported string) (string, bool) {
	if imported == modulePath {
		return ".", true
	}
	return strings.CutPrefix(imported, modulePath+"/")
}

// thirdParty reports whether a path is neither ours nor the standard library's.
func thirdParty(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	_, own := ownFolder(imported)
	return !own && strings.Contains(first, ".")
}

// checkModules compares third-party imports with moduleTable.
func checkModules(t *tree) []problem {
	var problems []problem
	for _, f := range t.files {
		for imported, spec := range f.imports {
			if !thirdParty(imported) {
				continue
			}
			m, known := moduleOf(imported)
			switch {
			case !known:
				problems = append(problems, f.at(spec, "%q belongs to no module of the table: do without it, "+
					"or add it to moduleTable in internal/lint with the folders that may use it and a page in docs/decisions.", imported))
			case forTests(f):
			case m.tests:
				problems = append(problems, f.at(spec, "%s is for tests alone: move its use to a _test.go file or a suite.", m.path))
			case !matchAny(m.folders, f.folder):
				problems = append(problems, f.at(spec, "%s must not import %s: use it through %s, which may.",
					f.folder, m.path, strings.Join(m.folders, ", ")))
			}
		}
	}
	return problems
}

// forTests reports whether a file is only ever part of a test.
func forTests(f *file) bool {
	return f.test || strings.HasSuffix(f.folder, "test") ||
		matchAny([]string{"test/**", "internal/lab/**"}, f.folder)
}

func moduleOf(imported string) (module, bool) {
	for _, m := range moduleTable {
		if imported == m.path || strings.HasPrefix(imported, m.path+"/") {
			return m, true
		}
	}
	return module{}, false
}

// checkImportGroups wants imports in up to three groups, divided by one blank
// line: the standard library, third parties, this module.
func checkImportGroups(t *tree) []problem {
	var problems []problem
	class := func(p string) int {
		_, own := ownFolder(p)
		switch {
		case own:
			return 2
		case thirdParty(p):
			return 1
		}
		return 0
	}
	for _, f := range t.files {
		last, lastLine := -1, 0
		for imported, spec := range f.imports {
			c, line := class(imported), f.line(spec.Pos())
			start := line
			if spec.Doc != nil {
				start = f.line(spec.Doc.Pos())
			}
			apart := start > lastLine+1
			if last >= 0 && (c < last || (c == last) == apart) {
				problems = append(problems, f.at(spec, "%q is out of place: group imports as standard library, third parties, "+
					"this module, with one blank line between groups and none within.", imported))
				break
			}
			last, lastLine = c, line
		}
	}
	return problems
}
