package archive_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/driver/store/fs"
	"tripod/internal/vault/archive"
)

// TestADirectoryOfFilesThatCannotBeRemoved: on a file system with the immutable
// attribute nobody deletes or changes the files of an archive, not by hand either.
func TestADirectoryOfFilesThatCannotBeRemoved(t *testing.T) {
	place := t.TempDir()
	to, err := fs.Open(place)
	must(t, err)
	defer to.Close()
	if !to.Capabilities().Lock {
		t.Skip("not proved: an archive of immutable files, which needs root and a file system such as ext4")
	}
	root, err := durable.OpenRoot(place)
	must(t, err)
	defer root.Close()
	t.Cleanup(func() { // so that the directory can go
		root, err := durable.OpenRoot(place)
		must(t, err)
		defer root.Close()
		must(t, filepath.WalkDir(place, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			name, err := filepath.Rel(place, path)
			must(t, err)
			return root.Thaw(name)
		}))
	})
	s := newSite(t, 1)
	record := s.backup(t, 1, time.Unix(1, 0))
	_, err = s.archiveTo(t.Context(), t, to, t.TempDir(), archive.Options{Until: inAnHour()})
	must(t, err)
	s.whole(t, to, record)
	for _, name := range names(t, to, "") {
		file := filepath.Join(place, filepath.FromSlash(name))
		if os.Remove(file) == nil || os.WriteFile(file, nil, 0o600) == nil || os.Rename(file, file+"x") == nil {
			t.Errorf("%s could be changed", name)
		}
		if err := to.Delete(t.Context(), name); !errors.Is(err, tripod.Denied) {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	v := open(t, to, t.TempDir())
	defer v.Close()
	report, err := archive.Check(t.Context(), v, archive.CheckOptions{Now: time.Now(), Sample: 1, Tries: 1000})
	must(t, err)
	if len(report.Findings) > 0 || report.Tried != len(names(t, to, "")) {
		t.Errorf("%+v", report)
	}
}
