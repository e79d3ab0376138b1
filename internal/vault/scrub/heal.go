package scrub

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
)

// heal repairs what can be repaired, and finds out which snapshots are not whole.
func (r *running) heal(ctx context.Context, l *log) (err error) {
	r.opts.Progress.Emit(run.Event{Phase: run.Finish, Item: "which snapshots are whole"})
	s, err := r.opts.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	open, err := r.open(ctx, s, l)
	if err == nil && len(open)+len(r.findings) > 0 {
		err = s.Settle(ctx)
	}
	if err != nil {
		return err
	}
	if r.opts.Other != nil {
		if l, err = r.fromOther(ctx, s, l); err != nil {
			return err
		}
	}
	if err := r.judge(ctx, s, l); err != nil {
		return err
	}
	r.report.Problems = append(r.report.Problems, l.bad...)
	return r.rescue(ctx, s)
}

// fromOther takes from the other copy what this one lacks. It gives the log as it
// is then.
func (r *running) fromOther(ctx context.Context, s *local.Session, l *log) (*log, error) {
	if len(l.bad) > 0 {
		if err := r.healDocuments(ctx, l); err != nil {
			return nil, err
		}
	}
	if err := r.healBlobs(ctx, s); err != nil {
		return nil, err
	}
	if err := r.compareKeyrings(ctx); err != nil {
		return nil, err
	}
	report, err := replicate.Run(ctx, r.opts.Other, r.v, s, replicate.Options{Now: r.opts.Now, Thorough: true, Progress: silent(r.opts.Progress)})
	if err != nil {
		return nil, err
	}
	r.report.Copied = report.Snapshots
	r.report.HealedDocuments += report.Documents + report.Gone
	for _, p := range report.Problems {
		// What is wrong with the other copy is told when that is scrubbed. Two logs
		// that contradict each other are wrong in both.
		if tripod.KindOf(p.Err) == tripod.Conflict && p.Key.Seq > 0 {
			r.report.Problems = append(r.report.Problems, p)
		}
	}
	if len(l.bad)+report.Snapshots+report.Gone+report.Documents > 0 {
		if l, err = r.readAgain(ctx, len(l.bad) > 0); err != nil {
			return nil, err
		}
	}
	open, err := r.open(ctx, s, l)
	if err != nil || len(open) == 0 {
		return l, err
	}
	err = replicate.Pulling(ctx, r.opts.Other, r.v, s, silent(r.opts.Progress), func(ctx context.Context, p *replicate.Puller) error {
		for _, o := range open {
			err := p.Pull(ctx, o.root)
			if err != nil && !errors.Is(err, tripod.NotFound) && !errors.Is(err, tripod.Corrupt) {
				return err
			}
		}
		err := p.Flush(ctx)
		r.report.HealedBlobs += p.Blobs()
		return err
	})
	return l, err
}

// readAgain reads the log after it was healed. What could not be judged before,
// because a certificate was damaged, is healed now.
func (r *running) readAgain(ctx context.Context, damaged bool) (*log, error) {
	l, err := readLog(ctx, r.v, r.opts.Keyring)
	if err != nil || !damaged || len(l.bad) == 0 {
		return l, err
	}
	if err := r.healDocuments(ctx, l); err != nil {
		return nil, err
	}
	return readLog(ctx, r.v, r.opts.Keyring)
}

// silent shows progress without warnings: the report tells of each.
func silent(show run.Progress) run.Progress {
	return func(e run.Event) {
		if e.Warning == nil {
			show.Emit(e)
		}
	}
}

// healBlobs puts again the data whose frames are damaged, also such that readers
// have a second variant of. Nodes follow when what they need is there; see open.
func (r *running) healBlobs(ctx context.Context, s *local.Session) error {
	healed := 0
	for _, f := range r.findings {
		rows := slices.DeleteFunc(slices.Clone(f.Rows), func(row frame.Row) bool { return row.Kind.Node() })
		frames, err := r.fetch(ctx, r.other(), rows)
		if err != nil {
			return err
		}
		frames = slices.DeleteFunc(frames, func(b []byte) bool { return b == nil })
		if len(frames) == 0 {
			continue
		}
		for part := range batches(frames) {
			stored, err := s.Put(ctx, frame.DataClass, part)
			if err != nil {
				return err
			}
			if stored > 0 {
				healed += len(part)
			}
		}
	}
	r.report.HealedBlobs += healed
	if healed == 0 {
		return nil
	}
	return s.Settle(ctx)
}

