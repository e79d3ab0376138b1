package archive

import (
	"context"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

// segments are what the run knows of segments, by numbers of its own. Two are
// being filled: one of data, one of nodes. That of nodes is never durable before
// the data that it needs.
type segments struct {
	names  []tripod.PackID // by number; zero while it is being filled
	old    []bool          // it was there before the run
	number map[tripod.PackID]int32

	data, nodes filling
}

// filling is a segment in memory.
type filling struct {
	pack   frame.Pack
	number int32
	most   int // bytes
	frames map[frameKey]tripod.BlobKind
}

// frameKey is a blob's frame: variants of a blob differ by their sums.
type frameKey struct {
	id  tripod.ID
	sum tripod.Sum
}

func (s *segments) reset(most int) {
	s.number = map[tripod.PackID]int32{}
	s.data = filling{most: most, frames: map[frameKey]tripod.BlobKind{}}
	s.nodes = filling{most: most / 4, frames: map[frameKey]tripod.BlobKind{}}
	s.data.pack.Reset(frame.DataClass)
	s.nodes.pack.Reset(frame.NodeClass)
}

// of gives the number of a segment that is there.
func (s *segments) of(name tripod.PackID) int32 {
	n, ok := s.number[name]
	if !ok {
		n = int32(len(s.names))
		s.names, s.old = append(s.names, name), append(s.old, true)
		s.number[name] = n
	}
	return n
}

// inMemory gives the number of the segment being filled that has a frame.
func (s *segments) inMemory(k frameKey) (n int32, kind tripod.BlobKind, ok bool) {
	for _, f := range []*filling{&s.data, &s.nodes} {
		if kind, ok = f.frames[k]; ok {
			return f.number, kind, true
		}
	}
	return 0, 0, false
}

// add takes a frame into a segment, whose number it gives.
func (a *archiving) add(ctx context.Context, f *frame.Frame, encoded []byte) (int32, error) {
	to := &a.data
	if f.Kind.Node() {
		to = &a.nodes
	}
	if n := len(to.pack.TOC().Rows); n > 0 && to.pack.Len()+len(encoded)+frame.TableLen(n+1) > to.most {
		if err := a.flush(ctx, to); err != nil {
			return 0, err
		}
		a.filled = true
	}
	if to.pack.Empty() {
		to.number = int32(len(a.names))
		a.names, a.old = append(a.names, tripod.PackID{}), append(a.old, false)
	}
	if err := to.pack.Add(encoded); err != nil {
		return 0, err
	}
	to.frames[frameKey{f.ID, f.Sum}] = f.Kind
	return to.number, nil
}

// flush makes a segment durable and locks it, after the data that it needs.
func (a *archiving) flush(ctx context.Context, f *filling) error {
	if f == &a.nodes {
		if err := a.flush(ctx, &a.data); err != nil {
			return err
		}
	}
	if f.pack.Empty() {
		return nil
	}
	name, size, err := a.session.PutSegment(ctx, &f.pack, func(object string) error { return a.lock(ctx, object) })
	if err != nil {
		return err
	}
	a.names[f.number] = name
	a.number[name] = f.number
	a.report.Segments++
	a.report.Stored += size
	a.event.Stored += size
	a.tell(false)
	f.pack.Reset(f.pack.TOC().Class)
	clear(f.frames)
	return nil
}
