package replicate

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

const (
	window    = 256      // blobs asked for at a time, at least
	batches   = 3        // of data, being filled or put
	maxFrames = 16 << 20 // bytes of node frames kept while what they need is fetched; the rest is read again
	maxDepth  = 64       // of a tree; a deeper one is a lie
	maxLost   = 1 << 16  // blobs that cannot be had which are not asked for again
)

// Puller fetches blobs with all that they need from one copy of a vault into
// another, frame by frame as they are, and skips what is there. What it keeps in
// memory does not grow with the vault: a few batches, and of each level of the
// tree that it is in some blobs' ids and frames.
type Puller struct {
	src     vault.Source
	dst     *local.Vault
	session *local.Session
	meter   *meter

	full  chan *batch // of data, to be put
	free  chan *batch
	data  *batch
	nodes *batch
	held  int // bytes of node frames in memory
	lost  map[tripod.ID]*missing

	mu      sync.Mutex
	pending map[tripod.ID]bool // in batches that are not yet put
}

// batch is frames of one class in one piece of memory.
type batch struct {
	buf    []byte
	ends   []int
	frames [][]byte
	ids    []tripod.ID
}

func (b *batch) fits(n int) bool { return len(b.ids) == 0 || len(b.buf)+n <= tripod.MaxPack }

func (b *batch) add(id tripod.ID, encoded []byte) {
	b.buf = append(b.buf, encoded...)
	b.ends = append(b.ends, len(b.buf))
	b.ids = append(b.ids, id)
}

// list gives the frames; the memory stays the batch's.
func (b *batch) list() [][]byte {
	b.frames = b.frames[:0]
	start := 0
	for _, end := range b.ends {
		b.frames = append(b.frames, b.buf[start:end:end])
		start = end
	}
	return b.frames
}

func (b *batch) reset() { b.buf, b.ends, b.ids = b.buf[:0], b.ends[:0], b.ids[:0] }

// missing is a blob that neither copy has whole.
type missing struct {
	id  tripod.ID
	err error
}

