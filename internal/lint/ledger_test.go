package lint

import (
	"fmt"
	"go/ast"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

const ledger = "docs/capabilities.md"

// checkLedger compares docs/capabilities.md with the tests: each row is
// capability | state | proved by, and a test that is named there must exist.
// Tests are named FOLDER.TestName (or Fuzz..., Benchmark...), command stories by
// their path test/script/NAME.txtar.
func checkLedger(t *tree) []problem {
	src, err := fs.ReadFile(t.fsys, ledger)
	if err != nil {
		return []problem{{ledger, "the capability ledger is missing: it is the list of what the product claims and which test proves it."}}
	}
	var problems []problem
	rows := 0
	for i, line := range strings.Split(string(src), "\n") {
		cells, ok := ledgerRow(line)
		if !ok {
			continue
		}
		rows++
		where := fmt.Sprintf("%s:%d", ledger, i+1)
		for _, text := range checkClaim(t, cells) {
			problems = append(problems, problem{where, text})
		}
	}
	if rows == 0 {
		problems = append(problems, problem{ledger, "the ledger has no rows: write them as | capability | state | proved by |."})
	}
	return problems
}

// ledgerRow gives the three cells of a table row, and false for anything else.
func ledgerRow(line string) ([]string, bool) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") || len(line) < 2 {
		return nil, false
	}
	cells := strings.Split(line[1:len(line)-1], "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	head := cells[0] == "capability" || strings.Trim(cells[0], "-: ") == ""
	return cells, !head
}

func checkClaim(t *tree, cells []string) []string {
	if len(cells) != 3 {
		return []string{fmt.Sprintf("a row has three cells, this one has %d: | capability | state | proved by |.", len(cells))}
	}
	var tests []string
	for name := range strings.SplitSeq(cells[2], ",") {
		if name = strings.Trim(name, " `"); name != "" {
			tests = append(tests, name)
		}
	}
	var texts []string
	switch cells[1] {
	case "proved", "partly":
		if len(tests) == 0 {
			texts = append(texts, fmt.Sprintf("%q is called %s but names no test: name the tests that prove it, or say not yet.", cells[0], cells[1]))
		}
	case "not yet":
		if len(tests) > 0 {
			texts = append(texts, fmt.Sprintf("%q is called not yet but names tests: say partly, or remove them.", cells[0]))
		}
	default:
		texts = append(texts, fmt.Sprintf("state %q is unknown: say proved, partly or not yet.", cells[1]))
	}
	for _, name := range tests {
		if !testExists(t, name) {
			texts = append(texts, fmt.Sprintf("test %s does not exist: bring it back, name the one that took its place "+
				"(FOLDER.TestName or test/script/NAME.txtar), or take the claim back.", name))
		}
	}
	return texts
}

func testExists(t *tree, name string) bool {
	if strings.HasSuffix(name, ".txtar") {
		_, err := fs.Stat(t.fsys, path.Clean(name))
		return err == nil && match("test/script/*.txtar", name)
	}
	dot := strings.LastIndex(name, ".")
	if dot < 0 {
		return false
	}
	folder, fn := name[:dot], name[dot+1:]
	if !slices.ContainsFunc([]string{"Test", "Fuzz", "Benchmark"}, func(p string) bool { return strings.HasPrefix(fn, p) }) {
		return false
	}
	return slices.ContainsFunc(t.files, func(f *file) bool {
		return f.test && f.folder == folder && slices.ContainsFunc(f.syntax.Decls, func(d ast.Decl) bool {
			decl, ok := d.(*ast.FuncDecl)
			return ok && decl.Recv == nil && decl.Name.Name == fn
		})
	})
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	decisionPage = regexp.MustCompile(`^\d{4}-[a-z0-9-]+\.md$`)
)

// checkDocuments wants every relative link of a document to lead somewhere,
// every decision page to be listed in the index of decisions, and the terms to
// be in order.
func checkDocuments(t *tree) []problem {
	var problems []problem
	index, _ := fs.ReadFile(t.fsys, "docs/decisions/README.md")
	err := fs.WalkDir(t.fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return skipFolder(t.fsys, name)
		case path.Dir(name) == "docs/decisions" && decisionPage.MatchString(path.Base(name)):
			if !strings.Contains(string(index), "("+path.Base(name)+")") {
				problems = append(problems, problem{name, "this decision is missing from docs/decisions/README.md: add a line for it."})
			}
		}
		if !strings.HasSuffix(name, ".md") {
			return nil
		}
		src, err := fs.ReadFile(t.fsys, name)
		if err != nil {
			return err
		}
		for _, m := range markdownLink.FindAllStringSubmatch(string(src), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if _, err := fs.Stat(t.fsys, path.Join(path.Dir(name), m[1])); err != nil {
				problems = append(problems, problem{name, "the link to " + m[1] + " leads nowhere: correct it or write the page."})
			}
		}
		return nil
	})
	if err != nil {
		problems = append(problems, problem{".", "the documents could not be read: " + err.Error()})
	}
	return append(problems, checkTerms(t)...)
}

// checkTerms wants docs/terms.md sorted and each term in it once.
func checkTerms(t *tree) []problem {
	src, err := fs.ReadFile(t.fsys, "docs/terms.md")
	if err != nil {
		return nil
	}
	var problems []problem
	last := ""
	for i, line := range strings.Split(string(src), "\n") {
		rest, ok := strings.CutPrefix(line, "- **")
		if !ok {
			continue
		}
		term, _, _ := strings.Cut(strings.ToLower(rest), "**")
		if term <= last {
			problems = append(problems, problem{
				fmt.Sprintf("docs/terms.md:%d", i+1),
				fmt.Sprintf("%q must not come after %q: keep terms in alphabetical order, each once.", term, last),
			})
		}
		last = term
	}
	return problems
}
