package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

const (
	tocReads  = 8         // tables of contents read at a time
	tailLen   = 64 << 10  // read first: the table of some 900 blobs
	maxObject = 128 << 20 // no pack is longer, so nothing longer is read into memory
)

// found is a pack in the store that the index does not know.
type found struct {
	name tripod.PackID
	size int64
}

// follow makes the index know the packs that are in the store and no others.
// The caller holds v.mu.
func (v *Vault) follow(ctx context.Context) error {
	if v.idx == nil {
		x, err := index.Open(v.opts.IndexDir, v.descriptor.Vault)
		if err != nil {
			return err
		}
		v.idx = x
		if err := v.first(ctx); err != nil {
			v.idx = nil // the next call starts over
			return errors.Join(err, x.Close())
		}
		return nil
	}
	return v.reconcile(ctx)
}

// first makes an index that was just opened know what it has missed.
func (v *Vault) first(ctx context.Context) error {
	v.suspects.mu.Lock()
	defer v.suspects.mu.Unlock()
	v.readSuspects()
	if err := v.dropSuspects(v.idx); err != nil {
		return err
	}
	if err := v.reconcile(ctx); err != nil {
		return err
	}
	return v.applySuspects(v.idx)
}

func (v *Vault) reconcile(ctx context.Context) error {
	// Taken before the list: a pack that a session of this process puts
	// meanwhile may be missing from the list and is not gone.
	known := v.idx.Packs()
	seen := make(map[tripod.PackID]bool, len(known))
	clear(v.damaged)
	var fresh []found
	var gone []tripod.PackID
	err := v.store.List(ctx, vault.PackPrefix, func(i store.Info) error {
		name, ok := vault.ParsePackName(i.Name)
		if !ok {
			return nil // CheckPacks tells of it
		}
		p, ok := v.idx.Named(name)
		seen[name] = true
		if ok && p.Size == i.Size && !p.Damaged {
			return nil
		}
		if ok {
			gone = append(gone, name)
		}
		fresh = append(fresh, found{name, i.Size})
		return nil
	})
	if err != nil {
		return err
	}
	for i := range known {
		if !seen[known[i].Name] {
			gone = append(gone, known[i].Name)
		}
	}
	if err := v.idx.Drop(gone); err != nil {
		return err
	}
	return v.learn(ctx, fresh)
}

