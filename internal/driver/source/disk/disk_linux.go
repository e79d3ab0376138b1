package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"tripod/internal/driver/source"
)

// deviceSize asks the kernel: stat says 0 for devices, and the size in 512-byte
// units that the older call gives ends at 2 TiB on some machines.
func deviceSize(f *os.File) (int64, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var size uint64
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return int64(size), err
}

func identify(info fs.FileInfo, d *source.DiskInfo) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	d.Dev, d.Inode = uint64(st.Dev), uint64(st.Ino)
	d.CTime = source.Time{Sec: int64(st.Ctim.Sec), Nsec: int64(st.Ctim.Nsec)}
	if isDevice(info) {
		d.Major, d.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
}

// advise asks for a long read-ahead; that it is refused changes nothing.
func advise(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_SEQUENTIAL) })
	}
}

// nextData narrows r to its first data. A file system that does not know holes gives
// r itself.
func nextData(f *os.File, r source.Range) (source.Range, error) {
	start, err := f.Seek(r.Offset, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO) || (err == nil && start >= r.End()):
		return source.Range{}, io.EOF
	case err != nil:
		return r, nil
	}
	end, err := f.Seek(start, unix.SEEK_HOLE)
	if err != nil || end > r.End() {
		end = r.End()
	}
	return source.Range{Offset: start, Length: end - start}, nil
}
