package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// checkReads is how many packs are read whole at a time.
const checkReads = 2

// Stats describes the vault's content.
func (v *Vault) Stats(ctx context.Context) (vault.Stats, error) {
	var s vault.Stats
	if err := v.Sync(ctx); err != nil {
		return s, err
	}
	x, err := v.index(ctx)
	if err != nil {
		return s, err
	}
	for _, p := range x.Packs() {
		s.Packs++
		s.PackBytes += p.Size
	}
	if s.Blobs, err = x.Blobs(); err != nil {
		return s, err
	}
	count := func(prefix string, n *int64) error {
		return v.store.List(ctx, prefix, func(i store.Info) error {
			if vault.Documented(i.Name) {
				*n++
			}
			return nil
		})
	}
	err = errors.Join(count(vault.RecordPrefix, &s.Records), count(vault.OrderPrefix, &s.Forgotten))
	if err != nil {
		return s, err
	}
	return s, v.store.List(ctx, vault.ExpiryPrefix, func(i store.Info) error {
		key, ok := vault.ParseKeyPath(strings.TrimPrefix(i.Name, vault.ExpiryPrefix))
		if !ok {
			return nil
		}
		_, err := v.store.Head(ctx, vault.OrderName(key))
		if errors.Is(err, tripod.NotFound) {
			s.Expired++
			return nil
		}
		return err
	})
}

