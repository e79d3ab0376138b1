package restore

import (
	"context"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
)

// window is a stretch of the plan: the blobs to read and what goes where from
// each. It bounds memory, and blobs that several of its files share are read
// once.
type window struct {
	wants  []blobs.Want
	first  []int32 // the first piece of each want, chained by next
	last   []int32
	pieces []piece
	index  map[[32]byte]int32 // by the blobs' U
	inline []*file            // all their content is in the tree
	files  int
	bytes  int64
}

type piece struct {
	file *file
	x    blobs.Extent
	next int32 // -1 ends the chain
	done bool  // it is right at the target already
}

// Limits of a window.
const (
	windowBytes = 32 << 20 // of content
	windowFiles = 2048
	windowCells = 1 << 16 // pieces
)

func newWindow() *window { return &window{index: map[[32]byte]int32{}} }

func (w *window) full() bool {
	return w.bytes >= windowBytes || w.files >= windowFiles || len(w.pieces) >= windowCells
}

// reads reports whether the window reads a file's first blob anyway, so that a
// bundle is not read again for the next window.
func (w *window) reads(e *tree.Entry) bool {
	if len(e.Content.Pieces) == 0 || len(w.pieces) >= windowCells {
		return false
	}
	_, ok := w.index[e.Content.Pieces[0].Ref.U]
	return ok
}

func (w *window) add(f *file, x *blobs.Extent) {
	i, ok := w.index[x.Ref.U]
	at := int32(len(w.pieces)) //nolint:gosec // bounded by windowCells and a file's pieces
	w.pieces = append(w.pieces, piece{file: f, x: *x, next: -1})
	w.bytes += int64(x.Length)
	if ok {
		w.pieces[w.last[i]].next = at
		w.last[i] = at
		return
	}
	w.index[x.Ref.U] = int32(len(w.wants)) //nolint:gosec // no more than pieces
	w.wants = append(w.wants, blobs.Want{Ref: x.Ref, Kind: tripod.Data})
	w.first, w.last = append(w.first, at), append(w.last, at)
}

func (w *walker) flush() error {
	win := w.win
	if win.files == 0 && len(win.wants) == 0 {
		return nil
	}
	w.win = newWindow()
	return w.send(win)
}

// plan puts a file's content into the window; a long one spans several.
func (w *walker) plan(ctx context.Context, f *file) error {
	f.dir.hold()
	w.win.files++
	e := f.entry
	if e.Content.List == nil && len(e.Content.Pieces) == 0 {
		w.win.inline = append(w.win.inline, f)
		return nil
	}
	pieces := e.Content.Pieces
	if f.single = f.action != Update && e.Ranges == nil && len(pieces) == 1; f.single {
		w.win.add(f, &blobs.Extent{Ref: pieces[0].Ref, From: pieces[0].Offset, Length: pieces[0].Length})
		return nil
	}
	// One more than its bytes: the plan itself, so that it is not completed
	// before it is planned.
	f.left.Store(1)
	err := w.blobs.Salvage(ctx, e, func(x *blobs.Extent) error {
		f.left.Add(int64(x.Length))
		// A full window still takes what it reads anyway.
		if _, known := w.win.index[x.Ref.U]; w.win.full() && !known {
			if err := w.flush(); err != nil {
				return err
			}
			w.win.files++
		}
		w.win.add(f, x)
		return ctx.Err()
	}, func(offset, length int64, err error) error {
		f.gaps.Add(offset, length, err)
		return ctx.Err()
	})
	if err != nil && blobs.Damage(err) && ctx.Err() == nil {
		err = w.spoil(f, err)
	}
	if err != nil {
		return err
	}
	return w.settle(f, 1)
}

// write restores what a window plans.
func (j *job) write(ctx context.Context, win *window) error {
	for _, f := range win.inline {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.whole(f, nil); err != nil {
			return err
		}
	}
	wants, first, err := j.reuse(win)
	if err != nil {
		return err
	}
	return j.blobs.Fetch(ctx, wants,
		func(i int, plain []byte, _ []tripod.ID) error { return j.distribute(win, first[i], plain) },
		func(i int, err error) error { return j.lost(win, first[i], err) })
}

// distribute writes the pieces of one opened blob.
func (j *job) distribute(win *window, first int32, plain []byte) error {
	// All first: what was written must not be written again from another copy.
	for at := first; at >= 0; at = win.pieces[at].next {
		if _, err := win.pieces[at].x.Of(plain); err != nil {
			return err
		}
	}
	for at := first; at >= 0; at = win.pieces[at].next {
		p := &win.pieces[at]
		if p.done {
			continue
		}
		bytes, err := p.x.Of(plain)
		if err != nil {
			return err
		}
		if p.file.single {
			err = j.whole(p.file, bytes)
		} else {
			err = j.part(p.file, p.x.Offset, bytes)
		}
		if err != nil {
			return fatal(err)
		}
	}
	return nil
}

// fatal keeps a failure at the target from being taken for a damaged blob.
func fatal(err error) error {
	if blobs.Damage(err) {
		return tripod.Errorf(tripod.Internal, "restore: %w", err)
	}
	return err
}

// lost gives up the files whose only blob cannot be read, and what longer ones
// have of it.
func (j *job) lost(win *window, first int32, err error) error {
	for at := first; at >= 0; at = win.pieces[at].next {
		p := &win.pieces[at]
		if p.done {
			continue
		}
		if p.file.single {
			if err := j.spoil(p.file, err); err != nil {
				return err
			}
			j.release(p.file.dir)
			continue
		}
		p.file.gaps.Add(p.x.Offset, int64(p.x.Length), err)
		if err := j.settle(p.file, int64(p.x.Length)); err != nil {
			return err
		}
	}
	return nil
}

// reuse finds blocks of files updated in place that are right already, and
// gives the blobs that are still needed.
func (j *job) reuse(win *window) (wants []blobs.Want, first []int32, err error) {
	var buf []byte
	wants, first = win.wants[:0:0], win.first[:0:0]
	for i := range win.wants {
		needed := false
		for at := win.first[i]; at >= 0; at = win.pieces[at].next {
			p := &win.pieces[at]
			if p.file.action != Update || !j.right(p, &buf) {
				needed = true
				continue
			}
			p.done = true
			j.count(func(r *Report) { r.Reused += int64(p.x.Length) })
			if err := j.settle(p.file, int64(p.x.Length)); err != nil {
				return nil, nil, err
			}
		}
		if needed {
			wants, first = append(wants, win.wants[i]), append(first, win.first[i])
		}
	}
	return wants, first, nil
}

// right reports whether the target holds a piece already. Only a whole blob
// can be told by its hash.
func (j *job) right(p *piece, buf *[]byte) bool {
	if p.x.From != 0 || (p.x.Whole != 0 && p.x.Whole != p.x.Length) {
		return false
	}
	h, err := j.grab(p.file)
	if err != nil {
		return false // writing will tell
	}
	defer j.drop(p.file, false)
	if cap(*buf) < int(p.x.Length) {
		*buf = make([]byte, p.x.Length)
	}
	b := (*buf)[:p.x.Length]
	return h.readAt(b, p.x.Offset) && j.blobs.Holds(b, &p.x.Ref.U)
}
