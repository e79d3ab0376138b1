package files

import (
	"context"
	"slices"
	"sync"

	"tripod/internal/driver/source"
)

// The walk gives folders in order while workers read others ahead.
//
// A folder is a node. Reading it is one piece of work, or several for a large one:
// first its names, then its entries batch by batch. The nodes that may still have
// work to give lie in a list, the frontier, in the order in which the caller will
// need it: a folder's subfolders come before what is left of its parent. Whoever
// is idle takes the first piece of work in the frontier. The walk itself is a worker
// too: while it waits for the piece it needs next it does others, and when nobody
// has begun that piece, it stands first in the frontier. So the walk cannot get stuck,
// however little the workers may read ahead.

const (
	// aheadLimit is the cost of all that was read and not yet given to the caller
	// (some 150 bytes of memory each) at which workers pause.
	aheadLimit = 32 << 10
	// nodeCost is what a folder costs besides its entries.
	nodeCost = 8
)

type walk struct {
	tree   *Tree
	byPath bool
	skip   []source.Entry // Name holds the path

	mu      sync.Mutex
	ready   sync.Cond // the walk waits here for the batch it needs
	work    sync.Cond // workers wait here for work, or for room to read ahead
	idle    int       // workers that wait
	front   node      // head of the frontier, a ring
	ahead   int       // cost of what was read and not yet given to the caller
	stopped bool
}

// node is a folder being read.
type node struct {
	folder
	prev, next *node // in the frontier; nil when it has no more work to give

	names   []listed // of a large folder, until all are read
	news    []news   // of its listing, until its first batch is read
	listed  bool     // batches has its full length
	batches []*batch // nil: not read yet, or given away
	taken   int      // batches begun; < 0: not even the listing
	done    int      // batches read

	parts   [][]subfolder // of each batch of a large folder, until all are read
	folders []subfolder   // when all batches are read
	begun   int           // subfolders that became nodes
	nodes   []*node       // those, until the walk comes to them
}

// piece is work: the listing of a node (at < 0) or one of its batches.
type piece struct {
	node *node
	at   int
}

func (t *Tree) walk(ctx context.Context, root *wanted, fn func([]source.Entry) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w := &walk{tree: t, byPath: t.patterns.byPath()}
	w.ready.L, w.work.L = &w.mu, &w.mu
	w.front.prev, w.front.next = &w.front, &w.front
	w.findSkips()

	stop := context.AfterFunc(ctx, w.stop)
	defer stop()
	top, err := w.root(root, fn)
	if err != nil {
		return err
	}
	var workers sync.WaitGroup
	for range t.options.Workers {
		workers.Go(w.readAhead)
	}
	defer workers.Wait()
	defer w.stop()
	w.mu.Lock()
	w.enlist(top, &w.front)
	w.mu.Unlock()
	return w.give(ctx, top, &scratch{}, fn)
}

func (w *walk) findSkips() {
	for _, path := range w.tree.options.Skip {
		abs, err := absolute(path)
		if err != nil {
			continue
		}
		var e source.Entry
		if err := w.tree.system.stat(abs, true, &e); err != nil {
			e = source.Entry{} // not there yet: the path alone counts
		}
		e.Parent, e.Name = "", abs
		w.skip = append(w.skip, e)
	}
}

// root gives the entry of the root, and its node with the listing yet to do.
func (w *walk) root(root *wanted, fn func([]source.Entry) error) (*node, error) {
	var e source.Entry
	if err := w.tree.system.stat("", true, &e); err != nil {
		return nil, failure("root of the file system", "", err)
	}
	if err := fn([]source.Entry{e}); err != nil {
		return nil, err
	}
	return &node{folder: folder{
		dev: e.Dev, inode: e.Inode, fs: e.Dev, parent: e.Dev,
		wanted: root, all: root.all, checked: e.Inode != 0,
	}, taken: -1}, nil
}

// give hands the entries of n and of all below it to fn.
func (w *walk) give(ctx context.Context, n *node, s *scratch, fn func([]source.Entry) error) error {
	for at := 0; ; at++ {
		b, ok, err := w.await(ctx, n, at, s)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		for _, m := range b.news {
			if m.err != nil {
				w.tree.warn(m.path, m.err)
			} else {
				w.tree.note(m.path, m.text)
			}
		}
		if len(b.entries) > 0 {
			if err := fn(b.entries); err != nil {
				return err
			}
		}
	}
	for {
		child := w.nextFolder(n)
		if child == nil {
			return nil
		}
		if err := w.give(ctx, child, s, fn); err != nil {
			return err
		}
	}
}

// await gives the batch of n numbered at, and false when n has fewer.
func (w *walk) await(ctx context.Context, n *node, at int, s *scratch) (*batch, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
		if n.listed && at == len(n.batches) {
			return nil, false, nil
		}
		if n.listed && n.batches[at] != nil {
			b := n.batches[at]
			n.batches[at] = nil
			w.release(len(b.entries))
			return b, true, nil
		}
		// What nobody has begun stands first in the frontier.
		if w.ahead < w.tree.ahead || n.taken < 0 || (n.listed && n.taken <= at) {
			if p, ok := w.pick(); ok {
				w.do(p, s)
				w.offer()
				continue
			}
		}
		w.ready.Wait()
	}
}

