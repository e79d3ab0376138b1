package lint

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// inspect calls fn for every node of every file that want accepts.
func (t *tree) inspect(want func(*file) bool, fn func(*file, ast.Node) bool) {
	for _, f := range t.files {
		if want(f) {
			ast.Inspect(f.syntax, func(n ast.Node) bool { return fn(f, n) })
		}
	}
}

// product is what ships: not tests, suites, the lab or benchmarks.
func product(f *file) bool { return !forTests(f) }

func in(patterns ...string) func(*file) bool {
	return func(f *file) bool { return !f.test && matchAny(patterns, f.folder) }
}

// checkPure keeps clocks and goroutines out of core.
func checkPure(t *tree) []problem {
	var problems []problem
	t.inspect(in("internal/core/**"), func(f *file, n ast.Node) bool {
		switch {
		case isGo(n):
			problems = append(problems, f.at(n, "core starts no goroutine: return what is to be done and let an engine do it."))
		case f.selects(n, "time", "Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"):
			problems = append(problems, f.at(n, "core reads no clock: take now time.Time as an argument."))
		}
		return true
	})
	return problems
}

func isGo(n ast.Node) bool {
	_, ok := n.(*ast.GoStmt)
	return ok
}

// checkQuiet keeps printing out of everything below the services.
func checkQuiet(t *tree) []problem {
	var problems []problem
	rings := in("internal/core/**", "internal/driver/**", "internal/vault/**", "internal/engine/**")
	t.inspect(rings, func(f *file, n ast.Node) bool {
		builtin, ok := n.(*ast.Ident)
		prints := ok && builtin.Obj == nil && (builtin.Name == "println")
		if prints || f.selects(n, "fmt", "Print", "Printf", "Println") || f.selects(n, "os", "Stdout", "Stderr") {
			problems = append(problems, f.at(n, "%s prints nothing: return a value, or emit a run.Event, and let the command print.", f.folder))
		}
		return true
	})
	return problems
}

// checkInit refuses init functions: nothing happens because a package is
// linked in.
func checkInit(t *tree) []problem {
	var problems []problem
	for _, f := range t.files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				problems = append(problems, f.at(fn, "no init functions: do it where main wires the program, or in a constructor."))
			}
		}
	}
	return problems
}

// checkSleep refuses time.Sleep in tests, except inside a synctest bubble,
// where time is fake and sleeping costs nothing.
func checkSleep(t *tree) []problem {
	var problems []problem
	t.inspect(func(f *file) bool { return f.test }, func(f *file, n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && f.selects(call.Fun, "testing/synctest", "Test") {
			return false
		}
		if f.selects(n, "time", "Sleep") {
			problems = append(problems, f.at(n, "tests do not sleep: wait for a channel or a condition, or test inside testing/synctest."))
		}
		return true
	})
	return problems
}

// checkInterfaces keeps interfaces at seven methods or fewer.
func checkInterfaces(t *tree) []problem {
	const most = 7
	var problems []problem
	t.inspect(product, func(f *file, n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if iface, ok := spec.Type.(*ast.InterfaceType); ok {
			methods := 0
			for _, field := range iface.Methods.List {
				methods += len(field.Names)
			}
			if methods > most {
				problems = append(problems, f.at(spec, "interface %s has %d methods, at most %d: split it by who uses what, "+
					"or make the rest an optional interface.", spec.Name.Name, methods, most))
			}
		}
		return true
	})
	return problems
}

// checkContexts refuses contexts kept in structs.
func checkContexts(t *tree) []problem {
	var problems []problem
	t.inspect(product, func(f *file, n ast.Node) bool {
		s, ok := n.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range s.Fields.List {
			if f.selects(field.Type, "context", "Context") && !f.excused(field, "context") {
				problems = append(problems, f.at(field, "a context does not live in a struct: pass it as the first argument "+
					"(or say why here: // lint:context reason)."))
			}
		}
		return true
	})
	return problems
}

