package restore

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/run"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
)

// Disk restores a snapshot of a disk to a file, with holes where the disk held
// zeros, or to a block device, with zeros written there. To is the file, a
// folder to make it in under its own name, or the device.
//
// A file is made under a name that ends in .partial and renamed at the end; with
// Changed, an earlier partial or complete one is continued, and only blocks
// that differ are written. A device is only written with Changed or Always.
// Damaged blocks stay as they are, zeros in a new file, and give Corrupt; the
// report's Partial names them, and the file then has its partial name.
func Disk(ctx context.Context, r vault.Reader, snap catalog.Snapshot, o Options) (*Report, error) {
	j := newJob(r, snap, o)
	if snap.Record.Type != tripod.DiskImage {
		return j.finish(tripod.Errorf(tripod.Invalid, "snapshot %s: is of %s, not of a disk", snap.ID, snap.Record.Type))
	}
	return j.finish(j.disk(ctx))
}

// image is the target of a disk.
type image struct {
	*job
	file    *os.File
	path    string // what is written
	final   string // what it becomes
	folder  string // to be made if it is not there
	device  bool
	reuse   bool // there may be blocks that are right already
	zeros   bool // holes must be made
	written atomic.Int64
	gaps    blobs.Gaps

	// writing admits one write at a time. The system does the same with a file,
	// but holds a processor for each that waits.
	writing sync.Mutex
}

// blocks gives the pieces of an image in order; what lies between them is
// zeros. lost is told of pieces that are not known.
type blocks func(ctx context.Context, fn func(*blobs.Block) error, lost blobs.Missing) error

func (j *job) disk(ctx context.Context) error {
	root, err := j.blobs.Disk(ctx, j.snap.Root)
	if err == nil {
		err = root.Fits(nil, 0) // before its size makes a file
	}
	if err != nil {
		return err
	}
	return j.image(ctx, root.Size, func(ctx context.Context, fn func(*blobs.Block) error, lost blobs.Missing) error {
		return j.blobs.Blocks(ctx, root, fn, lost)
	})
}

// image writes an image of size bytes.
func (j *job) image(ctx context.Context, size int64, each blocks) error {
	t := &image{job: j}
	if err := t.locate(); err != nil {
		return err
	}
	if j.DryRun {
		return t.measure(ctx, size, each)
	}
	if err := t.openTarget(size); err != nil {
		return err
	}
	err := t.write(ctx, size, each)
	if err == nil && !t.device {
		if err = t.file.Truncate(size); err == nil {
			err = t.file.Sync()
		}
		err = durable.Classify(err, "write", t.path)
	}
	if closeErr := t.file.Close(); err == nil {
		err = durable.Classify(closeErr, "write", t.path)
	}
	if err != nil {
		return err
	}
	return t.conclude(size)
}

// conclude gives the image the name that fits what became of it.
func (t *image) conclude(size int64) error {
	to, lost := t.final, t.gaps.First()
	if lost != nil && t.written.Load() == 0 && !t.reuse && !t.device {
		_ = os.Remove(t.path) // made by this restore, and empty
		return t.fail(t.name(), tripod.Errorf(tripod.Corrupt, "none of its %d bytes can be read: %w", size, lost))
	}
	if lost != nil && !t.device {
		to = t.final + partialSuffix
	}
	if t.path != to {
		if err := durable.Classify(t.rename(to), "rename", t.path); err != nil {
			return err
		}
	}
	if lost != nil {
		return t.inPart(t.name(), to, "", size, &t.gaps)
	}
	t.report.Files = 1
	t.meter.Add(1, 0)
	return nil
}

// rename gives the image another name; Never must not replace what came there
// meanwhile.
func (t *image) rename(to string) error {
	if t.Overwrite != Never {
		return os.Rename(t.path, to)
	}
	if err := os.Link(t.path, to); err != nil {
		if _, statErr := os.Lstat(to); statErr == nil {
			return os.ErrExist
		}
		return os.Rename(t.path, to) // no hard links here
	}
	return os.Remove(t.path)
}

// locate decides what to write, and refuses what the rule protects.
func (t *image) locate() error {
	if t.To == "" {
		return tripod.Errorf(tripod.Invalid, "restore: no target").WithHint("name a file, a folder or a device with --to")
	}
	t.final = t.To
	i, err := os.Stat(t.final)
	if folder := os.IsPathSeparator(t.To[len(t.To)-1]); err == nil && i.IsDir() || folder && os.IsNotExist(err) {
		t.final, t.folder = filepath.Join(t.To, t.diskName()), t.To
		i, err = os.Lstat(t.final)
	}
	t.report.At = t.final
	t.device = err == nil && i.Mode()&os.ModeDevice != 0
	t.path = t.final
	if !t.device {
		t.path += partialSuffix
	}
	_, begun := os.Lstat(t.path)
	switch {
	case err != nil && !os.IsNotExist(err):
		return durable.Classify(err, "look at", t.final)
	case err == nil && t.Overwrite == Never:
		return tripod.Errorf(tripod.Conflict, "%s: is there already", t.final).
			WithHint("name another target, or give --overwrite changed, which writes what differs")
	case begun == nil && t.Overwrite == Never:
		return tripod.Errorf(tripod.Conflict, "%s: is there already, as an unfinished restore leaves it", t.path).
			WithHint("--overwrite changed goes on from it, --overwrite always starts anew")
	case err == nil && !t.device && !i.Mode().IsRegular():
		return tripod.Errorf(tripod.Conflict, "%s: is neither a file nor a device", t.final)
	case err == nil && t.Overwrite == Changed:
		t.path, t.reuse, t.zeros = t.final, true, true
	}
	t.zeros = t.zeros || t.device
	return nil
}

