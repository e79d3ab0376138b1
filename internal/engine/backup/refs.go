package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zeebo/blake3"

	"tripod/internal/core/seal"
)

// refTable remembers a disk's or a stream's blobs for the next run: for a
// disk the capability of every block in order, zero where there is none; for a
// stream those of its chunks. It is disposable.
//
//	magic, root, ident 16, count 8, refs, BLAKE3 of all before
type refTable struct {
	root  seal.Ref
	ident ident
	refs  []byte
}

const refMagic = "tripod refs 001\n"

func readRefs(path string) *refTable {
	none := new(refTable)
	if path == "" {
		return none
	}
	b, err := os.ReadFile(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			removeStale(path)
		}
		return none
	}
	const head = len(refMagic) + seal.RefLen + 16 + 8
	n := len(b) - 32
	if n < head || string(b[:len(refMagic)]) != refMagic {
		removeStale(path)
		return none
	}
	sum := blake3.Sum256(b[:n])
	count := binary.LittleEndian.Uint64(b[head-8:])
	if !bytes.Equal(sum[:], b[n:]) || count != uint64(n-head)/seal.RefLen {
		removeStale(path)
		return none
	}
	t := &refTable{root: seal.RefFrom(b[len(refMagic):]), refs: b[head:n]}
	copy(t.ident[:], b[len(refMagic)+seal.RefLen:])
	return t
}

// at gives the i-th capability, and the zero one beyond the table.
func (t *refTable) at(i int64) (r seal.Ref) {
	if o := i * seal.RefLen; i >= 0 && o+seal.RefLen <= int64(len(t.refs)) {
		r = seal.RefFrom(t.refs[o:])
	}
	return r
}

func (t *refTable) len() int { return len(t.refs) / seal.RefLen }

// empty reports whether nothing is remembered.
func (t *refTable) empty() bool { return t.root == (seal.Ref{}) }

func (t *refTable) save(path string) error {
	b := make([]byte, 0, len(t.refs)+256)
	b = append(b, refMagic...)
	b = seal.AppendRef(b, &t.root)
	b = append(b, t.ident[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.len()))
	b = append(b, t.refs...)
	sum := blake3.Sum256(b)
	f := &plainFile{dir: filepath.Dir(path)}
	f.append(b)
	f.append(sum[:])
	return f.commit(path)
}
