package verify

import (
	"context"
	"fmt"
	"hash/maphash"
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
	clean map[short]int64 // nodes with nothing damaged below, and how many files a tree's have
	files map[string]*File
	order []string
	named map[uint64]struct{} // hashes of the paths that were named
	most  map[source]int64    // files that are unlisted in one snapshot of a source
}

type source struct {
	machine tripod.MachineID
	source  tripod.SourceID
}

func (c *checker) findDamage(ctx context.Context, snaps []catalog.Snapshot) error {
	f := &finder{checker: c, clean: map[short]int64{}, files: map[string]*File{}, named: map[uint64]struct{}{}, most: map[source]int64{}}
	for i := range snaps {
		s := &snaps[i]
		var err error
		switch s.Record.Type {
		case tripod.Files:
			err = f.snapshot(ctx, s)
		case tripod.DiskImage:
			err = f.image(ctx, s)
		case tripod.Stream:
			err = f.stream(ctx, s)
		}
		if err != nil {
			return err
		}
	}
	slices.Sort(f.order)
	for _, key := range f.order {
		c.report.Files = append(c.report.Files, *f.files[key])
	}
	c.report.NotWhole = int64(len(f.named))
	for _, n := range f.most {
		c.report.NotWhole += n
	}
	return nil
}

func name(s *catalog.Snapshot) string {
	if len(s.Label.Paths) > 0 {
		return s.Label.Paths[0]
	}
	return s.Record.Type.String()
}

// add says that a snapshot has damage. file.Blob and file.Err are those of lost.
func (f *finder) add(s *catalog.Snapshot, file File, lost *Blob) {
	if !file.Stretch {
		f.named[maphash.String(f.claim, file.Path)] = struct{}{}
	}
	key := fmt.Sprint(file.Path, "\x00", file.Until, file.Stretch, file.Missing)
	known := f.files[key]
	if known == nil {
		if len(f.files) >= mostListed {
			f.report.Truncated = true
			return
		}
		file.Blob, file.Err = lost.ID, lost.Err
		known = &file
		f.files[key] = known
		f.order = append(f.order, key)
		f.meter.Warn(file.Path, lost.Err)
	}
	if !slices.Contains(known.Snapshots, s.ID) {
		known.Snapshots = append(known.Snapshots, s.ID)
	}
}

// snapshot names what one of files lost, and counts what it lost the names of.
func (f *finder) snapshot(ctx context.Context, s *catalog.Snapshot) error {
	var unread bool
	known, _, err := f.tree(ctx, s, tree.Placed{Ref: s.Root}, &unread)
	if err != nil || !unread {
		return err
	}
	f.report.AtLeast = true // that the label is right is not known
	if n := s.Label.Files - known; n > 0 {
		k := source{s.Key.Machine, s.Key.Source}
		f.most[k] = max(f.most[k], n)
		f.report.Unlisted = append(f.report.Unlisted, Unlisted{Snapshot: s.ID, Total: s.Label.Files, Files: n})
	}
	return nil
}