// checkErrors refuses decisions taken on an error's text or identity, and
// wrapping that loses the error. What is bare by contract may be compared.
func checkErrors(t *tree) []problem {
	const match = "match errors by errors.Is or errors.AsType (or say why not: // lint:error reason)"
	var problems []problem
	t.inspect(product, func(f *file, n ast.Node) bool {
		text := ""
		switch n := n.(type) {
		case *ast.BinaryExpr:
			compared := n.Op == token.EQL || n.Op == token.NEQ
			switch {
			case compared && (isErrorText(n.X) || isErrorText(n.Y)):
				text = "an error's text decides nothing: " + match
			case compared && isErr(n.X) && !isNil(n.Y) && !bare(f, n.Y):
				text = "the error may be wrapped: " + match
			}
		case *ast.TypeAssertExpr:
			if isErr(n.X) {
				text = "the error may be wrapped: " + match
			}
		case *ast.CallExpr:
			switch {
			case f.selects(n.Fun, "strings", "Contains", "HasPrefix", "HasSuffix", "EqualFold", "Index") && slices.ContainsFunc(n.Args, isErrorText):
				text = "an error's text decides nothing: " + match
			case f.selects(n.Fun, "fmt", "Errorf") && slices.ContainsFunc(n.Args, isErr) && !wraps(n):
				text = "the error is lost for those who ask for its kind: write %w (or say why not: // lint:error reason)"
			}
		}
		if text != "" && !f.excused(n, "error") {
			problems = append(problems, f.at(n, "%s.", text))
		}
		return true
	})
	return problems
}

func isErr(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && (id.Name == "err" || len(id.Name) > 3 && strings.HasSuffix(id.Name, "Err"))
}

// bare reports whether e is io.EOF or an errno, which readers and system calls
// return as they are.
func bare(f *file, e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	return f.selects(e, "io", "EOF") ||
		slices.ContainsFunc([]string{"syscall", "golang.org/x/sys/unix", "golang.org/x/sys/windows"}, func(pkg string) bool {
			return f.selects(e, pkg, sel.Sel.Name)
		})
}

func isNil(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "nil"
}

// wraps reports whether the format of a call has a %w, or cannot be seen.
func wraps(call *ast.CallExpr) bool {
	format, ok := call.Args[0].(*ast.BasicLit)
	return !ok || strings.Contains(format.Value, "%w")
}

func isErrorText(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) != 0 {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Error"
}

// checkPackageNames refuses names that say nothing.
func checkPackageNames(t *tree) []problem {
	vague := []string{"util", "utils", "common", "helper", "helpers", "manager", "types", "base", "misc", "shared", "model", "models"}
	var problems []problem
	for _, files := range t.folders() {
		f := files[0]
		name := strings.TrimSuffix(f.syntax.Name.Name, "_test")
		if slices.Contains(vague, name) {
			problems = append(problems, f.at(f.syntax.Name, "package %s says nothing: name it for what it holds, "+
				"by a noun that a user of the product would know.", name))
		}
	}
	return problems
}

// checkPackageComments wants exactly one package comment per package, beginning
// "Package name" (or "Command name" for a main) and with a whole sentence.
func checkPackageComments(t *tree) []problem {
	var problems []problem
	for _, files := range t.folders() {
		own := slices.DeleteFunc(slices.Clone(files), func(f *file) bool { return f.test })
		if len(own) == 0 { // a package of tests alone
			own = files
		}
		var docs []*file
		for _, f := range own {
			if f.syntax.Doc != nil && strings.TrimSpace(f.syntax.Doc.Text()) != "" {
				docs = append(docs, f)
			}
		}
		name := own[0].syntax.Name.Name
		switch {
		case len(docs) == 0:
			problems = append(problems, problem{own[0].folder, "package " + name +
				" has no package comment: write one that a newcomer can start from, above the package clause of its main file."})
		case len(docs) > 1:
			problems = append(problems, problem{docs[1].path, "package " + name + " already has its comment in " +
				docs[0].path + ": keep one, and put an empty line below other comments at the top of a file."})
		case !realSentence(docs[0].syntax.Doc.Text(), name):
			problems = append(problems, problem{docs[0].path, "the package comment must begin \"Package " + name +
				"\" (\"Command ...\" for a main) and its first sentence must say in six words or more what the package is for."})
		}
	}
	return problems
}

func realSentence(doc, name string) bool {
	text := strings.Join(strings.Fields(doc), " ")
	if !strings.HasPrefix(text, "Package "+name+" ") && (name != "main" || !strings.HasPrefix(text, "Command ")) {
		return false
	}
	end := strings.IndexAny(text, ".:")
	return end > 0 && len(strings.Fields(text[:end])) >= 6
}
