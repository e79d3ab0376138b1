package reader

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/enginetest"
)

// Nodes that each decode and do not fit together are refused here as well.
func TestReaderRefusesNodesThatDoNotFit(t *testing.T) {
	w := enginetest.New(t)
	trees, disks, lists := w.HostileTrees(), w.HostileDisks(), w.HostileLists()
	good := w.Inner(2, enginetest.At("a", w.Inner(1, enginetest.At("a", w.Leaf("a", "b")), enginetest.At("c", w.Leaf("c")))))
	v := testVault(t)
	v.dir, v.company.id = t.TempDir(), w.Keys.ID
	for _, class := range []frame.Class{frame.DataClass, frame.NodeClass} {
		var p frame.Pack
		p.Reset(class)
		for _, id := range w.Vault.Order {
			if f, _, err := frame.Parse(w.Vault.Frames[id]); err == nil && frame.ClassOf(f.Kind) == class {
				must(t, p.Add(w.Vault.Frames[id]))
			}
		}
		id, raw := p.Finish()
		path := filepath.Join(v.dir, "pack", id.String()[:2], id.String())
		must(t, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, bytes.Clone(raw), 0o600))
	}
	must(t, v.readTables())
	files := func(r *ref) error { return v.walkTree(r, -1, nil, new(entry), func(*entry) error { return nil }) }
	disk := func(r *ref) error {
		_, err := v.walkDisk(r, -1, 0, nil, func(int64, []byte) error { return nil })
		return err
	}
	list := func(r *ref) error {
		_, err := v.walkList(r, -1, func([]byte) error { return nil })
		return err
	}
	must(t, files(&ref{h: good.H, u: good.U}))
	for kind, c := range map[tripod.BlobKind]struct {
		roots map[string]seal.Ref
		walk  func(*ref) error
	}{tripod.Tree: {trees, files}, tripod.Disk: {disks, disk}, tripod.List: {lists, list}} {
		for name, root := range c.roots {
			if c.walk(&ref{h: root.H, u: root.U}) == nil {
				t.Errorf("%s, %s: taken", kind, name)
			}
		}
	}
}
