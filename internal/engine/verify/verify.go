// Package verify reads everything that the live snapshots of a vault need,
// once, and proves that it could be restored: every frame's sum, every blob's
// decryption and content, every node's structure, every file's length. What is
// damaged or lost is named by snapshot and path.
//
// Where to start reading: Run; check.go goes through trees, lists and maps and
// reads the blobs; damage.go finds what a damaged blob costs.
package verify

import (
	"context"
	"hash/maphash"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
)

// Options say how much to read.
type Options struct {
	// Sample is the percentage of data blobs to read, drawn by Seed; 0 and 100
	// mean all. Nodes are always read.
	Sample    float64
	Seed      uint64
	Snapshots []catalog.Snapshot // nil: all live ones
	Progress  run.Progress
}

// Report tells what was read and what is wrong.
type Report struct {
	Snapshots int64
	Nodes     int64 // distinct ones, read and checked
	Data      int64 // distinct data blobs, read and checked
	Skipped   int64 // data blobs left out by sampling
	Bytes     int64 // plaintext bytes checked
	// Missing and Damaged count blobs that are not there, and that are not
	// what they must be.
	Missing, Damaged int64
	// Files are what cannot be restored whole, by path.
	Files []File
	// Problems are the catalog's, and one for each damaged blob.
	Problems []catalog.Problem
	// Truncated says that there is more damage than is listed.
	Truncated bool
}

// File is something damaged: a path, or a stretch of a disk or stream.
type File struct {
	Path      string
	Snapshots []string // ids, oldest first
	Err       error
}

// mostListed bounds a report's lists.
const mostListed = 1000

// Run verifies a vault. The report is never nil. The error is Corrupt when
// anything is damaged, missing or not to be trusted.
func Run(ctx context.Context, r vault.Reader, cat *catalog.Catalog, o Options) (*Report, error) {
	snaps := o.Snapshots
	if snaps == nil {
		snaps = cat.Snapshots()
	}
	c := &checker{
		Options: o, blobs: blobs.New(r, cat.Descriptor.Company), seen: map[short]uint32{}, claim: maphash.MakeSeed(), lists: map[short]int64{},
		bad: map[short]error{}, meter: blobs.NewMeter(o.Progress, run.Reading, 0, 0),
	}
	c.blobs.Check = true
	c.report.Snapshots = int64(len(snaps))
	c.report.Problems = cat.Problems()
	for _, p := range c.report.Problems {
		c.meter.Warn(p.Document, p.Err)
	}
	if err := c.all(ctx, snaps); err != nil {
		return &c.report, err
	}
	if len(c.bad) > 0 {
		c.meter.Phase(run.Scanning)
		if err := c.findDamage(ctx, snaps); err != nil {
			return &c.report, err
		}
	}
	c.meter.Done()
	return &c.report, c.verdict()
}

func (c *checker) verdict() error {
	r := &c.report
	switch {
	case r.Missing+r.Damaged > 0 && len(r.Files) > 0:
		return tripod.Errorf(tripod.Corrupt, "verify: %d blobs are damaged and %d missing; %d files are not whole, first %s",
			r.Damaged, r.Missing, len(r.Files), r.Files[0].Path).
			WithHint("back up again: what the machines still have heals the vault; or copy from the other zone")
	case r.Missing+r.Damaged > 0:
		return tripod.Errorf(tripod.Corrupt, "verify: %d blobs are damaged and %d missing", r.Damaged, r.Missing)
	case len(r.Problems) > 0:
		return tripod.Errorf(tripod.Corrupt, "verify: %d documents of the log are not usable, first %s: %w",
			len(r.Problems), r.Problems[0].Document, r.Problems[0].Err).WithHint("%s", tripod.HintOf(r.Problems[0].Err))
	}
	return nil
}
