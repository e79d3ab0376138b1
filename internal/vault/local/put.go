package local

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

const (
	// maxBatches bounds how many packs are in the making, of some 16 MiB each.
	maxBatches = 3
	// maxRenames bounds how often a pack is given another name; see store.
	maxRenames = 4
	compareLen = 1 << 20
)

// batch is the memory of one Put, used again and again.
type batch struct {
	pack    frame.Pack
	frames  []placed
	ids     []tripod.ID
	refs    []tripod.ID
	held    map[tripod.ID]bool // refs that are there
	inBatch map[placedKey]bool // what of this batch has been seen
	closing []index.Entry      // stored before, open, and closed by this batch
	revived []index.Entry      // condemned data that is needed again
	entries []index.Entry
}

// placed is one frame of a batch.
type placed struct {
	frame   frame.Frame
	encoded []byte
	stored  bool         // the vault holds it under the same sum
	open    *index.Entry // it does, but the node is not closed
}

type placedKey struct {
	id  tripod.ID
	sum tripod.Sum
}

// Put implements vault.Writer. Batches may be put concurrently; more than a few
// wait for each other.
func (s *Session) Put(ctx context.Context, class frame.Class, frames [][]byte) (stored int64, err error) {
	if err := s.alive(ctx); err != nil {
		return 0, err
	}
	if len(frames) == 0 {
		return 0, nil
	}
	b, err := s.v.takeBatch(ctx)
	if err != nil {
		return 0, err
	}
	defer s.v.giveBatch(b)
	b.pack.Reset(class)
	if err := b.parse(class, frames, s.v.descriptor.Company); err != nil {
		return 0, err
	}
	s.v.writers.gate.RLock()
	defer s.v.writers.gate.RUnlock()
	if err := b.lookUp(s.idx); err != nil {
		return 0, err
	}
	if err := b.choose(); err != nil {
		return 0, err
	}
	if len(b.revived) > 0 {
		if err := s.idx.Revive(b.revived); err != nil {
			return 0, err
		}
	}
	return s.store(ctx, class, b)
}

