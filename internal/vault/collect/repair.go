package collect

import (
	"context"
	"errors"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
	"tripod/internal/vault/local"
)

// Repaired says what a repair did.
type Repaired struct {
	Checked int64 // packs
	Packs   int64 // that were damaged, and are gone
	Saved   int64 // blobs taken out of them whole, that no other pack held
	Lost    []tripod.ID
	Freed   int64 // bytes
	Written int64
	Kept    []Kept
}

// Repair reads all packs, writes what is whole in damaged ones into new packs,
// and deletes those. What was damaged in them had no use: nobody can open it.
// Lost are the blobs of which no undamaged copy is left; the next backup that
// has them, or another copy of the vault, puts them back.
func Repair(ctx context.Context, v *local.Vault, o Options) (report *Repaired, err error) {
	report = new(Repaired)
	release, err := v.Hold(ctx, o.Holder, o.Waiting)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, release()) }()
	counted := o.Progress
	err = v.CheckPacks(ctx, 1, func(e run.Event) {
		report.Checked = e.Files
		counted.Emit(e)
	}, func(string, tripod.ID, error) error { return nil })
	if err != nil {
		return report, err
	}
	if err := v.Sync(ctx); err != nil {
		return report, err
	}
	c := &collection{Options: o, v: v, store: o.Store, report: new(Report)}
	if c.store == nil {
		c.store = v.Store()
	}
	if c.idx, err = v.Index(ctx); err != nil {
		return report, err
	}
	r := &repair{sweeper: sweeper{collection: c, going: map[uint32]bool{}}, out: report}
	return report, r.run(ctx)
}

type repair struct {
	sweeper
	out *Repaired
}

func (r *repair) run(ctx context.Context) error {
	rows := map[uint32][]index.Entry{}
	for _, p := range r.idx.Packs() {
		if p.Damaged {
			r.going[p.Ordinal] = true
		}
	}
	err := r.idx.Each(func(e *index.Entry) error {
		if e.Suspect {
			r.going[e.Pack] = true
		}
		return nil
	})
	if err == nil && len(r.going) > 0 {
		err = r.idx.Each(func(e *index.Entry) error {
			if r.going[e.Pack] {
				rows[e.Pack] = append(rows[e.Pack], *e)
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	for _, p := range r.idx.Packs() {
		if !r.going[p.Ordinal] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.pack(ctx, &p, rows[p.Ordinal]); err != nil {
			return err
		}
		delete(r.going, p.Ordinal) // it counts again, or is gone
	}
	return r.unindexed(ctx)
}

// pack saves what is whole in one damaged pack and deletes it.
func (r *repair) pack(ctx context.Context, p *index.Pack, rows []index.Entry) error {
	data := make([]byte, p.Size)
	n, err := r.store.Get(ctx, vault.PackName(p.Name), data, 0)
	if n < len(data) {
		// Perhaps it can be read another time.
		r.out.Kept = append(r.out.Kept, Kept{p.Name, p.Size, errors.Join(err, tripod.Errorf(tripod.Corrupt, "cannot be read whole"))})
		return nil
	}
	r.sweeper.pack.Reset(p.Class)
	others, err := r.elsewhere(rows)
	if err != nil {
		return err
	}
	var kept []index.Entry
	for i := range rows {
		e := &rows[i]
		row := frame.Row{ID: e.ID, Sum: e.Sum, Kind: e.Kind, Offset: int64(e.Offset), Len: int(e.Len)}
		inside := row.Offset+int64(row.Len) <= int64(len(data))
		good := !e.Suspect && inside
		if good {
			_, err := whole(&row, data, r.v.Descriptor().Company)
			good = err == nil
		}
		switch {
		case others[e.ID]:
		case good:
			if err := r.sweeper.pack.Add(data[row.Offset : row.Offset+int64(row.Len)]); err != nil {
				return err
			}
			kept = append(kept, *e)
			r.out.Saved++
		case !e.Condemned:
			r.out.Lost = append(r.out.Lost, e.ID)
		}
	}
	return r.replace(ctx, p, rows, kept)
}

// elsewhere tells which blobs a pack that stays holds undamaged.
func (r *repair) elsewhere(rows []index.Entry) (map[tripod.ID]bool, error) {
	ids := make([]tripod.ID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	held := map[tripod.ID]bool{}
	err := r.idx.Find(ids, func(i int, e *index.Entry) error {
		if !e.Suspect && !r.going[e.Pack] && e.Sum == rows[i].Sum {
			held[e.ID] = true
		}
		return nil
	})
	return held, err
}

func (r *repair) replace(ctx context.Context, p *index.Pack, rows, kept []index.Entry) error {
	var fresh index.Pack
	if !r.sweeper.pack.Empty() {
		name, data := r.sweeper.pack.Finish()
		if _, known := r.idx.Named(name); known {
			return nil // nothing was damaged in it after all
		}
		if err := r.store.Put(ctx, vault.PackName(name), data); err != nil && !errors.Is(err, tripod.Exists) {
			return err
		}
		fresh = index.Pack{Name: name, Size: int64(len(data)), Class: p.Class}
		for i, row := range r.sweeper.pack.TOC().Rows {
			kept[i].Offset = uint32(row.Offset)
		}
		r.out.Written += fresh.Size
	}
	err := r.v.Still(func(local.Pins) error {
		return r.v.Swap(ctx, []tripod.PackID{p.Name}, rows, fresh, kept)
	})
	if err == nil {
		r.out.Packs++
		r.out.Freed += p.Size
	}
	return err
}

// unindexed deletes packs of which nothing could be read.
func (r *repair) unindexed(ctx context.Context) error {
	for _, d := range r.v.Damaged() {
		if _, known := r.idx.Named(d.Pack); known || !errors.Is(d.Err, tripod.Corrupt) {
			continue
		}
		name := vault.PackName(d.Pack)
		i, err := r.store.Head(ctx, name)
		if errors.Is(err, tripod.NotFound) {
			continue
		}
		if err == nil {
			if n, err := r.store.Get(ctx, name, make([]byte, i.Size), 0); int64(n) < i.Size {
				r.out.Kept = append(r.out.Kept, Kept{d.Pack, i.Size, err})
				continue
			}
			err = r.store.Delete(ctx, name)
		}
		if err != nil {
			return err
		}
		r.out.Packs++
		r.out.Freed += i.Size
	}
	return nil
}
