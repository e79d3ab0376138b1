// Package seal turns plaintext into frames and back, and keeps the keys that
// do it: a company's, its machines', the keyring they lie in, and the grants
// that open snapshots. Only the customer's side runs this code.
//
// A blob's secrets follow from its own content:
//
//	u     = BLAKE3("tripod 1 u", suite, kind, refs, plaintext)
//	h     = keyed-BLAKE3(K, suite, kind, u)
//	id    = derive("tripod 1 id", h)       public
//	key   = derive("tripod 1 key", h)      AES-256-GCM
//	nonce = keyed-BLAKE3(derive("tripod 1 nonce", h), head, C)[:12]
//
// K is the company's de-duplication secret for data and the machine's own
// secret for nodes. Whoever holds (h, u) of a blob, a Ref, can read it and,
// through the Refs inside it, all below it; and nothing else. Readers
// recompute u, so that a server can refuse data but never change it.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

// Secret is 32 random or derived bytes.
type Secret [32]byte

// Ref is the capability to read one blob: H opens it, U proves it.
type Ref struct {
	H Secret
	U [32]byte
}

// ID is the public name of the blob r opens.
func (r *Ref) ID() tripod.ID { return tripod.ID(deriveID.derive(r.H)) }

// RefLen is the length of an encoded Ref in bytes: H, then U.
const RefLen = 64

// AppendRef appends r's encoding to dst.
func AppendRef(dst []byte, r *Ref) []byte { return append(append(dst, r.H[:]...), r.U[:]...) }

// RefFrom reads a Ref from the first RefLen bytes of b.
func RefFrom(b []byte) Ref { return Ref{H: Secret(b[:32]), U: [32]byte(b[32:64])} }

// Contexts of key derivation. Each stands for one use and is never reused.
const (
	contextU     = "tripod 1 u"
	contextID    = "tripod 1 id"
	contextKey   = "tripod 1 key"
	contextNonce = "tripod 1 nonce"
)

func derive(context string, from Secret) (out Secret) {
	blake3.DeriveKey(context, from[:], out[:])
	return out
}

// deriver derives under one context again and again: a hasher is 10 kB, and
// every blob takes three.
type deriver struct{ pool sync.Pool }

func newDeriver(context string) *deriver {
	return &deriver{sync.Pool{New: func() any { return blake3.NewDeriveKey(context) }}}
}

func (d *deriver) derive(from Secret) (out Secret) {
	h := d.pool.Get().(*blake3.Hasher) // lint:errcheck the pool holds nothing else
	h.Reset()
	_, _ = h.Write(from[:])
	h.Sum(out[:0])
	d.pool.Put(h)
	return out
}

var (
	deriveID    = newDeriver(contextID)    // lint:var a pool of hashers for one constant
	deriveKey   = newDeriver(contextKey)   // lint:var likewise
	deriveNonce = newDeriver(contextNonce) // lint:var likewise
)

// Derive gives a secret for one purpose from another. The context is a
// constant that names the purpose.
func Derive(context string, from Secret) Secret { return derive(context, from) }

// Codecs of a blob's content.
const (
	codecStored = 0
	codecZstd   = 1
)

// Inner header of C: codec 1, plaintext length 4, packed length 4.
const innerLen = 9

// Level is how hard a sealer compresses.
type Level int

// The levels. Small takes two thirds longer than Fast and saves some 11 %. Auto
// leaves the choice to whoever knows the source; a sealer takes it for Fast.
const (
	Auto Level = iota
	Fast
	Small
)

// Sealer seals the blobs of one machine. It owns its scratch memory: each
// goroutine has its own.
type Sealer struct {
	company tripod.CompanyID
	data    Secret
	node    Secret
	zstd    *zstd.Encoder
	strong  *zstd.Encoder // for what rewards it; nil at levels other than Small
	hashU   *blake3.Hasher
	packed  []byte
	head    []byte
}

// NewSealer makes a sealer for a company's data secret and a machine's node secret.
func NewSealer(company tripod.CompanyID, data, node Secret, level Level) *Sealer {
	s := &Sealer{company: company, data: data, node: node, hashU: blake3.NewDeriveKey(contextU)}
	if level == Small {
		s.zstd, s.strong = newEncoder(zstd.SpeedDefault), newEncoder(zstd.SpeedBetterCompression)
	} else {
		s.zstd = newEncoder(zstd.SpeedFastest)
	}
	return s
}

