package collect

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// A blob is known here by the first eight bytes of its id. Two that share them
// are kept when one of them is needed, which is harmless.
type short uint64

func shorten(id tripod.ID) short { return short(binary.BigEndian.Uint64(id[:])) }

// graph is which node needs what. Nodes are numbered as they are met; edges
// between them are in memory, those to data in files by the first byte of the
// data's id, as there are many more of them.
//
// Memory is some 60 bytes a node and 8 an edge between nodes.
type graph struct {
	number map[short]int32
	inPack map[tripod.PackID][]int32 // nodes of the packs that were read
	edges  []edge
	dir    string
	spill  [256]*spill
	sealed [256]int64 // bytes of each spill when seal was called
}

// edge is that a node needs a node.
type edge struct{ parent, child int32 }

// spill holds what nodes need, ids of one first byte: parent 4, id 8.
type spill struct {
	file *os.File
	w    *bufio.Writer
	size int64 // bytes written
}

const (
	spillRow    = 12
	spillBuffer = 16 << 10
)

func newGraph(tempDir string) (*graph, error) {
	dir, err := os.MkdirTemp(tempDir, "collect-")
	if err != nil {
		return nil, err
	}
	return &graph{number: map[short]int32{}, inPack: map[tripod.PackID][]int32{}, dir: dir}, nil
}

func (g *graph) close() error {
	var errs []error
	for _, s := range g.spill {
		if s != nil {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(g.dir))...)
}

// of gives a node's number.
func (g *graph) of(s short) int32 {
	n, ok := g.number[s]
	if !ok {
		n = int32(len(g.number))
		g.number[s] = n
	}
	return n
}

// node notes a node and what it needs.
func (g *graph) node(pack tripod.PackID, id tripod.ID, refs []tripod.ID) error {
	parent := g.of(shorten(id))
	g.inPack[pack] = append(g.inPack[pack], parent)
	var row [spillRow]byte
	binary.BigEndian.PutUint32(row[:], uint32(parent))
	for i := range refs {
		b := refs[i][0]
		s := g.spill[b]
		if s == nil {
			f, err := os.Create(filepath.Join(g.dir, fmt.Sprintf("%02x", b)))
			if err != nil {
				return err
			}
			s = &spill{file: f, w: bufio.NewWriterSize(f, spillBuffer)}
			g.spill[b] = s
		}
		copy(row[4:], refs[i][:8])
		if _, err := s.w.Write(row[:]); err != nil {
			return err
		}
		s.size += spillRow
	}
	return nil
}

// seal marks the end of what is noted so far: late looks at the rest alone.
func (g *graph) seal() {
	for first, s := range g.spill {
		if s != nil {
			g.sealed[first] = s.size
		}
	}
}

