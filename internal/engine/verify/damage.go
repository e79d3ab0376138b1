package verify

import (
	"context"
	"fmt"
	"slices"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
)

// finder names what damaged blobs cost. It goes through the snapshots' nodes
// again, remembering what is sound below each, so that what snapshots share is
// read once.
type finder struct {
	*checker
	clean map[short]bool // nodes with nothing damaged below
	files map[string]*File
	order []string
}

func (c *checker) findDamage(ctx context.Context, snaps []catalog.Snapshot) error {
	f := &finder{checker: c, clean: map[short]bool{}, files: map[string]*File{}}
	for i := range snaps {
		s := &snaps[i]
		var err error
		switch s.Record.Type {
		case tripod.Files:
			_, err = f.tree(ctx, s, s.Root, "")
		case tripod.DiskImage:
			_, err = f.disk(ctx, s, s.Root, 0)
		case tripod.Stream:
			var lost *Blob
			if lost, err = f.list(ctx, s.Root); lost != nil {
				f.add(s, name(s), lost)
			}
		}
		if err != nil {
			return err
		}
	}
	slices.Sort(f.order)
	for _, path := range f.order {
		c.report.Files = append(c.report.Files, *f.files[path])
	}
	return nil
}

func name(s *catalog.Snapshot) string {
	if len(s.Label.Paths) > 0 {
		return s.Label.Paths[0]
	}
	return s.Record.Type.String()
}

func (f *finder) add(s *catalog.Snapshot, path string, lost *Blob) {
	file := f.files[path]
	if file == nil {
		if len(f.files) >= mostListed {
			f.report.Truncated = true
			return
		}
		file = &File{Path: path, Blob: lost.ID, Err: lost.Err}
		f.files[path] = file
		f.order = append(f.order, path)
		f.meter.Warn(path, lost.Err)
	}
	if !slices.Contains(file.Snapshots, s.ID) {
		file.Snapshots = append(file.Snapshots, s.ID)
	}
}

// tree reports whether all below a node is sound.
func (f *finder) tree(ctx context.Context, s *catalog.Snapshot, ref seal.Ref, from string) (clean bool, err error) {
	k := shorten(&ref)
	if f.clean[k] {
		return true, ctx.Err()
	}
	if bad := f.bad[k]; bad != nil {
		f.add(s, "/"+from+" and what follows", bad)
		return false, nil
	}
	n, err := f.blobs.Node(ctx, ref)
	if err != nil {
		return false, unlessDamage(err)
	}
	clean = true
	for i := range n.Children {
		if c := &n.Children[i]; n.Level > 0 {
			below, err := f.tree(ctx, s, c.Ref, tree.Join(c.Parent, c.Name))
			if err != nil {
				return false, err
			}
			clean = clean && below
		}
	}
	for i := range n.Entries {
		e := &n.Entries[i]
		lost, err := f.entry(ctx, e)
		if err != nil {
			return false, err
		}
		if lost != nil {
			f.add(s, "/"+e.Path(), lost)
			clean = false
		}
	}
	f.clean[k] = clean
	return clean, nil
}

// unlessDamage: a blob lost since it was read the first time is not followed.
func unlessDamage(err error) error {
	if blobs.Damage(err) {
		return nil
	}
	return err
}

func (f *finder) entry(ctx context.Context, e *tree.Entry) (lost *Blob, err error) {
	for i := range e.Content.Pieces {
		if bad := f.bad[shorten(&e.Content.Pieces[i].Ref)]; bad != nil {
			return bad, nil
		}
	}
	if e.Content.List != nil {
		return f.list(ctx, *e.Content.List)
	}
	return nil, nil
}

// list gives the first damage at or below a list node.
func (f *finder) list(ctx context.Context, ref seal.Ref) (lost *Blob, err error) {
	k := shorten(&ref)
	if bad := f.bad[k]; bad != nil || f.clean[k] {
		return bad, ctx.Err()
	}
	n, err := f.blobs.List(ctx, ref)
	if err != nil {
		return &Blob{ref.ID(), err}, unlessDamage(err)
	}
	for i := range n.Items {
		if bad := f.bad[shorten(&n.Items[i].Ref)]; bad != nil {
			return bad, nil
		}
		if n.Level > 0 {
			if lost, err = f.list(ctx, n.Items[i].Ref); lost != nil || err != nil {
				return lost, err
			}
		}
	}
	f.clean[k] = true
	return nil, nil
}

func (f *finder) disk(ctx context.Context, s *catalog.Snapshot, ref seal.Ref, first int64) (clean bool, err error) {
	k := shorten(&ref)
	if f.clean[k] {
		return true, ctx.Err()
	}
	if bad := f.bad[k]; bad != nil {
		f.add(s, fmt.Sprintf("%s: from block %d on", name(s), first), bad)
		return false, nil
	}
	n, err := f.blobs.Disk(ctx, ref)
	if err != nil {
		return false, unlessDamage(err)
	}
	clean = true
	for i := range n.Slots {
		at := first + int64(n.Slots[i].Index)*n.SlotBlocks()
		if n.Level > 0 {
			below, err := f.disk(ctx, s, n.Slots[i].Ref, at)
			if err != nil {
				return false, err
			}
			clean = clean && below
			continue
		}
		if bad := f.bad[shorten(&n.Slots[i].Ref)]; bad != nil {
			offset := at * int64(n.Block)
			f.add(s, fmt.Sprintf("%s: bytes %d to %d", name(s), offset, min(offset+int64(n.Block), n.Size)), bad)
			clean = false
		}
	}
	f.clean[k] = clean
	return clean, nil
}
