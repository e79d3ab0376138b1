package local

import (
	"context"
	"errors"
	"sync"

	"tripod/internal/core/reach"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// Session writes to a vault. While it lasts no other process does, in a store
// that can keep others out. Its methods may be called concurrently.
type Session struct {
	v     *Vault
	idx   *index.Index
	began reach.Epoch

	mu    sync.Mutex
	ended bool
	// What a collection must leave alone although no record needs it yet: the
	// nodes this session put, by pack, and those it was told are there.
	put  []tripod.PackID
	told []tripod.ID
}

// writers are the sessions of this process.
type writers struct {
	// gate is held for reading while a session looks at the index and acts on
	// what it saw, and for writing while a collection changes what counts as
	// there. It is taken before Vault.mu.
	gate sync.RWMutex
	// commit admits one commit at a time.
	commit sync.Mutex

	turn  chan struct{} // a token, held by who waits for the store
	mu    sync.Mutex    // guards the rest
	users int           // of the store's lock
	free  func() error
	epoch reach.Epoch
	open  map[*Session]struct{}
	ended chan struct{} // closed, and made anew, when a session ends
}

// Begin waits for its turn to write. While it waits, waiting is called with the
// text of whoever writes, once each; it may be nil. Sessions of one Vault do not
// wait for each other.
func (v *Vault) Begin(ctx context.Context, holder vault.Holder, waiting func(holder string)) (*Session, error) {
	release, err := v.hold(ctx, holder, waiting)
	if err != nil {
		return nil, err
	}
	idx, err := v.index(ctx)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	w := &v.writers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch++
	s := &Session{v: v, idx: idx, began: w.epoch}
	w.open[s] = struct{}{}
	return s, nil
}

// hold keeps other processes from writing until release is called.
func (v *Vault) hold(ctx context.Context, holder vault.Holder, waiting func(holder string)) (release func() error, err error) {
	w := &v.writers
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	shared := w.users > 0
	if shared {
		w.users++
	}
	w.mu.Unlock()
	if shared {
		return v.letGo, nil
	}
	free := func() error { return nil }
	if x, ok := v.store.(store.Exclusive); ok {
		f, err := x.Exclusive(ctx, holder.Text, waiting)
		switch {
		case err == nil:
			free = f
		case !errors.Is(err, tripod.Invalid):
			return nil, err
		}
		// A store that knows no locks: names that are created once and never
		// overwritten keep two writers from harm, if not from double work.
	}
	if err := v.prepare(ctx); err != nil {
		return nil, errors.Join(err, free())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users, w.free = 1, free
	return v.letGo, nil
}

// letGo ends one use of the store's lock.
func (v *Vault) letGo() error {
	w := &v.writers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users--; w.users > 0 {
		return nil
	}
	return w.free()
}

// prepare looks at what others wrote before it was our turn.
func (v *Vault) prepare(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.sameCompany(ctx); err != nil {
		return err
	}
	if err := v.follow(ctx); err != nil {
		return err
	}
	return v.settle(ctx)
}

// Close lets the next one write. It may be called more than once.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	w := &s.v.writers
	w.mu.Lock()
	delete(w.open, s)
	close(w.ended)
	w.ended = make(chan struct{})
	w.mu.Unlock()
	return s.v.letGo()
}

// alive returns an error when the session has ended.
func (s *Session) alive(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return tripod.Errorf(tripod.Fenced, "this session with the vault has ended").WithHint("begin another one")
	}
	return ctx.Err()
}

// Head gives the newest record of a machine's source; see Vault.Head.
func (s *Session) Head(ctx context.Context, machine tripod.MachineID, source tripod.SourceID) (seq uint64, encoded []byte, err error) {
	return s.v.Head(ctx, machine, source)
}

// Documents gives the vault's documents; see Vault.Documents.
func (s *Session) Documents(ctx context.Context, prefix string, fn func(name string, content []byte) error) error {
	return s.v.Documents(ctx, prefix, fn)
}

// Have implements vault.Writer.
func (s *Session) Have(ctx context.Context, ids []tripod.ID) ([][]tripod.Sum, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	s.v.writers.gate.RLock()
	defer s.v.writers.gate.RUnlock()
	have := make([][]tripod.Sum, len(ids))
	all := make([]tripod.Sum, 0, len(ids)) // most ids have one
	var revived []index.Entry
	var nodes []tripod.ID
	err := s.idx.Find(ids, func(i int, e *index.Entry) error {
		if !wanted(e, &revived) {
			return nil
		}
		for _, sum := range have[i] {
			if sum == e.Sum {
				return nil // another copy of the same
			}
		}
		if have[i] != nil {
			have[i] = append(have[i], e.Sum)
			return nil
		}
		if e.Kind.Node() {
			nodes = append(nodes, e.ID)
		}
		all = append(all, e.Sum)
		n := len(all)
		have[i] = all[n-1 : n : n]
		return nil
	})
	if err == nil && len(revived) > 0 {
		err = s.idx.Revive(revived)
	}
	if err != nil {
		return nil, err
	}
	s.countOn(nodes)
	return have, nil
}

// wanted reports whether a copy counts as there for who builds upon it, and
// notes it when it must be revived for that.
func wanted(e *index.Entry, revived *[]index.Entry) bool {
	after, again := e.State().Want()
	if again {
		*revived = append(*revived, *e)
	}
	return after.Held()
}

// countOn keeps nodes that the session was told of from being condemned.
func (s *Session) countOn(nodes []tripod.ID) {
	if len(nodes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, nodes...)
}