// needs calls fn for all that nodes need whose id has a first byte; late for
// those alone that were noted after seal.
func (g *graph) needs(first int, late bool, fn func(parent int32, need short)) error {
	s := g.spill[first]
	if s == nil {
		return nil
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	from := int64(0)
	if late {
		from = g.sealed[first]
	}
	r := bufio.NewReaderSize(io.NewSectionReader(s.file, from, s.size-from), int(min(s.size-from, 256<<10)))
	var row [spillRow]byte
	for {
		_, err := io.ReadFull(r, row[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fn(int32(binary.BigEndian.Uint32(row[:])), short(binary.BigEndian.Uint64(row[4:])))
	}
}

// connect finds the edges between nodes among all that nodes need. Every node
// must be known by then. late adds those of nodes noted after seal.
func (g *graph) connect(late bool) error {
	if !late {
		g.edges = g.edges[:0]
	}
	for first := range g.spill {
		err := g.needs(first, late, func(parent int32, need short) {
			if child, ok := g.number[need]; ok {
				g.edges = append(g.edges, edge{parent, child})
			}
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(g.edges, func(a, b edge) int { return int(a.parent) - int(b.parent) })
	return nil
}

// reached gives the nodes that roots and pinned ones need, themselves included.
// missing gets the roots that no pack holds.
func (g *graph) reached(roots []tripod.ID, pinned []int32, missing func(tripod.ID)) []bool {
	seen := make([]bool, len(g.number))
	var todo []int32
	for _, n := range pinned {
		if !seen[n] {
			seen[n] = true
			todo = append(todo, n)
		}
	}
	for _, id := range roots {
		n, ok := g.number[shorten(id)]
		switch {
		case !ok:
			missing(id)
		case !seen[n]:
			seen[n] = true
			todo = append(todo, n)
		}
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		at, _ := slices.BinarySearchFunc(g.edges, n, func(e edge, n int32) int { return int(e.parent) - int(n) })
		for ; at < len(g.edges) && g.edges[at].parent == n; at++ {
			if child := g.edges[at].child; !seen[child] {
				seen[child] = true
				todo = append(todo, child)
			}
		}
	}
	return seen
}

// wanted gives in ascending order what reached nodes need whose id has a first
// byte; late of nodes noted after seal alone.
func (g *graph) wanted(first int, late bool, reached []bool, into []short) ([]short, error) {
	into = into[:0]
	err := g.needs(first, late, func(parent int32, need short) {
		if reached[parent] {
			into = append(into, need)
		}
	})
	slices.Sort(into)
	return slices.Compact(into), err
}

// read adds the nodes of a pack, as far as they are undamaged. Whether one that
// is not is needed shows later.
func (g *graph) read(ctx context.Context, s store.Store, p *index.Pack, company tripod.CompanyID) error {
	data, rows, err := readPack(ctx, s, p, nil)
	if errors.Is(err, tripod.Corrupt) {
		return nil
	}
	if err != nil {
		return err
	}
	g.inPack[p.Name] = nil
	for i := range rows {
		if f, err := whole(&rows[i], data, company); err == nil {
			if err := g.node(p.Name, f.ID, f.Refs); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPack reads a pack whole, into buf when that is long enough.
func readPack(ctx context.Context, s store.Store, p *index.Pack, buf []byte) (data []byte, rows []frame.Row, err error) {
	if p.Size > mostPack {
		return nil, nil, tripod.Errorf(tripod.Corrupt, "pack %.16s: %d bytes are too long for a pack", p.Name, p.Size)
	}
	data = slices.Grow(buf[:0], int(p.Size))[:p.Size]
	n, err := s.Get(ctx, vault.PackName(p.Name), data, 0)
	if n == len(data) {
		rows, err = contents(p, data)
	} else if err == nil || errors.Is(err, io.EOF) {
		err = tripod.Errorf(tripod.Corrupt, "ends too early")
	}
	if err != nil {
		return data, nil, fmt.Errorf("pack %.16s: %w", p.Name, err)
	}
	return data, rows, nil
}

// mostPack bounds what is read into memory at once.
const mostPack = 128 << 20

// contents gives the rows of a pack that was read whole.
func contents(p *index.Pack, data []byte) ([]frame.Row, error) {
	if len(data) < frame.TrailerLen {
		return nil, tripod.Errorf(tripod.Corrupt, "ends too early")
	}
	n, err := frame.TOCLen(data[len(data)-frame.TrailerLen:])
	if err != nil {
		return nil, err
	}
	if n > len(data) {
		return nil, tripod.Errorf(tripod.Corrupt, "table of contents is longer than the pack")
	}
	toc, err := frame.ParseTOC(p.Name, int64(len(data)), data[len(data)-n:])
	return toc.Rows, err
}

// whole gives the frame that a row of a pack leads to, if it is the one meant,
// undamaged, and the company's.
func whole(r *frame.Row, pack []byte, company tripod.CompanyID) (frame.Frame, error) {
	f, rest, err := frame.Parse(pack[r.Offset : r.Offset+int64(r.Len)])
	if err == nil {
		err = f.Check()
	}
	if err == nil && (len(rest) != 0 || f.ID != r.ID || f.Sum != r.Sum || f.Kind != r.Kind || f.Company != company) {
		err = tripod.Errorf(tripod.Corrupt, "blob %.16s: another blob lies in its place", r.ID)
	}
	return f, err
}
