// Package frame is the outer form of stored data: frames, which carry one
// sealed blob each, and packs, which carry many frames. Everything here works
// without a key: a provider parses, checks and moves frames and packs it
// cannot read. Layouts and test vectors are in spec/vault.md.
//
// All integers are little-endian.
package frame

import (
	"bytes"
	"encoding/binary"

	"github.com/zeebo/blake3"

	"tripod/internal/core/tripod"
)

// Version is the format version this package writes and the newest it reads.
// The descriptor of a vault says which version is to be expected in it; so a
// frame or a pack of another is Corrupt here: other copies of it are tried, and
// it is healed.
const Version = 1

// Suite1 is AES-256-GCM under BLAKE3-derived keys, with zstd inside. It is
// the only suite of version 1.
const Suite1 = 1

// Lengths of a frame's parts in bytes.
const (
	fixedLen = 64 // the head without its refs
	NonceLen = 12
	sumLen   = 32
	TagLen   = 16 // of AES-GCM, the last bytes of every body
)

// MaxBody is the longest body, in bytes: a plaintext of tripod.MaxPlain, its
// padding (at most 12 %), inner header and tag.
const MaxBody = tripod.MaxPlain + tripod.MaxPlain/8 + 64

var magic = [4]byte{'T', 'P', 'F', '1'}

// Head is the clear part of a frame. All of it is authenticated with the body.
type Head struct {
	Suite   uint8
	Kind    tripod.BlobKind
	Company tripod.CompanyID
	BodyLen int // ciphertext and tag, in bytes
	ID      tripod.ID
	Refs    []tripod.ID // ascending, without repeats; nil for data
}

// Len is the head's encoded length in bytes.
func (h *Head) Len() int { return fixedLen + len(h.Refs)*len(tripod.ID{}) }

// FrameLen is the whole frame's length in bytes.
func (h *Head) FrameLen() int { return h.Len() + NonceLen + sumLen + h.BodyLen }

// AppendHead appends the encoded head to dst.
func AppendHead(dst []byte, h *Head) []byte {
	dst = append(dst, magic[:]...)
	dst = append(dst, Version, h.Suite, byte(h.Kind), 0)
	dst = append(dst, h.Company[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.BodyLen))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(h.Refs)))
	dst = append(dst, h.ID[:]...)
	for i := range h.Refs {
		dst = append(dst, h.Refs[i][:]...)
	}
	return dst
}

// Frame is a parsed frame. Its slices alias the bytes it was parsed from.
type Frame struct {
	Head
	RawHead []byte // the head as encoded: the body's additional data
	Nonce   []byte // NonceLen bytes
	Sum     tripod.Sum
	Body    []byte
}

// Parse reads the frame that b begins with and returns what follows it. It
// does not check the sum.
func Parse(b []byte) (f Frame, rest []byte, err error) {
	refs, err := parseFixed(b, &f.Head)
	if err != nil {
		return f, nil, err
	}
	if len(b) < fixedLen+refs*32 {
		return f, nil, truncated("frame head")
	}
	if err := parseRefs(b[fixedLen:], refs, &f.Head); err != nil {
		return f, nil, err
	}
	n := f.Len()
	if len(b) < f.FrameLen() {
		return f, nil, truncated("frame")
	}
	f.RawHead = b[:n:n]
	f.Nonce = b[n : n+NonceLen : n+NonceLen]
	copy(f.Sum[:], b[n+NonceLen:])
	end := f.FrameLen()
	f.Body = b[n+NonceLen+sumLen : end : end]
	return f, b[end:], nil
}

func parseFixed(b []byte, h *Head) (refs int, err error) {
	if len(b) < fixedLen {
		return 0, truncated("frame head")
	}
	if !bytes.Equal(b[:4], magic[:]) {
		return 0, corrupt("frame: no magic")
	}
	if b[4] != Version {
		return 0, otherVersion("frame", b[4])
	}
	h.Suite, h.Kind = b[5], tripod.BlobKind(b[6])
	copy(h.Company[:], b[8:])
	body := binary.LittleEndian.Uint32(b[24:])
	count := binary.LittleEndian.Uint32(b[28:])
	copy(h.ID[:], b[32:])
	switch {
	case h.Suite != Suite1 || !h.Kind.Valid() || b[7] != 0:
		return 0, corrupt("frame: unknown suite, kind or flag")
	case body < TagLen || body > MaxBody:
		return 0, corrupt("frame: impossible body length")
	case count > tripod.MaxRefs || (count > 0 && !h.Kind.Node()):
		return 0, corrupt("frame: impossible number of refs")
	}
	h.BodyLen = int(body)
	return int(count), nil
}

func parseRefs(b []byte, n int, h *Head) error {
	if n == 0 {
		return nil
	}
	h.Refs = make([]tripod.ID, n)
	for i := range h.Refs {
		copy(h.Refs[i][:], b[i*32:])
		if i > 0 && bytes.Compare(h.Refs[i-1][:], h.Refs[i][:]) >= 0 {
			return corrupt("frame: refs are not ascending")
		}
	}
	return nil
}

// SumOf computes the checksum of a frame from its parts.
func SumOf(rawHead, nonce, body []byte) (s tripod.Sum) {
	h := blake3.New()
	_, _ = h.Write(rawHead)
	_, _ = h.Write(nonce)
	_, _ = h.Write(body)
	h.Sum(s[:0])
	return s
}

// Check returns Corrupt unless the frame's bytes match its sum.
func (f *Frame) Check() error {
	if SumOf(f.RawHead, f.Nonce, f.Body) != f.Sum {
		return tripod.Errorf(tripod.Corrupt, "blob %.16s: checksum does not match", f.ID)
	}
	return nil
}

// Append appends a whole frame to dst, computing its sum. body is ciphertext
// and tag of h.BodyLen bytes.
func Append(dst []byte, h *Head, nonce, body []byte) []byte {
	start := len(dst)
	dst = AppendHead(dst, h)
	sum := SumOf(dst[start:], nonce, body)
	dst = append(dst, nonce...)
	dst = append(dst, sum[:]...)
	return append(dst, body...)
}

func otherVersion(what string, v byte) error {
	return tripod.Errorf(tripod.Corrupt, "%s: format version %d, this program reads %d: damaged, or written by a newer tripod", what, v, Version)
}

func corrupt(what string) error   { return tripod.Errorf(tripod.Corrupt, "%s", what) }
func truncated(what string) error { return corrupt(what + ": ends too early") }