// CheckPacks reads packs again and checks every byte that can be checked without
// a key: tables of contents against names, frames against their sums. Of the
// packs it takes the given part, chosen at random; 1 means all. It calls report
// for everything that is wrong: with a blob, for that one; without, for the pack
// as a whole or for an object that has no place in a vault. Calls are serialized,
// and end the check by returning an error.
//
// What is damaged counts as missing from then on, for sessions of this machine,
// so that the next backup of the same data stores it again.
func (v *Vault) CheckPacks(ctx context.Context, sample float64, progress run.Progress, report func(object string, blob tripod.ID, err error) error) error {
	var packs []found
	told := teller{progress: progress, event: run.Event{Phase: run.Reading}}
	err := v.store.List(ctx, "", func(i store.Info) error {
		name, ok := vault.ParsePackName(i.Name)
		switch {
		case !ok && !vault.Documented(i.Name):
			return report(i.Name, tripod.ID{}, foreign(i.Name))
		case ok && rand.Float64() < sample:
			packs = append(packs, found{name, i.Size})
			told.event.FilesTotal++
			told.event.BytesTotal += i.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var lost damages
	bufs := sync.Pool{New: func() any { return new([]byte) }}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(checkReads)
	for _, p := range packs {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			buf := bufs.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put
			defer bufs.Put(buf)
			err := v.checkPack(gctx, p, buf, func(row *frame.Row, err error) error {
				mu.Lock()
				defer mu.Unlock()
				lost.add(p.name, row, err)
				var blob tripod.ID
				if row != nil {
					blob = row.ID
				}
				return report(vault.PackName(p.name), blob, fmt.Errorf("pack %.16s: %w", p.name, err))
			})
			mu.Lock()
			defer mu.Unlock()
			told.event.Files++
			told.event.Bytes += p.size
			told.tell()
			return err
		})
	}
	if err := errors.Join(g.Wait(), v.discount(ctx, &lost)); err != nil {
		return err
	}
	return ctx.Err()
}

// damages is what a check found.
type damages struct {
	packs []tripod.PackID // whose tables of contents are damaged
	blobs map[tripod.PackID][]frame.Row
}

func (d *damages) add(pack tripod.PackID, row *frame.Row, err error) {
	switch {
	case !errors.Is(err, tripod.Corrupt):
		// It could not be read now. That says nothing of later.
	case row == nil:
		d.packs = append(d.packs, pack)
	default:
		if d.blobs == nil {
			d.blobs = map[tripod.PackID][]frame.Row{}
		}
		d.blobs[pack] = append(d.blobs[pack], *row)
	}
}

// discount makes the index no longer count on what is damaged.
func (v *Vault) discount(ctx context.Context, d *damages) error {
	if len(d.packs)+len(d.blobs) == 0 {
		return nil
	}
	x, err := v.index(ctx)
	if err != nil {
		return err
	}
	var bad []index.Entry
	var notes []suspect
	for name, rows := range d.blobs {
		p, ok := x.Named(name)
		entries, err := entriesOf(rows)
		if !ok || err != nil {
			continue // not in the index in the first place
		}
		for i := range entries {
			entries[i].Pack = p.Ordinal
			notes = append(notes, suspect{name, entries[i].Offset, entries[i].ID})
		}
		bad = append(bad, entries...)
	}
	for _, name := range d.packs {
		notes = append(notes, suspect{pack: name})
	}
	if err := v.note(x, notes); err != nil {
		return err
	}
	if _, err := x.Suspect(bad); err != nil {
		return err
	}
	if err := x.Drop(d.packs); err != nil {
		return err
	}
	return v.Sync(ctx) // finds what of those packs is whole
}

// Suspect makes blobs count as missing that turned out to be damaged, for the
// sessions of this machine to come, whichever index they use, so that the next
// backup of the same data stores them again. Get still tries
// their copies, in case that the packs are put right.
func (v *Vault) Suspect(ctx context.Context, ids []tripod.ID) error {
	if len(ids) == 0 {
		return nil
	}
	x, err := v.index(ctx)
	if err != nil {
		return err
	}
	var bad []index.Entry
	var notes []suspect
	err = x.Find(ids, func(_ int, e *index.Entry) error {
		if p, ok := x.Pack(e.Pack); ok {
			bad, notes = append(bad, *e), append(notes, suspect{p.Name, e.Offset, e.ID})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := v.note(x, notes); err != nil {
		return err
	}
	_, err = x.Suspect(bad)
	return err
}

// CheckTables reads the table of contents of every pack. It calls report for
// each object that is no pack and has no place in a vault (Invalid), and for
// each pack that cannot be read as it should; of those the index keeps what is
// whole. Calls are serialized, and end the check by returning an error.
func (v *Vault) CheckTables(ctx context.Context, report func(object string, err error) error) error {
	if err := v.Sync(ctx); err != nil {
		return err
	}
	bad := map[tripod.PackID]error{}
	for _, d := range v.Damaged() {
		bad[d.Pack] = d.Err
	}
	var packs []found
	err := v.store.List(ctx, "", func(i store.Info) error {
		name, ok := vault.ParsePackName(i.Name)
		switch {
		case !ok && !vault.Documented(i.Name):
			return report(i.Name, foreign(i.Name))
		case ok && bad[name] == nil:
			packs = append(packs, found{name, i.Size})
		}
		return nil
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var lost damages
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(tocReads)
	for _, p := range packs {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			_, err := readTOC(gctx, v.store, p.name, p.size)
			judged := v.judge(gctx, vault.PackName(p.name), err)
			switch {
			case gctx.Err() != nil:
				return gctx.Err()
			case err == nil || errors.Is(err, tripod.NotFound): // deleted since the list
				return nil
			case errors.Is(judged, tripod.Unavailable):
				return judged
			}
			mu.Lock()
			defer mu.Unlock()
			lost.add(p.name, nil, err)
			bad[p.name] = fmt.Errorf("pack %.16s: %w", p.name, err)
			return nil
		})
	}
	if err := errors.Join(g.Wait(), v.discount(ctx, &lost)); err != nil {
		return err
	}
	for _, d := range v.Damaged() { // these tell how much is left of it
		bad[d.Pack] = d.Err
	}
	if err := v.noteTables(ctx); err != nil {
		return err
	}
	for _, name := range slices.SortedFunc(maps.Keys(bad), func(a, b tripod.PackID) int { return bytes.Compare(a[:], b[:]) }) {
		if err := report(vault.PackName(name), bad[name]); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func foreign(object string) error {
	return tripod.Errorf(tripod.Invalid, "%s: has no place in a vault", object).WithHint("someone put it there; Tripod ignores it")
}

func (v *Vault) checkPack(ctx context.Context, p found, buf *[]byte, report func(*frame.Row, error) error) error {
	if p.size > maxObject {
		return report(nil, tripod.Errorf(tripod.Corrupt, "%d bytes are more than a pack can have", p.size))
	}
	if int64(cap(*buf)) < p.size {
		*buf = make([]byte, p.size)
	}
	data := (*buf)[:p.size]
	err := readFull(ctx, v.store, vault.PackName(p.name), data, 0)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, tripod.NotFound):
		return nil // deleted since the list
	case err != nil:
		return report(nil, err)
	}
	toc, err := parseTOC(p.name, data)
	if err != nil {
		rows := salvageFrames(data, v.descriptor.Company)
		return report(nil, fmt.Errorf("%w; %d of its blobs are whole", err, len(rows)))
	}
	for i := range toc.Rows {
		r := &toc.Rows[i]
		if _, err := checkRow(r, data[r.Offset:r.Offset+int64(r.Len)], v.descriptor.Company); err != nil {
			if err := report(r, err); err != nil {
				return err
			}
		}
	}
	return nil
}
