//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test binary be the launcher, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == launcherArg {
		os.Exit(launch(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func TestMeasure(t *testing.T) {
	env := []string{"PATH=" + os.Getenv("PATH")}
	s, err := measure(t.Context(), env, []string{"sh", "-c", "cat >/dev/null; sleep 0.05"}, strings.NewReader("in"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Seconds < 0.05 || s.Peak < 100<<10 {
		t.Errorf("cost of a shell: %+v", s)
	}
	_, err = measure(t.Context(), env, []string{"sh", "-c", "echo went wrong; exit 7"}, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "went wrong") {
		t.Errorf("error of a command that failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, env, []string{"sleep", "10"}, nil); err == nil {
		t.Error("an interrupted command is no error")
	}
}

func TestMedianTakesEachFigure(t *testing.T) {
	got := median([]sample{{Seconds: 3, Peak: 1}, {Seconds: 1, Peak: 3}, {Seconds: 2, Peak: 2}})
	if got.Seconds != 2 || got.Peak != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestTreeEditsAreEqualAndUndone(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := generateTree(t.Context(), dir, 250); err != nil {
			t.Fatal(err)
		}
	}
	if err := compareTrees(a, b, false); err != nil {
		t.Fatalf("two generated trees: %v", err)
	}
	before := digest(t, a)
	undoA, err := editTree(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := compareTrees(a, b, false); err == nil {
		t.Error("an edit changes nothing")
	}
	undoB, err := editTree(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	if digest(t, a) != digest(t, b) {
		t.Error("the same run edits differently")
	}
	for _, undo := range []func() error{undoA, undoB} {
		if err := undo(); err != nil {
			t.Fatal(err)
		}
	}
	if digest(t, a) != before {
		t.Error("undo leaves changes")
	}
	if err := compareTrees(a, b, false); err != nil {
		t.Errorf("after undo: %v", err)
	}
}

func TestImageEditsSpareHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := bytes.Repeat([]byte("data"), imageBlock/4*3)
	if _, err := f.WriteAt(data, 10*imageBlock+100); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(100 * imageBlock); err != nil {
		t.Fatal(err)
	}
	blocks, err := dataBlocks(f, 100*imageBlock)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) == 100 {
		t.Skip("not proved: the temporary directory's file system keeps no holes")
	}
	if len(blocks) != 4 || blocks[0] != 10*imageBlock {
		t.Errorf("blocks that hold data: %v", blocks)
	}
	before := digest(t, filepath.Dir(path))
	undo, err := editImage(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if digest(t, filepath.Dir(path)) == before {
		t.Error("the edit changes nothing")
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if digest(t, filepath.Dir(path)) != before {
		t.Error("undo leaves changes")
	}
}

func TestCompareTreesSeesEveryDifference(t *testing.T) {
	changes := map[string]func(dir string) error{
		"content": func(dir string) error { return rewrite(filepath.Join(dir, "f"), "xyz") },
		"mode":    func(dir string) error { return os.Chmod(filepath.Join(dir, "f"), 0o600) },
		"missing": func(dir string) error { return os.Remove(filepath.Join(dir, "f")) },
		"more":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "g"), nil, 0o644) },
		"link": func(dir string) error {
			os.Remove(filepath.Join(dir, "l"))
			return os.Symlink("elsewhere", filepath.Join(dir, "l"))
		},
	}
	for name, change := range changes {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		if err := os.Mkdir(a, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a, "f"), []byte("abc"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("f", filepath.Join(a, "l")); err != nil {
			t.Fatal(err)
		}
		if err := command(t.Context(), "cp", "-a", a, b); err != nil {
			t.Fatal(err)
		}
		if err := compareTrees(a, b, true); err != nil {
			t.Fatalf("equal trees: %v", err)
		}
		if err := change(b); err != nil {
			t.Fatal(err)
		}
		if compareTrees(a, b, true) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
}

// rewrite changes a file's content and keeps its time.
func rewrite(path, content string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

func TestGoalsCompareWithTheBetterPeer(t *testing.T) {
	s := newSeries([]tool{{name: "tripod"}, {name: "restic"}, {name: "kopia"}}, full)
	s.samples["full/tripod"] = []sample{{Seconds: 2, Added: 90}}
	s.samples["full/restic"] = []sample{{Seconds: 8, Added: 100}}
	s.samples["full/kopia"] = []sample{{Seconds: 4, Added: 110}}
	v, ok := goal{what: "full", step: full, ratio: 0.5}.judge(s)
	if !ok || v.Figure != 0.5 || !v.Reached || !strings.Contains(v.What, "kopia") {
		t.Errorf("seconds: %+v", v)
	}
	v, ok = goal{what: "size", step: full, ratio: 0.85, added: true}.judge(s)
	if !ok || v.Figure != 0.9 || v.Reached || !strings.Contains(v.What, "restic") {
		t.Errorf("size: %+v", v)
	}
	var out strings.Builder
	fiveStepSection("tree", "Title", s, treeGoals()).print(&out)
	for _, want := range []string{"Title", "tripod", "NOT reached", "peak memory"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestStreamIsLongAndVaried(t *testing.T) {
	const size = 1<<20 + 5
	data, err := io.ReadAll(newStream(size))
	if err != nil || len(data) != size {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if bytes.Equal(data[:streamBlock], data[streamBlock:2*streamBlock]) {
		t.Error("equal blocks")
	}
}

func TestParse(t *testing.T) {
	for line, want := range map[string]string{
		"":                "[startup tree image million collect]",
		"-million=false":  "[startup tree image]",
		"-flat":           "[startup tree image million collect flat]",
		"-all":            "[startup tree image million collect flat]",
		"-only image":     "[image]",
		"-only tree,flat": "[tree flat]",
	} {
		o, err := parse(strings.Fields(line))
		if got := fmt.Sprint(o.sections); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", line, got, err, want)
		}
	}
	if _, err := parse([]string{"-only", "nothing"}); err == nil {
		t.Error("an unknown section is no error")
	}
}

// digest sums names and contents below dir.
func digest(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		data, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %d %x\n", rel, len(data), sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
