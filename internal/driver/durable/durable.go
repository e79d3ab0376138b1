// Package durable is the only code that knows what it takes for a file to
// survive a power cut. Everything that must not be lost is written through the
// functions here, each of which says what it promises:
//
//   - [WriteNew] makes a file that was not there, whole or not at all.
//   - [Replace] exchanges a file for a new version, old or new, nothing between.
//   - [Remove] makes a file gone for good.
//   - [Dirs] makes directories, and knows which ones are sure to last.
//   - [Lock] keeps other processes out, and tells whom to wait for.
//
// A file system promises little: bytes written lie in memory until the file is
// synced, and a name made, changed or removed lies in memory until its
// directory is. A failed sync may drop the bytes it could not write and report
// the loss once, so a sync that failed is never tried again on the same file:
// the operation fails, and its caller starts over with a new file.
//
// The functions work on an [FS], of which [Root] is the real one; package
// crashfs below is a simulated disk that loses what was not synced.
// [Classify] turns what the system reports into errors of core/tripod.
package durable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"sync"
	"time"

	"tripod/internal/core/tripod"
)

// File is an open file of an FS.
type File interface {
	io.Writer
	io.ReaderAt
	io.Closer
	// Sync returns nil when the file's bytes are on stable storage. It says
	// nothing about the file's name.
	Sync() error
	// Size tells the file's length in bytes.
	Size() (int64, error)
	// Linked reports whether some name still leads to the file. It is false
	// where the system cannot tell.
	Linked() bool
}

// FS is the file operations below one directory. Names are relative and
// slash-separated; "." is the directory itself. No symbolic link is followed
// out of it.
type FS interface {
	Writer
	Reader
}

// Writer is what durability is made of: every operation that leaves something
// to be lost, and those that make it stay.
type Writer interface {
	// Create makes a file that was not there and opens it for writing.
	Create(name string, perm fs.FileMode) (File, error)
	// Rename gives a file another name. When the name is taken it is
	// replaced, or, without replace, fs.ErrExist returned and nothing changed.
	Rename(from, to string, replace bool) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// Mkdir makes one directory.
	Mkdir(name string, perm fs.FileMode) error
	// SyncDir returns nil when the directory's entries are on stable storage.
	SyncDir(name string) error
}

// Reader looks at what is there, synced or not.
type Reader interface {
	// Open opens a regular file for reading.
	Open(name string) (File, error)
	// Stat describes what has the name, never what a link points to.
	Stat(name string) (fs.FileInfo, error)
	// ReadDir lists a directory in ascending order of names.
	ReadDir(name string) ([]fs.DirEntry, error)
}

// Locker is an FS that knows advisory locks on files.
type Locker interface {
	// TryLock takes the exclusive lock on the file name, which it makes when
	// missing, without waiting. When it succeeds release is set, and left is
	// what an earlier holder wrote who ended without releasing. Otherwise
	// release and err are nil, and left describes the present holder. A
	// release that is not clean leaves holder written down, as death does.
	TryLock(name, holder string) (release func(clean bool) error, left string, err error)
}

// WriteNew makes the file name with the given bytes. When it returns nil, the
// file survives a power cut, given that its directory does (see Dirs). When it
// fails, the file is there whole or not at all, after a power cut too; where
// name was taken already the error is fs.ErrExist and nothing has changed. tmp is
// the name under which the bytes are gathered, in any directory of the same
// file system; it is gone afterwards unless the machine stopped in between.
func WriteNew(f Writer, tmp, name string, perm fs.FileMode, data []byte) error {
	if err := writeTemp(f, tmp, perm, data); err != nil {
		return err
	}
	if err := f.Rename(tmp, name, false); err != nil {
		_ = f.Remove(tmp) // a leftover costs space only
		return err
	}
	// From here on the file is seen, so a failure leaves it: taking it away
	// could take it from someone who found it and relied on it.
	return f.SyncDir(path.Dir(name))
}

// Replace gives the file name, there or not, new content. After a power cut
// readers find the old bytes or the new ones, and the new ones for sure once it
// has returned nil. The temporary file lies beside it, hidden by a dot.
func Replace(f Writer, name string, perm fs.FileMode, data []byte) error {
	dir, base := path.Split(name)
	tmp := fmt.Sprintf("%s.%s.%016x.tmp", dir, base, rand.Uint64())
	if err := writeTemp(f, tmp, perm, data); err != nil {
		return err
	}
	if err := f.Rename(tmp, name, true); err != nil {
		_ = f.Remove(tmp)
		return err
	}
	return f.SyncDir(path.Dir(name))
}

