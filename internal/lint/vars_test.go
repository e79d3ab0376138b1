package lint

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"unicode"
)

// checkVars wants package-level variables to be constants that Go cannot
// express. A var outside tests is fine when it is one of these, and nothing in
// its package assigns to it:
//
//   - the blank identifier (an interface is implemented);
//   - an error: named Err... or err... and made by a call;
//   - embedded files (//go:embed);
//   - unexported, and made by a composite literal, by a conversion or by one of
//     a few functions whose results are fixed (fixedCalls);
//   - a string literal in package main, which the build may replace (version).
//
// Anything else is state. "// lint:var reason" on the line or the one above
// excuses what the rule cannot see.
func checkVars(t *tree) []problem {
	var problems []problem
	for _, files := range t.folders() {
		names := map[string]bool{}
		for _, f := range files {
			if f.test {
				continue
			}
			for _, spec := range packageVars(f) {
				for i, name := range spec.Names {
					names[name.Name] = true
					if !fixedVar(f, spec, i) && !f.excused(spec, "var") {
						problems = append(problems, f.at(name, "package variable %s can change or is exported: make it a constant, "+
							"an unexported literal table, or a field of the value that needs it (or say why here: // lint:var reason).", name.Name))
					}
				}
			}
		}
		for _, f := range files {
			if !f.test {
				problems = append(problems, checkAssigned(f, names)...)
			}
		}
	}
	return problems
}

// fixedCalls make values that are fixed once made, or that are safe to share.
var fixedCalls = []string{
	"regexp.MustCompile", "template.Must", "errors.New", "fmt.Errorf", "tripod.Errorf",
	"sync.OnceValue", "sync.OnceValues", "sync.OnceFunc", "strings.NewReplacer", "big.NewInt",
	"crc32.MakeTable", "crc64.MakeTable", "netip.MustParsePrefix", "netip.MustParseAddr", "netip.AddrFrom4",
	"base32.NewEncoding", "base64.NewEncoding", "time.Unix", "time.Date", "reflect.TypeFor", "make",
}

func packageVars(f *file) []*ast.ValueSpec {
	var specs []*ast.ValueSpec
	for _, d := range f.syntax.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.VAR {
			continue
		}
		for _, s := range decl.Specs {
			spec, ok := s.(*ast.ValueSpec)
			if !ok {
				continue
			}
			if spec.Doc == nil {
				spec.Doc = decl.Doc // where //go:embed stands
			}
			specs = append(specs, spec)
		}
	}
	return specs
}

func fixedVar(f *file, spec *ast.ValueSpec, i int) bool {
	name := spec.Names[i].Name
	if name == "_" || embedded(spec) {
		return true
	}
	if i >= len(spec.Values) {
		return false
	}
	value := spec.Values[i]
	exported := ast.IsExported(name)
	switch v := ast.Unparen(value).(type) {
	case *ast.CompositeLit, *ast.FuncLit:
		return !exported
	case *ast.UnaryExpr: // &T{...}: an error value, or a shared object
		_, literal := v.X.(*ast.CompositeLit)
		return v.Op == token.AND && literal && (!exported || errorName(name))
	case *ast.BasicLit:
		return !exported && v.Kind == token.STRING && f.syntax.Name.Name == "main"
	case *ast.CallExpr:
		if errorName(name) {
			return true
		}
		return !exported && fixedCall(v)
	}
	return false
}

func errorName(name string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(name[:1])+name[1:], "err")
	return ok && rest != "" && unicode.IsUpper(rune(rest[0]))
}

func embedded(spec *ast.ValueSpec) bool {
	return spec.Doc != nil && slices.ContainsFunc(spec.Doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

func fixedCall(call *ast.CallExpr) bool {
	switch fn := ast.Unparen(call.Fun).(type) {
	case *ast.ArrayType, *ast.FuncLit: // a conversion such as []byte("TRPD"); a table computed on the spot
		return true
	case *ast.Ident:
		return slices.Contains(fixedCalls, fn.Name)
	case *ast.SelectorExpr:
		x, ok := fn.X.(*ast.Ident)
		if ok {
			return slices.Contains(fixedCalls, x.Name+"."+fn.Sel.Name)
		}
		inner, ok := fn.X.(*ast.CallExpr) // NewEncoding(...).WithPadding(...)
		return ok && fixedCall(inner)
	}
	return false
}

// checkAssigned finds assignments to the package variables in names, also to
// their elements and fields.
func checkAssigned(f *file, names map[string]bool) []problem {
	var problems []problem
	report := func(e ast.Expr) {
		if id := root(e); id != nil && names[id.Name] && packageLevel(f, id) && !f.excused(e, "var") {
			problems = append(problems, f.at(e, "package variable %s is written here: keep what changes in a value that its users share, "+
				"not in the package (or say why here: // lint:var reason).", id.Name))
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					report(e)
				}
			}
		case *ast.IncDecStmt:
			report(n.X)
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (id.Name == "delete" || id.Name == "clear") {
				report(n.Args[0])
			}
		}
		return true
	})
	return problems
}

// root gives the x of x, x[i], x.f and *x.
func root(e ast.Expr) *ast.Ident {
	for {
		switch v := e.(type) {
		case *ast.Ident:
			return v
		case *ast.IndexExpr:
			e = v.X
		case *ast.SelectorExpr:
			e = v.X
		case *ast.StarExpr:
			e = v.X
		case *ast.ParenExpr:
			e = v.X
		default:
			return nil
		}
	}
}

// packageLevel reports whether an identifier means the package's variable: the
// parser has resolved it to one, or has left it to other files of the package.
func packageLevel(f *file, id *ast.Ident) bool {
	if id.Obj == nil {
		return slices.Contains(f.syntax.Unresolved, id)
	}
	for _, spec := range packageVars(f) {
		if id.Obj.Decl == spec {
			return true
		}
	}
	return false
}
