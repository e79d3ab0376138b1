// Package fs is the store in a directory: every object is a file whose path
// below the directory is the object's name.
//
// A Put gathers the bytes in a temporary file under .incoming, syncs it, renames
// it into place unless the name is taken, and syncs the directory: an object
// is seen whole or not at all, and one that was acknowledged survives a power
// cut. Objects are files of mode 0400 in directories of mode 0700, since nobody
// else has a use for them and nobody may rewrite them. Files that are no
// objects (hidden ones, links, lost+found, a README) are left alone and unseen.
//
// Because objects are files, one name cannot be another's folder: with pack/a
// there is no pack/a/b. Such a Put returns Conflict.
//
// The directory holds, besides objects:
//
//	.incoming/   temporary files; those of processes that died are removed by Open
//	.lock        names the process that holds the store for writing
package fs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/driver/store"
)

const (
	incoming   = ".incoming"
	lockName   = ".lock"
	objectMode = 0o400
	dirMode    = 0o700

	// maxHandles is how many objects are kept open for reading.
	maxHandles = 64
	// staleAfter is the age at which a temporary file of another machine's
	// process is taken for abandoned. Removing one still in use would only make
	// its Put fail.
	staleAfter = 24 * time.Hour
)

// Store is a store.Store and store.Exclusive in a directory.
type Store struct {
	disk    durable.FS
	name    string // of the directory, for messages
	dirs    *durable.Dirs
	handles *handles
	temp    string // prefix of this process's temporary files
	canLock func() bool
	close   func() error
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Exclusive = (*Store)(nil)
)

// Open opens the store in the directory dir, which must be there: an empty
// directory where a disk should be mounted must not be taken for the store. It
// returns NotFound, Invalid when dir is no directory, or Denied.
func Open(dir string) (*Store, error) {
	root, err := durable.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := On(root, dir)
	s.close = root.Close
	return s, nil
}

// Create makes the directory dir, and those above it as needed, with mode 0700,
// and opens the store in it. A directory that is there is used as it is.
func Create(dir string) (*Store, error) {
	if err := durable.MakeDir(dir, dirMode); err != nil {
		return nil, err
	}
	return Open(dir)
}

// On is the store on a file system that need not be the operating system's;
// name stands for it in messages.
func On(disk durable.FS, name string) *Store {
	host, _ := os.Hostname() // without a name, temporary files are removed by age
	sum := fnv.New32a()
	io.WriteString(sum, host)
	s := &Store{
		disk:    disk,
		name:    name,
		dirs:    durable.NewDirs(disk, dirMode),
		handles: newHandles(disk, maxHandles),
		temp:    fmt.Sprintf("%08x-%d-", sum.Sum32(), os.Getpid()),
		close:   func() error { return nil },
	}
	s.canLock = sync.OnceValue(s.probeLock)
	s.sweepIncoming(time.Now())
	return s
}

// Close closes the objects held open and the directory. The store must not be
// in use.
func (s *Store) Close() error {
	s.handles.drop(func(string) bool { return true })
	return s.close()
}

// fail classes an error of the disk.
func (s *Store) fail(err error, op, name string) error {
	return durable.Classify(err, op, filepath.Join(s.name, filepath.FromSlash(name)))
}

// check is what every operation on an object does first.
func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckName(name)
}

// stat describes the object name. What has the name and is no regular file is
// no object.
func (s *Store) stat(name string) (iofs.FileInfo, error) {
	info, err := s.disk.Stat(name)
	switch {
	case isMissing(err):
		return nil, &iofs.PathError{Op: "stat", Path: name, Err: iofs.ErrNotExist}
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &iofs.PathError{Op: "stat", Path: name, Err: iofs.ErrNotExist}
	}
	return info, nil
}

// isMissing reports whether err says that there is nothing under a name, also
// because a part of its path is a file.
func isMissing(err error) bool {
	return errors.Is(err, iofs.ErrNotExist) || isNotDir(err)
}

func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// Put implements store.Store. Also when it returns Exists, the object that has
// the name is durable: a process that died may have left it unsynced, and the
// caller will rely on it. After Unavailable the object may be there, whole.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	if _, err := s.disk.Stat(name); err == nil {
		return s.taken(name)
	}
	err := s.put(name, data)
	if errors.Is(err, iofs.ErrNotExist) {
		// Someone removed a directory that was there.
		s.dirs.Forget()
		err = s.put(name, data)
	}
	switch {
	case errors.Is(err, iofs.ErrExist):
		return s.taken(name)
	case errors.Is(err, iofs.ErrNotExist):
		// It is our own file or directory that vanished: no answer to Put.
		return tripod.Errorf(tripod.Unavailable, "put %s: files vanish while they are written: %w", filepath.Join(s.name, name), err).
			WithHint("something else removes files in the store's directory: stop it")
	}
	return s.fail(err, "put", name)
}

func (s *Store) put(name string, data []byte) error {
	if err := s.dirs.Make(incoming); err != nil {
		return err
	}
	if err := s.dirs.Make(path.Dir(name)); err != nil {
		return err
	}
	tmp := path.Join(incoming, fmt.Sprintf("%s%016x", s.temp, rand.Uint64()))
	return durable.WriteNew(s.disk, tmp, name, objectMode, data)
}

