package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/engine/backup"
)

// Paths that no record has room for are refused before anything is stored.
func TestMorePathsThanARecordHoldsAreRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	var paths []string
	for i := range 70 {
		paths = append(paths, fmt.Sprint("/", i, strings.Repeat("long", 1000)))
	}
	o := w.options(nil, paths...)
	runs := map[string]func() (*backup.Report, error){
		"files": func() (*backup.Report, error) { return backup.Files(context.Background(), nil, o) },
		"disk":  func() (*backup.Report, error) { return backup.Disk(context.Background(), nil, o) },
		"stream": func() (*backup.Report, error) {
			return backup.Stream(context.Background(), dump(t, bytes.NewReader([]byte("x"))), o)
		},
	}
	for name, run := range runs {
		r, err := run()
		if !errors.Is(err, tripod.Invalid) || tripod.HintOf(err) == "" || r == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(w.Vault.Frames) != 0 {
		t.Errorf("%d blobs were stored", len(w.Vault.Frames))
	}
	o.Paths, o.Tags = paths[:1], []string{"daily"}
	if _, err := backup.Stream(context.Background(), dump(t, bytes.NewReader([]byte("x"))), o); err != nil {
		t.Errorf("one long path: %v", err)
	}
}
