package index

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
)

// VaultID names the vault an index is of.
type VaultID [16]byte

// Origin tells where an index comes from.
type Origin struct {
	Dir     string // where it lies; empty for memory
	Fresh   bool   // it was empty
	Private bool   // another process has the one in the cache directory, or it cannot be used; this one ends with Close
	Reason  error  // why a fresh one was made where another lay, or a private one; may be nil
}

var (
	errMalformed = errors.New("malformed row")
	errForeign   = errors.New("belongs to another vault or format")
	errBusy      = errors.New("another process uses it")
)

// Memory use: what Pebble keeps of blocks read and of rows not yet written. It
// takes the second out of the first, so the cache must be some times as large.
const (
	cacheSize    = 24 << 20
	memTableSize = 4 << 20
)

// Open opens the index of a vault below the cache directory dir, and makes an
// empty one where there is none that can be used. Where the directory cannot be
// written, or another process has the index open, it makes a private one in a
// temporary directory, and where that fails too, in memory: an index is never
// the reason why a vault cannot be read.
func Open(dir string, vault VaultID) (*Index, error) {
	x, err := openShared(filepath.Join(dir, "index-"+hex.EncodeToString(vault[:])), vault)
	if err == nil {
		return x, nil
	}
	return openPrivate(vault, err)
}

// Origin tells where the index comes from.
func (x *Index) Origin() Origin { return x.origin }

// openShared opens the index that stays, under a lock.
func openShared(dir string, vault VaultID) (*Index, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, durable.Classify(err, "make index directory", dir)
	}
	root, err := durable.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	release, err := tryLock(root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	done := func() error { return errors.Join(release(), root.Close()) }
	x, reason := openTrusted(dir, vault)
	if reason != nil {
		if err := wipe(dir); err != nil {
			return nil, errors.Join(err, done())
		}
		if x, err = openDB(&files{FS: vfs.Default, boot: filepath.Join(dir, bootName)}, filepath.Join(dir, dbName), vault); err != nil {
			return nil, errors.Join(err, done())
		}
		x.origin.Reason = reason
	}
	x.files.noteBoot()
	x.origin.Dir = dir
	x.done = done
	return x, nil
}

const (
	lockName = "lock"
	dbName   = "db"
	bootName = "boot"
)

func tryLock(root *durable.Root) (release func() error, err error) {
	unlock, _, err := root.TryLock(lockName, fmt.Sprintf("process %d", os.Getpid()))
	if err != nil {
		return nil, durable.Classify(err, "lock", filepath.Join(root.Name(), lockName))
	}
	if unlock == nil {
		return nil, tripod.Errorf(tripod.Conflict, "index %s: %w", root.Name(), errBusy)
	}
	return func() error { return unlock(true) }, nil
}

// wipe removes a database that cannot be used.
func wipe(dir string) error {
	_ = os.Remove(filepath.Join(dir, bootName))
	return durable.Classify(os.RemoveAll(filepath.Join(dir, dbName)), "remove", filepath.Join(dir, dbName))
}

// openTrusted opens what lies in dir if it can be trusted. Nothing in an index
// is ever synced, so it is trusted without a look only while the system that
// wrote it has not restarted; else every block's checksum is verified first.
func openTrusted(dir string, vault VaultID) (x *Index, err error) {
	f := &files{FS: vfs.Default, boot: filepath.Join(dir, bootName)}
	if x, err = openDB(f, filepath.Join(dir, dbName), vault); err != nil {
		return nil, err
	}
	if !x.origin.Fresh && !f.sameBoot() {
		if err := x.verify(); err != nil {
			_ = x.db.Close() // it is wiped next
			return nil, err
		}
	}
	return x, nil
}

// verify reads every row.
func (x *Index) verify() (err error) {
	defer recovered(&err)
	return x.Each(func(*Entry) error { return nil })
}

// recovered turns a panic over damaged files, of which Pebble has some, into
// an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = tripod.Errorf(tripod.Corrupt, "index: %v", r)
	}
}

// openPrivate makes an index that ends with Close.
func openPrivate(vault VaultID, reason error) (*Index, error) {
	sweep(os.TempDir())
	done := func() error { return nil }
	var x *Index
	dir, err := os.MkdirTemp("", tempPrefix())
	if err == nil {
		done = func() error { return os.RemoveAll(dir) }
		if x, err = openDB(&files{FS: vfs.Default}, filepath.Join(dir, dbName), vault); err != nil {
			_ = done() // memory is tried next
		}
	}
	if err != nil {
		dir, done = "", func() error { return nil }
		if x, err = openDB(&files{FS: vfs.NewMem()}, "/", vault); err != nil {
			return nil, err
		}
	}
	x.origin.Dir, x.origin.Private, x.origin.Reason = dir, true, reason
	x.done = done
	return x, nil
}

const tempName = "tripod-index-"

func tempPrefix() string { return fmt.Sprintf("%s%d-", tempName, os.Getpid()) }