// taken answers a Put of a name that something has.
func (s *Store) taken(name string) error {
	if _, err := s.stat(name); errors.Is(err, iofs.ErrNotExist) {
		return tripod.Errorf(tripod.Conflict, "put %s: something that is no object has the name", filepath.Join(s.name, name)).
			WithHint("a name cannot be an object and a folder at once; move what is in the way")
	}
	// The whole path, since the one who made it may have died before its syncs.
	err := s.dirs.Make(path.Dir(name))
	if err == nil {
		err = s.disk.SyncDir(path.Dir(name))
	}
	if err != nil {
		return s.fail(err, "put", name)
	}
	return tripod.Errorf(tripod.Exists, "put %s: %w", filepath.Join(s.name, name), iofs.ErrExist)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, tripod.Errorf(tripod.Invalid, "get %s: offset %d is negative", name, off)
	}
	h, err := s.handles.get(name)
	if isNotDir(err) {
		err = iofs.ErrNotExist
	}
	if err != nil {
		return 0, s.fail(err, "get", name)
	}
	defer s.handles.put(h)
	n, err := h.file.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, nil
	case errors.Is(err, io.EOF):
		return n, io.EOF
	}
	// A handle of a file server may have gone stale; the next Get opens anew.
	s.handles.drop(func(n string) bool { return n == name })
	return n, s.fail(err, "get", name)
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, name string) (store.Info, error) {
	if err := check(ctx, name); err != nil {
		return store.Info{}, err
	}
	info, err := s.stat(name)
	if err != nil {
		return store.Info{}, s.fail(err, "head", name)
	}
	return store.Info{Name: name, Size: info.Size()}, nil
}

// List implements store.Store. It reads the directories that can hold the
// prefix and no others.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, base := path.Split(prefix)
	if dir == "" {
		return s.walk(ctx, ".", base, fn)
	}
	if dir = strings.TrimSuffix(dir, "/"); store.CheckName(dir) != nil {
		return nil // no object's name begins so
	}
	return s.walk(ctx, dir, base, fn)
}

// walk lists the objects below dir whose path's next part begins with base.
func (s *Store) walk(ctx context.Context, dir, base string, fn func(store.Info) error) error {
	entries, err := s.disk.ReadDir(dir)
	if isMissing(err) && dir != "." {
		return nil
	}
	if err != nil {
		return s.fail(err, "list", dir)
	}
	entries = slices.DeleteFunc(entries, func(e iofs.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), base) || store.CheckName(path.Join(dir, e.Name())) != nil
	})
	// Whole names are compared, so that a-b comes before the folder a's a/b.
	slices.SortFunc(entries, func(a, b iofs.DirEntry) int { return strings.Compare(sortKey(a), sortKey(b)) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = s.walk(ctx, name, "", fn)
		case e.Type().IsRegular():
			err = s.tell(name, e, fn)
		default:
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sortKey(e iofs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

func (s *Store) tell(name string, e iofs.DirEntry, fn func(store.Info) error) error {
	info, err := e.Info()
	if errors.Is(err, iofs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return s.fail(err, "list", name)
	}
	return fn(store.Info{Name: name, Size: info.Size()})
}

// Delete implements store.Store. Directories that become empty stay.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	if info, err := s.disk.Stat(name); err == nil && !info.Mode().IsRegular() {
		return s.fail(iofs.ErrNotExist, "delete", name)
	} else if err == nil {
		if err := s.thaw(name); err != nil {
			return err
		}
	}
	err := durable.Remove(s.disk, name)
	s.handles.drop(func(n string) bool { return n == name })
	if isNotDir(err) {
		err = iofs.ErrNotExist
	}
	return s.fail(err, "delete", name)
}

// Exclusive implements store.Exclusive by a lock on the file .lock. When the
// holder before died, everything it may have left unsynced is synced first, so
// that the new one can rely on what it sees.
func (s *Store) Exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	locker, ok := s.disk.(durable.Locker)
	if !ok {
		return nil, tripod.Errorf(tripod.Invalid, "lock %s: the file system knows no locks", s.name)
	}
	release, left, err := durable.Lock(ctx, locker, lockName, holder, waiting)
	if err != nil {
		return nil, s.fail(err, "lock", lockName)
	}
	if left != "" {
		foreign := func(name string) bool { return store.CheckName(name) != nil }
		if err := durable.SyncTree(s.disk, ".", foreign); err != nil {
			// The lock file must go on saying that this is still to do.
			return nil, errors.Join(s.fail(err, "sync", "."), release(false))
		}
	}
	return func() error { return s.fail(release(true), "unlock", lockName) }, nil
}

// sweepIncoming removes what processes that died left in .incoming. It is
// housekeeping: a store that cannot be written to can still be read.
func (s *Store) sweepIncoming(now time.Time) {
	entries, err := s.disk.ReadDir(incoming)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && e.Type().IsRegular() && (now.Sub(info.ModTime()) > staleAfter || s.ownerDied(e.Name())) {
			_ = s.disk.Remove(path.Join(incoming, e.Name()))
		}
	}
}

// ownerDied reports whether a temporary file belongs to a process of this
// machine that is no more.
func (s *Store) ownerDied(tmp string) bool {
	host, rest, _ := strings.Cut(tmp, "-")
	number, _, ok := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return ok && err == nil && strings.HasPrefix(s.temp, host+"-") && !durable.ProcessAlive(pid)
}