func (v *Vault) takeBatch(ctx context.Context) (*batch, error) {
	select {
	case v.putting <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v.spareMu.Lock()
	defer v.spareMu.Unlock()
	if n := len(v.spare); n > 0 {
		b := v.spare[n-1]
		v.spare = v.spare[:n-1]
		return b, nil
	}
	return &batch{held: map[tripod.ID]bool{}, inBatch: map[placedKey]bool{}}, nil
}

func (v *Vault) giveBatch(b *batch) {
	b.reset()
	v.spareMu.Lock()
	v.spare = append(v.spare, b)
	v.spareMu.Unlock()
	<-v.putting
}

// reset lets go of the caller's frames.
func (b *batch) reset() {
	clear(b.frames)
	clear(b.held)
	clear(b.inBatch)
	b.frames, b.ids, b.refs = b.frames[:0], b.ids[:0], b.refs[:0]
	b.closing, b.entries, b.revived = b.closing[:0], b.entries[:0], b.revived[:0]
}

// parse reads the heads of the batch's frames.
func (b *batch) parse(class frame.Class, frames [][]byte, company tripod.CompanyID) error {
	var size int
	for _, encoded := range frames {
		f, rest, err := frame.Parse(encoded)
		switch {
		case err != nil:
			return err
		case len(rest) != 0:
			return tripod.Errorf(tripod.Invalid, "blob %.16s: more bytes than the frame", f.ID)
		case frame.ClassOf(f.Kind) != class:
			return tripod.Errorf(tripod.Invalid, "blob %.16s: a %v blob does not belong into this batch", f.ID, f.Kind)
		case f.Company != company:
			return tripod.Errorf(tripod.Invalid, "blob %.16s: belongs to another company", f.ID).
				WithHint("these keys are not those of this vault")
		}
		if size += len(encoded); size > tripod.MaxPack && len(frames) > 1 {
			return tripod.Errorf(tripod.Invalid, "a batch of more than %d bytes", tripod.MaxPack)
		}
		b.frames = append(b.frames, placed{frame: f, encoded: encoded})
		b.ids = append(b.ids, f.ID)
		for _, ref := range f.Refs {
			if _, ok := b.held[ref]; !ok {
				b.held[ref] = false
				b.refs = append(b.refs, ref)
			}
		}
	}
	b.pack.Grow(len(frames), size)
	return nil
}

// lookUp asks the index which of the frames and refs are there.
func (b *batch) lookUp(x *index.Index) error {
	err := x.Find(b.ids, func(i int, e *index.Entry) error {
		p := &b.frames[i]
		switch {
		case e.Sum != p.frame.Sum:
			// A variant: both are kept, and readers take the one that fits.
		case e.Suspect:
			// Its bytes are damaged: they are stored again.
		case wanted(e, &b.revived):
			p.stored = true
		default:
			open := *e
			p.open = &open
		}
		return nil
	})
	if err != nil {
		return err
	}
	return x.Find(b.refs, func(i int, e *index.Entry) error {
		if wanted(e, &b.revived) {
			b.held[b.refs[i]] = true
		}
		return nil
	})
}

// choose takes into the pack what is to be stored, in order.
func (b *batch) choose() error {
	if err := b.checkRefs(); err != nil {
		return err
	}
	for i := range b.frames {
		p := &b.frames[i]
		key := placedKey{p.frame.ID, p.frame.Sum}
		if p.stored || b.inBatch[key] {
			continue
		}
		b.inBatch[key] = true
		if p.open == nil {
			if err := b.pack.Add(p.encoded); err != nil {
				return err
			}
			continue
		}
		// Its bytes are there. That it is closed follows from its refs, which
		// are the ones its sum stands for only if that matches.
		if err := p.frame.Check(); err != nil {
			return err
		}
		b.closing = append(b.closing, *p.open)
	}
	return nil
}

// checkRefs returns NotFound when a node needs what is neither there nor
// earlier in the batch.
func (b *batch) checkRefs() error {
	const most = 3
	var missing []string
	count := 0
	for i := range b.frames {
		p := &b.frames[i]
		if !p.stored {
			for _, ref := range p.frame.Refs {
				if b.held[ref] {
					continue
				}
				b.held[ref] = true // counted once
				if count++; count <= most {
					missing = append(missing, ref.String()[:16])
				}
			}
		}
		if _, ok := b.held[p.frame.ID]; ok {
			b.held[p.frame.ID] = true
		}
	}
	if count == 0 {
		return nil
	}
	if count > most {
		missing = append(missing, "...")
	}
	return tripod.Errorf(tripod.NotFound, "%s missing that the batch needs: %s", tripod.Count(count, "blob"), strings.Join(missing, ", ")).
		WithHint("blobs go in from the bottom up; ask again which ones the vault has")
}

// store makes the pack durable, then known.
func (s *Session) store(ctx context.Context, class frame.Class, b *batch) (int64, error) {
	s.countOn(b.there(class))
	if b.pack.Empty() {
		if len(b.closing) == 0 {
			return 0, nil
		}
		return 0, s.idx.MarkClosed(b.closing)
	}
	name, data, err := s.putPack(ctx, class, b)
	if err != nil {
		return 0, err
	}
	for _, r := range b.pack.TOC().Rows {
		b.entries = append(b.entries, index.Entry{
			ID: r.ID, Sum: r.Sum, Offset: uint32(r.Offset), Len: uint32(r.Len), Kind: r.Kind, Closed: r.Kind.Node(),
		})
	}
	err = s.idx.Add(index.Pack{Name: name, Size: int64(len(data)), Class: class}, b.entries, b.closing)
	if class == frame.NodeClass {
		s.mu.Lock()
		s.put = append(s.put, name)
		s.mu.Unlock()
	}
	return int64(len(data)), err
}

// there gives the nodes that were stored before.
func (b *batch) there(class frame.Class) (ids []tripod.ID) {
	for i := range b.frames {
		if p := &b.frames[i]; class == frame.NodeClass && (p.stored || p.open != nil) {
			ids = append(ids, p.frame.ID)
		}
	}
	return ids
}

// putPack stores the pack. Where its name is taken, by an earlier Put whose
// answer was lost, or by a pack that was damaged since and is stored again now,
// the bytes decide: the same are as good as stored, for others the pack takes
// another name, which it gets by holding its first frame once more.
func (s *Session) putPack(ctx context.Context, class frame.Class, b *batch) (tripod.PackID, []byte, error) {
	for extra := 0; ; extra++ {
		name, data := b.pack.Finish()
		err := s.v.store.Put(ctx, vault.PackName(name), data)
		if err == nil || !errors.Is(err, tripod.Exists) {
			return name, data, err
		}
		same, readErr := s.holds(ctx, vault.PackName(name), data)
		if readErr != nil {
			return name, nil, readErr
		}
		if same {
			return name, data, nil
		}
		if extra == maxRenames {
			return name, nil, tripod.Errorf(tripod.Corrupt, "put: %w", err)
		}
		if err := b.again(class, extra+1); err != nil {
			return name, nil, err
		}
	}
}

// again fills the pack anew, with its first frame so many times more.
func (b *batch) again(class frame.Class, extra int) error {
	b.pack.Reset(class)
	clear(b.inBatch)
	var first []byte
	for i := range b.frames {
		p := &b.frames[i]
		key := placedKey{p.frame.ID, p.frame.Sum}
		if p.stored || p.open != nil || b.inBatch[key] {
			continue
		}
		b.inBatch[key] = true
		if first == nil {
			first = p.encoded
		}
		if err := b.pack.Add(p.encoded); err != nil {
			return err
		}
	}
	for range extra {
		if err := b.pack.Add(first); err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether an object has exactly these bytes.
func (s *Session) holds(ctx context.Context, name string, data []byte) (bool, error) {
	info, err := s.v.store.Head(ctx, name)
	if err != nil || info.Size != int64(len(data)) {
		return false, err
	}
	buf := make([]byte, min(len(data), compareLen))
	for at := 0; at < len(data); {
		p := buf[:min(len(buf), len(data)-at)]
		err := s.v.judge(ctx, name, readFull(ctx, s.v.store, name, p, int64(at)))
		if errors.Is(err, tripod.Corrupt) {
			return false, nil
		}
		if err != nil || !bytes.Equal(p, data[at:at+len(p)]) {
			return false, err
		}
		at += len(p)
	}
	return true, nil
}
