package fs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/driver/store"
)

// Lock implements store.Store by the file system's immutable attribute, with
// the time noted beside the object. It protects from every process that may not
// clear the attribute, root's without CAP_LINUX_IMMUTABLE among them; it does
// not protect from one that may. A time before the present lock's changes nothing.
func (s *Store) Lock(ctx context.Context, name string, until time.Time) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	if !s.canLock() {
		return tripod.Errorf(tripod.Invalid, "lock %s: this store has no locks", filepath.Join(s.name, name)).
			WithHint("locks need Linux, the right CAP_LINUX_IMMUTABLE and a file system with the immutable attribute, such as ext4, xfs or btrfs")
	}
	if _, err := s.stat(name); err != nil {
		return s.fail(err, "lock", name)
	}
	freezer := s.disk.(durable.Freezer) //nolint:forcetypeassert // canLock has seen it
	present, err := freezer.Frozen(name)
	if err == nil && until.After(present) {
		err = freezer.Freeze(name, until)
	}
	return s.fail(err, "lock", name)
}

// thaw makes an object removable whose lock has expired, and returns Denied
// when it has not.
func (s *Store) thaw(name string) error {
	freezer, ok := s.disk.(durable.Freezer)
	if !ok {
		return nil
	}
	until, err := freezer.Frozen(name)
	switch {
	case err != nil:
		return s.fail(err, "delete", name)
	case until.IsZero():
		return nil
	case time.Now().Before(until):
		return tripod.Errorf(tripod.Denied, "delete %s: locked until %s", filepath.Join(s.name, name), until.Format(time.RFC3339))
	}
	return s.fail(freezer.Thaw(name), "delete", name)
}

// probeLock tries whether an immutable file really resists its removal.
func (s *Store) probeLock() bool {
	freezer, ok := s.disk.(durable.Freezer)
	if !ok || s.dirs.Make(incoming) != nil {
		return false
	}
	probe := path.Join(incoming, fmt.Sprintf("%s%016x", s.temp, rand.Uint64()))
	file, err := s.disk.Create(probe, objectMode)
	if err != nil {
		return false
	}
	defer s.disk.Remove(probe) // lint:errcheck after Thaw; what stays is swept later
	if file.Close() != nil || freezer.Freeze(probe, time.Now()) != nil {
		return false
	}
	resisted := s.disk.Remove(probe) != nil
	return freezer.Thaw(probe) == nil && resisted
}

// Capabilities implements store.Store. Lock is probed, once, when first asked.
func (s *Store) Capabilities() store.Capabilities {
	return store.Capabilities{Lock: s.canLock(), Durable: true}
}
