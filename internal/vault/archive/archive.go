// Package archive puts old snapshots where nobody can change or delete them
// before their date, without a key.
//
// An archive is a further copy of a vault in a store that locks objects: same
// descriptor, same kinds of documents, and packs, which are called segments here
// because they are large and never rewritten. So whatever reads a vault reads an
// archive, and a passphrase and an archive alone bring back what is in it. It
// holds snapshots up to some age, of each chain of records from the first one on.
//
// Every object is locked as soon as it is there, and what a snapshot needs is
// locked at least as long as the snapshot: a segment that is there already gets
// its lock extended. That a store keeps its locks is tried before anything relies
// on it (create.go), and again by Check.
//
// In order, each step durable before the next: data, nodes, the snapshot's
// manifest, its grants, its record. A run that ends early leaves what no snapshot
// needs yet, never half a snapshot, and the next one goes on.
//
// Where to start reading: Run; walk.go finds what a snapshot needs, segments.go
// fills segments, documents.go does the rest of a snapshot.
package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
	"tripod/internal/vault/local"
)

// DefaultSegment is the length that segments get, in bytes, and the most that they
// may: readers take packs of 128 MiB, and one whose name is taken gets longer.
const DefaultSegment = 96 << 20

// Options say what is archived, and for how long.
type Options struct {
	Now   time.Time
	After time.Duration // the age of snapshots to archive; all with 0
	Until time.Time     // what is archived is locked as long; zero for no locks
	// Segment is the length of segments of data, in bytes; DefaultSegment if 0.
	// Those of nodes have a fourth of it.
	Segment  int
	Progress run.Progress
}

// Report tells what a run did.
type Report struct {
	Snapshots int   // archived by this run
	Held      int   // that were in the archive before
	Young     int   // that are not old enough
	Gone      int   // of which only the record was taken: forgotten or expired
	Segments  int   // written
	Stored    int64 // bytes of them
	Read      int64 // bytes fetched from the vault
	Extended  int   // segments there were whose lock was extended
	Problems  []Problem
}

// Problem is a snapshot or a document that could not be archived.
type Problem struct {
	Document string
	Err      error
}

// Err is the first problem, or nil.
func (r *Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	first := r.Problems[0].Err
	if len(r.Problems) > 1 {
		first = tripod.Errorf(tripod.KindOf(first), "%s; the first: %w", tripod.Count(len(r.Problems), "problem"), first).
			WithHint("%s", tripod.HintOf(first))
	}
	return first
}

// archiving is one run.
type archiving struct {
	Options
	src     vault.Source
	dst     *local.Vault
	session *local.Session
	idx     *index.Index
	report  *Report
	gone    map[snapshot.Key]string // documents by which the vault has given snapshots up

	shredded map[tripod.MachineID]bool

	segments
	below   map[tripod.ID][]int32 // segments that a node and all below it needs
	entries int                   // numbers in below
	locked  map[string]bool       // objects that this run has locked
	waiting []pending
	filled  bool // a segment since the last snapshots were finished

	event run.Event
	told  time.Time
}

// Run archives the live snapshots of a vault that are old enough and that the
// archive lacks. The report is never nil. The error tells what ended the run; a
// snapshot that the vault has not whole is in the report, and keeps nothing else
// from being archived.
func Run(ctx context.Context, src vault.Source, dst *local.Vault, session *local.Session, o Options) (*Report, error) {
	a := &archiving{
		Options: o, src: src, dst: dst, session: session, report: new(Report), gone: map[snapshot.Key]string{},
		shredded: map[tripod.MachineID]bool{}, below: map[tripod.ID][]int32{}, locked: map[string]bool{},
	}
	if o.Segment == 0 {
		a.Segment = DefaultSegment
	}
	if a.Segment < 0 || a.Segment > DefaultSegment {
		return a.report, tripod.Errorf(tripod.Invalid, "segments of %d bytes: may have at most %d", a.Segment, DefaultSegment)
	}
	a.segments.reset(a.Segment)
	if err := Same(ctx, src, dst); err != nil {
		return a.report, err
	}
	var err error
	if a.idx, err = dst.Index(ctx); err != nil {
		return a.report, err
	}
	chains, err := a.plan(ctx)
	if err == nil {
		err = a.company(ctx)
	}
	if err == nil {
		err = a.resume(ctx, chains)
	}
	for i := range chains {
		for _, seq := range chains[i].take {
			if err == nil {
				err = a.snapshot(ctx, chains[i].key(seq))
			}
		}
	}
	if err == nil {
		err = a.finish(ctx)
	}
	a.tell(true)
	return a.report, err
}

// problem notes what is left out, and gives back what ends the run.
func (a *archiving) problem(document string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*leftOut](err); !ok {
		return err
	}
	a.report.Problems = append(a.report.Problems, Problem{document, err})
	a.Progress.Emit(run.Event{Phase: run.Saving, Item: document, Warning: err})
	return nil
}

// leftOut marks an error for which one snapshot is left out, and no more.
type leftOut struct{ err error }

func (l *leftOut) Error() string { return l.err.Error() }
func (l *leftOut) Unwrap() error { return l.err }

