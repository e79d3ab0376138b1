package disk_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/disk"
	"tripod/internal/driver/source/sourcetest"
)

func TestDevice(t *testing.T) {
	path, content := image(t)
	content = content[:len(content)&^511] // devices consist of sectors
	if err := os.Truncate(path, int64(len(content))); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", "--read-only", path).CombinedOutput()
	if err != nil {
		t.Skipf("not proved: reading a block device, needs a loop device: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	d, err := disk.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // a test's
	sourcetest.Disk(t, d, content)
	info := d.Info()
	if !info.Device || info.Major != 7 || info.Path != device || info.CTime != (source.Time{}) {
		t.Errorf("info %+v", info)
	}
}

func TestSpecialFiles(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, "/dev/null"} {
		if _, err := disk.Open(path); !errors.Is(err, tripod.Invalid) || !bytes.Contains([]byte(err.Error()), []byte(path)) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
