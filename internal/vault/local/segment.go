package local

import (
	"context"
	"errors"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// MostSegment is the longest pack that a vault takes, in bytes: packs are read
// whole for checks.
const MostSegment = maxObject

// PutSegment stores a pack that package archive has filled, as it is. It calls
// kept with the object's name once that is durable and before anybody builds upon
// it. All that its nodes need must be held, or lie before them in the pack. The
// pack is of no more use after that.
func (s *Session) PutSegment(ctx context.Context, pack *frame.Pack, kept func(object string) error) (tripod.PackID, int64, error) {
	var none tripod.PackID
	if err := s.alive(ctx); err != nil {
		return none, 0, err
	}
	s.v.writers.gate.RLock()
	defer s.v.writers.gate.RUnlock()
	toc := pack.TOC()
	name, data := pack.Finish()
	if err := s.checkSegment(toc, data); err != nil {
		return none, 0, err
	}
	name, toc, size, err := s.storeSegment(ctx, name, toc, data)
	if err != nil {
		return none, 0, err
	}
	if err := kept(vault.PackName(name)); err != nil {
		return none, 0, err
	}
	entries, err := entriesOf(toc.Rows)
	if err != nil {
		return none, 0, err
	}
	for i := range entries {
		entries[i].Closed = entries[i].Kind.Node()
	}
	if err := s.idx.Add(index.Pack{Name: name, Size: size, Class: toc.Class}, entries, nil); err != nil {
		return none, 0, err
	}
	if toc.Class == frame.NodeClass {
		s.mu.Lock()
		s.put = append(s.put, name)
		s.mu.Unlock()
	}
	return name, size, nil
}

// checkSegment checks what a pack holds and needs.
func (s *Session) checkSegment(toc frame.TOC, data []byte) error {
	if len(data) == 0 || len(data) > MostSegment {
		return tripod.Errorf(tripod.Invalid, "a segment of %d bytes: has 1 to %d", len(data), MostSegment)
	}
	b := &batch{held: map[tripod.ID]bool{}}
	for i := range toc.Rows {
		r := &toc.Rows[i]
		f, _, err := frame.Parse(data[r.Offset : r.Offset+int64(r.Len)])
		if err != nil {
			return err
		}
		if f.Company != s.v.descriptor.Company {
			return tripod.Errorf(tripod.Invalid, "blob %.16s: belongs to another company", f.ID)
		}
		b.frames = append(b.frames, placed{frame: f})
		for _, ref := range f.Refs {
			if _, ok := b.held[ref]; !ok {
				b.held[ref] = false
				b.refs = append(b.refs, ref)
			}
		}
	}
	err := s.idx.Find(b.refs, func(i int, e *index.Entry) error {
		b.held[b.refs[i]] = b.held[b.refs[i]] || e.Held()
		return nil
	})
	if err != nil {
		return err
	}
	return b.checkRefs()
}

// storeSegment is putPack for a segment: it takes another name where damaged
// bytes have the one that is due.
func (s *Session) storeSegment(ctx context.Context, name tripod.PackID, toc frame.TOC, data []byte) (tripod.PackID, frame.TOC, int64, error) {
	frames := data[:len(data)-frame.TableLen(len(toc.Rows))]
	for extra := 0; ; extra++ {
		err := s.v.store.Put(ctx, vault.PackName(name), data)
		if !errors.Is(err, tripod.Exists) {
			return name, toc, int64(len(data)), err
		}
		same, readErr := s.holds(ctx, vault.PackName(name), data)
		if same || readErr != nil {
			return name, toc, int64(len(data)), readErr
		}
		if extra == maxRenames {
			return name, toc, 0, tripod.Errorf(tripod.Corrupt, "put: %w", err)
		}
		again := new(frame.Pack)
		again.Reset(toc.Class)
		again.Grow(len(toc.Rows)+1, len(frames)+toc.Rows[0].Len)
		for rest := frames; len(rest) > 0; {
			_, after, err := frame.Parse(rest)
			if err == nil {
				err = again.Add(rest[:len(rest)-len(after)])
			}
			if err != nil {
				return name, toc, 0, err
			}
			rest = after
		}
		if err := again.Add(frames[:toc.Rows[0].Len]); err != nil {
			return name, toc, 0, err
		}
		toc = again.TOC()
		name, data = again.Finish()
		frames = data[:len(data)-frame.TableLen(len(toc.Rows))]
	}
}
