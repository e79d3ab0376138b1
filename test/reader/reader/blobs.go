package reader

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/zeebo/blake3"
)

// Limits and lengths; see the tables of spec/vault.md.
const (
	maxPlain   = 16 << 20
	maxBody    = maxPlain + maxPlain/8 + 64
	maxRefs    = 1 << 16
	maxRows    = 1 << 18
	headLen    = 64
	rowLen     = 69
	trailerLen = 16
	refLen     = 64
	cacheBlobs = 8
)

// The kinds of blob.
const (
	dataBlob byte = 1
	treeBlob byte = 2
	listBlob byte = 3
	diskBlob byte = 4
)

// ref is the capability to read one blob.
type ref struct{ h, u [32]byte }

func (r *ref) id() [32]byte { return derive("tripod 1 id", r.h) }

func refFrom(b []byte) ref { return ref{h: fixed32(b), u: fixed32(b[32:])} }

// place is where a frame lies.
type place struct {
	pack   string
	offset int64
	length int
}

// readTables reads the table of contents of every pack.
func (v *Vault) readTables() error {
	v.index = map[[32]byte][]place{}
	names, err := v.names("pack")
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := v.readTable(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (v *Vault) readTable(name string) error {
	f, err := os.Open(filepath.Join(v.dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	var trailer [trailerLen]byte
	if _, err := f.ReadAt(trailer[:], size-trailerLen); err != nil {
		return err
	}
	rows := binary.LittleEndian.Uint32(trailer[:])
	if string(trailer[8:]) != "trippack" || trailer[5] != 1 || trailer[6] != 0 || trailer[7] != 0 || rows == 0 || rows > maxRows {
		return errors.New("no trailer of a pack")
	}
	n := int64(rows)*rowLen + trailerLen
	if n > size {
		return errors.New("shorter than its table")
	}
	table := make([]byte, n)
	if _, err := f.ReadAt(table, size-n); err != nil {
		return err
	}
	id := blakeOf(table)
	if name != "pack/"+hexOf(id[:1])+"/"+hexOf(id[:]) {
		return errors.New("its name is not the hash of its table")
	}
	var at int64
	for row := table[:n-trailerLen]; len(row) > 0; row = row[rowLen:] {
		length := int(binary.LittleEndian.Uint32(row[64:]))
		class := byte(1)
		if row[68] != dataBlob {
			class = 2
		}
		if row[68] < dataBlob || row[68] > diskBlob || trailer[4] != class || length < headLen+12+32+16 {
			return errors.New("impossible row")
		}
		blob := fixed32(row)
		v.index[blob] = append(v.index[blob], place{pack: name, offset: at, length: length})
		at += int64(length)
	}
	if at+n != size {
		return errors.New("its table does not account for every byte")
	}
	return nil
}

// cached is a data blob read lately: bundles hold many files.
type cached struct {
	id    [32]byte
	plain []byte
}

// data reads a data blob.
func (v *Vault) data(r *ref) ([]byte, error) {
	id := r.id()
	if i := slices.IndexFunc(v.recent, func(c cached) bool { return c.id == id }); i >= 0 {
		return v.recent[i].plain, nil
	}
	plain, _, err := v.blob(dataBlob, r)
	if err != nil {
		return nil, err
	}
	if len(v.recent) == cacheBlobs {
		v.recent = v.recent[1:]
	}
	v.recent = append(v.recent, cached{id, plain})
	return plain, nil
}

// blob reads, checks and opens the blob that r names, trying every frame the
// vault holds of it.
func (v *Vault) blob(kind byte, r *ref) (plain []byte, refs [][32]byte, err error) {
	id := r.id()
	err = errors.New("is not in the vault")
	for _, p := range v.index[id] {
		var frame []byte
		if frame, err = v.frame(p); err != nil {
			continue
		}
		if plain, refs, err = v.open(kind, r, frame); err == nil {
			return plain, refs, nil
		}
	}
	return nil, nil, fmt.Errorf("blob %s: %w", hexOf(id[:8]), err)
}

func (v *Vault) frame(p place) ([]byte, error) {
	if p.length > headLen+maxRefs*32+12+32+maxBody {
		return nil, errors.New("longer than any frame")
	}
	f, err := os.Open(filepath.Join(v.dir, filepath.FromSlash(p.pack)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, p.length)
	_, err = f.ReadAt(b, p.offset)
	return b, err
}

// open decrypts a frame and checks that it holds what r names.
func (v *Vault) open(kind byte, r *ref, b []byte) (plain []byte, refs [][32]byte, err error) {
	if len(b) < headLen || string(b[:4]) != "TPF1" {
		return nil, nil, errors.New("not a frame")
	}
	id := r.id()
	body, count := binary.LittleEndian.Uint32(b[24:]), binary.LittleEndian.Uint32(b[28:])
	switch {
	case b[4] != 1 || b[5] != 1 || b[7] != 0:
		return nil, nil, errors.New("unknown version, suite or flag")
	case b[6] != kind || !bytes.Equal(b[8:24], v.company.id[:]) || !bytes.Equal(b[32:64], id[:]):
		return nil, nil, errors.New("another blob lies in its place")
	case body < 16 || body > maxBody || count > maxRefs || (kind == dataBlob && count > 0):
		return nil, nil, errors.New("impossible lengths")
	}
	head := headLen + 32*int(count)
	if len(b) != head+12+32+int(body) {
		return nil, nil, errors.New("not as long as it says")
	}
	for i := headLen; i < head; i += 32 {
		refs = append(refs, fixed32(b[i:]))
		if i > headLen && bytes.Compare(b[i-32:i], b[i:i+32]) >= 0 {
			return nil, nil, errors.New("refs are not ascending")
		}
	}
	nonce, sum, sealed := b[head:head+12], b[head+12:head+44], b[head+44:]
	if got := blakeOf(b[:head+12], sealed); !bytes.Equal(got[:], sum) {
		return nil, nil, errors.New("checksum does not match")
	}
	c, err := gcm(derive("tripod 1 key", r.h)).Open(nil, nonce, sealed, b[:head])
	if err != nil {
		return nil, nil, errors.New("does not decrypt")
	}
	if plain, err = v.unpack(c); err != nil {
		return nil, nil, err
	}
	if hashU(kind, refs, plain) != r.u {
		return nil, nil, errors.New("is not the content its parent names")
	}
	return plain, refs, nil
}

// unpack takes padding and compression off.
func (v *Vault) unpack(c []byte) ([]byte, error) {
	if len(c) < 9 {
		return nil, errors.New("no inner header")
	}
	plainLen, packedLen := binary.LittleEndian.Uint32(c[1:]), binary.LittleEndian.Uint32(c[5:])
	if plainLen > maxPlain || uint64(packedLen) > uint64(len(c)-9) {
		return nil, errors.New("impossible inner lengths")
	}
	plain := c[9 : 9+int(packedLen)]
	var err error
	switch c[0] {
	case 0:
	case 1:
		plain, err = v.decoder.DecodeAll(plain, make([]byte, 0, plainLen))
	default:
		return nil, fmt.Errorf("unknown codec %d", c[0])
	}
	if err != nil || len(plain) != int(plainLen) {
		return nil, errors.New("does not decompress to its stated length")
	}
	return plain, nil
}

func hashU(kind byte, refs [][32]byte, plain []byte) (u [32]byte) {
	h := blake3.NewDeriveKey("tripod 1 u")
	_, _ = h.Write([]byte{1, kind})
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(refs))))
	for i := range refs {
		_, _ = h.Write(refs[i][:])
	}
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(plain))))
	_, _ = h.Write(plain)
	h.Sum(u[:0])
	return u
}

func blakeOf(parts ...[]byte) (out [32]byte) {
	h := blake3.New()
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	h.Sum(out[:0])
	return out
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}
