//go:build unix

package durable

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const openNonblock = unix.O_NONBLOCK

func systemVerdicts() []verdict { return nil }

// SyncDir implements FS. On darwin, package os asks for a full flush.
func (r *Root) SyncDir(name string) error {
	d, err := r.root.Open(name)
	if err != nil {
		return rootErr(err)
	}
	defer d.Close()
	return d.Sync()
}

// Linked implements File.
func (f osFile) Linked() bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 0
}

// TryLock implements Locker by flock, which the kernel undoes when the process
// ends. The lock belongs to the open file, so two callers in one process keep
// each other out too.
func (r *Root) TryLock(name, holder string) (release func(clean bool) error, left string, err error) {
	f, err := r.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", rootErr(err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		return nil, readHolder(f), nil
	}
	if err != nil {
		_ = f.Close()
		return nil, "", err
	}
	return holdLock(f, holder)
}

// ProcessAlive reports whether a process of this machine has the id.
func ProcessAlive(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || errors.Is(err, unix.EPERM)
}
