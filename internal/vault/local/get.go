package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

const (
	maxGap     = 64 << 10 // bytes read in vain rather than by another request
	maxSpan    = 8 << 20  // read at a time, but for longer blobs
	minSpan    = 256 << 10
	minReaders = 4 // what a distant store needs, however few cores there are
	maxReaders = 8
)

// read is one blob to fetch: the place in ids, and a copy of it.
type read struct {
	i           int32
	pack        uint32
	offset, len uint32
}

// span is a range of a pack that is read at once, for the blobs in it.
type span struct {
	pack       uint32
	start, end int64
	reads      []read
}

// getting is the state of one Get.
type getting struct {
	v       *Vault
	idx     *index.Index
	ids     []tripod.ID
	use     func(i int, encoded []byte) error
	resync  sync.Once // others may have moved blobs since the index was opened
	syncErr error

	mu      sync.Mutex // one call of onError at a time
	onError func(i int, err error) error
}

// Get implements vault.Reader. Each of a few goroutines reads a range of a pack
// and calls use for the blobs in it, so what use does runs in parallel too.
func (v *Vault) Get(ctx context.Context, ids []tripod.ID, use func(i int, encoded []byte) error, onError func(i int, err error) error) error {
	x, err := v.index(ctx)
	if err != nil {
		return err
	}
	g := &getting{v: v, idx: x, ids: ids, use: use, onError: onError}
	reads, missing, err := g.plan()
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(max(minReaders, min(runtime.GOMAXPROCS(0), maxReaders)))
	for _, s := range spans(reads) {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return g.span(gctx, s) })
	}
	for _, i := range missing {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return g.elsewhere(gctx, i, nil, nil) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// plan finds a copy of each blob, in the order in which they lie.
func (g *getting) plan() (reads []read, missing []int32, err error) {
	reads = make([]read, 0, len(g.ids))
	seen := make([]bool, len(g.ids))
	suspect := map[int]int{} // positions in reads, by those in ids
	err = g.idx.Find(g.ids, func(i int, e *index.Entry) error {
		r := read{int32(i), e.Pack, e.Offset, e.Len}
		if at, ok := suspect[i]; ok && !e.Suspect {
			reads[at] = r // better than one that was found damaged
			delete(suspect, i)
		}
		if seen[i] {
			return nil // another copy, for when the first fails
		}
		seen[i] = true
		if e.Suspect {
			suspect[i] = len(reads)
		}
		reads = append(reads, r)
		return nil
	})
	for i, ok := range seen {
		if !ok {
			missing = append(missing, int32(i))
		}
	}
	slices.SortFunc(reads, func(a, b read) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.offset, b.offset))
	})
	return reads, missing, err
}

// spans joins reads that lie close together. Few blobs make short spans, so
// that several goroutines have work.
func spans(reads []read) []span {
	var total int64
	for i := range reads {
		total += int64(reads[i].len)
	}
	most := min(max(total/(2*minReaders), minSpan), maxSpan)
	var all []span
	for i, r := range reads {
		start, end := int64(r.offset), int64(r.offset)+int64(r.len)
		if n := len(all); n > 0 {
			if s := &all[n-1]; s.pack == r.pack && start-s.end <= maxGap && max(s.end, end)-s.start <= most {
				s.end = max(s.end, end)
				s.reads = reads[i-len(s.reads) : i+1]
				continue
			}
		}
		all = append(all, span{r.pack, start, end, reads[i : i+1]})
	}
	return all
}

