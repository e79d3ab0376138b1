// Package tree is the shape of what was protected: file trees, lists of
// blobs, and disk maps. It encodes and decodes nodes and says, step by step,
// which nodes a question needs; fetching them is the caller's work. Layouts
// are in spec/vault.md.
//
// A file tree is a content-defined B-tree over entries keyed by (parent path,
// name), so that a folder's listing is contiguous. Where it is cut depends on
// the keys alone: a changed file rewrites its leaf and the path above it.
package tree

import (
	"strings"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// FileType is what an entry is.
type FileType uint8

// The types of entry.
const (
	Regular     FileType = 1
	Dir         FileType = 2
	Symlink     FileType = 3
	Fifo        FileType = 4
	Socket      FileType = 5
	CharDevice  FileType = 6
	BlockDevice FileType = 7
)

func (t FileType) valid() bool { return t >= Regular && t <= BlockDevice }

// Entry is one file, folder or other thing in a file tree, with all that a
// restore needs.
type Entry struct {
	Parent string // slash-separated path from the root, no leading slash
	Name   string // raw bytes; never empty but for the root itself
	Type   FileType
	Mode   uint32 // permissions, setuid, setgid and sticky: the low 12 bits of st_mode
	Owner  Owner
	Sec    int64  // modification time, seconds since 1970
	Nsec   uint32 // and nanoseconds
	Size   int64  // of a regular file, bytes
	Link   string // target of a Symlink
	Major  uint32 // of a device
	Minor  uint32
	// Group is nonzero for regular files with several names: equal within
	// one snapshot for the names of one file.
	Group  uint64
	Xattrs []Xattr // ascending by name; POSIX ACLs are among them
	// Ranges are where a sparse file holds data, ascending; nil when it has
	// no holes. Content is the bytes of the ranges, one after another.
	Ranges []Range
	// Torn says the file changed while it was read.
	Torn    bool
	Content Content
}

// Owner is who owns an entry, by number and by name.
type Owner struct {
	UID, GID    uint32
	User, Group string // "" when the number has no name
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value string
}

// Range is a run of a file's bytes.
type Range struct {
	Offset, Length int64
}

// Content is where a regular file's bytes are: inline, in pieces of blobs one
// after another, or in a list node.
type Content struct {
	Inline []byte
	Pieces []Piece
	List   *seal.Ref // root of the file's List, when it has many chunks
}

// Piece is a run of bytes of a data blob.
type Piece struct {
	Ref    seal.Ref
	Offset uint32
	Length uint32
}

// Path is the entry's full path without leading slash.
func (e *Entry) Path() string { return Join(e.Parent, e.Name) }

// Stored is how many bytes of content the entry has: its size, or what a
// sparse file's ranges hold.
func (e *Entry) Stored() int64 {
	if e.Ranges == nil {
		return e.Size
	}
	var n int64
	for _, r := range e.Ranges {
		n += r.Length
	}
	return n
}

// Join joins a parent path and a name.
func Join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "/" + name
}

// SplitPath cuts a path at its last slash.
func SplitPath(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// Compare orders keys: parents byte by byte with '/' below every other byte,
// then names byte by byte. It is the order of a walk that lists a folder
// whole and then enters its subfolders in turn.
func Compare(parentA, nameA, parentB, nameB string) int {
	if c := ComparePaths(parentA, parentB); c != 0 {
		return c
	}
	return strings.Compare(nameA, nameB)
}

// ComparePaths orders paths byte by byte with '/' below every other byte.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/' || x > y:
				return 1
			default:
				return -1
			}
		}
	}
	return len(a) - len(b)
}

// Below reports whether path is dir itself or inside it.
func Below(path, dir string) bool {
	return dir == "" || path == dir || (len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir)
}

// ValidName returns Corrupt unless name can be one component of a path.
func ValidName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return tripod.Errorf(tripod.Corrupt, "entry name %q: cannot be one component of a path", name)
	}
	return nil
}

// validParent returns Corrupt unless every component of the path is a name.
func validParent(path string) error {
	if path == "" {
		return nil
	}
	for part := range strings.SplitSeq(path, "/") {
		if err := ValidName(part); err != nil {
			return err
		}
	}
	return nil
}

// check returns Invalid for an entry that DecodeNode would refuse. vetted is a
// parent path that was checked before.
func (e *Entry) check(vetted string) error {
	isRoot := e.Parent == "" && e.Name == "" && e.Type == Dir
	what := ""
	switch {
	case !isRoot && ValidName(e.Name) != nil,
		e.Parent != vetted && validParent(e.Parent) != nil,
		len(e.Parent) > maxText, len(e.Name) > maxText:
		what = "impossible path"
	case !e.Type.valid() || e.Mode > 0o7777 || e.Nsec > 999_999_999,
		len(e.Owner.User) > maxText, len(e.Owner.Group) > maxText, len(e.Link) > maxText:
		what = "impossible metadata"
	case !validXattrs(e.Xattrs):
		what = "extended attributes out of order or too long"
	case e.Type != Regular && (e.Size != 0 || e.Ranges != nil || e.Content.List != nil || len(e.Content.Pieces)+len(e.Content.Inline) > 0):
		what = "content of something that is not a file"
	case e.Size < 0 || e.Size >= 1<<62 || !validRanges(e.Ranges, e.Size):
		what = "impossible size or sparse ranges"
	case e.Type == Regular && !e.Content.valid(e.Stored()):
		what = "content that is not as long as the file"
	default:
		return nil
	}
	return tripod.Errorf(tripod.Invalid, "entry %.200q: %s", e.Path(), what)
}

func validXattrs(xattrs []Xattr) bool {
	sum := 0
	for i, x := range xattrs {
		sum += len(x.Name) + len(x.Value)
		if len(x.Name) > maxText || len(x.Value) > maxXattr || sum > maxXattrSum || (i > 0 && xattrs[i-1].Name >= x.Name) {
			return false
		}
	}
	return len(xattrs) <= maxXattrs
}

func validRanges(ranges []Range, size int64) bool {
	var at int64
	for _, r := range ranges {
		if r.Offset < at || r.Length <= 0 || r.Length > size-r.Offset {
			return false
		}
		at = r.Offset + r.Length
	}
	return len(ranges) <= maxRanges
}

// valid reports whether the content is stored bytes long.
func (c *Content) valid(stored int64) bool {
	switch {
	case c.List != nil:
		return len(c.Pieces)+len(c.Inline) == 0
	case len(c.Pieces) > 0:
		for _, p := range c.Pieces {
			stored -= int64(p.Length)
			if p.Length == 0 || int64(p.Offset)+int64(p.Length) > tripod.MaxPlain {
				return false
			}
		}
		return stored == 0 && len(c.Inline) == 0 && len(c.Pieces) <= maxPieces
	}
	return int64(len(c.Inline)) == stored && stored <= leafMaxBytes
}
