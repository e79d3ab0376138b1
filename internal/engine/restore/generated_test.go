package restore_test

import (
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"tripod/internal/core/tree"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/restore"
)

// genTree draws files with names and contents of all lengths in a few folders.
func genTree(t *rapid.T) []File {
	var files []File
	dirs := []string{"", "a", "a/b", "a/b/c", "a-b", "a.b"}
	taken := map[string]bool{}
	mine := tree.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	for _, d := range dirs {
		f := Dir(d)
		f.Mode, f.Owner, taken[d] = rapid.SampledFrom([]uint32{0o700, 0o755, 0o500, 0o1777}).Draw(t, "folder mode"), mine, true
		files = append(files, f)
	}
	for range rapid.IntRange(0, 40).Draw(t, "files") {
		path := tree.Join(rapid.SampledFrom(dirs).Draw(t, "dir"), rapid.StringMatching(`[a-c\-\. é~]{1,4}`).Draw(t, "name"))
		_, name := tree.SplitPath(path)
		if taken[path] || tree.ValidName(name) != nil {
			continue
		}
		taken[path] = true
		if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
			files = append(files, Link(path, rapid.StringMatching(`[a-z/\.]{1,20}`).Draw(t, "target")))
			continue
		}
		f := Text(path, string(rapid.SliceOfN(rapid.Byte(), 0, rapid.SampledFrom([]int{0, 9, 80, 400, 4000}).Draw(t, "most")).Draw(t, "data")))
		f.Mode, f.Owner = rapid.SampledFrom([]uint32{0o600, 0o644, 0o755, 0o400}).Draw(t, "mode"), mine
		f.Sec, f.Nsec = rapid.Int64Range(-1<<30, 1<<33).Draw(t, "sec"), rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec")
		if n := int64(len(f.Data)); n > 20 && rapid.Bool().Draw(t, "sparse") {
			gap := rapid.Int64Range(0, 10_000).Draw(t, "gap")
			f.Ranges = []tree.Range{{Offset: gap, Length: 20}, {Offset: gap + 5000, Length: n - 20}}
			f.Size = gap + 5000 + n - 20 + gap
		}
		files = append(files, f)
	}
	return files
}

func TestGeneratedTreesComeBack(t *testing.T) {
	base, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		want := genTree(rt)
		w := New(t)
		w.Snapshot("/", want, TinySizes())
		dir := filepath.Join(base, string(rune('a'+n%26))+rapid.StringMatching(`[a-z]{12}`).Draw(rt, "dir"))
		defer os.RemoveAll(dir)
		r, err := restoreAll(t, w, restore.Options{To: dir})
		if err != nil || r.Warnings > 0 {
			rt.Fatalf("%+v: %v", r, err)
		}
		compare(t, dir, "", want)
		again, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Changed})
		if err != nil || again.Files != 0 || again.Bytes != 0 {
			rt.Fatalf("a second run wrote: %+v: %v", again, err)
		}
		compare(t, dir, "", want)
	})
}
