package backup_test

import (
	"context"
	"slices"
	"testing"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source/files"
	"tripod/internal/engine/backup"
)

// Warnings name entries by the paths by which a restore takes them.
func TestWarningsNameAbsolutePaths(t *testing.T) {
	w := newWorld(t)
	w.write("in/secret", []byte("x"))
	warnings := new(backup.Warnings)
	gone := w.path("gone")
	all, err := files.New(files.Options{Paths: []string{w.dir, gone}, Watcher: warnings.Watcher()})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	o := w.options(warnings, w.dir)
	var told []string
	o.Progress = func(e run.Event) {
		if e.Warning != nil && (e.Item != gone || tripod.KindOf(e.Warning) == tripod.NotFound) {
			told = append(told, e.Item)
		}
	}
	if _, err := backup.Files(context.Background(), closed{all}, o); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(told); !slices.Equal(told, []string{gone, w.path("in/secret")}) {
		t.Errorf("warned of %q", told)
	}
}
