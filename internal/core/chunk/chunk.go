// Package chunk decides where data is cut. Long files and streams are cut
// where their content says so (content-defined chunking), so that an
// insertion moves few cuts; small files are gathered into bundles that are
// cut between files, where the files' names and sizes say so. Both decisions
// are keyed: without the key, cuts tell little about content.
//
// Source of the chunker: FastCDC (Xia et al., USENIX ATC 2016), with a keyed
// gear table and normalized chunking.
package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // the algorithm registers itself
	"github.com/zeebo/blake3"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// Sizes in bytes.
const (
	Min = 512 << 10 // of a chunk, but for a file's last
	Avg = 1 << 20
	Max = 4 << 20

	// InlineMax is the longest content kept inside its tree entry.
	InlineMax = 512
	// BundleFileMax is the first length that is too long for a bundle.
	BundleFileMax = 128 << 10
	// SingleMax is the longest file kept as one blob without looking for cuts.
	SingleMax = 1 << 20

	bundleMin = 512 << 10
	bundleMax = 2 << 20
	// cutOneIn makes a bundle of small files about 1 MiB long: half before
	// cuts are looked for and half at one cut in so many bytes.
	cutBytes = 512 << 10
)

// Splitter cuts one stream after another. It owns a buffer of Max bytes:
// each goroutine has its own.
type Splitter struct {
	key []byte
	buf []byte
}

// NewSplitter makes a splitter for a key.
func NewSplitter(key seal.Secret) *Splitter {
	return &Splitter{key: bytes.Clone(key[:])}
}

// Split reads r to its end and calls fn with each chunk in turn. The chunk is
// valid until fn returns.
func (s *Splitter) Split(r io.Reader, fn func(chunk []byte) error) error {
	if s.buf == nil {
		s.buf = make([]byte, Max)
	}
	// The library's older names ignore NormalSize and cut just above MinSize.
	c, err := chunkers.NewChunkerBuffer("fastcdc-v1.0.0", r, &chunkers.ChunkerOpts{
		MinSize: Min, NormalSize: Avg, MaxSize: Max, Key: s.key,
	}, s.buf)
	if err != nil {
		return tripod.Errorf(tripod.Internal, "chunker: %w", err)
	}
	for {
		chunk, err := c.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(chunk) > 0 {
			if err := fn(chunk); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// Bundler decides where a run of small files is cut into bundles.
type Bundler struct {
	hash *blake3.Hasher
	size int
}

// NewBundler makes a bundler for a key.
func NewBundler(key seal.Secret) *Bundler {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	return &Bundler{hash: h}
}

// CutBefore reports whether a new bundle begins with the next file, of the
// given name and size, and counts the file into its bundle. The decision rests
// on the file's name and size and on how full the bundle is, so that equal
// folders on two machines make equal bundles.
func (b *Bundler) CutBefore(name string, size int) bool {
	cut := b.size+size > bundleMax
	if !cut && b.size >= bundleMin {
		b.hash.Reset()
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(size))
		_, _ = b.hash.Write(n[:])
		_, _ = b.hash.WriteString(name)
		var sum [32]byte
		b.hash.Sum(sum[:0])
		// A file of this size is a cut with a chance of size in cutBytes.
		cut = binary.LittleEndian.Uint64(sum[:])%cutBytes < uint64(max(size, 1<<10))
	}
	if cut {
		b.size = 0
	}
	b.size += size
	return cut
}

// Reset begins a new bundle.
func (b *Bundler) Reset() { b.size = 0 }
