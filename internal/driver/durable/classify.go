package durable

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"

	"tripod/internal/core/tripod"
)

// A verdict is what Classify makes of an error of the operating system.
type verdict struct {
	errs []error
	kind tripod.ErrorKind
	hint string
}

// verdicts lists, most telling first, what a system's errors mean to a caller.
func verdicts() []verdict {
	return append(systemVerdicts(), []verdict{
		{[]error{syscall.ENOSPC}, tripod.Exhausted, "free space on the file system or enlarge it, then try again"},
		{[]error{syscall.EDQUOT}, tripod.Exhausted, "the quota is used up: raise it or free space, then try again"},
		{[]error{syscall.EFBIG}, tripod.Exhausted, "the file is larger than the file system or ulimit -f allows"},
		{[]error{syscall.EMFILE, syscall.ENFILE}, tripod.Exhausted, "too many files are open: raise ulimit -n, or run fewer operations at once"},
		{[]error{syscall.ENOMEM}, tripod.Exhausted, "the machine is out of memory"},
		{[]error{syscall.EROFS}, tripod.Denied, "the file system is read-only: mount it for writing; a failing disk is made read-only too, so look at the kernel's log"},
		{[]error{syscall.EACCES, syscall.EPERM, fs.ErrPermission}, tripod.Denied, "check the owner and mode of the path and those above it, and whether it is marked immutable"},
		{[]error{syscall.EIO}, tripod.Unavailable, "the disk reports an error: look at the kernel's log and the disk's health"},
		{[]error{syscall.ESTALE, syscall.ETIMEDOUT, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENODEV, syscall.ENXIO}, tripod.Unavailable, "the disk or file server is out of reach: check the mount and the connection"},
		{[]error{syscall.EBUSY, syscall.EAGAIN, syscall.EINTR}, tripod.Unavailable, "something else uses it: try again"},
		// Before fs.ErrExist, which covers ENOTEMPTY too.
		{[]error{syscall.ENOTDIR}, tripod.Conflict, "a file stands where a directory is needed"},
		{[]error{syscall.EISDIR, syscall.ENOTEMPTY}, tripod.Conflict, "a directory stands where a file is needed"},
		{[]error{syscall.ENOENT, fs.ErrNotExist}, tripod.NotFound, ""},
		{[]error{syscall.EEXIST, fs.ErrExist}, tripod.Exists, ""},
		{[]error{syscall.ELOOP, errEscapes}, tripod.Denied, "a symbolic link leads elsewhere, and links are not followed: mount or bind the place instead"},
		{[]error{syscall.ENAMETOOLONG}, tripod.Invalid, "the path is too long for the file system"},
		{[]error{syscall.EXDEV}, tripod.Invalid, "the directories lie on different file systems: a store must lie on one"},
		{[]error{syscall.EINVAL, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ENOTTY, errors.ErrUnsupported}, tripod.Invalid, "the file system lacks this operation: use a local one such as ext4, xfs, btrfs or zfs"},
	}...)
}

// errEscapes stands for os.Root's unexported error about a path that leads out.
var errEscapes = errors.New("path leads out of the directory")

// Classify makes of a file operation's error one of core/tripod: the kind says
// what can be done about it, the message in one line what failed where, the
// hint what to do. op is a verb with its object, path where it happened. Errors
// that are classed already, a context's error and nil come back unchanged.
func Classify(err error, op, path string) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if _, ok := errors.AsType[*tripod.Error](err); ok {
		return err
	}
	for _, v := range verdicts() {
		if slices.ContainsFunc(v.errs, func(target error) bool { return errors.Is(err, target) }) {
			e := tripod.Errorf(v.kind, "%s %s: %w", op, path, bare(err))
			if v.hint != "" {
				e = e.WithHint("%s", v.hint)
			}
			return e
		}
	}
	return tripod.Errorf(tripod.Internal, "%s %s: %w", op, path, err)
}

// bare strips the operation and path that package os adds: the message names
// them already, and os's path is often relative to a directory not named.
func bare(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
