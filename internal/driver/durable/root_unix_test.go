//go:build unix

package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

func TestRootStaysInside(t *testing.T) {
	r, dir := openRoot(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"d": outside, "f": filepath.Join(outside, "f")} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "d/f", "pipe", "../x"} {
		if f, err := r.Open(name); err == nil {
			f.Close()
			t.Errorf("opened %s", name)
		}
	}
	err := durable.Classify(durable.WriteNew(r, "tmp", "d/new", 0o600, nil), "put", "d/new")
	if !errors.Is(err, tripod.Denied) || !strings.Contains(tripod.HintOf(err), "link") {
		t.Errorf("through a link that leads out: %v (hint %q)", err, tripod.HintOf(err))
	}
}
