// Package backup makes snapshots of what a machine holds. It reads a source, finds what changed since
// this machine's last run, seals the new part and commits a signed record.
//
// Reading order: backup.go holds what all three kinds of source share, from
// options to commit; files.go walks a tree and decides what to read;
// content.go, largefile.go and split.go read it, known.go tells what the last
// run stored already; assemble.go builds the file tree in order; cache.go
// remembers a run for the next one; disk.go and stream.go are the other two
// kinds of source; upload.go seals blobs and puts them into the vault.
//
// Nothing that a snapshot needs is ever removed or changed here, and a run
// that ends early, by error, signal or power cut, leaves blobs in the vault
// that the next run finds and does not send again.
package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
)

// Vault is what a backup needs of one: to write, and to know the newest record
// of a chain and whether its grant is still there.
type Vault interface {
	vault.Writer
	catalog.Grants
	// Head gives the newest encoded record of a machine and source, nil when
	// there is none.
	Head(ctx context.Context, machine tripod.MachineID, source tripod.SourceID) ([]byte, error)
}

// Options say who backs up what into which vault.
type Options struct {
	Keys     *seal.MachineKeys
	Vault    Vault
	CacheDir string // where this run's cache is kept for the next; "" keeps none
	Host     string
	Paths    []string // what the snapshot is of, as people name it: absolute paths, a disk, a stream
	Tags     []string
	Program  string // name and version of the program, for the label
	Now      time.Time
	DryRun   bool       // find out what would be read; write nothing
	Level    seal.Level // Auto: Small for disks, Fast for all else
	Block    int        // block size of a disk map in bytes; 0 chooses
	Warnings *Warnings
	Progress run.Progress

	clock func() time.Time // when a file is read; nil is time.Now
}

// Report says what a run did.
//
// A file, here and in a snapshot's label, is every name that the snapshot holds
// and that is no folder: regular files, symbolic links, pipes, sockets and
// devices; a file with several names counts once for each. A restore counts by
// the same rule.
type Report struct {
	ID      string // of the snapshot, as people type it; "" after a dry run
	Hash    string // of its record, in hex; "" after a dry run
	Key     snapshot.Key
	Files   int64
	Dirs    int64
	New     int64 // entries that the last snapshot does not have
	Changed int64 // entries that differ from the last snapshot's
	Same    int64 // entries equal to the last snapshot's, not read
	Bytes   int64 // content of all files
	Read    int64 // content that was read
	Stored  int64 // bytes written to the vault
	Skipped int64 // warnings: what was left out or kept only in part
	Began   time.Time
	Took    time.Duration
}

// session is one run's state that all kinds of source share.
type session struct {
	Options
	kind    tripod.SourceType
	source  tripod.SourceID
	base    seal.Ref // root of the last run's snapshot, as far as it is remembered and held
	up      *uploader
	meter   *meter
	report  Report
	started time.Time
}

func begin(ctx context.Context, kind tripod.SourceType, o Options) *session {
	if o.Warnings == nil {
		o.Warnings = new(Warnings)
	}
	if o.clock == nil {
		o.clock = time.Now
	}
	if o.Level == seal.Auto && kind == tripod.DiskImage {
		// Blocks are cut without regard to content, so less of a disk is found
		// again later; what little is read anew may cost more.
		o.Level = seal.Small
	}
	s := &session{Options: o, kind: kind, started: time.Now()}
	s.source = o.Keys.SourceID(describe(kind, o.Paths))
	s.meter = newMeter(o.Progress)
	o.Warnings.attach(s.meter)
	if !o.DryRun {
		s.up = newUploader(ctx, o.Keys, o.Level, o.Vault, &s.meter.stored)
	}
	s.report = Report{Began: o.Now, Key: snapshot.Key{Machine: o.Keys.Machine, Source: s.source}}
	return s
}

// label is what people know the snapshot by, as far as it is known beforehand.
// What a record has no room for is refused before a byte is read.
func (o *Options) label() snapshot.Label {
	return snapshot.Label{Host: o.Host, Paths: o.Paths, Tags: o.Tags, Program: o.Program}
}

// describe is what makes two runs runs of the same source: its kind and its
// paths, in any order.
func describe(kind tripod.SourceType, paths []string) string {
	sorted := append([]string(nil), paths...)
	sort.Strings(sorted)
	return kind.String() + "\x00" + strings.Join(sorted, "\x00")
}

// cachePath is the file that remembers this source's last run.
func (s *session) cachePath() string {
	if s.CacheDir == "" {
		return ""
	}
	return filepath.Join(s.CacheDir, s.source.String()+".cache")
}

// holdsRoot reports whether the vault still holds the whole tree of an earlier
// run, on which everything remembered of it rests.
func (s *session) holdsRoot(ctx context.Context, root *seal.Ref) (bool, error) {
	have, err := s.Vault.Have(ctx, []tripod.ID{root.ID()})
	if err != nil {
		return false, err
	}
	return len(have[0]) > 0, nil
}

// commit makes the snapshot. All blobs must have been flushed.
func (s *session) commit(ctx context.Context, root seal.Ref) error {
	s.meter.phase(run.Finish)
	head, err := s.Vault.Head(ctx, s.Keys.Machine, s.source)
	if err != nil {
		return err
	}
	r := &s.report
	r.Skipped, r.Stored = s.Warnings.Count(), s.up.stored.Load()
	label := s.label()
	label.Files, label.Bytes, label.Skipped = r.Files, r.Bytes, r.Skipped
	rec := snapshot.Record{
		Company: s.Keys.Company.ID, Key: r.Key, Incarnation: s.Keys.Incarnation, Type: s.kind, Root: root.ID(),
		Time: s.Now, SizeClass: snapshot.Class(r.Bytes), AddedClass: snapshot.Class(r.Stored),
		Label: seal.SealLabel(&root, label.Marshal()),
	}
	if head != nil {
		last, err := snapshot.ParseRecord(head)
		if err != nil {
			return err
		}
		rec.Key.Seq, rec.Prev = last.Key.Seq, snapshot.HashOf(head)
	}
	rec.Key.Seq++
	encoded := rec.Sign(s.Keys.Sign)
	grant, err := catalog.Grant(s.Keys, rec.Key, &root)
	if err != nil {
		return err
	}
	if err := s.Vault.Commit(ctx, encoded, [][]byte{grant}); err != nil {
		return err
	}
	hash := snapshot.HashOf(encoded)
	r.Key, r.Hash = rec.Key, hex.EncodeToString(hash[:])
	r.ID = r.Hash[:8]
	if head != nil {
		if err := catalog.Regrant(ctx, s.Vault, s.Keys, head, &s.base, &root); err != nil {
			s.Warnings.add("", err)
		}
	}
	return nil
}

// finish fills in what is known at the end and waits for what is under way.
func (s *session) finish() *Report {
	if s.up != nil {
		s.up.close()
	}
	s.report.Skipped, s.report.Took = s.Warnings.Count(), time.Since(s.started)
	s.meter.last()
	return &s.report
}

// removeStale deletes a cache that cannot be used. That it is gone already is fine.
func removeStale(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // the next run replaces it
	}
}
