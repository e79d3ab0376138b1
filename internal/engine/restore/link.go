package restore

import (
	"context"
	"sync/atomic"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// master is the first restored name of a file with several; the others are
// linked to it when all content is there.
type master struct {
	dir  *folder
	name string
	same *info       // what was right already
	ok   atomic.Bool // restored whole
	lost atomic.Bool // its content is damaged in the vault
}

type hardLink struct {
	to     *master
	dir    *folder
	entry  *tree.Entry
	action Action
}

func (w *walker) hardLink(m *master, dir *folder, e *tree.Entry, there *info) {
	path := dir.at(e.Name)
	l := hardLink{to: m, dir: dir, entry: e, action: Make}
	if there != nil {
		if l.action = Replace; w.Overwrite == Never || there.kind() == tree.Dir {
			w.keep(dir, e.Name, "is there already and is kept", there.kind() == tree.Dir)
			return
		}
		if w.Overwrite == Changed && m.same != nil && m.same.same(there) {
			l.action = Same
		}
	}
	w.tell(path, l.action)
	if l.action == Same {
		w.count(func(r *Report) { r.Unchanged++ })
		w.meter.Add(1, e.Size)
		return
	}
	if w.DryRun {
		w.count(func(r *Report) { r.Files++ })
		w.meter.Add(1, e.Size)
		return
	}
	dir.hold()
	w.links = append(w.links, l)
}

// makeLinks gives restored files their further names.
func (j *job) makeLinks(ctx context.Context) error {
	for i := range j.links {
		l := &j.links[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		path := l.dir.at(l.entry.Name)
		if err := j.makeLink(l, path); err != nil {
			if err := j.fail(l.dir.inSnapshot(l.entry.Name), err); err != nil {
				return err
			}
		} else {
			j.count(func(r *Report) { r.Files++ })
			j.meter.Add(1, l.entry.Size)
		}
		j.release(l.dir)
	}
	for _, m := range j.groups {
		j.release(m.dir)
	}
	return nil
}

func (j *job) makeLink(l *hardLink, path string) error {
	if !l.to.ok.Load() {
		kind := tripod.Conflict
		if l.to.lost.Load() {
			kind = tripod.Corrupt
		}
		return tripod.Errorf(kind, "is another name of %s, which could not be restored whole", l.to.dir.inSnapshot(l.to.name))
	}
	from, err := j.table.use(l.to.dir)
	if err != nil {
		return err
	}
	defer j.table.done(l.to.dir)
	p, err := j.table.use(l.dir)
	if err != nil {
		return err
	}
	defer j.table.done(l.dir)
	if l.action == Make {
		return durable.Classify(p.link(from, l.to.name, l.entry.Name), "link", path)
	}
	name := temporary()
	if err := p.link(from, l.to.name, name); err != nil {
		return durable.Classify(err, "link", path)
	}
	err = p.rename(name, l.entry.Name)
	// Renaming one name of a file over another does nothing and leaves both.
	if i, lookErr := p.look(name); lookErr == nil && i.kind() == tree.Regular {
		_ = p.remove(name)
	}
	return durable.Classify(err, "replace", path)
}