// writeTemp makes a file whose bytes, though not its name, are durable.
func writeTemp(f Writer, tmp string, perm fs.FileMode, data []byte) (err error) {
	file, err := f.Create(tmp, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Remove(tmp)
		}
	}()
	n, err := file.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = file.Sync()
	}
	// Network file systems report the failure of a write as late as here.
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Remove removes the file name. When it returns nil the file does not come back
// after a power cut. Removing what is not there is fs.ErrNotExist, and is
// answered only once that absence is durable, so that a caller whose first
// attempt ended unclear can try again and know.
func Remove(f Writer, name string) error {
	err := f.Remove(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if syncErr := f.SyncDir(path.Dir(name)); syncErr != nil && !errors.Is(syncErr, fs.ErrNotExist) {
		return syncErr
	}
	return err
}

// Dirs makes directories that last. A directory that is merely there may have
// been made by a process that died before it synced the parent, so each one is
// synced into its parent once before Dirs trusts it.
type Dirs struct {
	fs   Writer
	perm fs.FileMode

	mu    sync.Mutex
	known map[string]bool // directories whose whole path is durable
}

// NewDirs returns a Dirs that makes directories in f with the given mode. It
// takes f's own directory for durable.
func NewDirs(f Writer, perm fs.FileMode) *Dirs {
	return &Dirs{fs: f, perm: perm, known: map[string]bool{".": true}}
}

// Make makes the directory dir and those above it as needed. When it returns
// nil, all of them survive a power cut.
func (d *Dirs) Make(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.make(path.Clean(dir))
}

func (d *Dirs) make(dir string) error {
	if d.known[dir] {
		return nil
	}
	parent := path.Dir(dir)
	if err := d.make(parent); err != nil {
		return err
	}
	if err := d.fs.Mkdir(dir, d.perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.fs.SyncDir(parent); err != nil {
		return err
	}
	d.known[dir] = true
	return nil
}

// Forget makes Dirs look at every directory anew: for a caller that found one
// missing which had been made.
func (d *Dirs) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = map[string]bool{".": true}
}

// SyncTree syncs dir and the directories below it, so that whatever is seen
// there is there to stay. It is for a process that comes after one which died:
// the dead one may have renamed a file into place and not synced its directory.
// Directories that skip returns true for are left out.
func SyncTree(f FS, dir string, skip func(name string) bool) error {
	entries, err := f.ReadDir(dir)
	if err != nil {
		return err
	}
	if err := f.SyncDir(dir); err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if !e.IsDir() || skip(name) {
			continue
		}
		if err := SyncTree(f, name, skip); err != nil {
			return err
		}
	}
	return nil
}

// lockPoll bounds how often a waiter looks whether a lock has become free.
// A blocking wait could not be cancelled.
const (
	lockPollFirst = 10 * time.Millisecond
	lockPollMax   = 500 * time.Millisecond
)

// Lock waits for the exclusive lock on the file name and holds it until release
// is called or the process ends, however it ends. holder, one line, describes
// the caller to those who wait; waiting, unless nil, is called with whoever
// holds the lock, once per holder. left is not empty when the holder before
// ended without a clean release, and describes it. Where several machines share a
// directory the lock is worth what their file system makes of flock.
func Lock(ctx context.Context, l Locker, name, holder string, waiting func(string)) (release func(clean bool) error, left string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	told := ""
	timer := time.NewTimer(0)
	defer timer.Stop()
	for poll := lockPollFirst; ; poll = min(2*poll, lockPollMax) {
		release, left, err = l.TryLock(name, holder)
		if err != nil || release != nil {
			return release, left, err
		}
		// A holder that has just taken the lock may not have written its name.
		if left != "" && left != told && waiting != nil {
			waiting(left)
			told = left
		}
		timer.Reset(poll)
		select {
		case <-ctx.Done():
			return nil, "", ctx.Err()
		case <-timer.C:
		}
	}
}

// Freezer is an FS that can forbid the removal of a file, its owner's included.
// Only a process with the right to do so can (CAP_LINUX_IMMUTABLE on Linux).
type Freezer interface {
	// Freeze makes the file immutable and notes beside its bytes until when.
	// It returns once both are on stable storage.
	Freeze(name string, until time.Time) error
	// Frozen tells the time that was noted, zero when there is none.
	Frozen(name string) (until time.Time, err error)
	// Thaw makes the file removable again.
	Thaw(name string) error
}

// ReplaceFile is Replace for a path of the operating system.
func ReplaceFile(name string, perm fs.FileMode, data []byte) error {
	dir, base := splitPath(name)
	r, err := OpenRoot(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	return Classify(Replace(r, base, perm, data), "write", name)
}

// MakeDir makes the directory name of the operating system and those above it
// as needed, durably. One that is there already is made sure to last.
func MakeDir(name string, perm fs.FileMode) error {
	if name == "" {
		return tripod.Errorf(tripod.Invalid, "make directory: the path is empty")
	}
	dir, base := splitPath(name)
	if dir == name || base == "." {
		return nil
	}
	r, err := OpenRoot(dir)
	if errors.Is(err, tripod.NotFound) {
		if err := MakeDir(dir, perm); err != nil {
			return err
		}
		r, err = OpenRoot(dir)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	return Classify(NewDirs(r, perm).Make(base), "make directory", name)
}