func newEncoder(speed zstd.EncoderLevel) *zstd.Encoder {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(speed), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(2<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return enc
}

// Ref computes the capability of a blob without sealing it. refs must be
// ascending and without repeats (see SortRefs).
func (s *Sealer) Ref(kind tripod.BlobKind, refs []tripod.ID, plain []byte) Ref {
	u := computeU(s.hashU, kind, refs, plain)
	k := s.data
	if kind.Node() {
		k = s.node
	}
	return Ref{H: computeH(k, kind, u), U: u}
}

func computeU(h *blake3.Hasher, kind tripod.BlobKind, refs []tripod.ID, plain []byte) (u [32]byte) {
	h.Reset()
	var n [10]byte
	n[0], n[1] = frame.Suite1, byte(kind)
	binary.LittleEndian.PutUint64(n[2:], uint64(len(refs)))
	_, _ = h.Write(n[:])
	for i := range refs {
		_, _ = h.Write(refs[i][:])
	}
	binary.LittleEndian.PutUint64(n[2:], uint64(len(plain)))
	_, _ = h.Write(n[2:])
	_, _ = h.Write(plain)
	h.Sum(u[:0])
	return u
}

func computeH(k Secret, kind tripod.BlobKind, u [32]byte) (out Secret) {
	h := keyed(k)
	_, _ = h.Write([]byte{frame.Suite1, byte(kind)})
	_, _ = h.Write(u[:])
	h.Sum(out[:0])
	return out
}

func keyed(k Secret) *blake3.Hasher {
	h, err := blake3.NewKeyed(k[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	return h
}

// Seal appends to dst the frame of the blob that Ref named. plain is at most
// tripod.MaxPlain bytes and refs at most tripod.MaxRefs.
func (s *Sealer) Seal(dst []byte, kind tripod.BlobKind, ref *Ref, refs []tripod.ID, plain []byte) []byte {
	c := s.pack(plain)
	h := frame.Head{Suite: frame.Suite1, Kind: kind, Company: s.company, BodyLen: len(c) + frame.TagLen, ID: ref.ID(), Refs: refs}
	s.head = frame.AppendHead(s.head[:0], &h)
	nonce := nonceFor(ref.H, s.head, c)
	// The tag needs room behind C; s.packed was made with it.
	body := gcm(ref.H).Seal(c[:0], nonce[:], c, s.head)
	return frame.Append(dst, &h, nonce[:], body)
}

func nonceFor(h Secret, head, c []byte) (n [frame.NonceLen]byte) {
	k := keyed(deriveNonce.derive(h))
	var l [8]byte
	binary.LittleEndian.PutUint64(l[:], uint64(len(head)))
	_, _ = k.Write(l[:])
	_, _ = k.Write(head)
	_, _ = k.Write(c)
	var sum [32]byte
	k.Sum(sum[:0])
	copy(n[:], sum[:])
	return n
}

func gcm(h Secret) cipher.AEAD {
	k := deriveKey.derive(h)
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only a wrong block size fails
	}
	return aead
}

// pack compresses plain, or stores it where that does not help, behind the
// inner header, padded. The result has room for a tag.
func (s *Sealer) pack(plain []byte) []byte {
	s.packed = slices.Grow(s.packed[:0], innerLen+len(plain)+len(plain)/8+frame.TagLen+64)
	c := append(s.packed[:0], make([]byte, innerLen)...)
	codec := byte(codecZstd)
	if enc := s.encoderFor(plain); enc == nil {
		codec = codecStored
	} else if c = enc.EncodeAll(plain, c); len(c)-innerLen >= len(plain) {
		codec = codecStored
	}
	if codec == codecStored {
		c = append(c[:innerLen], plain...)
	}
	c[0] = codec
	binary.LittleEndian.PutUint32(c[1:], uint32(len(plain)))
	binary.LittleEndian.PutUint32(c[5:], uint32(len(c)-innerLen))
	n := len(c)
	c = slices.Grow(c, padme(n)-n+frame.TagLen)[:padme(n)]
	clear(c[n:])
	s.packed = c
	return c
}

// padme rounds a length up so that it tells no more than its order of
// magnitude and a few leading bits: at most 12 % more, under 3 % from 64 KiB.
// Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
// Communication with PURBs", PETS 2019.
func padme(n int) int {
	if n < 2 {
		return n
	}
	e := bits.Len(uint(n)) - 1
	low := e - bits.Len(uint(e))
	mask := 1<<low - 1
	return (n + mask) &^ mask
}

// encoderFor chooses by a sample of the bytes' frequencies, which costs 1 % of
// what trying to compress random data would: nil for what looks random, and at
// level Small the strong encoder for what has few repeats and yet is not
// random, like text. There it saves some 5 kB for each further millisecond, in
// repetitive data half of that. Short content is always tried.
func (s *Sealer) encoderFor(p []byte) *zstd.Encoder {
	const piece, pieces = 1 << 10, 8
	if len(p) < 4*piece*pieces {
		return s.zstd
	}
	var seen [256]uint32
	step := len(p) / pieces
	for i := range pieces {
		for _, b := range p[i*step : i*step+piece] {
			seen[b]++
		}
	}
	// For uniformly random bytes the sum of squares is near n*n/256 + n; data
	// that compresses by 2 % or more is well above.
	const n = piece * pieces
	var squares uint64
	for _, c := range seen {
		squares += uint64(c) * uint64(c)
	}
	switch {
	case squares <= n*n/256+n+n/2:
		return nil
	case s.strong != nil && squares < n*n/25:
		return s.strong
	}
	return s.zstd
}

// SortRefs puts ids into the order frames need: ascending, each once. It
// changes ids and returns the shorter slice.
func SortRefs(ids []tripod.ID) []tripod.ID {
	slices.SortFunc(ids, func(a, b tripod.ID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}
