package local

import (
	"context"
	"errors"
	"slices"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// Finding is what is wrong with a pack.
type Finding struct {
	Pack tripod.PackID
	Size int64
	// Table says why the table of contents cannot be used; nil when it can. What
	// the pack held is not known then but for the frames that are whole.
	Table error
	Rows  []frame.Row // of the blobs whose frames are damaged
	Err   error       // the first thing that is wrong
}

// tolerantLen is how much is given up where a disk cannot be read.
const tolerantLen = 64 << 10

// readPack reads a whole pack, with zeros where the disk has a bad place.
func (v *Vault) readPack(ctx context.Context, pack tripod.PackID, data []byte) error {
	name := vault.PackName(pack)
	err := v.judge(ctx, name, readFull(ctx, v.store, name, data, 0))
	if !errors.Is(err, tripod.Corrupt) {
		return err
	}
	for at := 0; at < len(data); at += tolerantLen {
		part := data[at:min(at+tolerantLen, len(data))]
		if err := readFull(ctx, v.store, name, part, int64(at)); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			clear(part)
		}
	}
	return nil
}

// CheckPack reads a pack and tells what is wrong with it: nil when nothing is, or
// when it is gone. buf is memory to be used again.
func (v *Vault) CheckPack(ctx context.Context, pack tripod.PackID, size int64, buf *[]byte) (*Finding, error) {
	f := &Finding{Pack: pack, Size: size}
	if size > maxObject {
		f.Table = tripod.Errorf(tripod.Corrupt, "pack %.16s: %d bytes are more than a pack can have", pack, size)
		f.Err = f.Table
		return f, nil
	}
	*buf = slices.Grow((*buf)[:0], int(size))[:size]
	if err := v.readPack(ctx, pack, *buf); err != nil {
		if errors.Is(err, tripod.NotFound) {
			return nil, nil //nolint:nilnil // deleted since the list: nothing is wrong
		}
		return nil, err
	}
	toc, err := parseTOC(pack, *buf)
	if err != nil {
		f.Table = tripod.Errorf(tripod.Corrupt, "pack %.16s: %w", pack, err)
		f.Err = f.Table
		return f, nil
	}
	for i := range toc.Rows {
		r := &toc.Rows[i]
		if _, err := checkRow(r, (*buf)[r.Offset:r.Offset+int64(r.Len)], v.descriptor.Company); err != nil {
			f.Rows = append(f.Rows, *r)
			if f.Err == nil {
				f.Err = tripod.Errorf(tripod.Corrupt, "pack %.16s: %w", pack, err)
			}
		}
	}
	if f.Err == nil {
		return nil, nil //nolint:nilnil // see above
	}
	return f, nil
}

// Distrust makes what was found damaged count as missing from now on, for sessions
// of this machine, and notes it durably: the next backup of the same data stores
// it again, unless it is healed before.
func (v *Vault) Distrust(ctx context.Context, findings []*Finding) error {
	d := damages{blobs: map[tripod.PackID][]frame.Row{}}
	for _, f := range findings {
		if f.Table != nil {
			d.packs = append(d.packs, f.Pack)
		} else {
			d.blobs[f.Pack] = f.Rows
		}
	}
	return v.discount(ctx, &d)
}

// Settle looks again at which nodes are closed, after something was healed: here,
// or by a backup that stored again what was missing.
func (s *Session) Settle(ctx context.Context) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := s.idx.Unsettle(); err != nil {
		return err
	}
	return s.v.prepare(ctx)
}

// Elsewhere is what there is of a damaged blob beside its damaged frame.
type Elsewhere struct {
	Stored bool   // whole, in another pack of this vault
	Frame  []byte // from another copy of the vault; nil when that has none
}

// Rescue moves what is whole in a damaged pack to a new one, with what find has of
// the rest, and removes the damaged one. When a frame is to be had nowhere, or the
// table of contents is damaged, nobody knows what is lost with the pack: then it
// stays as it is, unless everything that a snapshot needs is known to be elsewhere.
func (s *Session) Rescue(ctx context.Context, f *Finding, spare bool, find func([]frame.Row) ([]Elsewhere, error)) (done bool, err error) {
	if err := s.alive(ctx); err != nil {
		return false, err
	}
	if f.Table != nil && !spare {
		return false, nil
	}
	data := make([]byte, min(f.Size, maxObject))
	if err := s.v.readPack(ctx, f.Pack, data); err != nil && !errors.Is(err, tripod.NotFound) {
		return false, err
	}
	frames, lost, err := s.frames(f, data, find)
	if err != nil || lost && !spare {
		return false, err
	}
	if err := s.moveFrom(ctx, f, frames); err != nil {
		return false, err
	}
	if err := s.v.store.Delete(ctx, vault.PackName(f.Pack)); err != nil && !errors.Is(err, tripod.NotFound) {
		return false, err
	}
	s.v.mu.Lock()
	delete(s.v.damaged, f.Pack)
	s.v.mu.Unlock()
	return true, s.idx.Drop([]tripod.PackID{f.Pack})
}

