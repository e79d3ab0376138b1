//go:build !linux

package restore

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"time"

	"tripod/internal/core/tree"
)

// Where Linux has its own way by descriptors, other systems go by os.Root, one
// for each folder, and look before each step that could meet a link.

// info is what the system says of a file.
type info struct {
	mode     uint32
	size     int64
	sec      int64
	nsec     uint32
	uid, gid uint32
	nlink    uint64
	is       fs.FileInfo
}

func (i *info) same(b *info) bool { return i.is != nil && b.is != nil && os.SameFile(i.is, b.is) }
func (i *info) perm() uint32      { return i.mode }

func (i *info) kind() tree.FileType {
	m := i.is.Mode()
	switch {
	case m.IsRegular():
		return tree.Regular
	case m.IsDir():
		return tree.Dir
	case m&fs.ModeSymlink != 0:
		return tree.Symlink
	case m&fs.ModeNamedPipe != 0:
		return tree.Fifo
	case m&fs.ModeSocket != 0:
		return tree.Socket
	case m&fs.ModeCharDevice != 0:
		return tree.CharDevice
	}
	return tree.BlockDevice
}

func fill(f fs.FileInfo) info {
	t := f.ModTime()
	// Two names of one file cannot be told apart everywhere: never update in place.
	const unknownLinks = 2
	return info{
		mode: uint32(f.Mode().Perm()), size: f.Size(), sec: t.Unix(), nsec: uint32(t.Nanosecond()), //nolint:gosec // below 10^9
		nlink: unknownLinks, is: f,
	}
}

type self struct {
	root     bool
	uid, gid uint32
	umask    uint32
	sure     bool
}

func whoAmI() self {
	uid, gid := os.Geteuid(), os.Getegid() // -1 on Windows
	return self{root: uid == 0, uid: uint32(max(uid, 0)), gid: uint32(max(gid, 0)), umask: 0o022}
}

type place struct {
	root *os.Root
}

func openPlace(path string) (p place, i info, err error) {
	if p.root, err = os.OpenRoot(path); err != nil {
		return p, i, err
	}
	return p.opened()
}

func (p place) opened() (place, info, error) {
	f, err := p.root.Stat(".")
	if err != nil {
		p.close()
		return p, info{}, err
	}
	return p, fill(f), nil
}

// inherits is true because these systems give new files their folder's group.
func (p place) inherits(*info) bool { return true }

func (p place) enter(name string) (sub place, i info, err error) {
	before, err := p.look(name)
	if err != nil {
		return sub, i, err
	}
	switch before.kind() {
	case tree.Dir:
	case tree.Symlink:
		return sub, i, errLinkInWay
	default:
		return sub, i, errNoFolder
	}
	if sub.root, err = p.root.OpenRoot(name); err != nil {
		return sub, i, err
	}
	if sub, i, err = sub.opened(); err != nil {
		return sub, i, err
	}
	if !before.same(&i) { // a link took its place in between
		sub.close()
		return sub, i, errLinkInWay
	}
	return sub, i, nil
}

func (p place) close()       { _ = p.root.Close() }
func (p place) self() handle { return handle{root: p.root, name: "."} }

func (p place) look(name string) (info, error) {
	f, err := p.root.Lstat(name)
	if err != nil {
		return info{}, err
	}
	return fill(f), nil
}

func (p place) mkdir(name string) error { return p.root.Mkdir(name, 0o700) }

func (p place) create(name string, perm uint32) (handle, error) {
	f, err := p.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(perm))
	return handle{root: p.root, name: name, f: f}, err
}

func (p place) update(name string) (handle, error) {
	before, err := p.look(name)
	if err != nil {
		return handle{}, err
	}
	f, err := p.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return handle{}, err
	}
	h := handle{root: p.root, name: name, f: f}
	if after, err := h.stat(); err != nil || !before.same(&after) {
		_ = f.Close()
		return handle{}, errors.Join(errLinkInWay, err)
	}
	return h, nil
}

func (p place) grip(name string) (handle, error) {
	return handle{root: p.root, name: name, path: true}, nil
}

func (p place) symlink(target, name string) error    { return p.root.Symlink(target, name) }
func (p place) readlink(name string) (string, error) { return p.root.Readlink(name) }
func (p place) remove(name string) error             { return p.root.Remove(name) }
func (p place) rename(name, as string) error         { return p.root.Rename(name, as) }

// link works within one folder only: os.Root knows no two.
func (p place) link(from place, name, as string) error {
	if from.root == p.root {
		return p.root.Link(name, as)
	}
	return errors.ErrUnsupported
}

func (p place) node(string, *tree.Entry) error { return errors.ErrUnsupported }

type handle struct {
	root *os.Root
	name string
	f    *os.File
	path bool // good for metadata only
}

func (h handle) close() error {
	if h.f == nil {
		return nil
	}
	return h.f.Close()
}

func (h handle) stat() (info, error) {
	var f fs.FileInfo
	var err error
	if h.f != nil {
		f, err = h.f.Stat()
	} else {
		f, err = h.root.Lstat(h.name)
	}
	if err != nil {
		return info{}, err
	}
	return fill(f), nil
}

func (h handle) writeAt(p []byte, offset int64) error {
	_, err := h.f.WriteAt(p, offset)
	return err
}

func (h handle) readAt(p []byte, offset int64) bool {
	_, err := h.f.ReadAt(p, offset)
	return err == nil
}

func (h handle) truncate(size int64) error  { return h.f.Truncate(size) }
func (h handle) setXattr(_, _ string) error { return errors.ErrUnsupported }

func (h handle) chown(uid, gid uint32) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return h.root.Lchown(h.name, int(uid), int(gid))
}

func (h handle) link() bool {
	f, err := h.root.Lstat(h.name)
	return err != nil || f.Mode()&fs.ModeSymlink != 0
}

func (h handle) chmod(mode uint32) error {
	m := fs.FileMode(mode & 0o777)
	for bit, special := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= special
		}
	}
	switch {
	case h.f != nil:
		return h.f.Chmod(m)
	case h.link(): // os.Root would follow it
		return nil
	}
	return h.root.Chmod(h.name, m)
}

func (h handle) times(sec int64, nsec uint32) error {
	if h.f == nil && h.link() {
		return nil
	}
	t := time.Unix(sec, int64(nsec))
	return h.root.Chtimes(h.name, t, t)
}

func noXattrs(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

// hardLinks: os.Root links within one folder only, so files with several names
// become several files.
const hardLinks = false

const noFollow = 0

func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }
