package backup

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

const (
	// batchBytes is the size of an upload batch. One of data may be under way
	// while the next fills, and each is copied once more into its pack: what
	// waits for the vault is a large part of the memory a backup takes.
	batchBytes   = 8 << 20
	batchesAhead = 1
)

// uploader seals blobs and puts those the vault does not have. Data goes in
// any order and from many goroutines; nodes go from one goroutine, children
// first, and are put only after all data that came before them is durable.
type uploader struct {
	// ctx is the run's own: a batch may outlive the caller that filled it.
	ctx     context.Context // lint:context an uploader lives inside one run
	vault   vault.Writer
	sealers chan *worker
	puts    errgroup.Group
	slots   chan struct{} // one per batch under way
	failed  atomic.Pointer[error]
	stored  *atomic.Int64 // bytes written

	// sealing is held for reading while a data blob is on its way into a
	// batch, and for writing to know that none is.
	sealing sync.RWMutex

	mu      sync.Mutex // guards what follows
	claimed map[tripod.ID]struct{}
	data    *batch
	nodes   *batch
	spare   []*batch
}

// worker is a sealer with room for the frame it makes.
type worker struct {
	*seal.Sealer
	frame []byte
}

// batch is frames of one class on their way to the vault.
type batch struct {
	arena  []byte
	frames [][]byte
	ids    []tripod.ID
}

func newUploader(ctx context.Context, keys *seal.MachineKeys, level seal.Level, w vault.Writer, stored *atomic.Int64) *uploader {
	n := runtime.GOMAXPROCS(0)
	u := &uploader{
		ctx: ctx, vault: w, stored: stored, sealers: make(chan *worker, n), slots: make(chan struct{}, batchesAhead),
		claimed: map[tripod.ID]struct{}{}, data: new(batch), nodes: new(batch),
	}
	for range n {
		u.sealers <- &worker{Sealer: keys.Sealer(level)}
	}
	return u
}

// blob stores one data blob and returns its capability. known, when not nil,
// says whether an earlier snapshot of this machine holds the blob. The blob is
// durable only after flush.
func (u *uploader) blob(ctx context.Context, plain []byte, known func(*seal.Ref) bool) (seal.Ref, error) {
	var w *worker
	select {
	case w = <-u.sealers:
	case <-ctx.Done():
		return seal.Ref{}, ctx.Err()
	}
	defer func() { u.sealers <- w }()
	ref := w.Ref(tripod.Data, nil, plain)
	if known != nil && known(&ref) {
		return ref, nil
	}
	u.sealing.RLock()
	defer u.sealing.RUnlock()
	return ref, u.put(ctx, w, tripod.Data, &ref, nil, plain)
}

// node stores one node; see uploader.
func (u *uploader) node(ctx context.Context, kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
	w := <-u.sealers
	defer func() { u.sealers <- w }()
	ref := w.Ref(kind, refs, plain)
	return ref, u.put(ctx, w, kind, &ref, refs, plain)
}

func (u *uploader) put(ctx context.Context, w *worker, kind tripod.BlobKind, ref *seal.Ref, refs []tripod.ID, plain []byte) error {
	id := ref.ID()
	if !u.claim(id) {
		return nil
	}
	have, err := u.vault.Have(ctx, []tripod.ID{id})
	if err != nil {
		return err
	}
	w.frame = w.Seal(w.frame[:0], kind, ref, refs, plain)
	if len(have[0]) > 0 {
		// Somebody put this blob before. Only a frame equal to our own is
		// certain to open to our content; another is stored beside it.
		f, _, err := frame.Parse(w.frame)
		if err != nil {
			return err
		}
		if slices.Contains(have[0], f.Sum) {
			u.release(id)
			return nil
		}
	}
	return u.add(ctx, frame.ClassOf(kind), id, w.frame)
}

