//go:build unix

package files

import (
	"io/fs"
	"syscall"

	"tripod/internal/driver/source"
)

const openFlags = syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// sysEntry adds what every Unix knows about a file.
func sysEntry(info fs.FileInfo, e *source.Entry) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	e.UID, e.GID = st.Uid, st.Gid
	e.Dev, e.Inode, e.Nlink = uint64(st.Dev), uint64(st.Ino), uint32(st.Nlink)
	e.CTime = changeTime(st)
	if e.Type == source.Regular {
		e.Blocks = st.Blocks
	}
}
