package seal

import (
	"encoding/binary"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

// Opener opens frames. It owns its scratch memory: each goroutine has its own.
type Opener struct {
	zstd   *zstd.Decoder
	hashU  *blake3.Hasher
	packed []byte
}

// NewOpener makes an opener.
func NewOpener() *Opener {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(tripod.MaxPlain), zstd.WithDecoderMaxWindow(tripod.MaxPlain))
	if err != nil {
		panic(err) // the options are constants
	}
	return &Opener{zstd: dec, hashU: blake3.NewDeriveKey(contextU)}
}

// Open decrypts the frame of the blob ref names, checks that it is that blob
// of that kind and company, and appends its plaintext to dst. It returns the
// blob's refs as well. A frame that is anything else is Corrupt, and then dst
// is returned as it was.
func (o *Opener) Open(dst []byte, company tripod.CompanyID, kind tripod.BlobKind, ref *Ref, encoded []byte) ([]byte, []tripod.ID, error) {
	f, rest, err := frame.Parse(encoded)
	if err != nil {
		return dst, nil, err
	}
	id := ref.ID()
	bad := func(what string) ([]byte, []tripod.ID, error) {
		return dst, nil, tripod.Errorf(tripod.Corrupt, "blob %.16s: %s", id, what)
	}
	switch {
	case len(rest) != 0:
		return bad("bytes follow the frame")
	case f.ID != id:
		return bad("another blob was delivered in its place")
	case f.Company != company:
		return bad("belongs to another company")
	case f.Kind != kind:
		return bad("is of kind " + f.Kind.String() + ", not " + kind.String())
	}
	o.packed, err = gcm(ref.H).Open(o.packed[:0], f.Nonce, f.Body, f.RawHead)
	if err != nil {
		return bad("does not decrypt: its bytes were changed")
	}
	out, ok := o.unpack(dst, o.packed)
	if !ok {
		return bad("does not decompress to its stated length")
	}
	if computeU(o.hashU, kind, f.Refs, out[len(dst):]) != ref.U {
		return bad("is not the content its parent names")
	}
	return out, f.Refs, nil
}

func (o *Opener) unpack(dst, c []byte) ([]byte, bool) {
	if len(c) < innerLen {
		return dst, false
	}
	codec := c[0]
	plainLen, packedLen := binary.LittleEndian.Uint32(c[1:]), binary.LittleEndian.Uint32(c[5:])
	if plainLen > tripod.MaxPlain || uint64(packedLen) > uint64(len(c)-innerLen) {
		return dst, false
	}
	packed := c[innerLen : innerLen+int(packedLen)]
	n := int(plainLen)
	switch codec {
	case codecStored:
		if len(packed) != n {
			return dst, false
		}
		return append(dst, packed...), true
	case codecZstd:
		out := dst
		if cap(out)-len(out) < n {
			out = make([]byte, len(dst), len(dst)+n)
			copy(out, dst)
		}
		// The capacity is the limit: nothing longer than stated is produced.
		out, err := o.zstd.DecodeAll(packed, out[:len(dst):len(dst)+n])
		if err != nil || len(out) != len(dst)+n {
			return dst, false
		}
		return out, true
	}
	return dst, false
}
