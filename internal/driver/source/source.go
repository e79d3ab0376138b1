// Package source is the contract of what is backed up: a tree of files, a disk
// or image, a stream of bytes. Adapters stand in folders below (files, disk,
// stream); sourcetest holds the suites that they pass.
//
// A source only reads. It tells what is there and hands out bytes; whether
// something changed, what is kept of it and how is for engine/backup to decide.
//
// # Tree order
//
// Entries of a tree are keyed by (parent path, name) and come in the order of
// Compare: pre-order over directories, where visiting a directory gives all its
// children sorted by name and then visits its subdirectories in that order.
//
//	""       ""        the root itself
//	""       "etc"     its children ...
//	""       "home"
//	"etc"    "fstab"   ... then the children of each, in the same order
//	"home"   "me"
//
// Paths are separated by slashes and begin at the root of the file system,
// without a leading slash. Names are raw bytes, not necessarily UTF-8.
package source

import (
	"context"
	"io"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// Tree is something with files: a file system, or a part of one. Methods may be
// called concurrently, also while Walk runs.
//
// Errors are of the kinds of core/tripod: NotFound when a file vanished,
// Conflict when another took its place or it changed its type, Denied, Invalid,
// Exhausted (no handles left), Unavailable (the device failed).
type Tree interface {
	// Walk calls fn with batches of entries in tree order, from one goroutine.
	// All entries of a batch have the same parent; a large directory comes as
	// several batches. fn may keep the batch. Walk stops at fn's first error
	// and returns it. One bad entry never ends a walk: it is told to whoever
	// opened the tree, and the walk goes on.
	Walk(ctx context.Context, fn func(batch []Entry) error) error

	// Open opens the content of a regular file, never that of another file
	// that took its place since the walk.
	Open(e *Entry) (File, error)

	// Attributes reads what Walk leaves out because it costs a call per entry:
	// where a symbolic link points, and extended attributes. With an error come
	// those that could be read. An open file gives its extended attributes for
	// less (File.Xattrs).
	Attributes(e *Entry) (Attributes, error)

	// Close releases what Open and Attributes hold on to. Open files stay open.
	Close() error
}

// File is the open content of a regular file. It is for one goroutine at a
// time, except for ReadAt.
type File interface {
	io.Reader
	io.ReaderAt
	io.Closer

	// Stat tells the file's metadata as they are now, under the parent and name
	// it was opened by. Comparing before and after reading shows whether
	// the content changed meanwhile.
	Stat() (Entry, error)

	// Xattrs reads the extended attributes, sorted by name. With an error come
	// those that could be read.
	Xattrs() ([]Xattr, error)

	Sparse
}

// Sparse is content that may have holes: ranges that read as zeros and take no
// space.
type Sparse interface {
	// NextData gives the first range that holds data at or after offset, and
	// io.EOF when only holes follow. Content without holes, or whose holes are
	// not known, is one range. DataRanges walks over all of them.
	NextData(offset int64) (Range, error)
}

// Range is a stretch of bytes.
type Range struct {
	Offset int64
	Length int64
}

// End is the offset of the first byte behind the range.
func (r Range) End() int64 { return r.Offset + r.Length }

// DataRanges walks over the ranges of s that hold data, ascending, apart from each
// other. It ends after the first error.
func DataRanges(s Sparse) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		for offset := int64(0); ; {
			r, err := s.NextData(offset)
			if err == io.EOF { // lint:error the contract says io.EOF itself
				return
			}
			if !yield(r, err) || err != nil {
				return
			}
			offset = r.End()
		}
	}
}

// Type is the type of an entry.
type Type uint8

// The types of entry.
const (
	Regular     Type = 1
	Directory   Type = 2
	Symlink     Type = 3
	FIFO        Type = 4
	Socket      Type = 5
	CharDevice  Type = 6
	BlockDevice Type = 7
)

func (t Type) String() string {
	names := [...]string{"unknown", "file", "directory", "symlink", "fifo", "socket", "character device", "block device"}
	if int(t) < len(names) {
		return names[t]
	}
	return names[0]
}

// Bits of Entry.Mode beyond the nine of rwxrwxrwx, as in POSIX.
const (
	ModeSetuid = 0o4000
	ModeSetgid = 0o2000
	ModeSticky = 0o1000
)

