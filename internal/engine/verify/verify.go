// Package verify reads everything that the live snapshots of a vault need,
// once, and proves that it could be restored: every frame's sum, every blob's
// decryption and content, every node's structure, every file's length. What is
// damaged or lost is named by snapshot and path.
//
// Where to start reading: Run; check.go goes through trees, lists and maps and
// reads the blobs; damage.go finds what a damaged blob costs.
package verify

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"tripod/internal/core/run"
	"tripod/internal/core/tree"
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
	// Packs are the damaged packs that the caller found; they count as damage.
	Packs    []catalog.Problem
	Progress run.Progress
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
	// Files are what cannot be restored whole, by path, the first.
	Files []File
	// NotWhole is how many files, disks and streams cannot be restored whole, those
	// that are not named included; AtLeast says that there may be more.
	NotWhole int64
	AtLeast  bool
	// Unlisted are the snapshots that lost names of files.
	Unlisted []Unlisted
	// Blobs are all that are missing or damaged, in order of ids.
	Blobs []Blob
	// Unseen says that there are nodes among them: what lies below those was
	// not read.
	Unseen bool
	// Packs are the damaged packs.
	Packs []catalog.Problem
	// Problems are the catalog's, and one for each damaged blob.
	Problems []catalog.Problem
	// Truncated says that there is more damage than is listed.
	Truncated bool
}

// Blob is a blob that is missing or damaged.
type Blob struct {
	ID  tripod.ID
	Err error
}

// Lost gives the ids of Blobs.
func (r *Report) Lost() []tripod.ID {
	ids := make([]tripod.ID, len(r.Blobs))
	for i := range r.Blobs {
		ids[i] = r.Blobs[i].ID
	}
	return ids
}

// File is something damaged: a file, disk or stream; or, with Stretch, the part
// of a file tree that begins at Path and ends before Until, in the order of a
// walk, whose names cannot be read.
type File struct {
	Path      string
	Until     string // "" for the end
	Stretch   bool
	Size      int64        // bytes, of what Missing tells of
	Missing   []tree.Range // which bytes cannot be read; nil when none of them can, or of a short file
	Snapshots []string     // ids, oldest first
	Blob      tripod.ID    // what it lacks first
	Err       error
}

// Unlisted is a snapshot that lost names of files.
type Unlisted struct {
	Snapshot string // its id
	Total    int64  // files it has
	Files    int64  // files of which not even the name is known
}

// What tells what is damaged.
func (f *File) What() string {
	switch {
	case f.Stretch:
		return blobs.Span{From: f.Path[1:], Until: strings.TrimPrefix(f.Until, "/")}.String()
	case len(f.Missing) > 0:
		return fmt.Sprintf("%s: %s of %d", f.Path, blobs.RangesText(f.Missing), f.Size)
	}
	return f.Path
}

// Loss tells how many files cannot be restored whole.
func (r *Report) Loss() string {
	if r.AtLeast {
		return "at least " + tripod.Count(r.NotWhole, "file")
	}
	return tripod.Count(r.NotWhole, "file")
}

const hintHeal = "back up again on this machine: it stores again what it still has; or copy the packs from another copy of the vault"

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
		bad: map[short]*Blob{}, meter: blobs.NewMeter(o.Progress, run.Reading, 0, 0),
	}
	c.blobs.Check = true
	c.report.Snapshots = int64(len(snaps))
	c.report.Problems, c.report.Packs = cat.Problems(), o.Packs
	for _, p := range c.report.Problems {
		c.meter.Warn(p.Document, p.Err)
	}
	err := c.all(ctx, snaps)
	for _, b := range c.bad {
		c.report.Blobs = append(c.report.Blobs, *b)
	}
	slices.SortFunc(c.report.Blobs, func(a, b Blob) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if err != nil {
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
		return tripod.Errorf(tripod.Corrupt, "verify: %s damaged and %d missing; %s not whole, first %s",
			tripod.Count(r.Damaged, "blob"), r.Missing, r.Loss(), r.Files[0].What()).
			WithHint("%s", hintHeal)
	case r.Missing+r.Damaged > 0:
		return tripod.Errorf(tripod.Corrupt, "verify: %s damaged and %d missing", tripod.Count(r.Damaged, "blob"), r.Missing).WithHint("%s", hintHeal)
	case len(r.Packs) > 0:
		return tripod.Errorf(tripod.Corrupt, "verify: %s damaged, though nothing that was read is lost; the first is %w", tripod.Count(len(r.Packs), "pack"), r.Packs[0].Err).
			WithHint("get %s from another copy of the vault; or move it away, back up again and verify", r.Packs[0].Document)
	case len(r.Problems) > 0:
		return tripod.Errorf(tripod.Corrupt, "verify: %s of the log not usable, first %s: %w",
			tripod.Count(len(r.Problems), "document"), r.Problems[0].Document, r.Problems[0].Err).WithHint("%s", tripod.HintOf(r.Problems[0].Err))
	}
	return nil
}
