package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/restore"
)

// nodes gives the nodes of a tree from the root down, with their spans.
func nodes(t testing.TB, w *World, root seal.Ref) (refs []seal.Ref, spans []blobs.Span, leaf []bool) {
	t.Helper()
	r := blobs.New(w.Vault, w.Public.ID)
	var visit func(ref seal.Ref, p tree.Place)
	visit = func(ref seal.Ref, p tree.Place) {
		n, err := r.Node(context.Background(), ref)
		if err != nil {
			t.Fatal(err)
		}
		refs, spans, leaf = append(refs, ref), append(spans, blobs.SpanOf(&p)), append(leaf, n.Level == 0)
		if n.Level > 0 {
			for _, c := range p.Below(n, nil) {
				visit(c.Ref, c.Place)
			}
		}
	}
	visit(root, tree.Place{})
	return refs, spans, leaf
}

// wide is a tree with many folders of many files: several leaves.
func wide() []File {
	files := append(Parents("srv/d/x"), Text("srv/d/a", "a"))
	for i := range 60 {
		dir := fmt.Sprintf("srv/d/s%02d", i)
		files = append(files, Dir(dir))
		for k := range 100 {
			files = append(files, Text(fmt.Sprintf("%s/f%03d", dir, k), "content"))
		}
	}
	return files
}

// A lost node of the tree costs the files that only it names, all of them are
// counted, and everything else is restored.
func TestALostNodeCostsWhatItNamesAndIsCounted(t *testing.T) {
	w, all := New(t), wide()
	w.Snapshot("/srv/d", all, DefaultSizes())
	snap := latest(t, w)
	refs, spans, leaf := nodes(t, w, snap.Root)
	if len(refs) < 4 {
		t.Fatalf("only %d nodes", len(refs))
	}
	for k := range refs {
		if k > 4 && k < len(refs)-2 {
			continue
		}
		gone := refs[k].ID()
		w.Vault.OnFrame = func(id tripod.ID, b []byte) []byte {
			if id == gone {
				return nil
			}
			return b
		}
		dir := t.TempDir()
		r, err := restoreAll(t, w, restore.Options{To: dir})
		var lost int64
		for i := range all {
			if at := filepath.Join(dir, all[i].Path()[min(len("srv/d"), len(all[i].Path())):]); all[i].Type == tree.Regular {
				_, err := os.Lstat(at)
				if in := spans[k].Has(all[i].Path()); in {
					lost++
				} else if err != nil {
					t.Fatalf("without node %d (%v): %s is not restored", k, spans[k], all[i].Path())
				}
			}
		}
		if !errors.Is(err, tripod.Corrupt) || len(r.Unread) != 1 || r.Unread[0] != spans[k] || r.Unlisted != lost || r.Total != 6001 || r.Files != 6001-lost || r.Failed != max(1, lost) {
			t.Errorf("without node %d (leaf %v, %v): %d lost, and %+v: %v", k, leaf[k], spans[k], lost, r, err)
		}
	}
}