// name is what was protected, as people know it.
func (t *image) name() string {
	if l := t.snap.Label; l != nil && len(l.Paths) == 1 {
		return l.Paths[0]
	}
	return t.snap.Record.Type.String()
}

// diskName is the last part of what was protected. It comes from the snapshot,
// so it is made one harmless name.
func (t *image) diskName() string {
	name := path.Base(catalog.TreePath(t.name()))
	if tree.ValidName(name) != nil || badName(name) != nil {
		return t.snap.Record.Type.String()
	}
	return name
}

func (t *image) openTarget(size int64) error {
	if t.folder != "" {
		if err := os.MkdirAll(t.folder, 0o777); err != nil { //nolint:gosec // the user's own umask
			return durable.Classify(err, "make folder", t.folder)
		}
	}
	flags := os.O_RDWR
	if !t.device && t.path != t.final {
		flags |= os.O_CREATE
		if t.Overwrite != Changed {
			// What an interrupted restore left is of no use, and a link
			// planted there must not be followed.
			if err := os.Remove(t.path); err != nil && !os.IsNotExist(err) {
				return durable.Classify(err, "remove", t.path)
			}
			flags |= os.O_EXCL
		} else {
			t.reuse, t.zeros = true, true
		}
	}
	if !t.device { // the names of devices often are links
		flags |= noFollow
	}
	f, err := os.OpenFile(t.path, flags, 0o600)
	if err != nil {
		return durable.Classify(err, "open", t.path)
	}
	t.file = f
	if !t.device {
		err = f.Truncate(size)
	} else if end, seekErr := f.Seek(0, io.SeekEnd); seekErr == nil && end < size {
		err = tripod.Errorf(tripod.Exhausted, "%s: has %d bytes, the disk needs %d", t.path, end, size).
			WithHint("restore to a device at least as large")
	}
	if err != nil {
		_ = f.Close()
		return durable.Classify(err, "prepare", t.path)
	}
	return nil
}

// measure counts what a restore would write.
func (t *image) measure(ctx context.Context, size int64, each blocks) error {
	err := each(ctx, func(b *blobs.Block) error {
		t.report.Bytes += b.Length
		return nil
	}, t.lostBlock)
	switch {
	case err != nil:
		return err
	case t.gaps.First() != nil:
		return t.inPart(t.name(), "", "nothing was written", size, &t.gaps)
	}
	t.report.Files = 1
	return nil
}

// Limits of a batch of blocks.
const batchBlocks = 128

