package restore

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tripod/internal/core/tree"
)

// info is what the system says of a file.
type info struct {
	mode     uint32 // as st_mode has it
	size     int64
	sec      int64
	nsec     uint32
	uid, gid uint32
	dev, ino uint64
	nlink    uint64
}

func (i *info) same(b *info) bool { return i.dev == b.dev && i.ino == b.ino }
func (i *info) perm() uint32      { return i.mode & 0o7777 }

func (i *info) kind() tree.FileType {
	switch i.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return tree.Regular
	case unix.S_IFDIR:
		return tree.Dir
	case unix.S_IFLNK:
		return tree.Symlink
	case unix.S_IFIFO:
		return tree.Fifo
	case unix.S_IFSOCK:
		return tree.Socket
	case unix.S_IFCHR:
		return tree.CharDevice
	}
	return tree.BlockDevice
}

func fill(st *unix.Stat_t) info {
	return info{
		mode: st.Mode, size: st.Size, sec: int64(st.Mtim.Sec), nsec: uint32(st.Mtim.Nsec), uid: st.Uid, gid: st.Gid,
		dev: uint64(st.Dev), ino: st.Ino, nlink: uint64(st.Nlink), //nolint:unconvert // types differ by architecture
	}
}

// self is who restores.
type self struct {
	root     bool
	uid, gid uint32
	umask    uint32
	sure     bool // umask is known
}

func whoAmI() self {
	s := self{root: os.Geteuid() == 0, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), umask: 0o022}
	// Asking by umask(2) would change it for other threads for a moment.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return s
	}
	if _, rest, ok := strings.Cut(string(status), "\nUmask:\t"); ok {
		line, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.ParseUint(line, 8, 32); err == nil {
			s.umask, s.sure = uint32(n), true
		}
	}
	return s
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// place is an open folder.
type place struct{ fd int }

