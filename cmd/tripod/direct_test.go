package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tripod/internal/cli"
)

// A directory that was checked is as it was, also when the check was interrupted.
func TestACheckedDirectoryStaysAsItIs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, stop := range []int{1, 5, 0} {
		ctx, cancel := context.WithCancel(t.Context())
		checks := 0
		err := checkStore(ctx, dir, func(c cli.StoreCheck) {
			if !c.OK && !c.Skipped {
				t.Errorf("%s: %v", c.Name, c.Err)
			}
			if checks++; checks == stop {
				cancel()
			}
		})
		if stop > 0 && (!errors.Is(err, context.Canceled) || checks != stop) || stop == 0 && err != nil {
			t.Errorf("stopped at check %d: %d ran, %v", stop, checks, err)
		}
		cancel()
		entries, err := os.ReadDir(dir)
		if err != nil || !slices.EqualFunc(entries, []string{"mine"}, func(e os.DirEntry, name string) bool { return e.Name() == name }) {
			t.Errorf("stopped at check %d: left %v, %v", stop, entries, err)
		}
	}
}
