package archive

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
	"tripod/internal/vault/replicate"
)

const (
	window     = 256      // blobs asked for at a time
	mostRefs   = 16 << 10 // of nodes that are looked after together
	mostFrames = 16 << 20 // bytes of nodes in memory
	maxDepth   = 64       // of a tree; a deeper one is a lie
	mostBelow  = 4 << 20  // numbers kept of what is below nodes
)

// place sees to it that blobs and all that they need are in segments, durable or
// in memory, and gives for each the segments that it needs, ascending. Of what the
// archive has it reads the nodes alone: their ids are needed for the manifest.
//
// Memory does not grow with the vault: what is being filled, some windows of ids,
// and what is known of nodes up to a limit, which makes the snapshots after the
// first cheap.
func (a *archiving) place(ctx context.Context, ids []tripod.ID, depth int) ([][]int32, error) {
	if depth == maxDepth {
		return nil, &leftOut{tripod.Errorf(tripod.Corrupt, "blob %.16s: lies deeper than any tree goes", ids[0])}
	}
	needs := make([][]int32, len(ids))
	for at := 0; at < len(ids); at += window {
		end := min(at+window, len(ids))
		if err := a.placeSome(ctx, ids[at:end], needs[at:end], depth); err != nil {
			return nil, err
		}
	}
	return needs, nil
}

// want is a frame to read.
type want struct {
	i    int // position in ids
	id   tripod.ID
	sum  tripod.Sum
	take bool // into a segment; else only to see what it needs
	from vault.Source
}

// node is a node whose needs are looked after.
type node struct {
	want
	refs []tripod.ID
	size int
}

func (a *archiving) placeSome(ctx context.Context, ids []tripod.ID, needs [][]int32, depth int) error {
	wants, err := a.lacking(ctx, ids, needs)
	if err != nil {
		return err
	}
	var nodes []node
	err = a.read(ctx, wants, func(w *want, f *frame.Frame, encoded []byte) error {
		if f.Kind.Node() {
			nodes = append(nodes, node{*w, f.Refs, len(encoded)})
			return nil
		}
		n, err := a.add(ctx, f, encoded)
		needs[w.i] = append(needs[w.i], n)
		return err
	})
	for len(nodes) > 0 && err == nil {
		n := groupOf(nodes)
		err = a.group(ctx, nodes[:n], needs, depth)
		nodes = nodes[n:]
	}
	return err
}

// groupOf tells how many of the nodes are looked after together.
func groupOf(nodes []node) (n int) {
	refs, size := 0, 0
	for n < len(nodes) && (n == 0 || refs+len(nodes[n].refs) <= mostRefs && size+nodes[n].size <= mostFrames) {
		refs, size = refs+len(nodes[n].refs), size+nodes[n].size
		n++
	}
	return n
}

// group places what nodes need, then the nodes.
func (a *archiving) group(ctx context.Context, nodes []node, needs [][]int32, depth int) error {
	var refs []tripod.ID
	for i := range nodes {
		refs = append(refs, nodes[i].refs...)
	}
	slices.SortFunc(refs, compareIDs)
	refs = slices.Compact(refs)
	below, err := a.place(ctx, refs, depth+1)
	if err != nil {
		return err
	}
	var wants []want
	for i := range nodes {
		n := &nodes[i]
		for _, ref := range n.refs {
			at, _ := slices.BinarySearchFunc(refs, ref, compareIDs)
			needs[n.i] = append(needs[n.i], below[at]...)
		}
		needs[n.i] = union(needs[n.i])
		switch known, ok := a.below[n.id]; {
		case ok: // it was met again below another one, and is placed
			needs[n.i] = known
		case n.take:
			wants = append(wants, n.want)
		}
	}
	err = a.read(ctx, wants, func(w *want, f *frame.Frame, encoded []byte) error {
		number, err := a.add(ctx, f, encoded)
		needs[w.i] = union(append(needs[w.i], number))
		return err
	})
	for i := range nodes {
		if err == nil {
			a.remember(nodes[i].id, needs[nodes[i].i])
		}
	}
	return err
}

func compareIDs(a, b tripod.ID) int { return bytes.Compare(a[:], b[:]) }

// union gives the numbers in ascending order, each once.
func union(numbers []int32) []int32 {
	slices.Sort(numbers)
	return slices.Clip(slices.Compact(numbers))
}

