package mount

import (
	"slices"
	"testing"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
)

func made(host, id string, at time.Time, paths ...string) catalog.Snapshot {
	return catalog.Snapshot{
		ID: id, Record: &snapshot.Record{Time: at, Type: tripod.Stream}, Label: &snapshot.Label{Host: host, Paths: paths},
	}
}

func TestLayout(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 15, 0, 0, time.Local)
	var got []string
	for _, h := range layout([]catalog.Snapshot{
		made("web", "aa", at), made("db", "bb", at), made("web", "cc", at.Add(time.Millisecond)), made("web", "dd", at.Add(time.Second)), made("../x", "ee", at),
	}) {
		for _, s := range h.snapshots {
			got = append(got, h.name+"/"+s.name)
		}
	}
	want := []string{
		"web/2026-03-01_10.15.00", "web/2026-03-01_10.15.00-cc", "web/2026-03-01_10.15.01", "db/2026-03-01_10.15.00", ".._x/2026-03-01_10.15.00",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string]string{"": "unknown", "..": "unknown", "a/b": "a_b", "plain": "plain"} {
		if got := folderName(text); got != want {
			t.Errorf("folderName(%q) = %q, want %q", text, got, want)
		}
	}
	for _, c := range []struct {
		paths []string
		want  string
	}{{[]string{"/dev/vg0/data"}, "data"}, {[]string{`D:\disk.img`}, "disk.img"}, {[]string{"dump.sql"}, "dump.sql"}, {nil, "stream"}} {
		s := made("h", "aa", time.Now(), c.paths...)
		if got := contentName(&s); got != c.want {
			t.Errorf("contentName(%q) = %q, want %q", c.paths, got, c.want)
		}
	}
}
