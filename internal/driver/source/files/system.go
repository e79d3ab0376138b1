package files

import (
	"errors"
	"io/fs"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// system is what a walk needs of an operating system. Paths are as in the tree.
// Errors are the system's own; failure classes them.
type system interface {
	// stat describes what is at path, under its parent and name. follow goes
	// through a symbolic link at the end of path.
	stat(path string, follow bool, e *source.Entry) error

	// opendir opens the folder at path, which must be no symbolic link
	// unless follow. With list it can be listed, which takes more rights.
	opendir(path string, list, follow bool) (directory, error)

	// reopen opens the folder at path for listing like opendir, but refuses to
	// pass any symbolic link on the way.
	reopen(path string) (directory, error)
}

// directory is an open folder. It is for one goroutine, except that stat, open and
// attributes may be called concurrently.
type directory interface {
	self(e *source.Entry) error // dev and inode of the folder
	kernel() string             // what the kernel shows here instead of files, "" for real files
	list(s *scratch) error      // adds all names; with an error those that could be read
	stat(name string, follow bool, e *source.Entry) error
	open(e *source.Entry) (source.File, error)
	attributes(e *source.Entry) (source.Attributes, error)
	close()
}

// scratch collects the names of one folder and is used again for the next.
type scratch struct {
	buffer []byte // what the kernel fills
	bytes  []byte // all names, one behind the other
	ends   []int  // where each ends in bytes
	types  []source.Type
	room   []source.Entry // entries are carved from it, many to one allocation
}

func (s *scratch) add(name []byte, t source.Type) {
	s.bytes = append(s.bytes, name...)
	s.ends = append(s.ends, len(s.bytes))
	s.types = append(s.types, t)
}

// listed is a name of a folder and its type, zero when the system does not tell
// without a stat.
type listed struct {
	name string
	kind source.Type
}

// keepScratch is how many bytes of names a worker's scratch may hold on to.
const keepScratch = 1 << 20

// take gives the collected names, which share one string, and empties s.
func (s *scratch) take() []listed {
	all := string(s.bytes)
	names := make([]listed, len(s.ends))
	start := 0
	for i, end := range s.ends {
		names[i] = listed{all[start:end], s.types[i]}
		start = end
	}
	if cap(s.bytes) > keepScratch {
		s.bytes, s.ends, s.types = nil, nil, nil
	}
	s.bytes, s.ends, s.types = s.bytes[:0], s.ends[:0], s.types[:0]
	return names
}

// errChanged says that a name leads to another file than the one listed.
var errChanged = errors.New("another file took its place")

func kindOf(err error) tripod.ErrorKind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return tripod.NotFound
	case errors.Is(err, fs.ErrPermission):
		return tripod.Denied
	case errors.Is(err, errChanged):
		return tripod.Conflict
	default:
		return systemKind(err)
	}
}
