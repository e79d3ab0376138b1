package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tripod/internal/cli"
)

// The guide's table of exit codes is the program's.
func TestGuideListsExitCodes(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide", "exit-codes.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cli.ExitCodes() {
		if row := fmt.Sprintf("| %d | %s |", c.Code, c.Text); !strings.Contains(string(page), row) {
			t.Errorf("missing row: %s", row)
		}
	}
}
