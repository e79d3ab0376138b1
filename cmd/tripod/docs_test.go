package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"tripod/internal/cli"
)

// The reference in docs/reference is what the commands say of themselves;
// TRIPOD_UPDATE=1 writes it anew.
func TestReference(t *testing.T) {
	committed := filepath.Join("..", "..", "docs", "reference")
	fresh := t.TempDir()
	if err := writeDocs(cli.Commands(direct(version)), fresh); err != nil {
		t.Fatal(err)
	}
	fresh = filepath.Join(fresh, "reference")
	if os.Getenv("TRIPOD_UPDATE") != "" {
		if err := os.RemoveAll(committed); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(committed, os.DirFS(fresh)); err != nil {
			t.Fatal(err)
		}
	}
	want, got := read(t, fresh), read(t, committed)
	for name, content := range want {
		if got[name] != content {
			t.Errorf("docs/reference/%s is not what the command says: run TRIPOD_UPDATE=1 go test ./cmd/tripod", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("docs/reference/%s: there is no such command any more", name)
		}
	}
}

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = string(content)
	}
	return files
}

// Every command says what it is for, with an example, in lines that fit.
func TestHelp(t *testing.T) {
	err := each(cli.Commands(direct(version)), func(cmd *cobra.Command) error {
		name := cmd.CommandPath()
		switch {
		case cmd.Short == "" || strings.HasSuffix(cmd.Short, "."):
			t.Errorf("%s: short text %q", name, cmd.Short)
		case !strings.Contains(cmd.Example, "tripod"):
			t.Errorf("%s: no example", name)
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if len(line) > 100 {
				t.Errorf("%s: too long a line: %s", name, line)
			}
		}
		if cmd.GroupID == "" && cmd.HasParent() && !cmd.Parent().HasParent() {
			t.Errorf("%s: in no group of the overview", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestManPages(t *testing.T) {
	err := each(cli.Commands(direct(version)), func(cmd *cobra.Command) error {
		page := manPage(cmd)
		for _, part := range []string{".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES", ".SH EXIT STATUS"} {
			if !strings.Contains(page, part) {
				t.Errorf("%s: no %s", cmd.CommandPath(), part)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
