package disk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/disk"
	"tripod/internal/driver/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// image is a sparse image whose size is no multiple of any block.
func image(t *testing.T) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "image")
	content = make([]byte, 5<<20+123)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int{0, 2 << 20, 4<<20 + 8192} {
		for i := range 4096 {
			content[off+i] = byte(random.Uint32())
		}
		if _, err := f.WriteAt(content[off:off+4096], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestImage(t *testing.T) {
	path, content := image(t)
	link := filepath.Join(filepath.Dir(path), "by-name")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link} {
		d, err := disk.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		sourcetest.Disk(t, d, content)
		if d.Info().Device || d.Info().Path != p {
			t.Errorf("info %+v", d.Info())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if _, err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, tripod.Invalid) {
			t.Errorf("read behind close: %v", err)
		}
	}
}

func TestHolesAreFound(t *testing.T) {
	path, _ := image(t)
	d, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // a test's
	var data int64
	for r, err := range source.DataRanges(d) {
		if err != nil {
			t.Fatal(err)
		}
		data += r.Length
	}
	switch {
	case data == d.Info().Size:
		t.Skip("not proved: holes of an image, this system does not tell of them")
	case data < 3*4096 || data > 1<<20:
		t.Errorf("%d bytes of data", data)
	}
}

func TestStatSeesChange(t *testing.T) {
	path, content := image(t)
	d, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // a test's
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), len(content)+1), 0o600); err != nil {
		t.Fatal(err)
	}
	now, err := d.Stat()
	if err != nil || now == d.Info() || now.Inode != d.Info().Inode {
		t.Errorf("now %+v, %v; opened as %+v", now, err, d.Info())
	}
}

func TestNoDisk(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		kind tripod.ErrorKind
		text string
	}{
		dir:                           {tripod.Invalid, "folder"},
		empty:                         {tripod.Invalid, "empty"},
		filepath.Join(dir, "missing"): {tripod.NotFound, "missing"},
	} {
		d, err := disk.Open(path)
		if err == nil {
			d.Close() //nolint:errcheck,gosec // a test's
		}
		if !errors.Is(err, want.kind) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