// nextFolder gives the next subfolder of n, begun by a worker or by nobody yet.
func (w *walk) nextFolder(n *node) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(n.nodes) == 0 {
		if n.begun == len(n.folders) {
			return nil
		}
		w.begin(n)
	}
	child := n.nodes[0]
	n.nodes[0] = nil
	n.nodes = n.nodes[1:]
	w.release(nodeCost)
	return child
}

// readAhead is a worker's life.
func (w *walk) readAhead() {
	s := &scratch{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.stopped {
		if w.ahead < w.tree.ahead {
			if p, ok := w.pick(); ok {
				w.do(p, s)
				w.ready.Signal()
				continue
			}
		}
		w.idle++
		w.work.Wait()
		w.idle--
	}
}

// offer wakes a worker when there may be work for it.
func (w *walk) offer() {
	if w.idle > 0 && w.ahead < w.tree.ahead {
		w.work.Signal()
	}
}

func (w *walk) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.ready.Broadcast()
	w.work.Broadcast()
}

// release says that the caller got something. Workers go on when half of what
// they may read ahead is free: woken for each batch they would do little else
// than wake and sleep.
func (w *walk) release(cost int) {
	before := w.ahead
	w.ahead -= cost
	if before >= w.tree.ahead/2 && w.ahead < w.tree.ahead/2 {
		w.work.Broadcast()
	}
}

// pick takes the first piece of work in the frontier.
func (w *walk) pick() (piece, bool) {
	for n := w.front.next; n != &w.front; n = n.next {
		if n.taken < 0 {
			n.taken = 0
			return piece{n, -1}, true
		}
		if n.listed && n.taken < len(n.batches) {
			n.taken++
			return piece{n, n.taken - 1}, true
		}
		if n.begun < len(n.folders) {
			child := w.begin(n)
			child.taken = 0
			return piece{child, -1}, true
		}
	}
	return piece{}, false
}

// begin makes a node of the next subfolder of n.
func (w *walk) begin(n *node) *node {
	sub := &n.folders[n.begun]
	child := &node{taken: -1, folder: folder{
		path: source.Join(n.path, sub.name), dev: sub.dev, inode: sub.inode, fs: n.fs, parent: n.dev,
		wanted: sub.wanted, all: sub.all, follow: sub.follow, checked: sub.inode != 0,
	}}
	if sub.named {
		// It sets out a file system of its own, and is kept whatever it is.
		child.fs, child.parent = sub.dev, sub.dev
	}
	n.begun++
	n.nodes = append(n.nodes, child)
	w.enlist(child, n)
	w.ahead += nodeCost
	if n.begun == len(n.folders) {
		w.retire(n)
		n.folders = nil
		n.begun = 0
	}
	return child
}

func (w *walk) enlist(n, before *node) {
	n.prev, n.next = before.prev, before
	n.prev.next, n.next.prev = n, n
}

func (w *walk) retire(n *node) {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
}

// do reads a piece; it is called with the lock, and reads without it.
func (w *walk) do(p piece, s *scratch) {
	w.mu.Unlock()
	n, b := p.node, &batch{}
	names := n.names
	var d directory
	if p.at < 0 {
		names, d = w.names(&n.folder, s, b)
		if len(names) <= w.tree.batch {
			if d != nil {
				w.read(&n.folder, d, names, s, b)
			}
			p.at = 0
		}
	} else {
		var err error
		end := min(len(names), (p.at+1)*w.tree.batch)
		if d, err = w.enter(&n.folder); err != nil {
			b.warn("rest of folder", n.path, err)
		} else {
			w.read(&n.folder, d, names[p.at*w.tree.batch:end], s, b)
		}
	}
	if d != nil {
		d.close()
	}
	w.mu.Lock()
	if p.at < 0 {
		w.spread(n, names, b)
	} else {
		w.finish(n, p.at, b)
	}
}

// spread turns the names of a large folder into many pieces of work.
func (w *walk) spread(n *node, names []listed, b *batch) {
	count := (len(names) + w.tree.batch - 1) / w.tree.batch
	n.names, n.news, n.listed = names, b.news, true
	n.batches = make([]*batch, count)
	n.parts = make([][]subfolder, count)
	w.ahead += nameCost(names)
	if w.idle > 0 {
		w.work.Broadcast()
	}
}

// nameCost is what names cost that wait for being read.
func nameCost(names []listed) int { return len(names) / 4 }

// finish takes in a batch that was read.
func (w *walk) finish(n *node, at int, b *batch) {
	if !n.listed {
		n.batches, n.parts, n.listed, n.taken = make([]*batch, 1), make([][]subfolder, 1), true, 1
	}
	if at == 0 {
		b.news = append(n.news, b.news...)
		n.news = nil
	}
	n.batches[at], n.parts[at] = b, b.folders
	b.folders = nil
	n.done++
	w.ahead += len(b.entries)
	if n.done < len(n.batches) {
		return
	}
	// All is read: now its subfolders are known.
	w.ahead -= nameCost(n.names)
	n.names = nil
	n.folders = n.parts[0]
	if len(n.parts) > 1 {
		n.folders = slices.Concat(n.parts...)
	}
	n.parts = nil
	if len(n.folders) == 0 {
		w.retire(n)
	} else if len(n.folders) > 1 {
		w.offer() // one subfolder is for whoever came here
	}
}
