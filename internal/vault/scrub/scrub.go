// Package scrub reads a vault again at a set pace, without a key, to find damage
// before someone needs the data, and heals it from another copy. What no copy has
// is noted, so that the next backup of a machine that has the data stores it
// again; and named by machine and number of the snapshot.
//
// Every run checks all documents, which are small, and then packs: those that were
// never checked first, then those that were longest ago. So runs that are cut
// short, by a set time or otherwise, get around all the same.
//
// Where to start reading: Run; heal.go repairs, documents.go checks the log,
// position.go remembers what was checked when.
package scrub

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
)

// Options say how a vault is scrubbed.
type Options struct {
	// Other is another copy of the vault to heal from; nil for none.
	Other vault.Source
	// Dir is where this machine remembers what was checked when; "" for nowhere.
	Dir string
	// MaxTime is after how long no further packs are checked; 0 for no end.
	MaxTime time.Duration
	// Keyring checks what only those with keys can say of a keyring: whether it
	// has the form of one. nil takes all.
	Keyring  func(content []byte) error
	Begin    func(context.Context) (*local.Session, error) // a session to write
	Now      time.Time
	Progress run.Progress
}

// Report tells what was checked, found and healed.
type Report struct {
	Packs     int   // checked
	Bytes     int64 // of them
	Left      int   // packs that were not checked this time
	Oldest    time.Time
	Documents int // checked

	Damaged         []Damage
	HealedBlobs     int // put again
	HealedDocuments int
	Copied          int // snapshots that only the other copy had

	// What is left wrong.
	Lost     []Lost
	Problems []replicate.Problem
}

// Damage is a damaged pack.
type Damage struct {
	Object string
	Blobs  int // damaged in it; 0 when nobody can tell
	Healed bool
	Err    error
}

// Lost is a snapshot that is not whole.
type Lost struct {
	Key snapshot.Key
	Err error
}

// Healed reports whether something was wrong and nothing is any more.
func (r *Report) Healed() bool {
	return len(r.Damaged)+r.HealedBlobs+r.HealedDocuments > 0 && r.Err() == nil
}

// Err is Corrupt when something is left wrong.
func (r *Report) Err() error {
	switch {
	case len(r.Lost) > 0:
		return tripod.Errorf(tripod.Corrupt, "scrub: %s not whole; the first is number %d of machine %.8s", tripod.Count(len(r.Lost), "snapshot"),
			r.Lost[0].Key.Seq, r.Lost[0].Key.Machine).
			WithHint("back up again on machines that still have the data: that stores it again; or heal from another copy: tripod scrub --from COPY")
	case len(r.Problems) > 0:
		return tripod.Errorf(tripod.KindOf(r.Problems[0].Err), "scrub: %s of the log not as it should be; the first: %w",
			tripod.Count(len(r.Problems), "document"), r.Problems[0].Err).WithHint("%s", tripod.HintOf(r.Problems[0].Err))
	}
	for _, d := range r.Damaged {
		if !d.Healed {
			return tripod.Errorf(tripod.Corrupt, "scrub: a pack is damaged, though no snapshot lost anything with it: %w", d.Err).
				WithHint("heal it from another copy: tripod scrub --from COPY")
		}
	}
	return nil
}

// running is a run of Run.
type running struct {
	v        *local.Vault
	store    store.Store
	opts     Options
	report   *Report
	position *position
	findings []*local.Finding
}

const (
	checkers  = 2
	perRound  = 16 // packs between two looks at the clock
	batchSize = 1000
)

// Run scrubs a vault, which lies in s. The report is never nil. The error tells
// what ended the run; what is wrong with the vault is in the report.
func Run(ctx context.Context, v *local.Vault, s store.Store, opts Options) (*Report, error) {
	if opts.Keyring == nil {
		opts.Keyring = func([]byte) error { return nil }
	}
	r := &running{v: v, store: s, opts: opts, report: new(Report)}
	file := ""
	if opts.Dir != "" {
		file = filepath.Join(opts.Dir, "scrubbed")
	}
	r.position = readPosition(file)
	if opts.Other != nil {
		if err := replicate.Same(ctx, opts.Other, v); err != nil {
			return r.report, err
		}
	}
	end := time.Now().Add(opts.MaxTime)
	opts.Progress.Emit(run.Event{Phase: run.Scanning, Item: "documents"})
	l, err := readLog(ctx, v, opts.Keyring)
	if err != nil {
		return r.report, err
	}
	r.report.Documents = l.read
	err = r.packs(ctx, end)
	if err := errors.Join(err, r.note(context.WithoutCancel(ctx), true)); err != nil {
		return r.report, err
	}
	return r.report, r.heal(ctx, l)
}

// packs checks packs until all are checked or the time is over.
func (r *running) packs(ctx context.Context, end time.Time) error {
	var packs []pack
	event := run.Event{Phase: run.Reading}
	err := r.store.List(ctx, vault.PackPrefix, func(i store.Info) error {
		if name, ok := vault.ParsePackName(i.Name); ok {
			packs = append(packs, pack{name, i.Size})
			event.BytesTotal += i.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.position.order(packs)
	defer func() {
		r.report.Left = len(packs) - r.report.Packs
		r.report.Oldest = r.position.oldest(packs)
	}()
	var bufs [checkers][]byte
	for at := 0; at < len(packs); at += perRound {
		if r.opts.MaxTime > 0 && !time.Now().Before(end) {
			return nil
		}
		round := packs[at:min(at+perRound, len(packs))]
		found := make([]*local.Finding, len(round))
		g, gctx := errgroup.WithContext(ctx)
		for c := range checkers {
			g.Go(func() error {
				for i := c; i < len(round); i += checkers {
					var err error
					if found[i], err = r.v.CheckPack(gctx, round[i].name, round[i].size, &bufs[c]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for i, k := range round {
			r.report.Packs++
			r.report.Bytes += k.size
			if found[i] == nil {
				r.position.times[k.name] = r.opts.Now.Unix()
				continue
			}
			// A damaged one comes first the next time, too.
			delete(r.position.times, k.name)
			r.findings = append(r.findings, found[i])
			r.report.Damaged = append(r.report.Damaged, Damage{Object: vault.PackName(k.name), Blobs: len(found[i].Rows), Err: found[i].Err})
		}
		event.Bytes = r.report.Bytes
		r.opts.Progress.Emit(event)
		if err := r.note(ctx, false); err != nil {
			return err
		}
	}
	return nil
}

// note remembers how far the run came. What was found is noted first.
func (r *running) note(ctx context.Context, now bool) error {
	if now && len(r.findings) > 0 {
		if err := r.v.Distrust(ctx, r.findings); err != nil {
			return err
		}
	}
	return r.position.save(now)
}