// remember keeps what a node and all below it needs.
func (a *archiving) remember(id tripod.ID, needs []int32) {
	if a.entries += len(needs) + 8; a.entries > mostBelow {
		clear(a.below)
		a.entries = len(needs) + 8
	}
	a.below[id] = needs
}

// spot is what there is of a blob in the archive, and in memory.
type spot struct {
	sums []tripod.Sum
	node bool
}

// lacking tells which frames are to be read. Of a blob with variants all are
// taken: only readers know which one is right.
func (a *archiving) lacking(ctx context.Context, ids []tripod.ID, needs [][]int32) ([]want, error) {
	spots := make([]spot, len(ids))
	err := a.idx.Find(ids, func(i int, e *index.Entry) error {
		p, ok := a.idx.Pack(e.Pack)
		if e.Held() && ok {
			spots[i].sums, spots[i].node = append(spots[i].sums, e.Sum), e.Kind.Node()
			needs[i] = append(needs[i], a.of(p.Name))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	theirs, err := a.src.Copies(ctx, ids)
	if err != nil {
		return nil, err
	}
	var wants []want
	for i, id := range ids {
		if known, ok := a.below[id]; ok {
			needs[i] = known
			continue
		}
		w, err := a.lackingOf(i, id, &spots[i], theirs[i], &needs[i])
		if err != nil {
			return nil, err
		}
		wants = append(wants, w...)
		needs[i] = union(needs[i])
	}
	return wants, nil
}

func (a *archiving) lackingOf(i int, id tripod.ID, s *spot, theirs []vault.Copy, needs *[]int32) (wants []want, err error) {
	whole := slices.ContainsFunc(theirs, func(c vault.Copy) bool { return !c.Suspect }) || len(s.sums) > 0
	held := len(s.sums)
	var look *want // at a node that is there
	for _, c := range theirs {
		there := slices.Contains(s.sums[:held], c.Sum)
		if n, kind, ok := a.inMemory(frameKey{id, c.Sum}); ok && !there {
			there, s.node = true, kind.Node()
			*needs = append(*needs, n)
		}
		switch {
		case there && !c.Suspect:
			look = &want{i: i, id: id, sum: c.Sum, from: a.src}
		case !there && (!c.Suspect || !whole):
			wants = append(wants, want{i: i, id: id, sum: c.Sum, take: true, from: a.src})
		}
	}
	if held == 0 && len(theirs) == 0 {
		return nil, &leftOut{tripod.Errorf(tripod.NotFound, "blob %.16s: is missing", id)}
	}
	if len(wants) > 0 || !s.node {
		return wants, nil
	}
	if look == nil {
		look = &want{i: i, id: id, sum: s.sums[0], from: a.dst}
	}
	return []want{*look}, nil
}

// read reads frames and checks them. It calls use for one at a time, in no order.
func (a *archiving) read(ctx context.Context, wants []want, use func(w *want, f *frame.Frame, encoded []byte) error) error {
	for _, from := range []vault.Source{a.src, a.dst} {
		var some []want
		var ids []tripod.ID
		for _, w := range wants {
			if w.from == from {
				some, ids = append(some, w), append(ids, w.id)
			}
		}
		if len(some) == 0 {
			continue
		}
		if err := a.readFrom(ctx, from, some, ids, use); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiving) readFrom(ctx context.Context, from vault.Source, wants []want, ids []tripod.ID, use func(w *want, f *frame.Frame, encoded []byte) error) error {
	var mu sync.Mutex
	var ended error // of use, which is no matter of the blob's
	err := from.Get(ctx, ids, func(i int, encoded []byte) error {
		f, err := replicate.CheckFrame(encoded, ids[i], wants[i].sum, a.dst.Descriptor().Company)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if ended != nil {
			return errEnded
		}
		a.report.Read += int64(len(encoded))
		a.event.Bytes += int64(len(encoded))
		a.tell(false)
		if ended = use(&wants[i], &f, encoded); ended != nil {
			return errEnded
		}
		return nil
	}, func(_ int, err error) error {
		if errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound) {
			return &leftOut{err}
		}
		return err
	})
	if ended != nil {
		return ended
	}
	return err
}

// errEnded ends a Get at once: of its kind no other copy is tried.
var errEnded = errors.New("ended")