func openPlace(path string) (p place, i info, err error) {
	err = retry(func() error {
		p.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return p, i, err
	}
	return p.opened()
}

func (p place) opened() (place, info, error) {
	i, err := handle{fd: p.fd}.stat()
	if err != nil {
		p.close()
	}
	return p, i, err
}

// inherits reports whether new files in the folder get another group than the
// process has, or another mode than its umask gives.
func (p place) inherits(i *info) bool {
	if i.mode&unix.S_ISGID != 0 {
		return true
	}
	n, err := unix.Fgetxattr(p.fd, "system.posix_acl_default", nil)
	return err == nil && n > 0
}

func (p place) enter(name string) (sub place, i info, err error) {
	err = retry(func() error {
		sub.fd, err = unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		if i, lookErr := p.look(name); lookErr == nil && i.kind() == tree.Symlink {
			return sub, i, errLinkInWay
		}
		return sub, i, errNoFolder
	}
	if err != nil {
		return sub, i, err
	}
	return sub.opened()
}

func (p place) close() { _ = unix.Close(p.fd) }

// self is the folder as something to set metadata of.
func (p place) self() handle { return handle{fd: p.fd} }

func (p place) look(name string) (info, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(p.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return fill(&st), err
}

func (p place) mkdir(name string) error {
	return retry(func() error { return unix.Mkdirat(p.fd, name, 0o700) })
}

// create makes a regular file that was not there.
func (p place) create(name string, perm uint32) (h handle, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for {
		h.fd, err = unix.Openat(p.fd, name, flags, perm)
		if err != unix.EINTR { //nolint:errorlint // lint:error straight from the kernel, once per file
			return h, err
		}
	}
}

// update opens a regular file to read and change it.
func (p place) update(name string) (h handle, err error) {
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	err = retry(func() error { h.fd, err = unix.Openat(p.fd, name, flags, 0); return err })
	return h, err
}

// grip opens whatever has the name, not what it leads to, for its metadata.
func (p place) grip(name string) (h handle, err error) {
	err = retry(func() error {
		h.fd, err = unix.Openat(p.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	h.path = true
	return h, err
}

func (p place) symlink(target, name string) error {
	return retry(func() error { return unix.Symlinkat(target, p.fd, name) })
}

func (p place) readlink(name string) (string, error) {
	b := make([]byte, 1<<16)
	n, err := unix.Readlinkat(p.fd, name, b)
	return string(b[:max(n, 0)]), err
}

// link gives the file name in from a second name here.
func (p place) link(from place, name, as string) error {
	return retry(func() error { return unix.Linkat(from.fd, name, p.fd, as, 0) })
}

func (p place) node(name string, e *tree.Entry) error {
	mode := map[tree.FileType]uint32{
		tree.Fifo: unix.S_IFIFO, tree.Socket: unix.S_IFSOCK, tree.CharDevice: unix.S_IFCHR, tree.BlockDevice: unix.S_IFBLK,
	}[e.Type]
	dev := 0
	if e.Type == tree.CharDevice || e.Type == tree.BlockDevice {
		dev = int(unix.Mkdev(e.Major, e.Minor)) //nolint:gosec // 64 bits on all systems that have devices this large
	}
	return retry(func() error { return unix.Mknodat(p.fd, name, mode|0o600, dev) })
}

func (p place) remove(name string) error {
	return retry(func() error { return unix.Unlinkat(p.fd, name, 0) })
}

func (p place) rename(name, as string) error {
	return retry(func() error { return unix.Renameat(p.fd, name, p.fd, as) })
}

// handle is an open file, or the grip on one.
type handle struct {
	fd   int
	path bool // O_PATH: good for metadata only
}

func (h handle) close() error { return unix.Close(h.fd) }

func (h handle) stat() (info, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(h.fd, &st) })
	return fill(&st), err
}

func (h handle) writeAt(p []byte, offset int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(h.fd, p, offset)
		if err == unix.EINTR { //nolint:errorlint // lint:error straight from the kernel, once per write
			continue
		}
		if err != nil {
			return err
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// readAt reads all of p and reports whether there was that much.
func (h handle) readAt(p []byte, offset int64) bool {
	for len(p) > 0 {
		n, err := unix.Pread(h.fd, p, offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return false
		}
		p, offset = p[n:], offset+int64(n)
	}
	return true
}

func (h handle) truncate(size int64) error {
	return retry(func() error { return unix.Ftruncate(h.fd, size) })
}

const noFollow = unix.O_NOFOLLOW

// punch makes a range of a file a hole.
func punch(f *os.File, offset, length int64) error {
	return retry(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length) //nolint:gosec // descriptors are small
	})
}

func (h handle) chown(uid, gid uint32) error {
	return retry(func() error { return unix.Fchownat(h.fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH) })
}

func (h handle) proc() string { return "/proc/self/fd/" + strconv.Itoa(h.fd) }

func (h handle) chmod(mode uint32) error {
	if h.path {
		return retry(func() error { return unix.Chmod(h.proc(), mode) })
	}
	return retry(func() error { return unix.Fchmod(h.fd, mode) })
}

func (h handle) times(sec int64, nsec uint32) error {
	// UTIME_OMIT leaves the time of access, which a backup does not keep.
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: int64(nsec)}}
	if h.path {
		return retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, h.proc(), ts[:], 0) })
	}
	// Package unix has no futimens, which is utimensat without a path.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(h.fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0) //nolint:gosec // as futimens(3) does
	if errno != 0 {
		return errno
	}
	return nil
}

func (h handle) setXattr(name, value string) error {
	if h.path {
		return unix.Setxattr(h.proc(), name, []byte(value), 0)
	}
	return unix.Fsetxattr(h.fd, name, []byte(value), 0)
}

// noXattrs reports whether err says that the file system has no such attributes.
func noXattrs(err error) bool { return errors.Is(err, unix.ENOTSUP) }

// hardLinks: a file may get further names in other folders.
const hardLinks = true