// batches cuts frames into batches that can be put.
func batches(frames [][]byte) func(yield func([][]byte) bool) {
	return func(yield func([][]byte) bool) {
		start, size := 0, 0
		for i, b := range frames {
			if size+len(b) > tripod.MaxPack && i > start {
				if !yield(frames[start:i]) {
					return
				}
				start, size = i, 0
			}
			size += len(b)
		}
		if start < len(frames) {
			yield(frames[start:])
		}
	}
}

// fetch gives the frames of rows from a copy of the vault, by id and sum; nil stands
// for one that it has not.
func (r *running) fetch(ctx context.Context, from vault.Reader, rows []frame.Row) ([][]byte, error) {
	frames := make([][]byte, len(rows))
	if from == nil || len(rows) == 0 {
		return frames, nil
	}
	ids := make([]tripod.ID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	err := from.Get(ctx, ids, func(i int, encoded []byte) error {
		if _, err := replicate.CheckFrame(encoded, rows[i].ID, rows[i].Sum, r.v.Descriptor().Company); err != nil {
			return err
		}
		frames[i] = bytes.Clone(encoded)
		return nil
	}, func(_ int, err error) error {
		if errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound) {
			return nil
		}
		return err
	})
	return frames, err
}

// find looks for damaged blobs in other packs of the vault, then in the other copy.
func (r *running) find(ctx context.Context, rows []frame.Row) ([]local.Elsewhere, error) {
	found := make([]local.Elsewhere, len(rows))
	own, err := r.fetch(ctx, r.v, rows)
	if err != nil {
		return nil, err
	}
	var left []frame.Row
	var of []int
	for i := range rows {
		if found[i].Stored = own[i] != nil; !found[i].Stored {
			left, of = append(left, rows[i]), append(of, i)
		}
	}
	other, err := r.fetch(ctx, r.other(), left)
	for i := range left {
		if err == nil {
			found[of[i]].Frame = other[i]
		}
	}
	return found, err
}

// other is the other copy, as what it is read by.
func (r *running) other() vault.Reader {
	if r.opts.Other == nil {
		return nil
	}
	return r.opts.Other
}

// open gives the live snapshots of which something is missing.
func (r *running) open(ctx context.Context, s *local.Session, l *log) (open []live, err error) {
	for part := range slices.Chunk(l.live, batchSize) {
		ids := make([]tripod.ID, len(part))
		for i := range part {
			ids[i] = part[i].root
		}
		have, err := s.Have(ctx, ids)
		if err != nil {
			return nil, err
		}
		for i := range part {
			if len(have[i]) == 0 {
				open = append(open, part[i])
			}
		}
	}
	return open, nil
}

// judge names the snapshots that are not whole.
func (r *running) judge(ctx context.Context, s *local.Session, l *log) error {
	open, err := r.open(ctx, s, l)
	for _, o := range open {
		r.report.Lost = append(r.report.Lost, Lost{o.key, tripod.Errorf(tripod.Corrupt,
			"snapshot %d of machine %.8s (source %.8s) is not whole", o.key.Seq, o.key.Machine, o.key.Source)})
	}
	return err
}

// rescue replaces damaged packs by whole ones.
func (r *running) rescue(ctx context.Context, s *local.Session) error {
	// Where every snapshot is whole without it, what a pack has lost is not needed.
	spare := len(r.report.Lost) == 0 && len(r.report.Problems) == 0
	settle := false
	for i, f := range r.findings {
		done, err := s.Rescue(ctx, f, spare, func(rows []frame.Row) ([]local.Elsewhere, error) { return r.find(ctx, rows) })
		if errors.Is(err, tripod.Denied) { // locked: it stays, and does no harm
			continue
		}
		if err != nil {
			return err
		}
		r.report.Damaged[i].Healed = done
		settle = settle || done
	}
	if !settle {
		return nil
	}
	return s.Settle(ctx)
}
