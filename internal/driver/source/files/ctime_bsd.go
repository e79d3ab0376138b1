//go:build darwin || freebsd || netbsd

package files

import (
	"syscall"

	"tripod/internal/driver/source"
)

func changeTime(st *syscall.Stat_t) source.Time {
	return source.Time{Sec: int64(st.Ctimespec.Sec), Nsec: int64(st.Ctimespec.Nsec)}
}
