package restore

import (
	"os"

	"golang.org/x/sys/unix"
)

const noFollow = unix.O_NOFOLLOW

// punch makes a range of a file a hole.
func punch(f *os.File, offset, length int64) error {
	return handle{fd: int(f.Fd())}.punch(offset, length) //nolint:gosec // descriptors are small
}
