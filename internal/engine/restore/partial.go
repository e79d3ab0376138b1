package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/engine/blobs"
)

// partialSuffix ends the name of what is not whole.
const partialSuffix = ".partial"

// Partial is a damaged file, disk or stream of which some could be read.
type Partial struct {
	Path    string       // in the snapshot
	At      string       // where what could be read lies, at the target; "" when it was not kept
	Size    int64        // of the whole, bytes
	Lost    int64        // bytes that are missing
	Missing []tree.Range // which bytes are, in order; the first mostListed
}

// inPart reports a file, disk or stream with gaps. at is where what could be
// read is kept; kept tells in words why it is not when at is empty.
func (j *job) inPart(path, at, kept string, size int64, g *blobs.Gaps) error {
	list, lost := g.Ranges()
	p := Partial{Path: path, At: at, Size: size, Lost: lost, Missing: list[:min(len(list), mostListed)]}
	j.count(func(r *Report) {
		if len(r.Partial) < mostListed {
			r.Partial = append(r.Partial, p)
		}
	})
	if at != "" {
		kept = "the rest is kept as " + at
	}
	err := tripod.Errorf(tripod.Corrupt, "%s of %d cannot be read; %s: %w", blobs.RangesText(list), size, kept, g.First())
	if at == "" && j.Overwrite == Never && !j.DryRun {
		err = err.WithHint("restore into another folder, or give --overwrite changed, to keep what can be read")
	}
	return j.fail(path, err)
}

// setAside closes a file that lacks some of its content and keeps it for
// keepParts. It becomes its owner's alone, and does not get the time that would
// tell that it is done. The caller holds f.mu and has grabbed f.
func (j *job) setAside(f *file) error {
	err := f.h.truncate(f.entry.Size)
	var now info
	if err == nil {
		now, err = f.h.stat()
	}
	if err == nil {
		j.own(f.h, f.inSnapshot(), f.entry, &now)
		err = f.h.chmod(0o600)
	}
	if closeErr := j.shut(f); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if f.master != nil {
		f.master.lost.Store(true)
	}
	f.aside = true
	j.mu.Lock()
	j.aside = append(j.aside, f)
	j.mu.Unlock()
	return nil
}

// keepParts gives damaged files their partial names. All else is restored by
// then, so that none of these names is taken from an entry of the snapshot.
func (j *job) keepParts(ctx context.Context) error {
	slices.SortFunc(j.aside, func(a, b *file) int { return strings.Compare(a.inSnapshot(), b.inSnapshot()) })
	for _, f := range j.aside {
		if err := ctx.Err(); err != nil {
			return err
		}
		at, kept, err := j.keepPart(ctx, f)
		if err != nil {
			return err
		}
		if at == "" {
			f.mu.Lock()
			j.undo(f)
			f.mu.Unlock()
		}
		j.pending.remove(f)
		if err := j.inPart(f.inSnapshot(), at, kept, f.entry.Size, &f.gaps); err != nil {
			return err
		}
		j.release(f.dir)
	}
	return nil
}

// keepPart renames one file. What is there under the new name is replaced only
// where the rule says so and it is no part of the snapshot. at is empty when
// the file was not renamed, kept says why then.
func (j *job) keepPart(ctx context.Context, f *file) (at, kept string, err error) {
	name, as := f.entry.Name, f.entry.Name+partialSuffix
	if f.temp != "" {
		name = f.temp
	}
	replace := false
	if j.Overwrite != Never {
		e, err := j.blobs.Find(ctx, j.snap.Root, tree.Join(f.entry.Parent, as))
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		replace = err == nil && e == nil
	}
	p, err := j.table.use(f.dir)
	if err == nil {
		defer j.table.done(f.dir)
		err = f.renameTo(p, name, as, replace)
	}
	if err == nil {
		return f.dir.at(as), "", nil
	}
	stays := "nothing of it is kept"
	if !f.made {
		stays = f.path() + " holds some of it"
	}
	return "", fmt.Sprintf("%s, because %v", stays, durable.Classify(err, "rename to", f.dir.at(as))), nil
}

// renameTo renames a file, over what has the name only if replace says so.
func (f *file) renameTo(p place, name, as string, replace bool) error {
	if i, err := p.look(name); err != nil || !f.id.same(&i) {
		return tripod.Errorf(tripod.Conflict, "%s: was replaced while restoring", f.path())
	}
	there, err := p.look(as)
	switch {
	case err == nil && (!replace || there.kind() == tree.Dir):
		return tripod.Errorf(tripod.Conflict, "%s is there already", f.dir.at(as))
	case err == nil:
		return p.rename(name, as)
	case !absent(err):
		return err
	}
	// A link replaces nothing, whatever came there meanwhile.
	if err := p.link(p, name, as); err != nil {
		if _, lookErr := p.look(as); lookErr == nil {
			return tripod.Errorf(tripod.Conflict, "%s is there already", f.dir.at(as))
		}
		return p.rename(name, as) // no hard links here
	}
	return p.remove(name)
}

// remove takes out a file that is complete or given up.
func (p *inFlight) remove(f *file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.files, f)
}
