package fault

import (
	"context"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// memFile is a regular file of a memTree.
type memFile struct {
	data []byte
	sec  int64 // of its last change
}

// memTree is files in memory, by path, as a source. Folders follow from the
// paths. ask, when set, is asked before every call and may fail it; a read that
// it fails has read half.
type memTree struct {
	files  map[string]memFile
	ask    func(verb, path string) error
	warn   func(path string, err error)
	change map[string]bool // files that change while they are read
	told   run.Progress    // hears of the backup
}

const protected = "data" // the folder that all files of a memTree lie in

var _ source.Tree = (*memTree)(nil)

func (m *memTree) fails(verb, path string) error {
	if m.ask == nil {
		return nil
	}
	return m.ask(verb, path)
}

// entries gives all entries in tree order.
func (m *memTree) entries() []source.Entry {
	dirs := map[string]bool{"": true, protected: true}
	var all []source.Entry
	for path, f := range m.files {
		for at := len(path); at > 0; at = strings.LastIndexByte(path[:at], '/') {
			if at < len(path) {
				dirs[path[:at]] = true
			}
		}
		all = append(all, m.entry(path, f))
	}
	for path := range dirs {
		e := m.entry(path, memFile{sec: 1_600_000_000})
		e.Type, e.Mode, e.Nlink = source.Directory, 0o755, 2
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b source.Entry) int { return source.Compare(a.Parent, a.Name, b.Parent, b.Name) })
	return all
}

func (m *memTree) entry(path string, f memFile) source.Entry {
	parent, name := "", path
	if at := strings.LastIndexByte(path, '/'); at >= 0 {
		parent, name = path[:at], path[at+1:]
	}
	number := fnv.New64a()
	io.WriteString(number, path)
	at := source.Time{Sec: f.sec, Nsec: 5}
	return source.Entry{
		Parent: parent, Name: name, Type: source.Regular, Mode: 0o644, Nlink: 1, Dev: 1, Inode: number.Sum64(),
		Size: int64(len(f.data)), Blocks: int64(len(f.data)+511) / 512, MTime: at, CTime: at,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
	}
}

// Walk implements source.Tree.
func (m *memTree) Walk(ctx context.Context, fn func([]source.Entry) error) error {
	var batch []source.Entry
	for _, e := range m.entries() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(batch) > 0 && batch[0].Parent != e.Parent {
			if err := fn(batch); err != nil {
				return err
			}
			batch = nil
		}
		if err := m.fails("walk", e.Path()); err != nil && e.Type == source.Regular {
			m.warn(e.Path(), err)
			continue
		}
		batch = append(batch, e)
	}
	return fn(batch)
}

// Open implements source.Tree.
func (m *memTree) Open(e *source.Entry) (source.File, error) {
	path := e.Path()
	if err := m.fails("open", path); err != nil {
		return nil, err
	}
	f, ok := m.files[path]
	if !ok {
		return nil, tripod.Errorf(tripod.NotFound, "open %s: it is gone", path)
	}
	return &memHandle{tree: m, path: path, file: f}, nil
}

// Attributes implements source.Tree.
func (m *memTree) Attributes(e *source.Entry) (source.Attributes, error) {
	return source.Attributes{}, m.fails("attributes", e.Path())
}

// Close implements source.Tree.
func (m *memTree) Close() error { return nil }

// memHandle is an open memFile.
type memHandle struct {
	tree *memTree
	path string
	file memFile
	at   int64
	read int
}

func (h *memHandle) Read(p []byte) (int, error) {
	n, err := h.ReadAt(p, h.at)
	h.at += int64(n)
	if n > 0 && err == io.EOF { //nolint:errorlint // io.Reader says io.EOF itself
		err = nil
	}
	return n, err
}

func (h *memHandle) ReadAt(p []byte, off int64) (n int, err error) {
	if err := h.tree.fails("read", h.path); err != nil {
		return copy(p[:len(p)/2], h.file.data[min(off, int64(len(h.file.data))):]), err
	}
	h.read++
	if off < int64(len(h.file.data)) {
		n = copy(p, h.file.data[off:])
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Stat tells another time after each read of a file that changes.
func (h *memHandle) Stat() (source.Entry, error) {
	if err := h.tree.fails("stat", h.path); err != nil {
		return source.Entry{}, err
	}
	f := h.file
	if h.tree.change[h.path] {
		f.sec += int64(h.read)
	}
	return h.tree.entry(h.path, f), nil
}

func (h *memHandle) Xattrs() ([]source.Xattr, error) { return nil, h.tree.fails("attributes", h.path) }

func (h *memHandle) NextData(off int64) (source.Range, error) {
	size := int64(len(h.file.data))
	if off >= size {
		return source.Range{}, io.EOF
	}
	return source.Range{Offset: off, Length: size - off}, h.tree.fails("ranges", h.path)
}

func (h *memHandle) Close() error { return h.tree.fails("close", h.path) }

// versions makes a small history of files of all the ways in which content is
// kept: in the tree node, in a bundle, in a blob of its own, in several. big
// is the longest file's length in bytes.
func versions(r *rand.Rand, n, big int) []map[string]memFile {
	random := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = "0123456789abcdef"[r.IntN(16)]
		}
		return b
	}
	files := map[string]memFile{}
	for i, size := range []int{0, 40, 500, 513, 3000, 9000, 20_000} {
		files[protected+"/"+string(rune('a'+i%3))+"/f"+string(rune('0'+i))] = memFile{random(size), 1_600_000_000}
	}
	files[protected+"/big"] = memFile{random(big), 1_600_000_000}
	all := []map[string]memFile{files}
	for v := 1; v < n; v++ {
		next := maps.Clone(all[v-1])
		names := slices.Sorted(maps.Keys(next))
		for range 2 {
			name := names[r.IntN(len(names))]
			next[name] = memFile{random(r.IntN(6000)), 1_600_000_000 + int64(v)*100}
		}
		next[protected+"/new/n"+string(rune('0'+v%10))] = memFile{random(r.IntN(2000)), 1_600_000_000 + int64(v)*100}
		delete(next, names[r.IntN(len(names))])
		all = append(all, next)
	}
	return all
}
