package backup

import (
	"context"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/chunk"
	"tripod/internal/core/seal"
)

// sealed is one chunk on its way.
type sealed struct {
	ref    seal.Ref
	length int
}

// split cuts a stream into chunks, has several stored at a time, and hands
// them to done in order, in the caller's goroutine.
func (t *splitTools) split(ctx context.Context, content io.Reader,
	store func(context.Context, []byte) (seal.Ref, error), done func(sealed) error,
) error {
	var s *chunk.Splitter
	select {
	case s = <-t.splitters:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { t.splitters <- s }()
	group, gctx := errgroup.WithContext(ctx)
	var queue []chan sealed
	deliver := func(keep int) error {
		for len(queue) > keep {
			select {
			case part := <-queue[0]:
				queue = queue[1:]
				if err := done(part); err != nil {
					return err
				}
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	}
	err := s.Split(content, func(c []byte) error {
		if err := gctx.Err(); err != nil {
			return err
		}
		part := make(chan sealed, 1)
		queue = append(queue, part)
		var buf []byte
		select {
		case buf = <-t.buffers:
		case <-gctx.Done():
			return gctx.Err()
		}
		buf = append(buf[:0], c...)
		group.Go(func() error {
			defer func() { t.buffers <- buf }()
			ref, err := store(gctx, buf)
			if err == nil {
				part <- sealed{ref, len(buf)}
			}
			return err
		})
		return deliver(chunksAhead)
	})
	if err == nil {
		err = deliver(0)
	}
	if werr := group.Wait(); werr != nil {
		return werr
	}
	return err
}

// chunksAhead is how many chunks may be stored before the first of them is.
const chunksAhead = 64

// splitTools are what cutting streams takes, shared by a run's workers: together
// they bound the memory it needs, however many long files there are at once.
type splitTools struct {
	splitters chan *chunk.Splitter
	buffers   chan []byte // hold chunks while they are sealed
}

func newSplitTools(key seal.Secret) *splitTools {
	n := runtime.GOMAXPROCS(0)
	t := &splitTools{splitters: make(chan *chunk.Splitter, n), buffers: make(chan []byte, n+1)}
	for range n {
		t.splitters <- chunk.NewSplitter(key)
	}
	for range n + 1 {
		t.buffers <- nil
	}
	return t
}
