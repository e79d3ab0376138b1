package files

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"tripod/internal/driver/source"
)

// portable reads any operating system by the standard library: content, types,
// permissions and times, and what sysEntry adds. It knows no extended attributes and
// no holes. Systems without an implementation of their own use it.
type portable struct{}

var errVirtual = errors.New("a level that only the tree has cannot be listed")

func (portable) stat(path string, follow bool, e *source.Entry) error {
	e.Parent, e.Name = split(path)
	name := systemPath(path)
	if name == "" {
		// Windows has no root above its volumes.
		e.Type, e.Mode = source.Directory, 0o755
		return nil
	}
	info, err := os.Lstat(name)
	if err == nil && follow {
		info, err = os.Stat(name)
	}
	if err != nil {
		return err
	}
	return describe(info, e)
}

func (p portable) opendir(path string, _, follow bool) (directory, error) {
	var e source.Entry
	if err := p.stat(path, follow, &e); err != nil {
		return nil, err
	}
	if e.Type != source.Directory {
		return nil, errChanged
	}
	return &portableDirectory{path: path, entry: e}, nil
}

func (portable) reopen(string) (directory, error) { return nil, errChanged }

// portableDirectory is a path: what it names may change between calls.
type portableDirectory struct {
	portable
	path  string
	entry source.Entry
}

func (d *portableDirectory) close()         {}
func (d *portableDirectory) kernel() string { return "" }

func (d *portableDirectory) self(e *source.Entry) error {
	*e = d.entry
	return nil
}

func (d *portableDirectory) list(s *scratch) error {
	name := systemPath(d.path)
	if name == "" {
		return errVirtual
	}
	entries, err := os.ReadDir(name)
	for _, e := range entries {
		t, known := typeOfMode(e.Type())
		if !known {
			t = 0
		}
		s.add([]byte(e.Name()), t)
	}
	return err
}

func (d *portableDirectory) stat(name string, follow bool, e *source.Entry) error {
	return d.portable.stat(source.Join(d.path, name), follow, e)
}

func (d *portableDirectory) open(e *source.Entry) (source.File, error) {
	f, err := os.OpenFile(systemPath(source.Join(d.path, e.Name)), openFlags, 0)
	if err != nil {
		return nil, err
	}
	p := &portableFile{File: f, parent: e.Parent, name: e.Name}
	now, err := p.Stat()
	if err == nil && (now.Type != source.Regular || now.Dev != e.Dev || now.Inode != e.Inode) {
		err = errChanged
	}
	if err != nil {
		_ = f.Close() // it was only looked at
		return nil, err
	}
	p.size = now.Size
	return p, nil
}

func (d *portableDirectory) attributes(e *source.Entry) (a source.Attributes, err error) {
	if e.Type == source.Symlink {
		a.Target, err = os.Readlink(systemPath(source.Join(d.path, e.Name)))
	}
	return a, err
}

type portableFile struct {
	*os.File
	parent, name string
	size         int64
}

func (f *portableFile) Stat() (source.Entry, error) {
	e := source.Entry{Parent: f.parent, Name: f.name}
	info, err := f.File.Stat()
	if err != nil {
		return e, err
	}
	return e, describe(info, &e)
}

// Xattrs implements source.File: they are read on Linux only.
func (f *portableFile) Xattrs() ([]source.Xattr, error) { return nil, nil }

func (f *portableFile) NextData(offset int64) (source.Range, error) {
	if offset >= f.size {
		return source.Range{}, io.EOF
	}
	return source.Range{Offset: offset, Length: f.size - offset}, nil
}

var errUnknownType = errors.New("of a type that no backup can keep")

func describe(info fs.FileInfo, e *source.Entry) error {
	mode := info.Mode()
	t, known := typeOfMode(mode)
	if !known {
		return errUnknownType
	}
	e.Type = t
	e.Mode = uint32(mode.Perm())
	for bit, posix := range map[fs.FileMode]uint32{
		fs.ModeSetuid: source.ModeSetuid, fs.ModeSetgid: source.ModeSetgid, fs.ModeSticky: source.ModeSticky,
	} {
		if mode&bit != 0 {
			e.Mode |= posix
		}
	}
	e.Nlink = 1
	e.MTime = source.Time{Sec: info.ModTime().Unix(), Nsec: int64(info.ModTime().Nanosecond())}
	e.CTime = e.MTime
	if t == source.Regular {
		e.Size = info.Size()
		e.Blocks = (e.Size + 511) / 512
	}
	sysEntry(info, e)
	return nil
}

func typeOfMode(m fs.FileMode) (source.Type, bool) {
	switch m.Type() {
	case 0:
		return source.Regular, true
	case fs.ModeDir:
		return source.Directory, true
	case fs.ModeSymlink, fs.ModeSymlink | fs.ModeDir:
		return source.Symlink, true
	case fs.ModeNamedPipe:
		return source.FIFO, true
	case fs.ModeSocket:
		return source.Socket, true
	case fs.ModeDevice | fs.ModeCharDevice:
		return source.CharDevice, true
	case fs.ModeDevice:
		return source.BlockDevice, true
	}
	return 0, false
}