// Entry is a file, directory or special file as the walk saw it. What a system
// does not have is zero.
type Entry struct {
	Parent string // path of the directory it lies in; "" is the root
	Name   string // raw bytes, no slash; "" is the root itself

	Size   int64  // bytes; zero for all but regular files
	Blocks int64  // allocated units of 512 bytes; fewer than Size needs: it has holes
	MTime  Time   // last change of the content
	CTime  Time   // last change of content or metadata; cannot be set by hand
	Dev    uint64 // the file system it lies on
	Inode  uint64 // (Dev, Inode) is the file's identity; zero where unknown
	Nlink  uint32 // names of this file; more than one: hard links
	Mode   uint32 // 07777: permissions, setuid, setgid, sticky
	UID    uint32
	GID    uint32
	Major  uint32 // of a device
	Minor  uint32 // of a device
	Type   Type
}

// Time is a point in time with the resolution and range that file systems have:
// seconds since 1970, which may be negative, and 0 to 999,999,999 nanoseconds.
type Time struct {
	Sec  int64
	Nsec int64
}

// Path is the path from the root; "" for the root itself.
func (e *Entry) Path() string { return Join(e.Parent, e.Name) }

// Join appends a name to the path of its directory.
func Join(parent, name string) string { return tree.Join(parent, name) }

// Compare orders entries by tree order, the order of file trees in a vault.
func Compare(aParent, aName, bParent, bName string) int {
	return tree.Compare(aParent, aName, bParent, bName)
}

// Attributes are the parts of an entry that cost a call of their own.
type Attributes struct {
	Target string  // where a symbolic link points, raw bytes
	Xattrs []Xattr // sorted by name
}

// Xattr is an extended attribute. POSIX ACLs and file capabilities are such:
// system.posix_acl_access, system.posix_acl_default, security.capability.
type Xattr struct {
	Name  string
	Value []byte
}

// Disk is something of a fixed size that is read by offset: a block device, a
// disk image, a disk of a virtual machine. ReadAt may be called concurrently.
type Disk interface {
	io.ReaderAt
	io.Closer

	// Info describes the disk as it was opened, Stat as it is now. Where they
	// differ, what was read in between is no state that the disk ever had.
	Info() DiskInfo
	Stat() (DiskInfo, error)

	Sparse
}

// DiskInfo describes a disk; two are compared with ==. Equal ones mean an
// unchanged image, and say nothing about the content of a device.
type DiskInfo struct {
	Path   string
	Size   int64 // bytes; not necessarily a multiple of a block
	Device bool  // a device, not an image file
	Dev    uint64
	Inode  uint64 // of an image; of a device that of its node
	MTime  Time   // of an image; zero for a device
	CTime  Time
	Major  uint32 // of a device
	Minor  uint32
}

// Stream is content that comes once, front to back, and whose length is known
// at its end. A Read that returns io.EOF vouches that the stream is whole:
// whatever was cut short ends in another error.
type Stream interface {
	io.Reader
	io.Closer
	Name() string
}

// maxStreamName is what file systems take as a name, in bytes.
const maxStreamName = 255

// CheckStreamName refuses what is no plain file name: a restore makes a file of
// that name.
func CheckStreamName(name string) error {
	plain := utf8.ValidString(name) && !strings.ContainsAny(name, `/\`) && name != "." && name != ".." && strings.TrimSpace(name) != ""
	if plain && len(name) <= maxStreamName && strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return nil
	}
	return tripod.Errorf(tripod.Invalid, "stream name %q: must be a plain file name, like dump.sql", name)
}

// A Watcher hears from a walk what the caller should know. Calls come from the
// goroutine that called Walk, in tree order.
type Watcher struct {
	// Warn tells what could not be read and why; it is not in the tree.
	// path begins at the root, without a leading slash.
	Warn func(path string, err error)
	// Note tells what was left out on purpose, without being asked for.
	Note func(path, text string)
}

// Vanished reports whether err says that a file was gone when it was its turn,
// which is the normal life of a file system in use.
func Vanished(err error) bool { return tripod.KindOf(err) == tripod.NotFound }
