package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
)

func TestExitCode(t *testing.T) {
	denied := tripod.Errorf(tripod.Denied, "wrong passphrase")
	file := terminal.System(&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, "")
	for _, c := range []struct {
		err      error
		warnings int
		want     int
	}{
		{nil, 0, 0},
		{nil, 2, 3},
		{errors.New("what"), 0, 1},
		{tripod.Errorf(tripod.Invalid, "x"), 0, 2},
		{signIn(denied), 0, 4},
		{fmt.Errorf("vault: %w", signIn(denied)), 1, 4},
		{errors.Join(signIn(denied), errors.New("close")), 0, 4},
		{denied, 0, 5},
		{file, 0, 5},
		{fmt.Errorf("x: %w", tripod.NotFound), 0, 6},
		{tripod.Errorf(tripod.Exists, "x"), 0, 7},
		{tripod.Errorf(tripod.Unavailable, "x"), 0, 8},
		{errors.Join(nil, tripod.Errorf(tripod.Corrupt, "x")), 3, 9},
		{errInterrupted, 1, 130},
	} {
		if got := exitCode(c.err, c.warnings); got != c.want {
			t.Errorf("%v with %d warnings: exit code %d, want %d", c.err, c.warnings, got, c.want)
		}
	}
}

// Every kind of error has an exit code, and every exit code a meaning.
func TestExitTable(t *testing.T) {
	if len(exits) != int(tripod.Fenced)+1 {
		t.Errorf("%d exit codes for %d kinds", len(exits), tripod.Fenced+1)
	}
	for kind, code := range exits {
		if code == 0 || !slices.ContainsFunc(meanings, func(m ExitCode) bool { return m.Code == code }) {
			t.Errorf("%v: exit code %d has no meaning", tripod.ErrorKind(kind), code)
		}
	}
}

func TestBlockSize(t *testing.T) {
	for text, want := range map[string]int{"": 0, "64K": 64 << 10, "1M": 1 << 20, "4MiB": 4 << 20, "262144": 256 << 10} {
		if got, err := blockSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"3", "32K", "8M", "100K", "x", "-1M", "1Q"} {
		if _, err := blockSize(text); !errors.Is(err, tripod.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
