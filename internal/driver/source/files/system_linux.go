package files

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// linux reads folders with getdents64 in large pieces and describes entries
// relative to the open folder, which saves looking up the path for each.
type linux struct{ uid uint32 }

func newSystem() system { return linux{uid: uint32(os.Geteuid())} }

func systemKind(err error) tripod.ErrorKind {
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return tripod.Exhausted
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO):
		return tripod.Conflict // it was something else when it was listed
	default:
		return tripod.Unavailable
	}
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR { // lint:error straight from the kernel
			return err
		}
	}
}

func openat(dir int, path string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// maxPath is the longest path that the kernel takes in one call.
const maxPath = unix.PathMax - 1

// openPath opens a path of any length, from the root: a long one in several steps.
// Each step opens as many components as fit, or one when links are refused.
func openPath(path string, flags int, links bool) (int, error) {
	if links && len(path)+1 <= maxPath {
		return openat(unix.AT_FDCWD, "/"+path, flags)
	}
	way := unix.O_PATH | unix.O_DIRECTORY
	if !links {
		way |= unix.O_NOFOLLOW
	}
	at, err := openat(unix.AT_FDCWD, "/", way)
	if err != nil {
		return -1, err
	}
	for {
		end := strings.IndexByte(path, '/')
		if links && len(path) <= maxPath {
			end = -1
		} else if links {
			end = strings.LastIndexByte(path[:maxPath], '/')
		}
		if end < 0 {
			if path == "" {
				path = "."
			}
			fd, err := openat(at, path, flags)
			unix.Close(at)
			return fd, err
		}
		next, err := openat(at, path[:end], way)
		unix.Close(at)
		if err != nil {
			return -1, err
		}
		at, path = next, path[end+1:]
	}
}

func (l linux) stat(path string, follow bool, e *source.Entry) error {
	e.Parent, e.Name = split(path)
	d, err := l.opendir(e.Parent, false, true)
	if err != nil {
		return err
	}
	defer d.close()
	return d.stat(e.Name, follow, e)
}

func (l linux) opendir(path string, list, follow bool) (directory, error) {
	flags := unix.O_PATH | unix.O_DIRECTORY
	if list {
		flags = unix.O_RDONLY | unix.O_DIRECTORY
	}
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	if list && l.uid == 0 {
		// Only the owner may leave the access time alone.
		fd, err := openPath(path, flags|unix.O_NOATIME, true)
		if err != unix.EPERM { // lint:error straight from the kernel
			return opened(l, fd, err)
		}
	}
	fd, err := openPath(path, flags, true)
	return opened(l, fd, err)
}

func (l linux) reopen(path string) (directory, error) {
	fd, err := openPath(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, false)
	return opened(l, fd, err)
}

func opened(l linux, fd int, err error) (directory, error) {
	if err != nil {
		return nil, err
	}
	return &linuxDirectory{linux: l, fd: fd}, nil
}

type linuxDirectory struct {
	linux
	fd int
}

func (d *linuxDirectory) close() { unix.Close(d.fd) }

func (d *linuxDirectory) self(e *source.Entry) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(d.fd, &st) }); err != nil {
		return err
	}
	fill(e, &st)
	return nil
}

func (d *linuxDirectory) stat(name string, follow bool, e *source.Entry) error {
	if name == "" {
		return d.self(e) // the root
	}
	flags := unix.AT_NO_AUTOMOUNT
	if !follow {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	var st unix.Stat_t
	for {
		err := unix.Fstatat(d.fd, name, &st, flags)
		if err == nil {
			fill(e, &st)
			return nil
		}
		if err != unix.EINTR { // lint:error straight from the kernel
			return err
		}
	}
}

func fill(e *source.Entry, st *unix.Stat_t) {
	e.Type = typeOf(uint32(st.Mode))
	e.Mode = uint32(st.Mode) & 0o7777
	e.UID, e.GID = st.Uid, st.Gid
	e.Dev, e.Inode, e.Nlink = uint64(st.Dev), st.Ino, uint32(st.Nlink)
	e.MTime = source.Time{Sec: int64(st.Mtim.Sec), Nsec: int64(st.Mtim.Nsec)}
	e.CTime = source.Time{Sec: int64(st.Ctim.Sec), Nsec: int64(st.Ctim.Nsec)}
	switch e.Type {
	case source.Regular:
		e.Size, e.Blocks = st.Size, st.Blocks
	case source.CharDevice, source.BlockDevice:
		e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
}

func typeOf(mode uint32) source.Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return source.Regular
	case unix.S_IFDIR:
		return source.Directory
	case unix.S_IFLNK:
		return source.Symlink
	case unix.S_IFIFO:
		return source.FIFO
	case unix.S_IFSOCK:
		return source.Socket
	case unix.S_IFCHR:
		return source.CharDevice
	case unix.S_IFBLK:
		return source.BlockDevice
	}
	return 0
}