// frames gives those of a damaged pack that have to be moved. lost tells that some
// are nowhere.
func (s *Session) frames(f *Finding, data []byte, find func([]frame.Row) ([]Elsewhere, error)) (frames [][]byte, lost bool, err error) {
	var rows, bad []frame.Row
	if toc, err := parseTOC(f.Pack, data); err == nil {
		rows = toc.Rows
	} else {
		rows = salvageFrames(data, s.v.descriptor.Company)
	}
	for i := range rows {
		r := &rows[i]
		encoded := data[r.Offset : r.Offset+int64(r.Len)]
		if _, err := checkRow(r, encoded, s.v.descriptor.Company); err != nil {
			bad = append(bad, *r)
			continue
		}
		frames = append(frames, encoded)
	}
	if len(bad) == 0 {
		return frames, false, nil
	}
	found, err := find(bad)
	if err != nil {
		return nil, false, err
	}
	for i := range bad {
		switch {
		case found[i].Stored:
		case found[i].Frame == nil:
			lost = true
		default:
			if _, err := checkRow(&bad[i], found[i].Frame, s.v.descriptor.Company); err != nil {
				return nil, false, err
			}
			frames = append(frames, found[i].Frame)
		}
	}
	return frames, lost, nil
}

// moveFrom stores frames of a damaged pack in another one.
func (s *Session) moveFrom(ctx context.Context, f *Finding, frames [][]byte) error {
	if len(frames) == 0 {
		return nil
	}
	p, name, data, err := s.putElsewhere(ctx, f.Pack, frames)
	if err != nil {
		return err
	}
	s.v.writers.gate.RLock()
	defer s.v.writers.gate.RUnlock()
	entries, err := entriesOf(p.TOC().Rows)
	if err != nil {
		return err
	}
	ids := make([]tripod.ID, len(entries))
	for i := range entries {
		ids[i] = entries[i].ID
	}
	old, known := s.idx.Named(f.Pack)
	err = s.idx.Find(ids, func(i int, e *index.Entry) error {
		// What was known of the copy in the damaged pack goes on to be so.
		if known && e.Pack == old.Ordinal && e.Sum == entries[i].Sum && !e.Suspect {
			entries[i].Closed, entries[i].Condemned = e.Closed, e.Condemned
		}
		return nil
	})
	if err != nil {
		return err
	}
	class := p.TOC().Class
	return s.idx.Add(index.Pack{Name: name, Size: int64(len(data)), Class: class, Open: class == frame.NodeClass}, entries, nil)
}

// putElsewhere stores frames as a pack under another name than the damaged one's.
// The name follows from what is in it, in order; where it is taken, by another
// damaged pack, the order changes, and then the first frame is held once more.
func (s *Session) putElsewhere(ctx context.Context, damaged tripod.PackID, frames [][]byte) (p *frame.Pack, name tripod.PackID, data []byte, err error) {
	for extra := 0; extra <= maxRenames; extra++ {
		switch {
		case extra == 1 && len(frames) > 1:
			frames[0], frames[1] = frames[1], frames[0]
		case extra > 0:
			frames = append(frames, frames[0])
		}
		if p, name, data, err = packOf(frames); err != nil {
			return nil, name, nil, err
		}
		if name == damaged {
			continue
		}
		err = s.v.store.Put(ctx, vault.PackName(name), data)
		if !errors.Is(err, tripod.Exists) {
			return p, name, data, err
		}
		same, readErr := s.holds(ctx, vault.PackName(name), data)
		if same || readErr != nil {
			return p, name, data, readErr
		}
	}
	return nil, name, nil, tripod.Errorf(tripod.Corrupt, "move pack %.16s: %w", damaged, err)
}

func packOf(frames [][]byte) (p *frame.Pack, name tripod.PackID, data []byte, err error) {
	p = new(frame.Pack)
	first, _, err := frame.Parse(frames[0])
	if err != nil {
		return nil, name, nil, err
	}
	p.Reset(frame.ClassOf(first.Kind))
	for _, encoded := range frames {
		if err := p.Add(encoded); err != nil {
			return nil, name, nil, err
		}
	}
	name, data = p.Finish()
	return p, name, data, nil
}