// span reads a range and hands on the blobs in it.
func (g *getting) span(ctx context.Context, s span) error {
	p, _ := g.v.bufs.Get().(*[]byte)
	if p == nil {
		p = new([]byte)
	}
	defer g.v.bufs.Put(p)
	*p = slices.Grow((*p)[:0], int(s.end-s.start))[:s.end-s.start]
	pack, err := g.read(ctx, s.pack, *p, s.start)
	if err != nil && len(s.reads) > 1 && ctx.Err() == nil {
		// Perhaps only one of them lies where the pack cannot be read.
		return g.oneByOne(ctx, s)
	}
	for i := range s.reads {
		r := &s.reads[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		failed := err
		if failed == nil {
			at := int64(r.offset) - s.start
			failed = g.deliver(int(r.i), (*p)[at:at+int64(r.len)])
		}
		if failed == nil {
			continue
		}
		failed = fmt.Errorf("pack %.16s: %w", pack, failed)
		if err := g.elsewhere(ctx, r.i, r, failed); err != nil {
			return err
		}
	}
	return nil
}

func (g *getting) oneByOne(ctx context.Context, s span) error {
	for i := range s.reads {
		r := s.reads[i : i+1]
		start := int64(r[0].offset)
		if err := g.span(ctx, span{s.pack, start, start + int64(r[0].len), r}); err != nil {
			return err
		}
	}
	return nil
}

// read reads from a pack.
func (g *getting) read(ctx context.Context, ordinal uint32, p []byte, off int64) (pack tripod.PackID, err error) {
	known, ok := g.idx.Pack(ordinal)
	if !ok {
		return pack, tripod.Errorf(tripod.NotFound, "pack number %d: is no longer in the vault", ordinal)
	}
	name := vault.PackName(known.Name)
	return known.Name, g.v.judge(ctx, name, readFull(ctx, g.v.store, name, p, off))
}

// deliver hands a frame to the caller, if it is the blob that was asked for.
func (g *getting) deliver(i int, encoded []byte) error {
	id := g.ids[i]
	f, rest, err := frame.Parse(encoded)
	switch {
	case err != nil:
		return tripod.Errorf(tripod.Corrupt, "blob %.16s: %w", id, err)
	case f.ID != id || len(rest) != 0:
		return tripod.Errorf(tripod.Corrupt, "blob %.16s: another blob lies in its place", id)
	}
	return g.use(i, encoded)
}

// elsewhere tries the other copies and variants of a blob after one has failed,
// or was not there at all.
func (g *getting) elsewhere(ctx context.Context, i int32, tried *read, failed error) error {
	if failed != nil && !retryable(failed) {
		return g.fail(ctx, int(i), failed)
	}
	done, err := g.others(ctx, i, tried, &failed)
	if done || err != nil {
		return err
	}
	if failed == nil || errors.Is(failed, tripod.NotFound) {
		g.resync.Do(func() { g.syncErr = g.v.Sync(ctx) })
		if g.syncErr != nil {
			return g.syncErr
		}
		failed = nil
		if done, err := g.others(ctx, i, nil, &failed); done || err != nil {
			return err
		}
	}
	if failed == nil {
		failed = tripod.Errorf(tripod.NotFound, "blob %.16s: is missing from the vault", g.ids[i]).
			WithHint("tripod verify tells which snapshots need it; the next backup of the same data stores it again")
	}
	return g.fail(ctx, int(i), failed)
}

// retryable reports whether another copy may do better.
func retryable(err error) bool {
	return errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound) || errors.Is(err, tripod.Unavailable)
}

// others delivers the first copy that is accepted, and else keeps the first
// failure.
func (g *getting) others(ctx context.Context, i int32, tried *read, failed *error) (done bool, err error) {
	var copies []read
	err = g.idx.Find(g.ids[i:i+1], func(_ int, e *index.Entry) error {
		if tried == nil || tried.pack != e.Pack || tried.offset != e.Offset {
			copies = append(copies, read{i, e.Pack, e.Offset, e.Len})
		}
		return nil
	})
	for c := range copies {
		if err != nil || ctx.Err() != nil {
			break
		}
		p := make([]byte, copies[c].len)
		pack, err := g.read(ctx, copies[c].pack, p, int64(copies[c].offset))
		if err == nil {
			err = g.deliver(int(i), p)
		}
		if err == nil {
			return true, nil
		}
		err = fmt.Errorf("pack %.16s: %w", pack, err)
		if !retryable(err) {
			return true, g.fail(ctx, int(i), err)
		}
		if *failed == nil {
			*failed = err
		}
	}
	return false, errors.Join(err, ctx.Err())
}

// fail ends Get, or lets the caller survive.
func (g *getting) fail(ctx context.Context, i int, err error) error {
	if g.onError == nil || ctx.Err() != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.onError(i, err)
}
