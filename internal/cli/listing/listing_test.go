package listing

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
	"tripod/internal/engine/catalog"
)

const hostile = "bad\x1b[31m\xff"

// shown is what a function prints.
func shown(t *testing.T, asJSON bool, show func(c *terminal.Console) error) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "shown"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // read below
	if err := show(&terminal.Console{Out: file, Err: file, JSON: asJSON}); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whatever the names in a vault are, they are shown without effect on the
// terminal, and as JSON that gives their bytes.
func TestHostileNames(t *testing.T) {
	e := tree.Entry{Parent: "a", Name: hostile, Type: tree.Symlink, Link: hostile, Owner: tree.Owner{User: hostile}}
	s := catalog.Snapshot{
		ID: "12345678", Record: &snapshot.Record{Type: tripod.Files},
		Label: &snapshot.Label{Host: hostile, Paths: []string{"/" + hostile}, Tags: []string{hostile}},
	}
	for name, show := range map[string]func(c *terminal.Console) error{
		"found": func(c *terminal.Console) error {
			return Found(c, "*", []browse.Found{{Path: "a/" + hostile, Host: hostile, Versions: []browse.Version{{Entry: e, Snapshots: []string{"1"}}}}})
		},
		"changes": func(c *terminal.Console) error {
			l := NewChanges(c)
			if err := l.Add(&browse.Change{Kind: browse.Added, Path: "a/" + hostile, New: &e}); err != nil {
				return err
			}
			return l.End("1", "2")
		},
		"snapshots": func(c *terminal.Console) error {
			if c.JSON {
				return c.Result("snapshots", OfSnapshot(&s))
			}
			Table(c, []catalog.Snapshot{s})
			return nil
		},
		"an entry": func(c *terminal.Console) error {
			if c.JSON {
				return c.Result("ls", OfEntry(&e))
			}
			c.Printf("%s\n", Long(&e, e.Name))
			return nil
		},
	} {
		text := shown(t, false, show)
		if !strings.Contains(text, `bad\x1b[31m\xff`) || strings.Contains(text, "\x1b") || strings.Contains(text, "\xff") {
			t.Errorf("%s: %q", name, text)
		}
		text = shown(t, true, show)
		if !json.Valid([]byte(text)) || !strings.Contains(text, `_raw":`) {
			t.Errorf("%s as JSON: %q", name, text)
		}
	}
}

func TestChangesAreCounted(t *testing.T) {
	text := shown(t, false, func(c *terminal.Console) error {
		l := NewChanges(c)
		for _, k := range []browse.ChangeKind{browse.Added, browse.Removed, browse.Modified, browse.Retyped, browse.Metadata, browse.Added} {
			if err := l.Add(&browse.Change{Kind: k, Path: "x"}); err != nil {
				return err
			}
		}
		return l.End("1", "2")
	})
	if !strings.HasPrefix(text, "+  /x\n-  /x\nM  /x\nT  /x\nU  /x\n+  /x\n2 added, 1 removed, 2 changed, 1 with other metadata (") {
		t.Errorf("%q", text)
	}
}

// Devices have numbers, folders no size, owners a name or a number.
func TestLong(t *testing.T) {
	for want, e := range map[string]tree.Entry{
		"crw-r----- root     7               4, 64 ": {Type: tree.CharDevice, Mode: 0o640, Major: 4, Minor: 64, Owner: tree.Owner{User: "root", GID: 7}},
		"-rwsr-xr-x 0        0               1,234 ": {Type: tree.Regular, Mode: 0o4755, Size: 1234},
		"drwxrwxrwt 0        0                   - ": {Type: tree.Dir, Mode: 0o1777, Size: 9},
	} {
		if got := Long(&e, "x"); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A snapshot that left something out is marked; where none did, there is no
// column for it.
func TestIncompleteSnapshotsAreMarked(t *testing.T) {
	of := func(left ...int64) string {
		var list []catalog.Snapshot
		for _, n := range left {
			list = append(list, catalog.Snapshot{ID: "12345678", Record: &snapshot.Record{Type: tripod.Files}, Label: &snapshot.Label{Host: "h", Skipped: n, Paths: []string{"/d"}}})
		}
		return shown(t, false, func(c *terminal.Console) error { Table(c, list); return nil })
	}
	if text := of(0, 0); strings.Contains(text, "LEFT OUT") {
		t.Errorf("%s", text)
	}
	lines := strings.Split(of(0, 1234), "\n")
	if !strings.Contains(lines[0], "  LEFT OUT  ") || !strings.Contains(lines[1], "  0 B   -         -     /d") || !strings.Contains(lines[2], "  0 B   1,234     -     /d") {
		t.Errorf("%q", lines)
	}
}
