// Package tripod is the vocabulary of the product: the identifiers that name
// things as types, the closed list of error kinds, and the sizes every part
// agrees on. It has no behaviour beyond printing and parsing, and imports
// nothing of this module. Start reading here.
package tripod

import (
	"encoding/hex"
	"strings"
)

// Sizes that writers keep to and readers enforce.
const (
	// MaxPlain is the longest plaintext of one blob, in bytes.
	MaxPlain = 16 << 20
	// MaxPack is the size at which a writer closes a pack, in bytes. A pack
	// holds at least one frame, however long.
	MaxPack = 16 << 20
	// MaxRefs is the largest number of other blobs that one blob may need.
	MaxRefs = 1 << 16
)

// ID names a blob in public: the index key. It is derived from the sealed
// content, so equal content of one company has an equal ID, and it says
// nothing to someone who holds no key.
type ID [32]byte

// Sum is BLAKE3 over a stored frame's bytes: what a keyless party checks.
type Sum [32]byte

// PackID names a pack: BLAKE3 of its table of contents, which holds the sum
// of every frame in it.
type PackID [32]byte

// CompanyID names a company, the owner of one vault per zone. Random.
type CompanyID [16]byte

// MachineID names a machine of a company. Derived from the public key it signs
// with, so that no other key can ever be certified under it.
type MachineID [16]byte

// SourceID names what a machine protects: one set of paths, one disk, one
// stream. Derived under the machine's secret, so it tells a provider nothing.
type SourceID [16]byte

func (id ID) String() string        { return hex.EncodeToString(id[:]) }
func (s Sum) String() string        { return hex.EncodeToString(s[:]) }
func (p PackID) String() string     { return hex.EncodeToString(p[:]) }
func (c CompanyID) String() string  { return hex.EncodeToString(c[:]) }
func (m MachineID) String() string  { return hex.EncodeToString(m[:]) }
func (s SourceID) String() string   { return hex.EncodeToString(s[:]) }
func (k BlobKind) String() string   { return name(blobKindNames[:], int(k)) }
func (k SourceType) String() string { return name(sourceTypeNames[:], int(k)) }

// BlobKind tells what a blob's plaintext is.
type BlobKind uint8

// The kinds of blob. Data needs no other blob; the others are nodes.
const (
	Data BlobKind = 1 // bytes of files, disks and streams
	Tree BlobKind = 2 // a node of a file tree
	List BlobKind = 3 // an ordered list of blobs: a long file or a stream
	Disk BlobKind = 4 // a node of a disk map
)

// Valid reports whether k is a kind this version knows.
func (k BlobKind) Valid() bool { return k >= Data && k <= Disk }

// Node reports whether blobs of this kind may need other blobs.
func (k BlobKind) Node() bool { return k != Data }

// SourceType tells what was protected.
type SourceType uint8

// The types of source.
const (
	Files     SourceType = 1 // folders and files; the root blob is a Tree
	DiskImage SourceType = 2 // a block device or image; the root blob is a Disk
	Stream    SourceType = 3 // bytes piped in; the root blob is a List
)

// Valid reports whether t is a type this version knows.
func (k SourceType) Valid() bool { return k >= Files && k <= Stream }

var (
	blobKindNames   = [...]string{1: "data", 2: "tree", 3: "list", 4: "disk"}
	sourceTypeNames = [...]string{1: "files", 2: "disk", 3: "stream"}
)

func name(names []string, i int) string {
	if i > 0 && i < len(names) {
		return names[i]
	}
	return "unknown"
}

// ParseHex fills dst from exactly its length in lower or upper case hex and
// reports whether it could.
func ParseHex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	n, err := hex.Decode(dst, []byte(strings.ToLower(s)))
	return err == nil && n == len(dst)
}