// unusable makes an error of reading the vault one that leaves a snapshot out,
// where the vault answers and what it has is not good.
func unusable(err error) error {
	switch tripod.KindOf(err) {
	case tripod.Corrupt, tripod.NotFound, tripod.Denied, tripod.Invalid, tripod.Conflict:
		return &leftOut{err}
	}
	return err
}

// chain is what is to be taken of one machine's source.
type chain struct {
	machine tripod.MachineID
	source  tripod.SourceID
	take    []uint64
	newest  uint64 // in the archive; 0 for none
}

func (c *chain) key(seq uint64) snapshot.Key {
	return snapshot.Key{Machine: c.machine, Source: c.source, Seq: seq}
}

// plan finds the snapshots to take: of each chain what the archive lacks, up to
// the newest one that is old enough. A younger one before it has a wrong date.
func (a *archiving) plan(ctx context.Context) ([]chain, error) {
	a.event = run.Event{Phase: run.Scanning, Item: "what the archive lacks"}
	a.tell(true)
	for _, prefix := range []string{vault.ExpiryPrefix, vault.OrderPrefix} {
		err := a.src.Names(ctx, prefix, func(name string, _ int64) error {
			if k, ok := vault.ParseKeyPath(strings.TrimPrefix(name, prefix)); ok {
				a.gone[k] = name
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	err := a.src.Names(ctx, vault.ShredPrefix, func(name string, _ int64) error {
		var m tripod.MachineID
		if tripod.ParseHex(m[:], strings.TrimPrefix(name, vault.ShredPrefix)) {
			a.shredded[m] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	held := map[snapshot.Key]bool{}
	err = a.dst.Names(ctx, vault.RecordPrefix, func(name string, _ int64) error {
		if k, ok := vault.ParseKeyPath(strings.TrimPrefix(name, vault.RecordPrefix)); ok {
			held[k] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var chains []chain
	err = a.src.Names(ctx, vault.RecordPrefix, func(name string, _ int64) error {
		k, ok := vault.ParseKeyPath(strings.TrimPrefix(name, vault.RecordPrefix))
		if !ok {
			return nil
		}
		n := len(chains)
		if n == 0 || chains[n-1].machine != k.Machine || chains[n-1].source != k.Source {
			chains = append(chains, chain{machine: k.Machine, source: k.Source})
			n++
		}
		if c := &chains[n-1]; held[k] {
			c.newest = k.Seq
			a.report.Held++
		} else {
			c.take = append(c.take, k.Seq)
		}
		return nil
	})
	for i := range chains {
		if err == nil {
			err = a.oldOf(ctx, &chains[i])
		}
		a.event.FilesTotal += int64(len(chains[i].take))
	}
	return chains, err
}

// oldOf leaves those to take that come no later than one that is old enough.
func (a *archiving) oldOf(ctx context.Context, c *chain) error {
	if a.After <= 0 {
		return nil
	}
	limit := a.Now.Add(-a.After)
	for n := len(c.take); n > 0; n-- {
		content, err := a.src.Document(ctx, vault.RecordName(c.key(c.take[n-1])))
		var r *snapshot.Record
		if err == nil {
			r, err = snapshot.ParseRecord(content)
		}
		if err != nil && !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.NotFound) {
			return err
		}
		if err == nil && !r.Time.After(limit) || c.take[n-1] < c.newest {
			c.take = c.take[:n]
			return nil
		}
		if _, gone := a.gone[c.key(c.take[n-1])]; !gone {
			a.report.Young++
		}
	}
	c.take = nil
	return nil
}

// snapshot takes one snapshot, as far as finish.
func (a *archiving) snapshot(ctx context.Context, k snapshot.Key) error {
	a.event.Phase, a.event.Item = run.Saving, fmt.Sprintf("snapshot %d of machine %.8s", k.Seq, k.Machine)
	a.tell(false)
	err := a.take(ctx, k)
	if err == nil && a.filled {
		err = a.finish(ctx)
	}
	return a.problem(vault.RecordName(k), err)
}

func (a *archiving) take(ctx context.Context, k snapshot.Key) error {
	record, err := a.src.Document(ctx, vault.RecordName(k))
	var r *snapshot.Record
	if err == nil {
		r, err = snapshot.ParseRecord(record)
	}
	if err != nil {
		return unusable(fmt.Errorf("snapshot %d of machine %.8s: %w", k.Seq, k.Machine, err))
	}
	name, gone := a.gone[k]
	if a.shredded[k.Machine] {
		name, gone = vault.ShredName(k.Machine), true
	}
	if gone {
		done, err := a.takeGone(ctx, k, record, name)
		if done || err != nil {
			return err
		}
	}
	p := pending{key: k, record: record}
	if p.grants, err = a.grants(ctx, k); err != nil {
		return err
	}
	sets, err := a.place(ctx, []tripod.ID{r.Root}, 0)
	if _, lost := errors.AsType[*leftOut](err); lost {
		return &leftOut{tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s is not whole in the vault: %w", k.Seq, k.Machine, err).
			WithHint("tripod verify tells what is damaged; the next run tries again")}
	}
	if err != nil {
		return err
	}
	p.needs = sets[0]
	a.waiting = append(a.waiting, p)
	return nil
}

// tell emits progress some ten times a second.
func (a *archiving) tell(always bool) {
	if now := time.Now(); always || now.Sub(a.told) >= 100*time.Millisecond {
		a.told = now
		a.Progress.Emit(a.event)
	}
}