// claim reports whether the caller is the first of this run to store a blob.
func (u *uploader) claim(id tripod.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, taken := u.claimed[id]
	u.claimed[id] = struct{}{}
	return !taken
}

// release takes a claim back: the vault itself knows the blob.
func (u *uploader) release(id tripod.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.claimed, id)
}

func (u *uploader) add(ctx context.Context, class frame.Class, id tripod.ID, encoded []byte) error {
	if err := u.err(); err != nil {
		return err
	}
	if class == frame.NodeClass {
		u.mu.Lock()
		full := u.nodes.full(len(encoded))
		u.mu.Unlock()
		if full {
			if err := u.flush(ctx); err != nil {
				return err
			}
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.nodes.add(id, encoded)
		return nil
	}
	u.mu.Lock()
	var ready *batch
	if u.data.full(len(encoded)) {
		ready, u.data = u.data, u.fresh()
	}
	u.data.add(id, encoded)
	u.mu.Unlock()
	if ready == nil {
		return nil
	}
	return u.send(ctx, ready)
}

func (b *batch) full(next int) bool { return len(b.arena)+next > batchBytes && len(b.frames) > 0 }

func (b *batch) add(id tripod.ID, encoded []byte) {
	if b.arena == nil {
		b.arena = make([]byte, 0, batchBytes)
	}
	start := len(b.arena)
	// A frame longer than the room left makes the arena move; frames added
	// before keep the old memory alive until the batch is sent.
	b.arena = append(b.arena, encoded...)
	b.frames = append(b.frames, b.arena[start:len(b.arena):len(b.arena)])
	b.ids = append(b.ids, id)
}

// fresh gives an empty batch; the caller holds mu.
func (u *uploader) fresh() *batch {
	if n := len(u.spare); n > 0 {
		b := u.spare[n-1]
		u.spare = u.spare[:n-1]
		return b
	}
	return new(batch)
}

// send puts a data batch in the background, waiting while too many are under way.
func (u *uploader) send(ctx context.Context, b *batch) error {
	select {
	case u.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	u.puts.Go(func() error {
		defer func() { <-u.slots }()
		u.write(u.ctx, frame.DataClass, b)
		return nil
	})
	return nil
}

func (u *uploader) write(ctx context.Context, class frame.Class, b *batch) {
	n, err := u.vault.Put(ctx, class, b.frames)
	u.stored.Add(n)
	if err != nil {
		u.failed.CompareAndSwap(nil, &err)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	// The vault knows them from now on.
	for _, id := range b.ids {
		delete(u.claimed, id)
	}
	b.arena, b.frames, b.ids = b.arena[:0], b.frames[:0], b.ids[:0]
	u.spare = append(u.spare, b)
}

// flush makes durable all that was stored so far, data before nodes. Nodes
// must come from the goroutine that calls it.
func (u *uploader) flush(ctx context.Context) error {
	u.sealing.Lock()
	u.mu.Lock()
	data := u.data
	u.data = u.fresh()
	u.mu.Unlock()
	u.sealing.Unlock()
	if len(data.frames) > 0 {
		if err := u.send(ctx, data); err != nil {
			return err
		}
	}
	if err := u.landed(ctx); err != nil {
		return err
	}
	u.mu.Lock()
	nodes := u.nodes
	u.nodes = u.fresh()
	u.mu.Unlock()
	if len(nodes.frames) > 0 {
		u.write(ctx, frame.NodeClass, nodes)
	}
	return u.err()
}

// landed waits until every batch sent before is durable.
func (u *uploader) landed(ctx context.Context) error {
	held := 0
	defer func() {
		for range held {
			<-u.slots
		}
	}()
	for range batchesAhead {
		select {
		case u.slots <- struct{}{}:
			held++
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return u.err()
}

// close waits for what is under way, after which the vault is not used any more.
func (u *uploader) close() { _ = u.puts.Wait() }

func (u *uploader) err() error {
	if e := u.failed.Load(); e != nil {
		return *e
	}
	return nil
}
