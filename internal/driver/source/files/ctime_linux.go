package files

import (
	"syscall"

	"tripod/internal/driver/source"
)

func changeTime(st *syscall.Stat_t) source.Time {
	return source.Time{Sec: int64(st.Ctim.Sec), Nsec: int64(st.Ctim.Nsec)}
}
