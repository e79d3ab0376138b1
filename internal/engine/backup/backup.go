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
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
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
	// Head gives the number of the newest record of a machine and source, 0 when
	// there is none, and its bytes, none when these cannot be read.
	Head(ctx context.Context, machine tripod.MachineID, source tripod.SourceID) (seq uint64, record []byte, err error)
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
	// Seen is what this machine remembers of a source's newest record: its number
	// and hash. It lets a snapshot follow one that was damaged since. May be nil.
	Seen     func(tripod.SourceID) (seq uint64, hash snapshot.Hash)
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
	New     int64 // entries that the last snapshot does not have; here and below without the folders above what was named
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
	last, err := s.last(ctx)
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
	rec.Key.Seq, rec.Prev = last.seq+1, last.hash
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
	if last.damage != nil {
		s.Warnings.add("", last.damage)
	}
	if last.encoded != nil {
		if err := catalog.Regrant(ctx, s.Vault, s.Keys, last.encoded, &s.base, &root); err != nil {
			s.Warnings.add("", err)
		}
	}
	if s.Now.Before(last.time.Add(-clockSlack)) {
		s.Warnings.add("", tripod.Errorf(tripod.Conflict, "the last snapshot was made at %s, by a clock that ran ahead of this one, which says %s",
			last.time.UTC().Format(timeFormat), s.Now.UTC().Format(timeFormat)).
			WithHint("set this machine's clock; the order of its snapshots is right all the same, but times shown, and how long a policy keeps them, are not"))
	}
	return nil
}

const (
	clockSlack = time.Minute // by which a clock may be set back without a word
	timeFormat = "2006-01-02 15:04 UTC"
)

// head is what the next record of a source follows.
type head struct {
	seq     uint64
	hash    snapshot.Hash
	time    time.Time
	encoded []byte // nil when there is none that is whole
	damage  error  // what is wrong with it
}

// last looks at the newest record. After one that is damaged the chain goes on
// with what this machine remembers of it: should it come back whole from another
// copy, it fits, and until then readers see that it is missing.
func (s *session) last(ctx context.Context) (h head, err error) {
	seq, encoded, err := s.Vault.Head(ctx, s.Keys.Machine, s.source)
	if err != nil || seq == 0 {
		return head{}, err
	}
	key, _ := s.Keys.Sign.Public().(ed25519.PublicKey) // seal makes no others
	r, err := snapshot.VerifyRecord(encoded, &snapshot.Certificate{Company: s.Keys.Company.ID, Machine: s.Keys.Machine, Key: key})
	k := snapshot.Key{Machine: s.Keys.Machine, Source: s.source, Seq: seq}
	switch {
	case err == nil && r.Key == k:
		return head{seq: seq, hash: snapshot.HashOf(encoded), time: r.Time, encoded: encoded}, nil
	case err == nil:
		err = tripod.Errorf(tripod.Corrupt, "snapshot record: lies under another name than its own")
	case !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.Denied):
		return head{}, fmt.Errorf("%s: %w", vault.RecordName(k), err)
	}
	h = head{seq: seq}
	var seen uint64
	if s.Seen != nil {
		seen, h.hash = s.Seen(s.source)
	}
	if seen != seq {
		return head{}, tripod.Errorf(tripod.Corrupt, "%s: the record of the last snapshot is damaged, and this machine does not remember it: %w", vault.RecordName(k), err).
			WithHint("tripod scrub --from COPY gets it from another copy of the vault; without one, move this machine's keys away, which its next backup replaces: it then asks for the passphrase, and starts anew")
	}
	h.damage = tripod.Errorf(tripod.Corrupt, "%s: the record of the last snapshot is damaged, which cannot be restored; the new one stands behind it: %w", vault.RecordName(k), err).
		WithHint("tripod scrub --from COPY gets it from another copy of the vault, if there is one; look at the disk that damaged it")
	return h, nil
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