// sweep removes private indexes that dead processes left in dir.
func sweep(dir string) {
	found, _ := filepath.Glob(filepath.Join(dir, tempName+"*"))
	for _, name := range found {
		var pid int
		_, err := fmt.Sscanf(strings.TrimPrefix(filepath.Base(name), tempName), "%d-", &pid)
		if err == nil && pid > 0 && !durable.ProcessAlive(pid) {
			_ = os.RemoveAll(name)
		}
	}
}

// openDB opens or makes the database in dir and reads the packs.
func openDB(f *files, dir string, vault VaultID) (x *Index, err error) {
	defer recovered(&err)
	opts := options(f)
	defer opts.Cache.Unref()
	db, err := pebble.Open(dir, opts)
	if err == nil {
		err = f.broken()
	}
	if err != nil {
		if db != nil {
			_ = db.Close()
		}
		return nil, classify(err)
	}
	x = &Index{db: db, files: f, names: map[tripod.PackID]uint32{}, done: func() error { return nil }}
	if err = x.load(vault); err != nil {
		_ = db.Close()
		return nil, err
	}
	return x, nil
}

func (x *Index) load(vault VaultID) error {
	want := append([]byte{format}, vault[:]...)
	got, closer, err := x.db.Get([]byte{prefixMeta})
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		x.origin.Fresh = true
		x.dirty.Store(true)
		return x.health(x.db.Set([]byte{prefixMeta}, want, pebble.NoSync))
	case err != nil:
		return x.health(err)
	}
	same := bytes.Equal(got, want)
	if err := closer.Close(); err != nil || !same {
		return classify(errors.Join(err, errForeign))
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixPack}, UpperBound: []byte{prefixPack + 1}})
	if err != nil {
		return x.health(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return x.health(err)
		}
		p, ok := parsePack(it.Key(), v)
		if !ok || p.Ordinal > 1<<24 {
			return x.health(errMalformed)
		}
		x.remember(p)
	}
	return x.health(it.Error())
}

func options(f *files) *pebble.Options {
	o := &pebble.Options{
		FS:                          f,
		Cache:                       pebble.NewCache(cacheSize),
		Comparer:                    comparer(),
		FormatMajorVersion:          pebble.FormatNewest,
		DisableWAL:                  true, // what it would save is in the packs
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8, // each run of a command leaves one table
		L0StopWritesThreshold:       64,
		MaxOpenFiles:                256,
		DisableTableStats:           true,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Logger:                      quiet{},
		EventListener: &pebble.EventListener{
			BackgroundError: f.fail,
			DataCorruption:  func(i pebble.DataCorruptionInfo) { f.fail(i.Details) }, // the default ends the process
		},
	}
	o.Experimental.ReadSamplingMultiplier = -1 // reading starts no compactions
	for i := range o.Levels {
		// Small tables, so that their filters fit into the small cache.
		o.TargetFileSizes[i] = 4 << 20
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression } // hashes do not shrink
	}
	return o
}

// comparer orders rows as bytes, and tells Pebble that a blob's rows are found
// by its id: filters are made over that part of the key.
func comparer() *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Name = "tripod.index.1"
	c.Split = func(key []byte) int {
		if len(key) > 33 && key[0] == prefixBlob {
			return 33
		}
		return len(key)
	}
	return &c
}

// quiet keeps Pebble from printing. What it calls fatal are failed writes, and
// files hides those; see there.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("index: "+format, args...))
}

// Close writes what is in memory and ends the use of the index.
func (x *Index) Close() error {
	var err error
	if x.dirty.Load() && !x.origin.Private && x.files.broken() == nil {
		err = x.db.Flush()
	}
	err = errors.Join(err, x.db.Close())
	if err == nil {
		err = x.files.broken()
	}
	if err != nil {
		x.files.fail(err)
		err = classify(err)
	}
	return errors.Join(err, x.done())
}

// health returns err, or an earlier failure of the index's files, classed. An
// index that failed once answers nothing more: what it lacks would look as if
// the vault lacked it.
func (x *Index) health(err error) error {
	if err == nil {
		err = x.files.broken()
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	x.files.fail(err)
	return classify(err)
}

// classify gives an error of the index a kind.
func classify(err error) error {
	err = durable.Classify(err, "index:", "files")
	if e, ok := errors.AsType[*tripod.Error](err); ok && (e.Kind == tripod.Exhausted || e.Kind == tripod.Denied) {
		return e
	}
	return tripod.Errorf(tripod.Corrupt, "index: %w", err).
		WithHint("run it again: the index is rebuilt from the vault, which is not affected")
}

// Discard removes the index of a vault below the cache directory dir; the next
// Open makes a new one. It returns Conflict while another process has it open.
func Discard(dir string, vault VaultID) (err error) {
	dir = filepath.Join(dir, "index-"+hex.EncodeToString(vault[:]))
	root, err := durable.OpenRoot(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, tripod.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	release, err := tryLock(root)
	if err != nil {
		return err
	}
	return errors.Join(wipe(dir), release())
}
