package lint

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// bites breaks every rule once on a small made-up tree, and shows beside it
// what the rule lets through.
var bites = []struct {
	rule  string
	name  string
	files map[string]string
	want  string // part of the one problem found; empty: none
}{
	{"rings", "core order", tiny("internal/core/frame/f.go", `import _ "tripod/internal/core/seal"`), "internal/core/frame must not import internal/core/seal"},
	{"rings", "core order kept", tiny("internal/core/seal/s.go", `import _ "tripod/internal/core/frame"`), ""},
	{"rings", "core on disk", tiny("internal/core/tree/t.go", `import _ "os"`), `must not import "os"`},
	{"rings", "core on the network", tiny("internal/core/tree/t.go", `import _ "net/http"`), `must not import "net/http"`},
	{"rings", "core rolls dice", tiny("internal/core/chunk/c.go", `import _ "crypto/rand"`), `must not import "crypto/rand"`},
	{"rings", "seal rolls dice", tiny("internal/core/seal/s.go", `import _ "crypto/rand"`), ""},
	{"rings", "core tests read files", tiny("internal/core/tree/t_test.go", `import _ "os"`), ""},
	{"rings", "run above tripod only", tiny("internal/core/run/r.go", `import _ "tripod/internal/core/frame"`), "must not import internal/core/frame"},
	{"rings", "unlisted core package", tiny("internal/core/novelty/n.go", ""), "has no place in the house"},
	{"rings", "no place", tiny("internal/stuff/s.go", ""), "has no place in the house"},
	{"rings", "contract on adapter", tiny("internal/driver/store/s.go", `import _ "tripod/internal/driver/store/fs"`), "knows no adapter"},
	{"rings", "adapter on adapter", tiny("internal/driver/store/s3/s.go", `import _ "tripod/internal/driver/store/fs"`), "cmd/tripod joins adapters"},
	{"rings", "adapter on contract", tiny("internal/driver/store/fs/s.go", `import _ "tripod/internal/driver/store"`), ""},
	{"rings", "adapter on foreign contract", tiny("internal/driver/store/fs/s.go", `import _ "tripod/internal/driver/source"`), "must not import internal/driver/source"},
	{"rings", "adapter test runs the suite", tiny("internal/driver/store/fs/s_test.go", `import _ "tripod/internal/driver/store/storetest"`), ""},
	{"rings", "decorator on durable", tiny("internal/driver/store/retry/r.go", `import _ "tripod/internal/driver/durable"`), "see only the contract"},
	{"rings", "vault sees keys", tiny("internal/vault/local/l.go", `import _ "tripod/internal/core/seal"`), "the vault is blind"},
	{"rings", "vault sees trees", tiny("internal/vault/v.go", `import _ "tripod/internal/core/tree"`), "the vault is blind"},
	{"rings", "vault speaks http", tiny("internal/vault/replicate/r.go", `import _ "net/http"`), "the vault is blind"},
	{"rings", "vault on a store", tiny("internal/vault/local/l.go", `import _ "tripod/internal/driver/store"`), ""},
	{"rings", "engine on adapter", tiny("internal/engine/backup/b.go", `import _ "tripod/internal/driver/store/fs"`), "takes contracts"},
	{"rings", "engine on local vault", tiny("internal/engine/backup/b.go", `import _ "tripod/internal/vault/local"`), "takes contracts"},
	{"rings", "engine on vault contract", tiny("internal/engine/backup/b.go", `import _ "tripod/internal/vault"`), ""},
	{"rings", "engine test on memory store", tiny("internal/engine/backup/b_test.go", `import _ "tripod/internal/driver/store/mem"`), ""},
	{"rings", "engine logs", tiny("internal/engine/backup/b.go", `import _ "log/slog"`), `must not import "log/slog"`},
	{"rings", "service on service", tiny("internal/service/mount/m.go", `import _ "tripod/internal/service/agent"`), "through internal/service/wire"},
	{"rings", "service on wire", tiny("internal/service/agent/a.go", `import _ "tripod/internal/service/wire"`), ""},
	{"rings", "command on adapter", tiny("internal/cli/c.go", `import _ "tripod/internal/driver/store/fs"`), "handed to it by cmd"},
	{"rings", "main on adapter", tiny("cmd/tripod/c.go", `import _ "tripod/internal/driver/store/fs"`), ""},
	{"rings", "browser on engine", tiny("web/wasm/w.go", `import _ "tripod/internal/engine/restore"`), "the browser gets the formats"},

	{"modules", "unknown", tiny("internal/cli/c.go", `import _ "example.com/new/thing"`), "belongs to no module of the table"},
	{"modules", "misplaced", tiny("internal/cli/c.go", `import _ "github.com/cockroachdb/pebble/v2/vfs"`), "use it through internal/vault/index"},
	{"modules", "placed", tiny("internal/vault/index/i.go", `import _ "github.com/cockroachdb/pebble/v2/vfs"`), ""},
	{"modules", "test module in the product", tiny("internal/cli/c.go", `import _ "pgregory.net/rapid"`), "for tests alone"},
	{"modules", "test module in a test", tiny("internal/cli/c_test.go", `import _ "pgregory.net/rapid"`), ""},
	{"modules", "errgroup in core", tiny("internal/core/tree/t.go", `import _ "golang.org/x/sync/errgroup"`), "must not import golang.org/x/sync"},

	{"import groups", "mixed", tiny("internal/cli/c.go", "import (\n\t_ \"os\"\n\t_ \"tripod/internal/engine/backup\"\n)"), "group imports"},
	{"import groups", "torn", tiny("internal/cli/c.go", "import (\n\t_ \"io\"\n\n\t_ \"os\"\n)"), "group imports"},
	{"import groups", "right", tiny("internal/cli/c.go", "import (\n\t_ \"os\"\n\n\t_ \"github.com/spf13/cobra\"\n\n\t_ \"tripod/internal/engine/backup\"\n)"), ""},

	{"pure core", "clock", tiny("internal/core/policy/p.go", "import \"time\"\nvar _ = time.Now()"), "core reads no clock"},
	{"pure core", "clock by another name", tiny("internal/core/policy/p.go", "import t \"time\"\nvar _ = t.Now"), "core reads no clock"},
	{"pure core", "time as a value", tiny("internal/core/policy/p.go", "import \"time\"\nfunc f(now time.Time) time.Time { return now.Add(time.Hour) }"), ""},
	{"pure core", "goroutine", tiny("internal/core/policy/p.go", "func f() { go f() }"), "core starts no goroutine"},
	{"pure core", "elsewhere", tiny("internal/engine/backup/b.go", "func f() { go f() }"), ""},

	{"quiet rings", "printing", tiny("internal/engine/backup/b.go", "import \"fmt\"\nfunc f() { fmt.Println() }"), "prints nothing"},
	{"quiet rings", "standard output", tiny("internal/vault/v.go", "import \"os\"\nvar w = os.Stdout"), "prints nothing"},
	{"quiet rings", "formatting", tiny("internal/engine/backup/b.go", "import \"fmt\"\nvar s = fmt.Sprint()"), ""},
	{"quiet rings", "command prints", tiny("internal/cli/c.go", "import \"fmt\"\nfunc f() { fmt.Println() }"), ""},

	{"package comments", "none", map[string]string{"internal/cli/c.go": "package cli\n"}, "has no package comment"},
	{"package comments", "two", map[string]string{
		"internal/cli/a.go": "// Package cli parses, calls and prints what was asked.\npackage cli\n",
		"internal/cli/b.go": "// Package cli again parses, calls and prints.\npackage cli\n",
	}, "already has its comment"},
	{"package comments", "empty words", map[string]string{"internal/cli/a.go": "// Package cli is cli.\npackage cli\n"}, "six words or more"},
	{"package comments", "right", map[string]string{
		"internal/cli/a.go":      "// Package cli parses, calls and prints what was asked.\npackage cli\n",
		"internal/cli/a_test.go": "package cli_test\n",
	}, ""},

	{"package names", "vague", map[string]string{"internal/core/util/u.go": "package util\n"}, "says nothing"},
	{"package names", "clear", tiny("internal/core/seal/u.go", ""), ""},

	{"no init", "init", tiny("internal/cli/c.go", "func init() {}"), "no init functions"},
	{"no init", "method", tiny("internal/cli/c.go", "type T int\nfunc (T) init() {}"), ""},

	{"package variables", "counter", tiny("internal/cli/c.go", "var n int"), "can change or is exported"},
	{"package variables", "exported table", tiny("internal/cli/c.go", "var Names = []string{}"), "can change or is exported"},
	{"package variables", "written table", tiny("internal/cli/c.go", "var names = map[int]int{}\nfunc f() { names[1] = 2 }"), "is written here"},
	{"package variables", "written elsewhere", map[string]string{
		"internal/cli/a.go": "package cli\nvar names = map[int]int{}\n",
		"internal/cli/b.go": "package cli\nfunc f() { delete(names, 1) }\n",
	}, "is written here"},
	{"package variables", "shadowed", tiny("internal/cli/c.go", "var names = []int{}\nfunc f(names []int) { names[1] = 2 }"), ""},
	{"package variables", "allowed", tiny("internal/cli/c.go", `
		import ("errors"; "regexp"; "sync"; "embed")
		var ErrGone = errors.New("gone")
		var word = regexp.MustCompile("x")
		var pool = sync.Pool{}
		var magic = []byte("TRPD")
		//go:embed all:dist
		var FS embed.FS
		var _ error = ErrGone`), ""},
	{"package variables", "excused", tiny("internal/cli/c.go", "var n int // lint:var set once by the linker"), ""},
	{"package variables", "excused without reason", tiny("internal/cli/c.go", "var n int // lint:var "), "can change or is exported"},
	{"package variables", "version", map[string]string{"cmd/tripod/main.go": "package main\nvar version = \"dev\"\n"}, ""},

	{"no sleeping tests", "sleep", tiny("internal/cli/c_test.go", "import \"time\"\nfunc f() { time.Sleep(1) }"), "tests do not sleep"},
	{"no sleeping tests", "bubble", tiny("internal/cli/c_test.go",
		"import (\"testing\"; \"testing/synctest\"; \"time\")\nfunc f(t *testing.T) { synctest.Test(t, func(*testing.T) { time.Sleep(1) }) }"), ""},

	{"small interfaces", "eight", tiny("internal/cli/c.go", "type I interface { a(); b(); c(); d(); e(); f(); g(); h() }"), "has 8 methods"},
	{"small interfaces", "seven", tiny("internal/cli/c.go", "type I interface { a(); b(); c(); d(); e(); f(); g() }"), ""},

	{"sizes", "long function", tiny("internal/cli/c.go", "func f() {\n"+strings.Repeat("_ = 0\n", 101)+"}"), "f has 101 lines"},
	{"sizes", "excused", tiny("internal/cli/c.go", "// f draws.\n//\n// lint:long a table of cases\nfunc f() {\n"+strings.Repeat("_ = 0\n", 101)+"}"), ""},
	{"sizes", "tangled", tiny("internal/cli/c.go", "func f(a bool) {\n"+strings.Repeat("if a {}\n", 20)+"}"), "f has 21 branches"},
	{"sizes", "long file", tiny("internal/cli/c.go", strings.Repeat("// x\n", 800)), "at most 800"},
	{"sizes", "long package", map[string]string{
		"internal/engine/x/a.go": "package x\n" + strings.Repeat("\n", 750), "internal/engine/x/b.go": "package x\n" + strings.Repeat("\n", 750),
		"internal/engine/x/c.go": "package x\n" + strings.Repeat("\n", 750), "internal/engine/x/d.go": "package x\n" + strings.Repeat("\n", 750),
	}, "find the second concept"},

	{"contexts", "kept", tiny("internal/cli/c.go", "import \"context\"\ntype T struct { ctx context.Context }"), "does not live in a struct"},
	{"contexts", "passed", tiny("internal/cli/c.go", "import \"context\"\nfunc f(ctx context.Context) {}"), ""},

	{"errors", "compared", tiny("internal/cli/c.go", "func f(err error) bool { return err.Error() == \"gone\" }"), "decides nothing"},
	{"errors", "searched", tiny("internal/cli/c.go", "import \"strings\"\nfunc f(err error) bool { return strings.Contains(err.Error(), \"x\") }"), "decides nothing"},
	{"errors", "shown", tiny("internal/cli/c.go", "func f(err error) string { return \"x: \" + err.Error() }"), ""},

	{"errors", "compared by identity", tiny("internal/cli/c.go", "import \"os\"\nfunc f(err error) bool { return err == os.ErrExist }"), "may be wrapped"},
	{"errors", "asserted", tiny("internal/cli/c.go", "func f(err error) bool { _, ok := err.(T); return ok }"), "may be wrapped"},
	{"errors", "lost", tiny("internal/cli/c.go", "import \"fmt\"\nfunc f(err error) error { return fmt.Errorf(\"x: %v\", err) }"), "write %w"},
	{"errors", "right", tiny("internal/cli/c.go", `
		import ("fmt"; "io"; "golang.org/x/sys/unix")
		func f(err error) error {
			if err == nil || err == io.EOF || err == unix.EINTR { return err }
			return fmt.Errorf("x: %w", err)
		}`), ""},

	{"capability ledger", "missing", tiny("internal/cli/c.go", ""), "ledger is missing"},
	{"capability ledger", "no rows", map[string]string{ledger: "nothing\n"}, "has no rows"},
	{"capability ledger", "vanished test", map[string]string{ledger: "| Backup | proved | internal/cli.TestBackup |\n"}, "TestBackup does not exist"},
	{"capability ledger", "vanished story", map[string]string{ledger: "| Backup | partly | test/script/backup.txtar |\n"}, "backup.txtar does not exist"},
	{"capability ledger", "claim without test", map[string]string{ledger: "| Backup | proved | |\n"}, "names no test"},
	{"capability ledger", "test without claim", map[string]string{
		ledger:                   "| Backup | not yet | internal/cli.TestBackup |\n",
		"internal/cli/c_test.go": "package cli\nfunc TestBackup() {}\n",
	}, "say partly"},
	{"capability ledger", "unknown state", map[string]string{ledger: "| Backup | soon | |\n"}, "is unknown"},
	{"capability ledger", "right", map[string]string{
		ledger:                     "| capability | state | proved by |\n|---|---|---|\n| Backup | proved | `internal/cli.TestBackup`, test/script/backup.txtar |\n| Mounting | not yet | |\n",
		"internal/cli/c_test.go":   "package cli\nfunc TestBackup() {}\n",
		"test/script/backup.txtar": "exec tripod backup\n",
	}, ""},

	{"documents", "dead link", map[string]string{"docs/a.md": "see [b](b.md)\n"}, "leads nowhere"},
	{"documents", "live link", map[string]string{"docs/a.md": "see [b](../b.md#part)\n", "b.md": "b\n"}, ""},
	{"documents", "terms in disorder", map[string]string{"docs/terms.md": "- **vault**: x\n- **blob**: y\n"}, "alphabetical order"},
	{"documents", "lost decision", map[string]string{"docs/decisions/0001-x.md": "x\n", "docs/decisions/README.md": "none\n"}, "is missing from docs/decisions/README.md"},
}

