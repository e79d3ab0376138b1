package s3

import (
	"context"
	"errors"
	"time"

	"github.com/minio/minio-go/v7"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Lock implements store.Store by Object Lock in compliance mode on the version
// that is the object: nobody can delete it before the time is up, not the
// bucket's owner either, and the time can only be extended. It keeps what is
// done through S3 from harm; who has the server's disks can do what they want.
// Times are rounded up to whole seconds.
func (s *Store) Lock(ctx context.Context, name string, until time.Time) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	ctx, done, err := s.writing(ctx)
	if err != nil {
		return err
	}
	defer done()
	if !s.canLock() {
		return tripod.Errorf(tripod.Invalid, "lock %s: this store has no locks", s.at(name)).
			WithHint("make the bucket with Object Lock, on a server that keeps to it; it cannot be added later everywhere")
	}
	return s.lock(ctx, name, until)
}

func (s *Store) lock(ctx context.Context, name string, until time.Time) error {
	h, err := s.history(ctx, name)
	if err != nil {
		return s.fail(ctx, err, "lock", name)
	}
	o, ok := h.object()
	if !ok {
		return s.fail(ctx, errNoObject, "lock", name)
	}
	if whole := until.Truncate(time.Second); whole.Before(until) {
		until = whole.Add(time.Second)
	}
	if present := s.locked(ctx, name, o.VersionID); !until.After(present) || !until.After(time.Now()) {
		return ctx.Err()
	}
	mode := minio.Compliance
	err = s.client.PutObjectRetention(ctx, s.bucket, s.key(name), minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until, VersionID: o.VersionID})
	if err != nil {
		return s.fail(ctx, err, "lock", name)
	}
	if s.locked(ctx, name, o.VersionID).Before(until) && ctx.Err() == nil {
		return tripod.Errorf(tripod.Conflict, "lock %s: the server took the lock and did not keep it", s.at(name))
	}
	return ctx.Err()
}

// locked gives the time until which a version is locked in compliance mode, and
// the zero time when it is not, or not for us to see. Servers tell it in the same
// way where they describe the object, and in different ones when asked for it.
func (s *Store) locked(ctx context.Context, name, version string) time.Time {
	info, err := s.client.StatObject(ctx, s.bucket, s.key(name), minio.StatObjectOptions{VersionID: version})
	if err != nil || info.Headers.Get("X-Amz-Object-Lock-Mode") != string(minio.Compliance) {
		return time.Time{}
	}
	until, err := time.Parse(time.RFC3339, info.Headers.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil {
		return time.Time{}
	}
	return until
}

// probeFor is how long what the lock is tried on stays locked.
const probeFor = 2 * time.Second

// probeLock tries whether a locked object resists: some servers say yes to every
// lock and keep none. It takes some seconds, since it waits for the lock's end
// to leave nothing behind.
func (s *Store) probeLock() bool {
	if !s.objLock {
		return false
	}
	// Asked once, for all callers: the first one's context is not theirs.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := probeName()
	if _, err := s.put(ctx, s.key(name), []byte("lock"), minio.PutObjectOptions{}); err != nil {
		return false
	}
	until := time.Now().Add(probeFor)
	err := s.lock(ctx, name, until)
	refused := err == nil && errors.Is(s.deleteVersions(ctx, name), tripod.Denied)
	if err == nil {
		_ = wait(ctx, time.Until(until)+time.Second) // rounded up; a clock may differ a little
	}
	for range 10 { // clocks that differ more
		if s.cleanProbe(ctx, name) == nil || wait(ctx, time.Second) != nil {
			break
		}
	}
	return refused
}

// Capabilities implements store.Store. Lock is tried, once, when first asked.
// Whether a Put survives a power cut of the server is for the server to keep.
func (s *Store) Capabilities() store.Capabilities {
	return store.Capabilities{Lock: s.canLock(), Durable: true}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
