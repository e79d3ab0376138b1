package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"

	"tripod/internal/core/tripod"
)

const openNonblock = 0

func systemVerdicts() []verdict {
	return []verdict{
		{[]error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL}, tripod.Exhausted, "free space on the volume, then try again"},
		{[]error{windows.ERROR_TOO_MANY_OPEN_FILES}, tripod.Exhausted, "too many files are open: run fewer operations at once"},
		{[]error{windows.ERROR_WRITE_PROTECT}, tripod.Denied, "the volume is write-protected"},
		{[]error{windows.ERROR_SHARING_VIOLATION, windows.ERROR_LOCK_VIOLATION, windows.ERROR_NOT_READY}, tripod.Unavailable, "something else uses it, or the device is not ready: try again"},
		{[]error{windows.ERROR_IO_DEVICE, windows.ERROR_CRC}, tripod.Unavailable, "the disk reports an error: look at the system's event log"},
	}
}

// SyncDir implements FS. Windows offers no sync of a directory; NTFS and ReFS
// write changes of names to their log in order, and a later flush of any file
// brings the log out. So a name may be lost here that Linux would have kept.
func (r *Root) SyncDir(name string) error {
	_, err := r.root.Lstat(name)
	return rootErr(err)
}

// Linked implements File. Windows cannot tell, and an open file there gets in
// the way of others: none is kept open.
func (f osFile) Linked() bool { return false }

// lockAt is the offset of the one byte that is locked, far behind the content:
// locked bytes cannot be read, and those who wait want to read the holder.
const lockAt = 1 << 30

// TryLock implements Locker by LockFileEx, which the system undoes when the
// process ends.
func (r *Root) TryLock(name, holder string) (release func(clean bool) error, left string, err error) {
	f, err := r.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", rootErr(err)
	}
	at := &windows.Overlapped{Offset: lockAt}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		defer f.Close()
		return nil, readHolder(f), nil
	}
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return holdLock(f, holder)
}

// ProcessAlive reports whether a process of this machine has the id.
func ProcessAlive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	p.Release()
	return true
}
