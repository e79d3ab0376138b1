package verdict_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tripod/internal/cli/terminal"
	"tripod/internal/cli/verdict"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/verify"
)

func printed(t *testing.T, json bool, r *verify.Report) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := verdict.Print(&terminal.Console{Out: out, Err: out, JSON: json}, r, verdict.Run{Sample: 100}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

// TestDamageIsGrouped: one line for a damaged pack or for all that is missing,
// then the files, not too many of them; as JSON all of them.
func TestDamageIsGrouped(t *testing.T) {
	r := &verify.Report{Snapshots: 5, Damaged: 2, Missing: 30}
	bad := fmt.Errorf("pack 00112233: %w", tripod.Errorf(tripod.Corrupt, "blob 4455: checksum does not match"))
	for i := range 109 {
		r.Files = append(r.Files, verify.File{Path: fmt.Sprintf("/d/%03d", i), Snapshots: []string{"a", "b", "c", "d", "e"}, Err: bad})
	}
	for i := range 30 {
		err := tripod.Errorf(tripod.NotFound, "blob %d: is missing from the vault", i)
		r.Files = append(r.Files, verify.File{Path: fmt.Sprintf("/m/%03d", i), Snapshots: []string{"a"}, Err: err})
	}
	text := printed(t, false, r)
	for _, want := range []string{
		"damaged: pack 00112233: blob 4455: checksum does not match\n  /d/000 in snapshots a, b, c and 2 more\n",
		"  /d/019 in snapshots a, b, c and 2 more\n  and 89 more: --json lists all\nmissing: ", "  /m/019 in snapshot a\n  and 10 more: --json lists all\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "\n"); n > 50 {
		t.Errorf("%d lines", n)
	}
	if n := strings.Count(printed(t, true, r), `"path"`); n != 139 {
		t.Errorf("%d of 139 files as JSON", n)
	}
}

// TestWhatIsLostIsCounted: names that are lost count as files, and a stretch of
// the tree tells where it begins and ends.
func TestWhatIsLostIsCounted(t *testing.T) {
	r := &verify.Report{
		Snapshots: 1, Missing: 1, NotWhole: 2987, AtLeast: true, Unlisted: []verify.Unlisted{{Snapshot: "1a2b", Total: 12018, Files: 2987}},
		Files: []verify.File{
			{Path: "/a14/f9617", Until: "/a23/f0001", Stretch: true, Snapshots: []string{"1a2b"}, Err: tripod.Errorf(tripod.NotFound, "blob 1: is missing")},
			{Path: "/dev/sda", Size: 300, Missing: []tree.Range{{Offset: 10, Length: 5}}, Snapshots: []string{"1a2b"}, Err: tripod.Errorf(tripod.NotFound, "blob 2: is missing")},
		},
	}
	text := printed(t, false, r)
	for _, want := range []string{
		"\n  from /a14/f9617 up to /a23/f0001 in snapshot 1a2b\n", "\n  /dev/sda: bytes 10-14 of 300 in snapshot 1a2b\n",
		"\nSnapshot 1a2b has 12,018 files; 2,987 of them are in damaged folders' lists, ", "; at least 2,987 files cannot be restored whole.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	text = printed(t, true, r)
	for _, want := range []string{
		`"path":"/a14/f9617","stretch":true,"until":"/a23/f0001",`, `"missing":[{"offset":10,"length":5}]`, `"files_not_whole":2987,"at_least":true,"unlisted":[{"snapshot":"1a2b","files":12018,"unlisted_files":2987}]`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
}