// tiny is a tree of one file in its folder's package.
func tiny(name, body string) map[string]string {
	parts := strings.Split(name, "/")
	return map[string]string{name: fmt.Sprintf("package %s\n%s\n", parts[len(parts)-2], body)}
}

func TestRulesBite(t *testing.T) {
	byName := map[string]rule{}
	bitten := map[string]bool{}
	for _, r := range rules {
		byName[r.name] = r
	}
	for _, b := range bites {
		t.Run(b.rule+"/"+b.name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, src := range b.files {
				fsys[name] = &fstest.MapFile{Data: []byte(src)}
			}
			tree, err := load(fsys)
			if err != nil {
				t.Fatal(err)
			}
			r, ok := byName[b.rule]
			if !ok {
				t.Fatalf("no rule is called %q", b.rule)
			}
			found := r.check(tree)
			switch {
			case b.want == "" && len(found) > 0:
				t.Errorf("found in what is right:%s", sentences(found))
			case b.want != "" && (len(found) != 1 || !strings.Contains(found[0].String(), b.want)):
				t.Errorf("want one problem saying %q, found %d:%s", b.want, len(found), sentences(found))
			}
		})
		if b.want != "" {
			bitten[b.rule] = true
		}
	}
	for _, r := range rules {
		if !bitten[r.name] {
			t.Errorf("rule %q is never seen to fail: break it in bites", r.name)
		}
	}
}

// TestTreeSkips shows what is not judged: other modules, test data, fetched and
// built code.
func TestTreeSkips(t *testing.T) {
	fsys := fstest.MapFS{}
	for _, name := range []string{"tools/go.mod", "tools/t.go", "a/testdata/x.go", "web/node_modules/x/y.go", ".cache/z.go", "a/keep.go"} {
		fsys[name] = &fstest.MapFile{Data: []byte("package a\n")}
	}
	tree, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.files) != 1 || tree.files[0].path != "a/keep.go" {
		t.Errorf("judged %d files, want a/keep.go alone", len(tree.files))
	}
}
