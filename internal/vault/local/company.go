package local

import (
	"context"
	"errors"
	"strings"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
)

// succeed follows the company's keys from the first, which the descriptor names,
// to the one in force.
func succeed(ctx context.Context, s store.Store, d *snapshot.Descriptor) (*snapshot.Descriptor, error) {
	for {
		name := vault.SuccessionName(d.Number() + 1)
		raw, err := readWhole(ctx, s, name, -1)
		if errors.Is(err, tripod.NotFound) {
			return d, nil
		}
		if err == nil {
			d, err = d.Succeed(raw)
		}
		if err != nil {
			return nil, tripod.Errorf(tripod.KindOf(err), "%s: %w", name, err).
				WithHint("put the file %s back from another copy of this vault; everything else may be whole, and is left as it is", name)
		}
	}
}

// sameCompany returns Conflict when the company's key was replaced since the vault
// was opened: what the caller would sign and seal from then on nobody could use.
func (v *Vault) sameCompany(ctx context.Context) error {
	switch _, err := v.store.Head(ctx, vault.SuccessionName(v.Descriptor().Number()+1)); {
	case err == nil:
		return tripod.Errorf(tripod.Conflict, "the company's key was replaced a moment ago").WithHint("run it again, it follows the new key by itself")
	case errors.Is(err, tripod.NotFound):
		return nil
	default:
		return err
	}
}

// Shredded returns Denied when the company ordered to shred a machine.
func (v *Vault) Shredded(ctx context.Context, m tripod.MachineID) error {
	raw, err := readWhole(ctx, v.store, vault.ShredName(m), -1)
	if errors.Is(err, tripod.NotFound) {
		return nil
	}
	if err == nil {
		_, err = snapshot.ParseShred(raw, v.Descriptor())
	}
	switch {
	case err == nil:
		return tripod.Errorf(tripod.Denied, "machine %.8s: was shredded, and may not back up any more", m).
			WithHint("to protect this computer again, move its keys away (machine.key in its configuration): the next backup asks for the passphrase and enrols it as a new machine")
	case errors.Is(err, tripod.Corrupt), errors.Is(err, tripod.Denied):
		return nil // nobody ordered it
	}
	return err
}

// putSuccession puts the company's next key in force.
func (s *Session) putSuccession(ctx context.Context, name string, content []byte) error {
	n, _ := vault.ParseSuccessionName(name)
	if have := s.v.Descriptor().Number(); n <= have {
		return tripod.Errorf(tripod.Exists, "document %q: the name is taken; company key %d is in force", name, have)
	}
	next, err := s.v.Descriptor().Succeed(content)
	if err == nil && next.Number() != n {
		err = tripod.Errorf(tripod.Invalid, "document %q: is about company key %d", name, next.Number())
	}
	if err == nil {
		err = s.v.store.Put(ctx, name, content)
	}
	if err == nil {
		s.v.company.Store(next)
	}
	return err
}

func (s *Session) checkShred(name string, content []byte) error {
	o, err := snapshot.ParseShred(content, s.v.Descriptor())
	if err == nil && vault.ShredName(o.Machine) != name {
		err = tripod.Errorf(tripod.Invalid, "document %q: is about machine %.8s", name, o.Machine)
	}
	return err
}

// RemoveDocument implements vault.Admin.
func (s *Session) RemoveDocument(ctx context.Context, name string) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if !vault.Documented(name) {
		return tripod.Errorf(tripod.Invalid, "document %q: has no place in a vault", name)
	}
	var err error
	switch kindOf(name) {
	case vault.KeyringPrefix:
		err = s.replacedKeyring(ctx, name)
	case vault.GrantPrefix:
		err = s.uselessGrant(ctx, name)
	default:
		err = stays(name)
	}
	if err == nil {
		err = s.v.store.Delete(ctx, name)
	}
	if errors.Is(err, tripod.NotFound) {
		return nil
	}
	return err
}

func stays(name string) error {
	return tripod.Errorf(tripod.Denied, "document %q: is still of use, and stays", name)
}

func (s *Session) replacedKeyring(ctx context.Context, name string) error {
	n, _ := vault.ParseKeyringName(name)
	newest := 0
	err := s.v.store.List(ctx, vault.KeyringPrefix, func(i store.Info) error {
		if n, ok := vault.ParseKeyringName(i.Name); ok {
			newest = max(newest, n)
		}
		return nil
	})
	if err == nil && n >= newest {
		err = stays(name)
	}
	return err
}

// uselessGrant returns Denied unless a grant's machine is shredded, or it is to a
// company key of before and there is one to the key in force.
func (s *Session) uselessGrant(ctx context.Context, name string) error {
	path := strings.TrimPrefix(name[:strings.LastIndexByte(name, '/')], vault.GrantPrefix)
	k, ok := vault.ParseKeyPath(path)
	if !ok {
		return stays(name)
	}
	if err := s.v.Shredded(ctx, k.Machine); errors.Is(err, tripod.Denied) {
		return nil
	} else if err != nil {
		return err
	}
	for _, f := range s.v.Descriptor().Former() {
		if name != vault.GrantName(k, snapshot.HashOf(f.Box)) {
			continue
		}
		_, err := s.v.store.Head(ctx, vault.GrantName(k, snapshot.HashOf(s.v.Descriptor().Box)))
		if errors.Is(err, tripod.NotFound) {
			// Nobody opens a snapshot that was let go.
			if _, err = s.v.store.Head(ctx, vault.OrderName(k)); errors.Is(err, tripod.NotFound) {
				_, err = s.v.store.Head(ctx, vault.ExpiryName(k))
			}
			if errors.Is(err, tripod.NotFound) {
				return stays(name)
			}
		}
		return err
	}
	return stays(name)
}
