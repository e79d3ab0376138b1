// Command testsummary reads the output of "go test -json" from standard input
// and says what people want to know: the output of what failed, the packages
// that took long, the tests that could not prove what they are for, and a last
// line of counts. It exits with 1 when anything failed.
//
//	go test -json ./... | testsummary [-slow 5s] [-save FILE]
//
// A test that cannot run here skips with "not proved: what, why". With -save
// the summary also goes to a file, for a caller that repeats it at its end.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// event is one line of go test -json (see go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// key names a test, or a package when the test is empty.
type key struct{ pkg, test string }

type summary struct {
	out             io.Writer
	output          map[key]*strings.Builder // of what has not ended yet
	build           map[string]*strings.Builder
	failedTests     map[string]bool // packages of which a test failed
	passed, skipped int
	failed          int
	cached          int
	packages        int
	slow            []string
	slowLimit       time.Duration
	notProved       []string
}

func main() {
	slow := flag.Duration("slow", 5*time.Second, "list packages that take at least this long")
	save := flag.String("save", "", "also write the summary to this file")
	flag.Parse()
	s := newSummary(os.Stdout, *slow)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(1)
	}
	text := s.text()
	fmt.Print(text)
	if *save != "" {
		if err := os.WriteFile(*save, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "testsummary:", err)
			os.Exit(1)
		}
	}
	if s.failed > 0 || s.packages == 0 {
		os.Exit(1)
	}
}

func newSummary(out io.Writer, slow time.Duration) *summary {
	return &summary{
		out: out, slowLimit: slow, output: map[key]*strings.Builder{},
		build: map[string]*strings.Builder{}, failedTests: map[string]bool{},
	}
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		var e event
		switch {
		case strings.TrimSpace(line) == "":
		case json.Unmarshal([]byte(line), &e) == nil && e.Action != "":
			s.add(e)
		default: // what go itself says
			fmt.Fprint(s.out, line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		builder(s.build, e.ImportPath).WriteString(e.Output)
	case "output":
		builder(s.output, k).WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(e, k)
		}
		delete(s.output, k)
	}
}

func (s *summary) endTest(e event, k key) {
	text := builder(s.output, k).String()
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		s.skipped++
		s.noteSkip(k, text)
	case "fail":
		s.failed++
		s.failedTests[e.Package] = true
		fmt.Fprintf(s.out, "FAIL %s %s (%.1fs)\n%s", e.Package, e.Test, e.Elapsed, indent(text))
	}
}

func (s *summary) noteSkip(k key, text string) {
	for line := range strings.Lines(text) {
		if _, reason, ok := strings.Cut(line, "not proved: "); ok {
			s.notProved = append(s.notProved, fmt.Sprintf("%s (%s %s)", strings.TrimSpace(reason), k.pkg, k.test))
		}
	}
}

func (s *summary) endPackage(e event) {
	s.packages++
	text := builder(s.output, key{e.Package, ""}).String()
	if strings.Contains(text, "(cached)") {
		s.cached++
	}
	if d := time.Duration(e.Elapsed * float64(time.Second)); d >= s.slowLimit {
		s.slow = append(s.slow, fmt.Sprintf("%7.1fs  %s", d.Seconds(), e.Package))
	}
	if e.Action != "fail" {
		return
	}
	if e.FailedBuild != "" {
		s.failed++
		fmt.Fprintf(s.out, "FAIL %s does not build\n%s", e.Package, indent(builder(s.build, e.FailedBuild).String()))
		return
	}
	// A panic or a timeout ends a test binary with tests still open, whose
	// output was never shown; so does a failing TestMain without any.
	open := s.openTests(e.Package)
	if s.failedTests[e.Package] && len(open) == 0 {
		return
	}
	if !s.failedTests[e.Package] {
		s.failed++
	}
	fmt.Fprintf(s.out, "FAIL %s ended early\n", e.Package)
	for _, k := range open {
		fmt.Fprint(s.out, indent(builder(s.output, k).String()))
		delete(s.output, k)
	}
	fmt.Fprint(s.out, indent(text))
}

func (s *summary) openTests(pkg string) []key {
	var open []key
	for k := range s.output {
		if k.pkg == pkg && k.test != "" {
			open = append(open, k)
		}
	}
	slices.SortFunc(open, func(a, b key) int { return cmp.Compare(a.test, b.test) })
	return open
}

func (s *summary) text() string {
	var b strings.Builder
	if len(s.slow) > 0 {
		slices.Sort(s.slow)
		slices.Reverse(s.slow)
		fmt.Fprintf(&b, "\nslow packages:\n%s\n", strings.Join(s.slow, "\n"))
	}
	fmt.Fprintf(&b, "\nnot proved: %d\n", len(s.notProved))
	slices.Sort(s.notProved)
	for _, line := range s.notProved {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	if s.packages == 0 {
		b.WriteString("no package was tested\n")
	}
	fmt.Fprintf(&b, "%d passed, %d failed, %d skipped (%d packages, %d unchanged since their last pass)\n",
		s.passed, s.failed, s.skipped, s.packages, s.cached)
	return b.String()
}

func builder[K comparable](m map[K]*strings.Builder, k K) *strings.Builder {
	if m[k] == nil {
		m[k] = &strings.Builder{}
	}
	return m[k]
}

// indent drops the marks that go test prints around each test and moves the
// rest to the right.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "=== ") || strings.HasPrefix(trimmed, "--- ") || trimmed == "" {
			continue
		}
		b.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}
