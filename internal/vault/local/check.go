package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
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
	return s, errors.Join(count(vault.RecordPrefix, &s.Records), count(vault.OrderPrefix, &s.Forgotten))
}

// CheckPacks reads packs again and checks every byte that can be checked without
// a key: tables of contents against names, frames against their sums. Of the
// packs it takes the given part, chosen at random; 1 means all. It calls report
// for everything that is wrong: with a blob, for that one; without, for the pack
// as a whole or for an object that has no place in a vault. Calls are serialized,
// and end the check by returning an error.
func (v *Vault) CheckPacks(ctx context.Context, sample float64, progress run.Progress, report func(object string, blob tripod.ID, err error) error) error {
	var packs []found
	told := teller{progress: progress, event: run.Event{Phase: run.Reading}}
	err := v.store.List(ctx, "", func(i store.Info) error {
		name, ok := vault.ParsePackName(i.Name)
		switch {
		case !ok && !vault.Documented(i.Name):
			return report(i.Name, tripod.ID{}, tripod.Errorf(tripod.Invalid, "%s: has no place in a vault", i.Name).
				WithHint("someone put it there; Tripod ignores it"))
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
			err := v.checkPack(gctx, p, buf, func(blob tripod.ID, err error) error {
				mu.Lock()
				defer mu.Unlock()
				return report(vault.PackName(p.name), blob, err)
			})
			mu.Lock()
			defer mu.Unlock()
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

func (v *Vault) checkPack(ctx context.Context, p found, buf *[]byte, report func(tripod.ID, error) error) error {
	whole := func(err error) error {
		return report(tripod.ID{}, fmt.Errorf("pack %.16s: %w", p.name, err))
	}
	if p.size > maxObject {
		return whole(tripod.Errorf(tripod.Corrupt, "%d bytes are more than a pack can have", p.size))
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
		return whole(err)
	}
	toc, err := parseTOC(p.name, data)
	if err != nil {
		rows := salvageFrames(data, v.descriptor.Company)
		return whole(fmt.Errorf("%w; %d of its blobs are whole", err, len(rows)))
	}
	for i := range toc.Rows {
		r := &toc.Rows[i]
		if _, err := checkRow(r, data[r.Offset:r.Offset+int64(r.Len)], v.descriptor.Company); err != nil {
			if err := report(r.ID, fmt.Errorf("pack %.16s: %w", p.name, err)); err != nil {
				return err
			}
		}
	}
	return nil
}
