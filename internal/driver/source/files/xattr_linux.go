package files

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"tripod/internal/driver/source"
)

// readXattrs reads all extended attributes of what is at path. A file system
// without them has none. With an error come those that could be read.
func readXattrs(path string, follow bool) ([]source.Xattr, error) {
	list, get := unix.Llistxattr, unix.Lgetxattr
	if follow {
		list, get = unix.Listxattr, unix.Getxattr
	}
	return xattrsBy(
		func(b []byte) (int, error) { return list(path, b) },
		func(name string, b []byte) (int, error) { return get(path, name, b) })
}

// Xattrs implements source.File.
func (f *linuxFile) Xattrs() ([]source.Xattr, error) {
	xattrs, err := xattrsBy(
		func(b []byte) (int, error) { return unix.Flistxattr(f.fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(f.fd, name, b) })
	return xattrs, failure("attributes of", source.Join(f.parent, f.name), err)
}

func xattrsBy(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]source.Xattr, error) {
	names, err := grow(nil, list)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var xattrs []source.Xattr
	var errs []error
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		value, err := grow(nil, func(b []byte) (int, error) { return get(name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed since the listing
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("extended attribute %q: %w", name, err))
			continue
		}
		xattrs = append(xattrs, source.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(xattrs, func(a, b source.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xattrs, errors.Join(errs...)
}

// grow asks for the size first, which is all it takes for most files, and again
// when the value grew in between.
func grow(b []byte, call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(b)
		switch {
		case err == nil && (n == 0 || len(b) > 0):
			return b[:n], nil
		case err == nil:
			b = make([]byte, n)
		case errors.Is(err, unix.ERANGE):
			b = nil
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case !errors.Is(err, unix.EINTR):
			return nil, err
		}
	}
}
