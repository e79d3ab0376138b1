// Package collect frees the space of what no snapshot needs any more, while
// backups go on, without a key.
//
// A run has four steps:
//
//  1. mark: read all nodes and find what the live snapshots need (graph.go,
//     mark.go). Nothing is locked; sessions put and commit meanwhile.
//  2. condemn: stop the sessions for a moment, add what they and new snapshots
//     need by now, and condemn the rest in the index (mark.go).
//  3. wait for the sessions that began before that; see package reach.
//  4. sweep: delete packs of which nothing is needed, and write what is left
//     of mostly dead and of tiny ones into new packs, in the order in which
//     it came (sweep.go).
//
// Nothing but packs is ever deleted, and of those only such whose needed part
// is durable elsewhere. A run that ends early leaves duplicates or what is not
// needed, never a hole; the next one starts over. Anything that cannot be read
// while marking ends the run, as does damage to what a live snapshot needs.
package collect

import (
	"context"
	"errors"
	"slices"
	"sync"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
	"tripod/internal/vault/local"
)

// Options of a run.
type Options struct {
	Holder vault.Holder // tells other processes who keeps them waiting
	// Waiting hears for whom this run waits; it may be nil.
	Waiting func(holder string)
	// Store is used for reading and writing packs in place of the vault's own,
	// for a rate limit; nil is the vault's own.
	Store store.Store
	// Unused is how much of the packs may be dead after the run, as a share of
	// what is needed; DefaultUnused is a good one.
	Unused   float64
	TempDir  string // for some 12 bytes per reference; "" is the system's
	DryRun   bool   // only account
	Progress run.Progress
}

// DefaultUnused lets a pack be rewritten when that is worth its while.
const DefaultUnused = 0.05

// Report accounts for the vault's space, in bytes of packs: Live + Dead +
// Spare + Damaged is what there is.
type Report struct {
	Snapshots int64 // live ones
	Packs     int64
	Blobs     int64 // distinct ids
	Live      int64 // what live snapshots need, and running backups
	Dead      int64 // needed by none; what of it lies in packs that stay is kept until they are mostly dead
	Spare     int64 // further copies of what is needed, and tables of contents
	Damaged   int64 // packs that cannot be read; tripod vault repair takes out what is whole

	Condemned int64 // blobs
	Freed     int64 // bytes
	Deleted   int64 // packs
	Written   int64 // bytes of new packs
	Kept      []Kept
}

// Kept is a pack that should go and stays.
type Kept struct {
	Pack tripod.PackID
	Size int64
	Why  error
}

// collection is the state of one run.
type collection struct {
	Options
	v      *local.Vault
	idx    *index.Index
	store  store.Store
	graph  *graph
	report *Report

	before  map[tripod.PackID]uint32 // packs there were when the mark began, and their ordinals
	marked  map[tripod.PackID]bool   // packs of nodes that the graph knows
	roots   []tripod.ID              // of live snapshots
	reached []bool                   // nodes that those need that were live when the mark began
	records map[string]bool          // whose roots those are
	doomed  *entryFile               // copies to condemn
	again   []index.Entry            // copies that were condemned and are needed
	packs   map[uint32]*usage
	moves   uint64 // of the index when what follows was true
	dead    places // condemned copies
	spare   places // further copies of what is needed
	suspect places // damaged ones
	event   run.Event
}

// usage is what a pack's bytes are for.
type usage struct {
	live, dead int64
	rows       int
}

// places are where copies lie, in ascending order.
type places []uint64

func placeOf(pack, offset uint32) uint64 { return uint64(pack)<<32 | uint64(offset) }

func (p *places) add(e *index.Entry) { *p = append(*p, placeOf(e.Pack, e.Offset)) }

func (p places) has(pack, offset uint32) bool {
	_, found := slices.BinarySearch(p, placeOf(pack, offset))
	return found
}

// one run at a time in a process; other processes are kept out by Hold.
var running sync.Mutex // lint:var guards nothing but this

// Run collects. It gives a report also with an error, of what was done.
func Run(ctx context.Context, v *local.Vault, o Options) (report *Report, err error) {
	running.Lock()
	defer running.Unlock()
	c := &collection{Options: o, v: v, store: o.Store, report: new(Report), records: map[string]bool{}}
	if c.store == nil {
		c.store = v.Store()
	}
	// What other processes have written is learned here, and their turn ends.
	release, err := v.Hold(ctx, o.Holder, o.Waiting)
	if err != nil {
		return c.report, err
	}
	if err := release(); err != nil {
		return c.report, err
	}
	if c.idx, err = v.Index(ctx); err != nil {
		return c.report, err
	}
	if c.graph, err = newGraph(o.TempDir); err != nil {
		return c.report, err
	}
	defer func() { err = errors.Join(err, c.graph.close()) }()
	if c.doomed, err = newEntryFile(c.graph.dir); err != nil {
		return c.report, err
	}
	defer func() { err = errors.Join(err, c.doomed.close()) }()
	if err := c.mark(ctx); err != nil {
		return c.report, err
	}
	if o.DryRun {
		return c.report, nil
	}
	release, err = v.Hold(ctx, o.Holder, o.Waiting)
	if err != nil {
		return c.report, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := c.condemn(ctx); err != nil {
		return c.report, err
	}
	condemned := v.Condemned()
	c.tell(run.Waiting, "backups that began before", 0, 0)
	if err := v.Outlived(ctx, condemned); err != nil {
		return c.report, err
	}
	return c.report, c.sweep(ctx)
}

func (c *collection) tell(phase run.Phase, item string, done, total int64) {
	c.event.Phase, c.event.Item, c.event.Files, c.event.FilesTotal = phase, item, done, total
	c.Progress.Emit(c.event)
}
