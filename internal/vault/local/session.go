package local

import (
	"context"
	"errors"
	"sync"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// Session writes to a vault. While it lasts nobody else does, in a store that
// can keep others out. Its methods may be called concurrently.
type Session struct {
	v       *Vault
	idx     *index.Index
	release func() error
	commit  sync.Mutex // one commit at a time

	mu    sync.Mutex
	ended bool
}

// Begin waits for its turn to write. While it waits, waiting is called with the
// text of whoever writes, once each; it may be nil.
func (v *Vault) Begin(ctx context.Context, holder vault.Holder, waiting func(holder string)) (*Session, error) {
	release := func() error { return nil }
	if x, ok := v.store.(store.Exclusive); ok {
		free, err := x.Exclusive(ctx, holder.Text, waiting)
		switch {
		case err == nil:
			release = free
		case !errors.Is(err, tripod.Invalid):
			return nil, err
		}
		// A store that knows no locks: names that are created once and never
		// overwritten keep two writers from harm, if not from double work.
	}
	s := &Session{v: v, release: release}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, release())
	}
	return s, nil
}

// prepare looks at what others wrote before it was our turn.
func (s *Session) prepare(ctx context.Context) error {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	if err := s.v.follow(ctx); err != nil {
		return err
	}
	if err := s.v.settle(ctx); err != nil {
		return err
	}
	s.idx = s.v.idx
	return nil
}

// Close lets the next one write. It may be called more than once.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	return s.release()
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
func (s *Session) Head(ctx context.Context, machine tripod.MachineID, source tripod.SourceID) ([]byte, error) {
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
	have := make([][]tripod.Sum, len(ids))
	all := make([]tripod.Sum, 0, len(ids)) // most ids have one
	err := s.idx.Find(ids, func(i int, e *index.Entry) error {
		if !e.Held() {
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
		all = append(all, e.Sum)
		n := len(all)
		have[i] = all[n-1 : n : n]
		return nil
	})
	return have, err
}
