package durable

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

// renameNoReplace renames unless the new name is taken, atomically. NFS and
// some FUSE file systems know no such flag; there a hard link does it.
func (r *Root) renameNoReplace(from, to string) error {
	fromDir, err := r.root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer fromDir.Close()
	toDir, err := r.root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer toDir.Close()
	for {
		err = unix.Renameat2(int(fromDir.Fd()), path.Base(from), int(toDir.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return r.linkAndRemove(from, to)
	}
	return err
}