// learn reads the tables of contents of packs into the index.
func (v *Vault) learn(ctx context.Context, packs []found) error {
	if len(packs) == 0 {
		return nil
	}
	var mu sync.Mutex
	told := teller{progress: v.opts.Progress, event: run.Event{Phase: run.Opening, FilesTotal: int64(len(packs)), Item: "index"}}
	if o := v.idx.Origin(); o.Reason != nil {
		told.event.Item = "index: " + o.Reason.Error()
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(tocReads)
	salvage := make(chan struct{}, 1) // whole packs in memory at a time
	for _, p := range packs {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			damage, err := v.learnPack(gctx, p, salvage)
			mu.Lock()
			defer mu.Unlock()
			if damage != nil {
				v.damaged[p.name] = damage
			}
			told.event.Files++
			told.event.Bytes += p.size
			told.tell()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// learnPack puts one pack into the index. A pack that is unreadable is no error
// but a damage: the others can still be used.
func (v *Vault) learnPack(ctx context.Context, p found, salvage chan struct{}) (damage, err error) {
	toc, err := readTOC(ctx, v.store, p.name, p.size)
	if err == nil {
		var entries []index.Entry
		if entries, err = entriesOf(toc.Rows); err == nil {
			return nil, v.idx.AddFound(index.Pack{Name: p.name, Size: p.size, Class: toc.Class, Open: toc.Class == frame.NodeClass}, entries)
		}
	}
	judged := v.judge(ctx, vault.PackName(p.name), err)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, tripod.NotFound):
		return nil, nil // deleted since the list
	case errors.Is(judged, tripod.Unavailable):
		return nil, judged
	case !errors.Is(err, tripod.Corrupt) || p.size == 0:
		// Not in the index: the next one to look tries again.
		return fmt.Errorf("pack %.16s: %w", p.name, err), nil
	}
	salvage <- struct{}{}
	defer func() { <-salvage }()
	return v.salvage(ctx, p, err)
}

// salvage puts into the index what is whole in a pack whose table of contents
// is not.
func (v *Vault) salvage(ctx context.Context, p found, reason error) (damage, err error) {
	buf := make([]byte, min(p.size, maxObject))
	if err := readFull(ctx, v.store, vault.PackName(p.name), buf, 0); err != nil {
		return fmt.Errorf("pack %.16s: %w", p.name, err), ctx.Err()
	}
	rows := salvageFrames(buf, v.descriptor.Company)
	damage = tripod.Errorf(tripod.Corrupt, "pack %.16s: %w; %d of its blobs are whole", p.name, reason, len(rows)).
		WithHint("the next backup stores again what it lacks; tripod verify tells which snapshots need it")
	entries, err := entriesOf(rows)
	if err != nil || len(rows) == 0 {
		return damage, nil //nolint:nilerr // it is told as damage
	}
	// Damaged packs are looked at again each time: they may have been healed.
	pack := index.Pack{Name: p.name, Size: p.size, Class: frame.ClassOf(rows[0].Kind), Damaged: true}
	pack.Open = pack.Class == frame.NodeClass
	return damage, v.idx.AddFound(pack, entries)
}

// salvageFrames finds the whole frames of a company in b, whatever lies between.
func salvageFrames(b []byte, company tripod.CompanyID) []frame.Row {
	var rows []frame.Row
	for at := 0; at < len(b); {
		f, rest, err := frame.Parse(b[at:])
		if err != nil || f.Company != company || f.Check() != nil {
			at = nextFrame(b, at+1)
			continue
		}
		n := len(b) - at - len(rest)
		rows = append(rows, frame.Row{ID: f.ID, Sum: f.Sum, Kind: f.Kind, Offset: int64(at), Len: n})
		at += n
	}
	return rows
}

func entriesOf(rows []frame.Row) ([]index.Entry, error) {
	entries := make([]index.Entry, len(rows))
	for i := range rows {
		r := &rows[i]
		if r.Offset > math.MaxUint32 {
			return nil, tripod.Errorf(tripod.Corrupt, "longer than a pack can be")
		}
		entries[i] = index.Entry{ID: r.ID, Sum: r.Sum, Offset: uint32(r.Offset), Len: uint32(r.Len), Kind: r.Kind}
	}
	return entries, nil
}

// readTOC reads a pack's table of contents from its end.
func readTOC(ctx context.Context, s store.Store, pack tripod.PackID, size int64) (toc frame.TOC, err error) {
	name := vault.PackName(pack)
	if size < frame.TrailerLen {
		return toc, tripod.Errorf(tripod.Corrupt, "ends too early")
	}
	tail := make([]byte, min(size, tailLen))
	if err := readFull(ctx, s, name, tail, size-int64(len(tail))); err != nil {
		return toc, err
	}
	n, err := frame.TOCLen(tail[len(tail)-frame.TrailerLen:])
	if err != nil {
		return toc, err
	}
	if int64(n) > size {
		return toc, tripod.Errorf(tripod.Corrupt, "table of contents is longer than the pack")
	}
	if n > len(tail) {
		tail = make([]byte, n)
		if err := readFull(ctx, s, name, tail, size-int64(n)); err != nil {
			return toc, err
		}
	}
	return frame.ParseTOC(pack, size, tail[len(tail)-n:])
}

// teller emits progress some ten times a second.
type teller struct {
	progress run.Progress
	event    run.Event
	last     time.Time
}

func (t *teller) tell() {
	if now := time.Now(); now.Sub(t.last) >= 100*time.Millisecond || t.event.Files == t.event.FilesTotal {
		t.last = now
		t.progress.Emit(t.event)
	}
}