// listBuffer holds some 2,000 names per call.
const listBuffer = 64 << 10

func (d *linuxDirectory) list(s *scratch) error {
	if s.buffer == nil {
		s.buffer = make([]byte, listBuffer)
	}
	for {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Getdents(d.fd, s.buffer)
			return err
		})
		if n <= 0 || err != nil {
			return err
		}
		parseNames(s.buffer[:n], s)
	}
}

// parseNames reads struct linux_dirent64: inode and offset of 8 bytes each, record
// length of 2, type of 1, name ended by a zero byte.
func parseNames(b []byte, s *scratch) {
	const nameAt = 19
	for len(b) > nameAt {
		length := int(binary.NativeEndian.Uint16(b[16:]))
		if length <= nameAt || length > len(b) {
			return
		}
		name := b[nameAt:length]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if string(name) != "." && string(name) != ".." {
			s.add(name, typeOf(uint32(b[18])<<12)) // DT_ constants are S_IFMT shifted
		}
		b = b[length:]
	}
}

// kernel names the file systems that hold no files: reading them gives nothing
// that could be restored, and some of them never end.
func (d *linuxDirectory) kernel() string {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return ""
	}
	switch uint32(st.Type) {
	case unix.PROC_SUPER_MAGIC:
		return "processes"
	case unix.DEVPTS_SUPER_MAGIC:
		return "terminals"
	case unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC:
		return "control groups"
	case unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC,
		unix.SELINUX_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC,
		configfsMagic, fusectlMagic, mqueueMagic:
		return "state and settings"
	}
	return ""
}

// From the kernel's sources; include/uapi/linux/magic.h lacks them.
const (
	configfsMagic = 0x62656570
	fusectlMagic  = 0x65735543
	mqueueMagic   = 0x19800202
)

// open opens relative to the folder and then looks at what it got: a name can be
// given to another file between the walk and now. O_NONBLOCK keeps a FIFO that
// took the place from hanging the backup.
func (d *linuxDirectory) open(e *source.Entry) (source.File, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := -1, error(unix.EPERM)
	if d.uid == 0 || d.uid == e.UID {
		fd, err = openat(d.fd, e.Name, flags|unix.O_NOATIME)
	}
	if err == unix.EPERM { // lint:error straight from the kernel
		fd, err = openat(d.fd, e.Name, flags)
	}
	if err == unix.EAGAIN { // lint:error straight from the kernel
		// A file server holds a lease on it; the kernel asks it to let go.
		fd, err = openat(d.fd, e.Name, flags&^unix.O_NONBLOCK)
	}
	if err != nil {
		return nil, err
	}
	f := &linuxFile{fd: fd, parent: e.Parent, name: e.Name}
	now, err := f.stat()
	if err == nil && (now.Dev != e.Dev || now.Inode != e.Inode || now.Type != source.Regular) {
		err = errChanged
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	f.size, f.sparse = now.Size, now.Blocks*512 < now.Size
	return f, nil
}

// attributes goes through /proc/self/fd, as the kernel long had no call that
// reads the attributes of a link or of a special file in an open folder.
func (d *linuxDirectory) attributes(e *source.Entry) (source.Attributes, error) {
	var a source.Attributes
	var errs []error
	if e.Type == source.Symlink {
		target, err := d.readlink(e.Name)
		a.Target = target
		errs = append(errs, err)
	}
	path := "/proc/self/fd/" + strconv.Itoa(d.fd) + "/" + e.Name
	follow := e.Type == source.Directory // an ancestor may be reached through a link
	xattrs, err := readXattrs(path, follow)
	if errors.Is(err, unix.ENOENT) && len(e.Path()) < maxPath {
		xattrs, err = readXattrs("/"+e.Path(), follow) // no /proc
	}
	a.Xattrs = xattrs
	errs = append(errs, err)
	var now source.Entry
	if err := d.stat(e.Name, follow, &now); err != nil {
		errs = append(errs, err)
	} else if now.Dev != e.Dev || now.Inode != e.Inode {
		return source.Attributes{}, errChanged
	}
	return a, errors.Join(errs...)
}

func (d *linuxDirectory) readlink(name string) (string, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		var n int
		err := retry(func() (err error) {
			n, err = unix.Readlinkat(d.fd, name, b)
			return err
		})
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}
