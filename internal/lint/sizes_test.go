package lint

import (
	"fmt"
	"go/ast"
	"go/token"
)

// Hard limits. The house asks for an explanation to oneself long before.
const (
	mostLines    = 100 // of a function's body
	mostBranches = 20  // cyclomatic complexity of a function
	mostFile     = 800 // lines of a file
	mostPackage  = 3000
)

// longPackages may be longer, for the reason given.
var longPackages = map[string]struct {
	most   int
	reason string
}{
	"internal/cli":            {6000, "one file per command, which share the open vault; what they print and decide lies in packages below"},
	"internal/vault/local":    {4500, "blobs, documents and their damage share one index, one gate and one store; its files are one concept each"},
	"internal/engine/backup":  {3400, "a pipeline whose stages share one run; its files are one stage each"},
	"internal/engine/restore": {3300, "it holds the file handles of two families of systems, of which a build has one"},
}

// checkSizes keeps functions, files and packages within sight. A comment
// "// lint:long reason" above a function, or in front of a package clause,
// excuses a pipeline or a transition table that is better whole.
func checkSizes(t *tree) []problem {
	var problems []problem
	for _, files := range t.folders() {
		total := 0
		for _, f := range files {
			if !product(f) {
				continue
			}
			lines := len(f.lines)
			total += lines
			if lines > mostFile && !f.excused(f.syntax, "long") {
				problems = append(problems, problem{f.path, fmt.Sprintf(
					"%d lines, at most %d: split it by concept (or say why not above the package clause: // lint:long reason).", lines, mostFile)})
			}
			problems = append(problems, checkFunctions(f)...)
		}
		most := mostPackage
		if long, ok := longPackages[files[0].folder]; ok {
			most = long.most
		}
		if total > most {
			problems = append(problems, problem{files[0].folder, fmt.Sprintf(
				"the package has %d lines, at most %d: find the second concept in it and give it a package.", total, most)})
		}
	}
	return problems
}

func checkFunctions(f *file) []problem {
	var problems []problem
	for _, d := range f.syntax.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil || longExcused(f, fn) {
			continue
		}
		if lines := f.line(fn.Body.End()) - f.line(fn.Body.Pos()) - 1; lines > mostLines {
			problems = append(problems, f.at(fn, "%s has %d lines, at most %d: name its steps as functions "+
				"(or say why not above it: // lint:long reason).", fn.Name.Name, lines, mostLines))
		}
		if b := branches(fn.Body); b > mostBranches {
			problems = append(problems, f.at(fn, "%s has %d branches, at most %d: name its cases as functions or make them a table "+
				"(or say why not above it: // lint:long reason).", fn.Name.Name, b, mostBranches))
		}
	}
	return problems
}

// longExcused looks for the excuse in the whole comment above a function.
func longExcused(f *file, fn *ast.FuncDecl) bool {
	if fn.Doc == nil {
		return f.excused(fn, "long")
	}
	for _, c := range fn.Doc.List {
		if f.excused(c, "long") {
			return true
		}
	}
	return false
}

// branches counts one and every place where the flow divides, as gocyclo does.
func branches(body *ast.BlockStmt) int {
	n := 1
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if node.List != nil {
				n++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}
