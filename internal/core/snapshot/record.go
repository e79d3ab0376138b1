// Package snapshot is the company's log in a vault: signed records of what
// was backed up, each chained to the one before; the certificates that say
// which machines may sign; the orders to forget. A provider checks all of it
// without a key that opens data. Layouts are in spec/vault.md.
package snapshot

import (
	"crypto/ed25519"
	"math"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/tripod"
)

// Version is the format version this package writes and the newest it reads.
const Version = 1

// Hash is BLAKE3 over an encoded, signed document.
type Hash [32]byte

// Key names one snapshot: a machine, one of its sources, and a number that
// counts from 1.
type Key struct {
	Machine tripod.MachineID
	Source  tripod.SourceID
	Seq     uint64
}

// Record says what one run backed up. Records of one machine and source form
// a chain: each holds the hash of the one before.
type Record struct {
	Company     tripod.CompanyID
	Key         Key
	Incarnation uint64
	Prev        Hash // of the record before; zero for the first
	Type        tripod.SourceType
	Root        tripod.ID
	Time        time.Time // when the run began, by the machine's clock
	SizeClass   uint8     // bits of the source's size: 2^(n-1) <= bytes < 2^n
	AddedClass  uint8     // bits of the bytes it added
	LockUntil   time.Time // no one may forget it before; zero for no lock
	Label       []byte    // sealed; see Label
}

// Limits on encoded documents, in bytes.
const (
	MaxDocument = 1 << 20
	maxLabel    = 256 << 10
	maxTexts    = 1<<16 - 1 // paths or tags of a label
	// sealedLabel is what sealing a label adds: a nonce and a tag.
	sealedLabel = 12 + 16
)

const (
	recordTag = "tripod 1 record\n"
	sigLen    = ed25519.SignatureSize
)

// Sign encodes and signs the record with the machine's key.
func (r *Record) Sign(key ed25519.PrivateKey) []byte {
	b := cryptobyte.NewBuilder([]byte(recordTag))
	b.AddUint8(Version)
	b.AddBytes(r.Company[:])
	r.Key.add(b)
	b.AddUint64(r.Incarnation)
	b.AddBytes(r.Prev[:])
	b.AddUint8(uint8(r.Type))
	b.AddBytes(r.Root[:])
	addTime(b, r.Time)
	b.AddUint8(r.SizeClass)
	b.AddUint8(r.AddedClass)
	addTime(b, r.LockUntil)
	addBytes(b, r.Label)
	return sign(b, key)
}

// ParseRecord decodes a record without checking its signature.
func ParseRecord(p []byte) (*Record, error) {
	s, err := open(p, recordTag, "snapshot record")
	if err != nil {
		return nil, err
	}
	r := new(Record)
	var t uint8
	ok := s.CopyBytes(r.Company[:]) && r.Key.read(&s) && s.ReadUint64(&r.Incarnation) && s.CopyBytes(r.Prev[:]) &&
		s.ReadUint8(&t) && s.CopyBytes(r.Root[:]) && readTime(&s, &r.Time) && s.ReadUint8(&r.SizeClass) &&
		s.ReadUint8(&r.AddedClass) && readTime(&s, &r.LockUntil) && readBytes(&s, &r.Label) && s.Empty()
	r.Type = tripod.SourceType(t)
	if !ok || !r.Type.Valid() || r.Key.Seq == 0 || len(r.Label) > maxLabel {
		return nil, tripod.Errorf(tripod.Corrupt, "snapshot record: malformed")
	}
	return r, nil
}

// HashOf gives the hash by which the next record names an encoded one.
func HashOf(encoded []byte) Hash { return blake3.Sum256(encoded) }

// Chain checks that next follows last, the newest accepted record of the same
// machine and source and its hash; last is nil when there is none.
func Chain(last *Record, lastHash Hash, next *Record) error {
	var seq uint64
	var prev Hash
	if last != nil {
		seq, prev = last.Key.Seq, lastHash
	}
	if next.Key.Seq != seq+1 || next.Prev != prev {
		return tripod.Errorf(tripod.Conflict, "snapshot %d of machine %.8s: does not follow snapshot %d",
			next.Key.Seq, next.Key.Machine, seq).
			WithHint("a record is missing, was replaced, or another copy of this machine writes here too")
	}
	return nil
}

// Class gives the size class of a number of bytes.
func Class(bytes int64) (n uint8) {
	for ; bytes > 0; bytes >>= 1 {
		n++
	}
	return n
}

// Label is what people know a snapshot by. It is sealed in the record.
type Label struct {
	Host    string
	Paths   []string // protected paths as given, absolute; a disk's path; a stream's name
	Tags    []string
	Program string // version that wrote it
	Files   int64
	Bytes   int64
	Skipped int64 // files that could not be read, or only in part
}

// Check returns Invalid when the label is too long for a record, so that a
// backup can be refused before it begins.
func (l *Label) Check() error {
	n := sealedLabel + 1 + 2 + 2 + 3*8 + 3 + len(l.Host) + 3 + len(l.Program)
	for _, texts := range [][]string{l.Paths, l.Tags} {
		for _, t := range texts {
			n += 3 + len(t)
		}
	}
	if n > maxLabel || len(l.Paths) > maxTexts || len(l.Tags) > maxTexts {
		return tripod.Errorf(tripod.Invalid, "snapshot label: %d paths and %d tags take %d bytes, at most %d fit", len(l.Paths), len(l.Tags), n, maxLabel).
			WithHint("protect a folder that holds the paths, and leave out what is not wanted")
	}
	return nil
}

