package backup

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"sync"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
)

// contentSum is a keyed hash of a small file's content. It stays in this
// machine's cache and tells a file that was moved, or whose metadata alone
// changed, from one with new content.
type contentSum [16]byte

// contentMAC gives GMAC under a key of its own: a universal hash that is
// several times faster here than BLAKE3. Its tags never leave the machine, so
// that one nonce may serve for all of them: a tag hides the hash key from
// nobody who could not read the cache, and with it the key itself.
func contentMAC(key seal.Secret) cipher.AEAD {
	k := seal.Derive("tripod 1 cache content", key)
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // only a wrong key length fails
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only a wrong block size fails
	}
	return mac
}

func (r *reader) sum(content []byte) (s contentSum) {
	var nonce [12]byte
	r.mac.Seal(s[:0], nonce[:], nil, content)
	return s
}

// knownSum stands for a chunk in the cache's table of what long files hold.
type knownSum [16]byte

func sumOfRef(r *seal.Ref) (k knownSum) {
	copy(k[:], r.H[:16])
	return k
}

// knownChunks gives a test for chunks that the file held in the last snapshot.
func (f *filesRun) knownChunks(it *item) func(*seal.Ref) bool {
	if it.prev == nil {
		return nil
	}
	c := &it.prev.Content
	if c.List == nil {
		return func(r *seal.Ref) bool {
			for i := range c.Pieces {
				if c.Pieces[i].Ref == *r {
					return true
				}
			}
			return false
		}
	}
	held := map[knownSum]bool{}
	for _, k := range f.old.chunksOf(it.prevC) {
		held[k] = true
	}
	return func(r *seal.Ref) bool { return held[sumOfRef(r)] }
}

// contentIndex finds small content of the last snapshot by its sum.
type contentIndex struct {
	cache *cache
	once  sync.Once
	rows  map[uint64]uint32
	mu    sync.Mutex // guards view
	view  leafView
}

// find gives the pieces that hold an item's content already, nil when none do.
func (x *contentIndex) find(it *item, length int) ([]tree.Piece, error) {
	if it.prev != nil && len(it.prev.Content.Pieces) > 0 && x.cache.contentAt(it.prevC) == it.sum {
		return it.prev.Content.Pieces, nil
	}
	x.once.Do(x.build)
	row, ok := x.rows[binary.LittleEndian.Uint64(it.sum[:])]
	if !ok || x.cache.contentAt(int(row)) != it.sum {
		return nil, nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e, err := x.view.entry(int(row))
	if err != nil || e.Size != int64(length) {
		return nil, err
	}
	return e.Content.Pieces, nil
}

func (x *contentIndex) build() {
	n := x.cache.rows()
	x.rows = make(map[uint64]uint32, n)
	for i := range n {
		if s := x.cache.contentAt(i); s != (contentSum{}) {
			x.rows[binary.LittleEndian.Uint64(s[:])] = uint32(i)
		}
	}
}