// Pulling runs do with a puller, and puts what it pulls.
func Pulling(ctx context.Context, src vault.Source, dst *local.Vault, session *local.Session, progress run.Progress, do func(context.Context, *Puller) error) error {
	p := &Puller{
		src: src, dst: dst, session: session, meter: newMeter(progress),
		full: make(chan *batch), free: make(chan *batch, batches), nodes: new(batch), lost: map[tripod.ID]*missing{}, pending: map[tripod.ID]bool{},
	}
	for range batches - 1 {
		p.free <- new(batch)
	}
	p.data = new(batch)
	g, gctx := errgroup.WithContext(ctx)
	for range batches - 1 {
		g.Go(func() error {
			for b := range p.full {
				if err := p.put(gctx, frame.DataClass, b); err != nil {
					return err
				}
				p.free <- b
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(p.full)
		return do(gctx, p)
	})
	return g.Wait()
}

// Pull fetches a blob and all that it needs, as far as the vault lacks it. It
// returns NotFound or Corrupt, naming a blob, when something is to be had nowhere;
// everything else is fetched all the same. What was pulled is in the vault after
// the next Flush.
func (p *Puller) Pull(ctx context.Context, root tripod.ID) error {
	lost, err := p.walk(ctx, []tripod.ID{root}, 0)
	if err == nil && lost != nil {
		err = lost.err
	}
	return err
}

// node is a node blob whose needs are looked after.
type node struct {
	want
	refs    []tripod.ID
	encoded []byte // nil when there were too many in memory
}

// walk fetches blobs and all that they need. It tells of one that could not be
// had, and then leaves out the nodes above it.
func (p *Puller) walk(ctx context.Context, ids []tripod.ID, depth int) (lost *missing, err error) {
	if depth == maxDepth {
		return nil, tripod.Errorf(tripod.Corrupt, "blob %.16s: lies deeper than any tree goes", ids[0])
	}
	for part := range slices.Chunk(ids, window) {
		nodes, gone, err := p.fetch(ctx, part)
		if err != nil {
			return nil, err
		}
		lost = cmp.Or(lost, gone)
		for len(nodes) > 0 {
			n := groupOf(nodes)
			gone, err := p.group(ctx, nodes[:n], depth)
			if err != nil {
				return nil, err
			}
			lost = cmp.Or(lost, gone)
			nodes = nodes[n:]
		}
	}
	return lost, nil
}

// groupOf tells how many of the nodes are looked after together, so that few
// small ones do not cost a question each.
func groupOf(nodes []node) (n int) {
	for refs := 0; n < len(nodes) && (n == 0 || refs+len(nodes[n].refs) <= window); n++ {
		refs += len(nodes[n].refs)
	}
	return n
}

// group fetches what nodes need, then takes the nodes.
func (p *Puller) group(ctx context.Context, nodes []node, depth int) (lost *missing, err error) {
	var refs []tripod.ID
	for i := range nodes {
		refs = append(refs, nodes[i].refs...)
	}
	if len(nodes) > 1 {
		slices.SortFunc(refs, compareIDs)
		refs = slices.Compact(refs)
	}
	if len(refs) > 0 {
		lost, err = p.walk(ctx, refs, depth+1)
	}
	if lost != nil && err == nil && len(nodes) > 1 {
		// Some of them may have all they need.
		for i := range nodes {
			if _, err := p.group(ctx, nodes[i:i+1], depth); err != nil {
				return nil, err
			}
		}
		return lost, nil
	}
	for i := range nodes {
		n := &nodes[i]
		p.held -= len(n.encoded)
		if lost != nil {
			p.giveUp(n.id, lost)
		}
		if lost != nil || err != nil {
			continue
		}
		if n.encoded == nil {
			gone, err := p.again(ctx, n)
			if gone != nil || err != nil {
				return gone, err
			}
		}
		if err := p.addNode(ctx, n); err != nil {
			return nil, err
		}
		n.encoded = nil
	}
	return lost, err
}

// giveUp remembers a blob that cannot be had, or not with all that it needs.
func (p *Puller) giveUp(id tripod.ID, why *missing) {
	if len(p.lost) < maxLost {
		p.lost[id] = why
	}
}

func compareIDs(a, b tripod.ID) int { return bytes.Compare(a[:], b[:]) }

// want is a frame to be fetched.
type want struct {
	id  tripod.ID
	sum tripod.Sum
	own bool // the vault has it already, without all that it needs
}

// lacking tells which frames the vault needs to have what the source has of the
// ids, variants too: only readers know which one is right.
func (p *Puller) lacking(ctx context.Context, ids []tripod.ID) (wants []want, lost *missing, err error) {
	p.mu.Lock()
	ids = slices.DeleteFunc(slices.Clone(ids), func(id tripod.ID) bool {
		gone := p.lost[id]
		lost = cmp.Or(lost, gone)
		return gone != nil || p.pending[id]
	})
	p.mu.Unlock()
	if len(ids) == 0 {
		return nil, lost, nil
	}
	have, err := p.session.Have(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	theirs, err := p.src.Copies(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	ours, err := p.dst.Copies(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	for i, id := range ids {
		n := len(wants)
		for _, c := range theirs[i] {
			if c.Suspect && len(have[i]) > 0 || slices.Contains(have[i], c.Sum) {
				continue
			}
			wants = append(wants, want{id, c.Sum, slices.Contains(ours[i], vault.Copy{Sum: c.Sum})})
		}
		if len(have[i]) > 0 || len(wants) > n {
			continue
		}
		for _, c := range ours[i] {
			if !c.Suspect {
				wants = append(wants, want{id, c.Sum, true})
			}
		}
		if len(wants) == n {
			gone := &missing{id, tripod.Errorf(tripod.NotFound, "blob %.16s: is missing", id)}
			p.giveUp(id, gone)
			lost = cmp.Or(lost, gone)
		}
	}
	return wants, lost, nil
}

// fetch fetches what the vault lacks of the ids: data is taken, nodes are given
// back.
func (p *Puller) fetch(ctx context.Context, ids []tripod.ID) (nodes []node, lost *missing, err error) {
	wants, lost, err := p.lacking(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	take := func(w want, f *frame.Frame, encoded []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if !f.Kind.Node() {
			return p.addData(ctx, f.ID, encoded)
		}
		n := node{want: w, refs: f.Refs}
		if p.held+len(encoded) <= maxFrames {
			n.encoded = bytes.Clone(encoded)
			p.held += len(encoded)
		}
		nodes = append(nodes, n)
		return nil
	}
	bad, err := p.read(ctx, wants, take)
	for i := range bad {
		p.giveUp(bad[i].id, &bad[i])
		lost = cmp.Or(lost, &bad[i])
	}
	slices.SortFunc(nodes, func(a, b node) int { return compareIDs(a.id, b.id) })
	return nodes, lost, err
}

// again reads a node whose frame was not kept.
func (p *Puller) again(ctx context.Context, n *node) (lost *missing, err error) {
	bad, err := p.read(ctx, []want{n.want}, func(_ want, _ *frame.Frame, encoded []byte) error {
		n.encoded = bytes.Clone(encoded)
		return nil
	})
	if len(bad) > 0 {
		lost = &bad[0]
		p.giveUp(n.id, lost)
	}
	return lost, err
}

// read reads frames and checks them: from the vault itself where it has them, and
// from the source. Calls of take may be concurrent.
func (p *Puller) read(ctx context.Context, wants []want, take func(want, *frame.Frame, []byte) error) (lost []missing, err error) {
	var own, other []want
	for _, w := range wants {
		if w.own {
			own = append(own, w)
		} else {
			other = append(other, w)
		}
	}
	bad, err := get(ctx, p.dst, p.dst.Descriptor().Company, own, take)
	if err != nil {
		return nil, err
	}
	for _, b := range bad {
		other = append(other, b.want)
	}
	fetched := func(w want, f *frame.Frame, encoded []byte) error {
		p.meter.read(len(encoded))
		return take(w, f, encoded)
	}
	bad, err = get(ctx, p.src, p.dst.Descriptor().Company, other, fetched)
	for _, b := range bad {
		lost = append(lost, missing{b.id, b.err})
	}
	return lost, err
}

// unread is a frame that could not be had.
type unread struct {
	want
	err error
}

// get reads frames from one place. What is not there or not what it must be is
// given back.
func get(ctx context.Context, r vault.Reader, company tripod.CompanyID, wants []want, take func(want, *frame.Frame, []byte) error) (bad []unread, err error) {
	if len(wants) == 0 {
		return nil, nil
	}
	ids := make([]tripod.ID, len(wants))
	for i := range wants {
		ids[i] = wants[i].id
	}
	use := func(i int, encoded []byte) error {
		f, err := CheckFrame(encoded, ids[i], wants[i].sum, company)
		if err != nil {
			return err
		}
		return take(wants[i], &f, encoded)
	}
	err = r.Get(ctx, ids, use, func(i int, err error) error {
		if errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound) {
			bad = append(bad, unread{wants[i], err})
			return nil
		}
		return err
	})
	return bad, err
}

// CheckFrame returns Corrupt unless bytes are the frame of a blob under a sum,
// whole, and the company's.
func CheckFrame(encoded []byte, id tripod.ID, sum tripod.Sum, company tripod.CompanyID) (frame.Frame, error) {
	f, rest, err := frame.Parse(encoded)
	switch {
	case err != nil:
		return f, tripod.Errorf(tripod.Corrupt, "blob %.16s: %w", id, err)
	case len(rest) > 0 || f.ID != id || f.Sum != sum:
		return f, tripod.Errorf(tripod.Corrupt, "blob %.16s: other bytes than those meant", id)
	case f.Company != company:
		return f, tripod.Errorf(tripod.Corrupt, "blob %.16s: belongs to another company", id)
	}
	return f, f.Check()
}

// addData takes a data frame, and hands on the batch when it is full.
func (p *Puller) addData(ctx context.Context, id tripod.ID, encoded []byte) error {
	if !p.data.fits(len(encoded)) {
		if err := p.handOn(ctx); err != nil {
			return err
		}
	}
	p.data.add(id, encoded)
	p.mu.Lock()
	p.pending[id] = true
	p.mu.Unlock()
	return nil
}

// handOn gives the batch of data to be put, and takes an empty one.
func (p *Puller) handOn(ctx context.Context) error {
	if len(p.data.ids) == 0 {
		return nil
	}
	select {
	case p.full <- p.data:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case p.data = <-p.free:
		return nil
	case <-ctx.Done():
		p.data = new(batch)
		return ctx.Err()
	}
}

func (p *Puller) addNode(ctx context.Context, n *node) error {
	if !p.nodes.fits(len(n.encoded)) {
		if err := p.Flush(ctx); err != nil {
			return err
		}
	}
	p.nodes.add(n.id, n.encoded)
	p.mu.Lock()
	p.pending[n.id] = true
	p.mu.Unlock()
	return nil
}

// Flush puts everything that was pulled: nodes when all the data is there.
func (p *Puller) Flush(ctx context.Context) error {
	if err := p.handOn(ctx); err != nil {
		return err
	}
	idle := make([]*batch, 0, batches-1)
	for range batches - 1 {
		select {
		case b := <-p.free:
			idle = append(idle, b)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, b := range idle {
		p.free <- b
	}
	if len(p.nodes.ids) == 0 {
		return nil
	}
	return p.put(ctx, frame.NodeClass, p.nodes)
}

func (p *Puller) put(ctx context.Context, class frame.Class, b *batch) error {
	stored, err := p.session.Put(ctx, class, b.list())
	if err != nil {
		return err
	}
	p.meter.put(len(b.ids), stored)
	p.mu.Lock()
	for _, id := range b.ids {
		delete(p.pending, id)
	}
	p.mu.Unlock()
	b.reset()
	return nil
}

// Blobs is how many were put so far.
func (p *Puller) Blobs() int {
	p.meter.mu.Lock()
	defer p.meter.mu.Unlock()
	return int(p.meter.blobs)
}

// filled tells how many bytes of nodes wait to be put.
func (p *Puller) filled() int { return len(p.nodes.buf) }
