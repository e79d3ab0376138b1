package blobs

import (
	"context"
	"io"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// Limits of what Copy holds in memory at a time; two windows are.
const (
	copyBytes   = 16 << 20
	copyExtents = 256
)

// Copy writes extents to w in their order, with zeros between them where their
// offsets leave room, and up to size. each produces the extents. The next
// window is read while one is written.
func (r *Reader) Copy(ctx context.Context, w io.Writer, size int64, each func(context.Context, func(*Extent) error) error) error {
	c := &copier{w: w}
	ctx, cancel := context.WithCancel(ctx)
	windows := make(chan window)
	var failed error
	go func() {
		defer close(windows)
		failed = r.gather(ctx, windows, each)
	}()
	defer func() {
		cancel()
		for range windows { // wait for the goroutine to end
		}
	}()
	for win := range windows {
		for i := range win.extents {
			if err := c.run(win.extents[i].Offset, win.data[i]); err != nil {
				return err
			}
		}
	}
	if failed != nil {
		return failed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.zeros(size)
}

type window struct {
	extents []Extent
	data    [][]byte
}

func (r *Reader) gather(ctx context.Context, out chan<- window, each func(context.Context, func(*Extent) error) error) error {
	var extents []Extent
	var bytes int64
	send := func() error {
		if len(extents) == 0 {
			return nil
		}
		data, err := r.Bytes(ctx, extents)
		if err != nil {
			return err
		}
		select {
		case out <- window{extents, data}:
		case <-ctx.Done():
			return ctx.Err()
		}
		extents, bytes = nil, 0
		return nil
	}
	err := each(ctx, func(x *Extent) error {
		extents, bytes = append(extents, *x), bytes+int64(x.Length)
		if bytes >= copyBytes || len(extents) >= copyExtents {
			return send()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return send()
}

// Bytes reads the bytes of several extents; each blob is read once.
func (r *Reader) Bytes(ctx context.Context, extents []Extent) ([][]byte, error) {
	data := make([][]byte, len(extents))
	var wants []Want
	users := make([][]int, 0, len(extents))
	index := make(map[[32]byte]int, len(extents))
	for i := range extents {
		at, ok := index[extents[i].Ref.U]
		if !ok {
			at = len(wants)
			index[extents[i].Ref.U] = at
			wants, users = append(wants, Want{Ref: extents[i].Ref, Kind: tripod.Data}), append(users, nil)
		}
		users[at] = append(users[at], i)
	}
	err := r.Fetch(ctx, wants, func(i int, plain []byte, _ []tripod.ID) error {
		for _, u := range users[i] {
			p, err := extents[u].Of(plain)
			if err != nil {
				return err
			}
			data[u] = append([]byte(nil), p...)
		}
		return nil
	}, nil)
	return data, err
}

// copier writes runs in ascending order and fills the gaps.
type copier struct {
	w    io.Writer
	at   int64
	zero []byte
}

func (c *copier) run(offset int64, p []byte) error {
	if offset < c.at {
		return tripod.Errorf(tripod.Corrupt, "content overlaps itself")
	}
	if err := c.zeros(offset); err != nil {
		return err
	}
	n, err := c.w.Write(p)
	c.at += int64(n)
	return err
}

func (c *copier) zeros(to int64) error {
	const most = 256 << 10
	for c.at < to {
		if c.zero == nil {
			c.zero = make([]byte, most)
		}
		n, err := c.w.Write(c.zero[:min(most, to-c.at)])
		if c.at += int64(n); err != nil {
			return err
		}
	}
	return nil
}

// CopyFile writes a regular file's bytes to w, holes as zeros.
func (r *Reader) CopyFile(ctx context.Context, w io.Writer, e *tree.Entry) error {
	c := &copier{w: w}
	if e.Content.List == nil && len(e.Content.Pieces) == 0 {
		if err := Inline(e, c.run); err != nil {
			return err
		}
		return c.zeros(e.Size)
	}
	return r.Copy(ctx, w, e.Size, func(ctx context.Context, fn func(*Extent) error) error { return r.Extents(ctx, e, fn) })
}

// CopyDisk writes a whole disk to w, absent blocks as zeros.
func (r *Reader) CopyDisk(ctx context.Context, w io.Writer, root *tree.DiskNode) error {
	return r.Copy(ctx, w, root.Size, func(ctx context.Context, fn func(*Extent) error) error {
		return r.Blocks(ctx, root, func(b *Block) error {
			n := uint32(b.Length) //nolint:gosec // a block's length
			return fn(&Extent{Ref: b.Ref, Length: n, Whole: n, Offset: b.Offset})
		}, func(_, _ int64, err error) error { return err })
	})
}
