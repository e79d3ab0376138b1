package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// blockWindow is how many blocks are read and sealed before the map takes
// them, in order.
const blockWindow = 256

// diskRun is one backup of a disk.
type diskRun struct {
	*session
	disk    source.Disk
	info    source.DiskInfo
	block   int64
	old     *refTable
	fresh   []byte // capabilities of all blocks, for the next run
	builder *tree.DiskBuilder
	buffers sync.Pool
	zeros   []byte
}

// Disk backs up a block device or an image of one.
func Disk(ctx context.Context, d source.Disk, o Options) (*Report, error) {
	if l := o.label(); l.Check() != nil {
		return new(Report), l.Check()
	}
	r := &diskRun{session: begin(ctx, tripod.DiskImage, o), disk: d, info: d.Info(), block: int64(o.Block)}
	if r.block == 0 {
		r.block = tree.DefaultBlock
	}
	r.zeros = make([]byte, r.block)
	r.buffers.New = func() any { b := make([]byte, r.block); return &b }
	err := r.run(ctx)
	return r.finish(), err
}

func (r *diskRun) run(ctx context.Context) error {
	r.report.Files, r.report.Bytes = 1, r.info.Size
	r.meter.filesTotal.Store(1)
	r.meter.bytesTotal.Store(r.info.Size)
	r.old = readRefs(r.cachePath())
	if !r.old.empty() {
		held, err := r.holdsRoot(ctx, &r.old.root)
		if err != nil {
			return err
		}
		if !held {
			r.old = new(refTable)
		}
	}
	r.base = r.old.root
	r.meter.phase(run.Saving)
	ident, began := r.identity(), r.clock()
	if !r.info.Device && !r.old.empty() && ident == r.old.ident {
		r.report.Same = 1
		r.meter.done(1, r.info.Size, r.info.Path)
		if r.DryRun {
			return nil
		}
		return r.commit(ctx, r.old.root)
	}
	r.countState()
	if r.DryRun {
		r.report.Read = r.info.Size
		return nil
	}
	root, err := r.save(ctx)
	if err != nil {
		return err
	}
	if err := r.commit(ctx, root); err != nil {
		return err
	}
	if racy(&source.Entry{MTime: r.info.MTime, CTime: r.info.CTime}, began) {
		ident[0] ^= 0xff // matches nothing
	}
	r.remember(root, ident)
	return nil
}

func (r *diskRun) countState() {
	if r.old.empty() {
		r.report.New = 1
	} else {
		r.report.Changed = 1
	}
}

// save reads the disk and stores what is new of it.
func (r *diskRun) save(ctx context.Context) (seal.Ref, error) {
	builder, err := tree.NewDiskBuilder(r.info.Size, int(r.block), func(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
		return r.up.node(ctx, kind, refs, plain)
	})
	if err != nil {
		return seal.Ref{}, err
	}
	r.builder = builder
	next := int64(0)
	window := make([]int64, 0, blockWindow)
	for data, err := range source.DataRanges(r.disk) {
		if err != nil {
			return seal.Ref{}, err
		}
		for i := max(next, data.Offset/r.block); i*r.block < min(data.End(), r.info.Size); i++ {
			next = i + 1
			if window = append(window, i); len(window) == blockWindow {
				if err := r.blocks(ctx, window); err != nil {
					return seal.Ref{}, err
				}
				window = window[:0]
			}
		}
	}
	if err := r.blocks(ctx, window); err != nil {
		return seal.Ref{}, err
	}
	root, err := builder.Finish()
	if err != nil {
		return seal.Ref{}, err
	}
	return root, r.up.flush(ctx)
}

// blocks reads and stores the blocks of a window, several at a time.
func (r *diskRun) blocks(ctx context.Context, window []int64) error {
	refs := make([]seal.Ref, len(window))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for k, i := range window {
		group.Go(func() (err error) {
			refs[k], err = r.readBlock(gctx, i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for k, i := range window {
		if refs[k] == (seal.Ref{}) {
			continue
		}
		if err := r.builder.Add(i, refs[k]); err != nil {
			return err
		}
		if need := int(i) * seal.RefLen; len(r.fresh) < need {
			r.fresh = append(r.fresh, make([]byte, need-len(r.fresh))...)
		}
		r.fresh = seal.AppendRef(r.fresh, &refs[k])
	}
	return nil
}

// readBlock stores one block and gives its capability, the zero one for a
// block of zeros.
func (r *diskRun) readBlock(ctx context.Context, i int64) (seal.Ref, error) {
	if err := ctx.Err(); err != nil {
		return seal.Ref{}, err
	}
	pooled := r.buffers.Get().(*[]byte) // lint:errcheck the pool holds nothing else
	defer r.buffers.Put(pooled)
	b := (*pooled)[:min(r.block, r.info.Size-i*r.block)]
	if n, err := r.disk.ReadAt(b, i*r.block); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = tripod.Errorf(tripod.Conflict, "%s: ends at %d, before its size of %d bytes", r.info.Path, i*r.block+int64(n), r.info.Size)
		}
		return seal.Ref{}, err
	}
	r.meter.done(0, int64(len(b)), r.info.Path)
	if bytes.Equal(b, r.zeros[:len(b)]) {
		return seal.Ref{}, nil
	}
	return r.up.blob(ctx, b, func(ref *seal.Ref) bool { return r.old.at(i) == *ref })
}

// identity is a keyed hash of what tells an unchanged image.
func (r *diskRun) identity() ident {
	h := keyedHasher(r.Keys.CacheKey())
	var b []byte
	for _, v := range [...]uint64{
		uint64(r.info.Size), uint64(r.block), r.info.Dev, r.info.Inode, uint64(r.info.MTime.Sec), uint64(r.info.MTime.Nsec),
		uint64(r.info.CTime.Sec), uint64(r.info.CTime.Nsec),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	_, _ = h.Write(append(b, r.info.Path...))
	return ident(h.Sum(nil)[:16])
}

func (r *diskRun) remember(root seal.Ref, id ident) {
	r.report.Read = r.meter.bytes.Load()
	path := r.cachePath()
	if path == "" {
		return
	}
	if err := (&refTable{root: root, ident: id, refs: r.fresh}).save(path); err != nil {
		r.Warnings.add(path, err)
	}
}