func (t *image) write(ctx context.Context, size int64, each blocks) error {
	t.meter.Phase(run.Reading)
	g, ctx := errgroup.WithContext(ctx)
	batches := make(chan []blobs.Block)
	g.Go(func() error {
		defer close(batches)
		return t.plan(ctx, size, each, func(b []blobs.Block) error {
			select {
			case batches <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range fetchers {
		g.Go(func() error {
			var buf []byte
			for b := range batches {
				if err := t.batch(ctx, b, &buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	t.report.Bytes = t.written.Load()
	return err
}

// plan sends the blocks in batches and makes the holes between them.
func (t *image) plan(ctx context.Context, size int64, each blocks, send func([]blobs.Block) error) error {
	var batch []blobs.Block
	var at int64 // all before it is planned
	err := each(ctx, func(b *blobs.Block) error {
		if err := t.hole(ctx, at, b.Offset); err != nil {
			return err
		}
		at = b.Offset + b.Length
		if batch = append(batch, *b); len(batch) < batchBlocks {
			return nil
		}
		full := batch
		batch = nil
		return send(full)
	}, func(offset, length int64, err error) error {
		// No hole: what is there stays, like other damaged blocks.
		holeErr := t.hole(ctx, at, offset)
		at = offset + length
		if holeErr != nil {
			return holeErr
		}
		return t.lostBlock(offset, length, err)
	})
	if err == nil {
		err = t.hole(ctx, at, size)
	}
	if err == nil && len(batch) > 0 {
		err = send(batch)
	}
	return err
}

// hole makes a range read as zeros, unless the file is new and does so anyway.
func (t *image) hole(ctx context.Context, from, to int64) error {
	if !t.zeros || from >= to {
		return nil
	}
	if !t.device && punch(t.file, from, to-from) == nil {
		return nil
	}
	zero := make([]byte, 1<<20)
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := t.file.WriteAt(zero[:min(int64(len(zero)), to-from)], from)
		if err != nil {
			return durable.Classify(err, "write", t.path)
		}
		from += int64(n)
	}
	return nil
}

func (t *image) batch(ctx context.Context, batch []blobs.Block, buf *[]byte) error {
	var wants []blobs.Want
	var at []int
	for i := range batch {
		b := &batch[i]
		if t.reuse && t.right(b, buf) {
			t.count(func(r *Report) { r.Reused += b.Length })
			t.meter.Add(0, b.Length)
			continue
		}
		wants, at = append(wants, blobs.Want{Ref: b.Ref, Kind: tripod.Data}), append(at, i)
	}
	// Equal blocks are asked for once.
	wants, users := unique(wants, at)
	return t.blobs.Fetch(ctx, wants, func(i int, plain []byte, _ []tripod.ID) error {
		for _, u := range users[i] {
			if int64(len(plain)) != batch[u].Length {
				return tripod.Errorf(tripod.Corrupt, "blob %.16s: is a block of %d bytes, not %d", batch[u].Ref.ID(), len(plain), batch[u].Length)
			}
		}
		for _, u := range users[i] {
			if err := t.writeAt(plain, batch[u].Offset); err != nil {
				return fatal(durable.Classify(err, "write", t.path))
			}
			t.written.Add(batch[u].Length)
			t.meter.Add(0, batch[u].Length)
		}
		return nil
	}, func(i int, err error) error {
		for _, u := range users[i] {
			if err := t.lostBlock(batch[u].Offset, batch[u].Length, err); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *image) writeAt(p []byte, offset int64) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	_, err := t.file.WriteAt(p, offset)
	return err
}

func unique(wants []blobs.Want, at []int) (out []blobs.Want, users [][]int) {
	index := make(map[[32]byte]int, len(wants))
	for i := range wants {
		k, ok := index[wants[i].Ref.U]
		if !ok {
			k = len(out)
			index[wants[i].Ref.U] = k
			out, users = append(out, wants[i]), append(users, nil)
		}
		users[k] = append(users[k], at[i])
	}
	return out, users
}

func (t *image) right(b *blobs.Block, buf *[]byte) bool {
	if int64(cap(*buf)) < b.Length {
		*buf = make([]byte, b.Length)
	}
	p := (*buf)[:b.Length]
	n, err := t.file.ReadAt(p, b.Offset)
	return n == len(p) && (err == nil || err == io.EOF) && t.blobs.Holds(p, &b.Ref.U) //nolint:errorlint // lint:error io.EOF is bare by contract
}

func (t *image) lostBlock(offset, length int64, err error) error {
	t.gaps.Add(offset, length, err)
	return nil
}

// Stream writes a snapshot of a stream, or the image of a disk with its zeros,
// to w. It ends at the first damaged blob: what follows would be out of place.
func Stream(ctx context.Context, r vault.Reader, snap catalog.Snapshot, o Options, w io.Writer) (*Report, error) {
	j := newJob(r, snap, o)
	return j.finish(j.stream(ctx, w))
}

func (j *job) stream(ctx context.Context, w io.Writer) error {
	c := &counted{w: w, job: j}
	var err error
	switch j.snap.Record.Type {
	case tripod.Stream:
		err = j.blobs.Copy(ctx, c, 0, func(ctx context.Context, fn func(*blobs.Extent) error) error {
			return j.blobs.ListExtents(ctx, j.snap.Root, -1, fn)
		})
	case tripod.DiskImage:
		root, rootErr := j.blobs.Disk(ctx, j.snap.Root)
		if rootErr != nil {
			return rootErr
		}
		err = j.blobs.CopyDisk(ctx, c, root)
	default:
		return tripod.Errorf(tripod.Invalid, "snapshot %s: is of files, not of a stream", j.snap.ID)
	}
	if err == nil {
		j.report.Files = 1
		j.meter.Add(1, 0)
	}
	return err
}

type counted struct {
	w   io.Writer
	job *job
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.job.report.Bytes += int64(n)
	c.job.meter.Add(0, int64(n))
	if err != nil {
		return n, durable.Classify(err, "write", "stream")
	}
	return n, nil
}

// StreamTo restores a stream to the file To, or into the folder To under the
// stream's name, by the rules of Disk.
func StreamTo(ctx context.Context, r vault.Reader, snap catalog.Snapshot, o Options) (*Report, error) {
	j := newJob(r, snap, o)
	if snap.Record.Type != tripod.Stream {
		return j.finish(tripod.Errorf(tripod.Invalid, "snapshot %s: is of %s, not of a stream", snap.ID, snap.Record.Type))
	}
	return j.finish(j.streamTo(ctx))
}

func (j *job) streamTo(ctx context.Context) error {
	root, err := j.blobs.List(ctx, j.snap.Root)
	if err != nil {
		return err
	}
	return j.image(ctx, root.Size(), func(ctx context.Context, fn func(*blobs.Block) error, lost blobs.Missing) error {
		return j.blobs.SalvageList(ctx, j.snap.Root, root.Size(), func(x *blobs.Extent) error {
			return fn(&blobs.Block{Ref: x.Ref, Offset: x.Offset, Length: int64(x.Length)})
		}, lost)
	})
}
