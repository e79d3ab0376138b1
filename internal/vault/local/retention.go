package local

import (
	"context"
	"errors"
	"fmt"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
)

// PutPolicy stores a signed policy, whose number must be higher than any there
// is. Who knows that some were lost goes on behind those.
func (s *Session) PutPolicy(ctx context.Context, encoded []byte) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	p, err := snapshot.ParsePolicy(encoded, s.v.Descriptor())
	if err != nil {
		return err
	}
	var newest uint32
	err = s.v.store.List(ctx, vault.PolicyPrefix, func(i store.Info) error {
		if n, ok := vault.ParsePolicyName(i.Name); ok {
			newest = max(newest, n)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case p.Number <= newest:
		return tripod.Errorf(tripod.Conflict, "policy %d: the newest in the vault is number %d", p.Number, newest).
			WithHint("someone else changed it meanwhile: look at it, and try again")
	}
	return s.v.store.Put(ctx, vault.PolicyName(p.Number), encoded)
}

// checkPolicy checks a policy that was signed before, of which another copy of
// the vault is to have one too. The highest number counts, whatever order they came in.
func (s *Session) checkPolicy(name string, content []byte) error {
	p, err := snapshot.ParsePolicy(content, s.v.Descriptor())
	if err == nil && vault.PolicyName(p.Number) != name {
		err = tripod.Errorf(tripod.Invalid, "document %q: is policy number %d", name, p.Number)
	}
	return err
}

// Expire lets a snapshot go: it stores the document that says so, then removes
// the snapshot's grants. That the policy allows it is for the caller to know;
// what no policy allows is refused.
func (s *Session) Expire(ctx context.Context, e *snapshot.Expiry) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := s.checkExpiry(ctx, e); err != nil {
		return fmt.Errorf("expire snapshot %d of machine %.8s: %w", e.Key.Seq, e.Key.Machine, err)
	}
	// From here on the snapshot is not live.
	err := s.v.store.Put(ctx, vault.ExpiryName(e.Key), e.Encode())
	if err != nil && !errors.Is(err, tripod.Exists) {
		return err
	}
	return s.DropGrants(ctx, e.Key)
}

func (s *Session) checkExpiry(ctx context.Context, e *snapshot.Expiry) error {
	err := s.v.store.List(ctx, vault.HoldPrefix, func(i store.Info) error {
		return tripod.Errorf(tripod.Denied, "%s is open", i.Name)
	})
	if err != nil {
		return err
	}
	if _, err := s.v.store.Head(ctx, vault.PolicyName(e.Policy)); err != nil {
		return err
	}
	raw, err := readWhole(ctx, s.v.store, vault.RecordName(e.Key), -1)
	if err != nil {
		return err
	}
	if snapshot.HashOf(raw) != e.Record {
		return tripod.Errorf(tripod.Conflict, "another record lies in its place")
	}
	r, err := snapshot.ParseRecord(raw)
	if err != nil {
		return err
	}
	if e.Time.Before(r.LockUntil) {
		return tripod.Errorf(tripod.Denied, "is locked until %s", r.LockUntil)
	}
	return nil
}

// DropGrants removes the grants of a snapshot that has expired: nobody shall open
// what is about to be collected. It returns Denied for one that has not.
func (s *Session) DropGrants(ctx context.Context, k snapshot.Key) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if _, err := s.v.store.Head(ctx, vault.ExpiryName(k)); err != nil {
		return tripod.Errorf(tripod.Denied, "snapshot %d of machine %.8s has not expired: %w", k.Seq, k.Machine, err)
	}
	var names []string
	err := s.v.store.List(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(i store.Info) error {
		names = append(names, i.Name)
		return nil
	})
	for _, name := range names {
		if gone := s.v.store.Delete(ctx, name); !errors.Is(gone, tripod.NotFound) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// OpenHold keeps everything from expiring, until CloseHold. It returns Exists
// when there is a hold of that name.
func (s *Session) OpenHold(ctx context.Context, h *snapshot.Hold) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := snapshot.CheckHoldName(h.Name); err != nil {
		return err
	}
	err := s.v.store.Put(ctx, vault.HoldName(h.Name), h.Encode())
	if errors.Is(err, tripod.Exists) {
		return tripod.Errorf(tripod.Exists, "hold %s: there is one of that name already", h.Name)
	}
	return err
}

// CloseHold removes a hold, NotFound when there is none.
func (s *Session) CloseHold(ctx context.Context, name string) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := snapshot.CheckHoldName(name); err != nil {
		return err
	}
	err := s.v.store.Delete(ctx, vault.HoldName(name))
	if errors.Is(err, tripod.NotFound) {
		return tripod.Errorf(tripod.NotFound, "hold %s: there is none of that name", name)
	}
	return err
}
