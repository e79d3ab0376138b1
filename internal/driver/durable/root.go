package durable

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"tripod/internal/core/tripod"
)

// Root is the FS below a directory of the operating system. It holds the
// directory open: renaming it or what lies above does not lead Root astray,
// and os.Root underneath keeps every path inside.
type Root struct {
	root *os.Root
}

// OpenRoot opens the FS below the directory dir, which must be there. It
// returns NotFound, Invalid when dir is no directory, or Denied.
func OpenRoot(dir string) (*Root, error) {
	r, err := os.OpenRoot(dir)
	switch {
	case err == nil:
		return &Root{root: r}, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, tripod.Errorf(tripod.NotFound, "open directory %s: %w", dir, bare(err)).
			WithHint("check the path, and that the disk it is on is mounted")
	case errors.Is(err, syscall.ENOTDIR) || isFile(dir):
		return nil, tripod.Errorf(tripod.Invalid, "open directory %s: %w", dir, bare(err)).
			WithHint("name the directory, not a file")
	}
	return nil, Classify(err, "open directory", dir)
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

// splitPath cuts a path of the operating system into directory and last part.
func splitPath(name string) (dir, base string) {
	name = filepath.Clean(name)
	return filepath.Dir(name), filepath.Base(name)
}

// Name is the directory as it was given to OpenRoot.
func (r *Root) Name() string { return r.root.Name() }

// Close gives back the handle on the directory.
func (r *Root) Close() error { return r.root.Close() }

// rootErr gives os.Root's unexported error about leaving the root a name, so
// that it can be matched: it is the only one that is no error number and none
// of io/fs's.
func rootErr(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return err
	}
	for _, known := range []error{fs.ErrExist, fs.ErrNotExist, fs.ErrPermission, fs.ErrClosed, fs.ErrInvalid} {
		if errors.Is(err, known) {
			return err
		}
	}
	return &fs.PathError{Op: "open", Path: "", Err: errEscapes}
}

// Create implements FS.
func (r *Root) Create(name string, perm fs.FileMode) (File, error) {
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, rootErr(err)
	}
	return osFile{f}, nil
}

// Open implements FS. It opens regular files only: a pipe under an object's
// name must not make a reader wait, nor a link lead it to another file.
func (r *Root) Open(name string) (File, error) {
	before, err := r.root.Lstat(name)
	if err != nil {
		return nil, rootErr(err)
	}
	if !before.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := r.root.OpenFile(name, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return nil, rootErr(err)
	}
	after, err := f.Stat()
	if err != nil || !os.SameFile(before, after) {
		_ = f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return osFile{f}, nil
}

// Rename implements FS.
func (r *Root) Rename(from, to string, replace bool) error {
	if replace {
		return rootErr(r.root.Rename(from, to))
	}
	return rootErr(r.renameNoReplace(from, to))
}

// linkAndRemove is rename without replace where the system has none: a hard
// link is refused when the name is taken, atomically. A crash in between
// leaves one file under two names, of which the temporary one is cleaned up.
func (r *Root) linkAndRemove(from, to string) error {
	if err := r.root.Link(from, to); err != nil {
		return err
	}
	// The file is in place. Its other name is a leftover at worst.
	_ = r.root.Remove(from)
	return nil
}

// Remove implements FS.
func (r *Root) Remove(name string) error { return rootErr(r.root.Remove(name)) }

// Mkdir implements FS.
func (r *Root) Mkdir(name string, perm fs.FileMode) error {
	return rootErr(r.root.Mkdir(name, perm))
}

// Stat implements FS.
func (r *Root) Stat(name string) (fs.FileInfo, error) {
	info, err := r.root.Lstat(name)
	return info, rootErr(err)
}

// ReadDir implements FS.
func (r *Root) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.root.FS(), path.Clean(name))
	return entries, rootErr(err)
}

// osFile is an open file of the operating system.
type osFile struct{ *os.File }

// Size implements File.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