// tree counts the files that the nodes below one name, and reports whether all
// there is sound. unread becomes true when there is a node that is not.
func (f *finder) tree(ctx context.Context, s *catalog.Snapshot, at tree.Placed, unread *bool) (known int64, clean bool, err error) {
	k := shorten(&at.Ref)
	if n, ok := f.clean[k]; ok {
		return n, true, ctx.Err()
	}
	if bad := f.bad[k]; bad != nil {
		*unread = true
		file := File{Path: "/" + at.Place.From(), Stretch: true}
		if until := at.Place.Until(); until != "" {
			file.Until = "/" + until
		}
		f.add(s, file, bad)
		return 0, false, nil
	}
	n, err := f.blobs.Node(ctx, at.Ref)
	if err != nil {
		return 0, false, unlessDamage(err)
	}
	clean = true
	if n.Level > 0 {
		for _, c := range at.Place.Below(n, nil) {
			some, sound, err := f.tree(ctx, s, c, unread)
			if err != nil {
				return 0, false, err
			}
			known, clean = known+some, clean && sound
		}
	}
	for i := range n.Entries {
		e := &n.Entries[i]
		if e.Type != tree.Dir {
			known++
		}
		lost, err := f.entry(ctx, e)
		if err != nil {
			return 0, false, err
		}
		if lost == nil {
			continue
		}
		clean = false
		missing, err := f.missing(ctx, e)
		if err != nil {
			return 0, false, err
		}
		f.add(s, File{Path: "/" + e.Path(), Size: e.Size, Missing: missing}, lost)
	}
	if clean {
		f.clean[k] = known
	}
	return known, clean, nil
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

// missing tells which bytes a damaged file lacks, nil of a short one, which is
// restored whole or not.
func (f *finder) missing(ctx context.Context, e *tree.Entry) ([]tree.Range, error) {
	if e.Content.List == nil && len(e.Content.Pieces) < 2 && e.Ranges == nil {
		return nil, nil
	}
	return f.ranges(func(fn func(*blobs.Extent) error, lost blobs.Missing) error { return f.blobs.Salvage(ctx, e, fn, lost) })
}

// ranges tells which of the bytes that each goes through cannot be read.
func (f *finder) ranges(each func(fn func(*blobs.Extent) error, lost blobs.Missing) error) ([]tree.Range, error) {
	var g blobs.Gaps
	err := each(func(x *blobs.Extent) error {
		if bad := f.bad[shorten(&x.Ref)]; bad != nil {
			g.Add(x.Offset, int64(x.Length), bad.Err)
		}
		return nil
	}, func(offset, length int64, err error) error {
		g.Add(offset, length, err)
		return nil
	})
	return f.first(&g), unlessDamage(err)
}

// first gives the first ranges of all that a report takes.
func (f *finder) first(g *blobs.Gaps) []tree.Range {
	list, _ := g.Ranges()
	if len(list) > mostListed {
		list, f.report.Truncated = list[:mostListed], true
	}
	return list
}

// list gives the first damage at or below a list node.
func (f *finder) list(ctx context.Context, ref seal.Ref) (lost *Blob, err error) {
	k := shorten(&ref)
	if bad := f.bad[k]; bad != nil {
		return bad, ctx.Err()
	}
	if _, ok := f.clean[k]; ok {
		return nil, ctx.Err()
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
	f.clean[k] = 0
	return nil, nil
}

func (f *finder) stream(ctx context.Context, s *catalog.Snapshot) error {
	lost, err := f.list(ctx, s.Root)
	if lost == nil || err != nil {
		return err
	}
	file := File{Path: name(s)}
	if root, err := f.blobs.List(ctx, s.Root); err == nil {
		file.Size = root.Size()
	}
	file.Missing, err = f.ranges(func(fn func(*blobs.Extent) error, lost blobs.Missing) error {
		return f.blobs.SalvageList(ctx, s.Root, -1, fn, lost)
	})
	f.add(s, file, lost)
	return err
}

func (f *finder) image(ctx context.Context, s *catalog.Snapshot) error {
	file := File{Path: name(s)}
	if bad := f.bad[shorten(&s.Root)]; bad != nil {
		f.add(s, file, bad)
		return nil
	}
	root, err := f.blobs.Disk(ctx, s.Root)
	if err != nil {
		return unlessDamage(err)
	}
	file.Size = root.Size
	var g blobs.Gaps
	var lost *Blob
	if _, err := f.disk(ctx, s.Root, 0, &g, &lost); err != nil || lost == nil {
		return err
	}
	file.Missing = f.first(&g)
	f.add(s, file, lost)
	return nil
}

// disk collects what is lost below a node of a disk map that is there.
func (f *finder) disk(ctx context.Context, ref seal.Ref, first int64, g *blobs.Gaps, lost **Blob) (clean bool, err error) {
	k := shorten(&ref)
	if _, ok := f.clean[k]; ok {
		return true, ctx.Err()
	}
	n, err := f.blobs.Disk(ctx, ref)
	if err != nil {
		return false, unlessDamage(err)
	}
	clean = true
	for i := range n.Slots {
		at := first + int64(n.Slots[i].Index)*n.SlotBlocks()
		if bad := f.bad[shorten(&n.Slots[i].Ref)]; bad != nil {
			offset := at * int64(n.Block)
			g.Add(offset, max(1, min(n.SlotBlocks()*int64(n.Block), n.Size-offset)), bad.Err)
			if clean = false; *lost == nil {
				*lost = bad
			}
			continue
		}
		if n.Level > 0 {
			below, err := f.disk(ctx, n.Slots[i].Ref, at, g, lost)
			if err != nil {
				return false, err
			}
			clean = clean && below
		}
	}
	if clean {
		f.clean[k] = 0
	}
	return clean, nil
}