// Marshal encodes a label that Check lets pass.
func (l *Label) Marshal() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint8(Version)
	addText(b, l.Host)
	addTexts(b, l.Paths)
	addTexts(b, l.Tags)
	addText(b, l.Program)
	b.AddUint64(uint64(l.Files))
	b.AddUint64(uint64(l.Bytes))
	b.AddUint64(uint64(l.Skipped))
	return b.BytesOrPanic()
}

// UnmarshalLabel decodes a label.
func UnmarshalLabel(p []byte) (*Label, error) {
	s := cryptobyte.String(p)
	l := new(Label)
	var version uint8
	var files, bytes, skipped uint64
	if s.ReadUint8(&version) && version != Version {
		return nil, newer("snapshot label", version)
	}
	if version != Version || !readText(&s, &l.Host) || !readTexts(&s, &l.Paths) ||
		!readTexts(&s, &l.Tags) || !readText(&s, &l.Program) || !s.ReadUint64(&files) || !s.ReadUint64(&bytes) ||
		!s.ReadUint64(&skipped) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "snapshot label: malformed")
	}
	l.Files, l.Bytes, l.Skipped = int64(files), int64(bytes), int64(skipped)
	return l, nil
}

func (k *Key) add(b *cryptobyte.Builder) {
	b.AddBytes(k.Machine[:])
	b.AddBytes(k.Source[:])
	b.AddUint64(k.Seq)
}

func (k *Key) read(s *cryptobyte.String) bool {
	return s.CopyBytes(k.Machine[:]) && s.CopyBytes(k.Source[:]) && s.ReadUint64(&k.Seq)
}

// sign appends an Ed25519 signature (RFC 8032) over what b holds. Every
// document begins with a tag of its own, so that a signature over one kind is
// never one over another.
func sign(b *cryptobyte.Builder, key ed25519.PrivateKey) []byte {
	body := b.BytesOrPanic()
	return append(body, ed25519.Sign(key, body)...)
}

// Verify returns Denied unless an encoded document bears a signature of key.
func Verify(encoded []byte, key ed25519.PublicKey) error {
	n := len(encoded) - sigLen
	if n < 0 || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, encoded[:n], encoded[n:]) {
		return tripod.Errorf(tripod.Denied, "signature does not match")
	}
	return nil
}

// open checks tag and version and gives the fields between them and the signature.
func open(p []byte, tag, what string) (cryptobyte.String, error) {
	if len(p) == 0 {
		return nil, tripod.Errorf(tripod.Corrupt, "%s: is empty, or cannot be read", what)
	}
	if len(p) > MaxDocument || len(p) < len(tag)+1+sigLen || string(p[:len(tag)]) != tag {
		return nil, tripod.Errorf(tripod.Corrupt, "%s: malformed", what)
	}
	if v := p[len(tag)]; v != Version {
		return nil, newer(what, v)
	}
	return cryptobyte.String(p[len(tag)+1 : len(p)-sigLen]), nil
}

func newer(what string, v uint8) error {
	return tripod.Errorf(tripod.Invalid, "%s: format version %d, this program reads %d", what, v, Version).
		WithHint("use a newer tripod")
}

// addTime encodes a time in nanoseconds since 1970. What 64 bits cannot hold
// becomes the nearest that they can, so that a lock "for ever" stays one.
func addTime(b *cryptobyte.Builder, t time.Time) {
	first, last := time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)
	switch {
	case t.IsZero():
		b.AddUint64(0)
	case t.Before(first):
		b.AddUint64(1 << 63)
	case t.After(last):
		b.AddUint64(math.MaxInt64)
	default:
		b.AddUint64(uint64(t.UnixNano()))
	}
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	var ns uint64
	if !s.ReadUint64(&ns) {
		return false
	}
	if ns != 0 {
		*t = time.Unix(0, int64(ns)).UTC()
	}
	return true
}

func addBytes(b *cryptobyte.Builder, p []byte) {
	b.AddUint24LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(p) })
}

func readBytes(s *cryptobyte.String, out *[]byte) bool {
	var v cryptobyte.String
	ok := s.ReadUint24LengthPrefixed(&v)
	if ok && len(v) > 0 {
		*out = append([]byte(nil), v...)
	}
	return ok
}

func addText(b *cryptobyte.Builder, s string) { addBytes(b, []byte(s)) }

func readText(s *cryptobyte.String, out *string) bool {
	var v cryptobyte.String
	ok := s.ReadUint24LengthPrefixed(&v)
	*out = string(v)
	return ok
}

func addTexts(b *cryptobyte.Builder, texts []string) {
	b.AddUint16(uint16(len(texts)))
	for _, t := range texts {
		addText(b, t)
	}
}

func readTexts(s *cryptobyte.String, out *[]string) bool {
	var n uint16
	if !s.ReadUint16(&n) {
		return false
	}
	for range n {
		var t string
		if !readText(s, &t) {
			return false
		}
		*out = append(*out, t)
	}
	return true
}
