package durable

import (
	"errors"
	"os"
	"strings"
	"sync"

	"tripod/internal/core/tripod"
)

// maxHolder bounds how much of a lock file is read, in bytes.
const maxHolder = 1 << 10

// readHolder reads who wrote itself into a lock file.
func readHolder(f *os.File) string {
	buf := make([]byte, maxHolder)
	n, _ := f.ReadAt(buf, 0) // a lock file that cannot be read names nobody
	return strings.TrimSpace(string(buf[:n]))
}

// holdLock writes the holder into a lock file just locked. An empty file means
// that the holder before released it; else that one's description is returned.
func holdLock(f *os.File, holder string) (release func(clean bool) error, left string, err error) {
	if holder == "" {
		holder = "unnamed"
	}
	left = readHolder(f)
	line := []byte(holder + "\n")
	_, err = f.WriteAt(line, 0)
	if err == nil {
		err = f.Truncate(int64(len(line)))
	}
	// On a full disk the lock is held all the same, without its holder's name:
	// deleting, which makes space, must stay possible.
	if err != nil && !errors.Is(Classify(err, "", ""), tripod.Exhausted) {
		_ = f.Close()
		return nil, "", err
	}
	var once sync.Once
	return func(clean bool) (err error) {
		once.Do(func() {
			if clean {
				// When the file cannot be emptied, the next holder does
				// some work more than it had to.
				err = f.Truncate(0)
			}
			err = errors.Join(err, f.Close()) // which frees the lock
		})
		return err
	}, left, nil
}
