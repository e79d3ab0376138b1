package s3

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

const probePrefix = ".probe-"

// probeName is a name that no object can have.
func probeName() string { return probePrefix + strings.ToLower(rand.Text()) }

// cleanProbe removes all that has the name. In a bucket that locks new objects by
// itself some bytes stay.
func (s *Store) cleanProbe(ctx context.Context, name string) error {
	ctx = context.WithoutCancel(ctx)
	if s.versions {
		err := s.deleteVersions(ctx, name)
		if errors.Is(err, tripod.NotFound) || s.retention != "" && errors.Is(err, tripod.Denied) {
			err = nil
		}
		return err
	}
	err := s.client.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{})
	return s.fail(ctx, err, "delete", name)
}

// hintServer ends what is said of servers that no vault can be on.
const hintServer = "use a server that keeps to conditional writes, such as Amazon S3, Ceph, SeaweedFS or versitygw, in a recent version"

// conditions tries whether the server keeps to conditions, on an object that is
// there under name, whose bytes may be replaced by themselves.
func (s *Store) conditions(ctx context.Context, name string, data []byte) error {
	var create, replace minio.PutObjectOptions
	create.SetMatchETagExcept("*")
	replace.SetMatchETag(strings.Repeat("0", 32))
	for _, c := range []struct {
		what string
		opts minio.PutObjectOptions
	}{
		{"overwrites what is there when told not to (it ignores If-None-Match)", create},
		{"replaces what has changed when told not to (it ignores If-Match)", replace},
	} {
		_, err := s.put(ctx, s.key(name), data, c.opts)
		switch {
		case err == nil:
			return tripod.Errorf(tripod.Conflict, "%s: no place for a vault: the server %s", s.place, c.what).WithHint(hintServer)
		case codeOf(err) == minio.PreconditionFailed:
		case isUnknown(err):
			return tripod.Errorf(tripod.Conflict, "%s: no place for a vault: the server knows no conditional writes: %s", s.place, wordsOf(err)).WithHint(hintServer)
		default:
			return s.fail(ctx, err, "put", name)
		}
	}
	return nil
}

// probeCreate tries whether a name that is taken stays taken.
func (s *Store) probeCreate(ctx context.Context) (err error) {
	name, data := probeName(), []byte("first")
	var opts minio.PutObjectOptions
	opts.SetMatchETagExcept("*")
	if _, err := s.put(ctx, s.key(name), data, opts); err != nil {
		if isUnknown(err) {
			return tripod.Errorf(tripod.Conflict, "%s: no place for a vault: the server knows no conditional writes: %s", s.place, wordsOf(err)).WithHint(hintServer)
		}
		return s.fail(ctx, err, "put", name)
	}
	defer func() { err = errors.Join(err, s.cleanProbe(ctx, name)) }()
	return s.conditions(ctx, name, []byte("second"))
}

// probeSum tries whether the server looks at the sum of what it is sent.
func (s *Store) probeSum(ctx context.Context) (err error) {
	name := probeName()
	_, err = s.putSummed(ctx, s.key(name), []byte("sent"), hex.EncodeToString(make([]byte, 32)), minio.PutObjectOptions{})
	if err == nil {
		return errors.Join(tripod.Errorf(tripod.Conflict, "the server took bytes that are not those of their sum"), s.cleanProbe(ctx, name))
	}
	if err := s.fail(ctx, err, "put", name); statusOf(err) >= 500 || ctx.Err() != nil {
		return err
	}
	return nil
}

// probeOverlaid tries whether a locked object is read as it was after others
// wrote over it and deleted it.
func (s *Store) probeOverlaid(ctx context.Context, name string) (err error) {
	original := []byte("original")
	if err := s.Put(ctx, name, original); err != nil {
		return err
	}
	until := time.Now().Add(probeFor)
	defer func() {
		clean := context.WithoutCancel(ctx)
		left := wait(clean, time.Until(until)+time.Second)
		for range 10 {
			if left = s.Delete(clean, name); !errors.Is(left, tripod.Denied) {
				break
			}
			_ = wait(clean, time.Second)
		}
		err = errors.Join(err, left)
	}()
	if err := s.Lock(ctx, name, until); err != nil {
		return err
	}
	if _, err := s.put(ctx, s.key(name), []byte("overwritten"), minio.PutObjectOptions{}); err == nil {
		_ = s.client.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{}) // lays a marker, or is refused
	}
	got := make([]byte, len(original))
	if _, err := s.Get(ctx, name, got, 0); err != nil || string(got) != string(original) {
		return fmt.Errorf("read %q, %w", got, err)
	}
	listed := 0
	err = s.List(ctx, name, func(i store.Info) error {
		if i.Name == name && i.Size == int64(len(original)) {
			listed++
		}
		return nil
	})
	if err == nil && listed != 1 {
		err = fmt.Errorf("listed %d times", listed)
	}
	return err
}

// Probe is one thing that was tried beside the suite of package storetest.
type Probe struct {
	Name    string // what the server should do, as a sentence
	Skipped bool   // not claimed here
	Took    time.Duration
	Err     error // what it did instead
}

// Check tries what the contract's own suite cannot see: how the server does it.
// The error says that one was not kept. prefix begins the names it uses.
func (s *Store) Check(ctx context.Context, prefix string, report func(Probe)) error {
	var first error
	for _, p := range []struct {
		name  string
		skip  bool
		probe func(context.Context) error
	}{
		{"the server refuses to overwrite when it is told so", false, s.probeCreate},
		{"the server refuses bytes that changed on their way", false, s.probeSum},
		{"a locked object is read as it was after an overwrite and a deletion", !s.canLock(), func(ctx context.Context) error {
			return s.probeOverlaid(ctx, prefix+"/overlaid")
		}},
	} {
		result := Probe{Name: p.name, Skipped: p.skip}
		start := time.Now()
		if !p.skip {
			result.Err = p.probe(ctx)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		result.Took = time.Since(start)
		if result.Err != nil && first == nil {
			first = fmt.Errorf("%s: %w", p.name, result.Err)
		}
		report(result)
	}
	return first
}

// Describe tells in sentences what the bucket says of itself.
func (s *Store) Describe() []string {
	if !s.versions {
		return []string{"The bucket keeps no versions and has no Object Lock: nothing in it can be locked, and who has its keys can delete everything."}
	}
	notes := []string{"The bucket keeps versions: what is overwritten or deleted by others is read as it was."}
	if s.objLock {
		notes = append(notes, "The bucket has Object Lock.")
	}
	if s.retention != "" {
		notes = append(notes, fmt.Sprintf("The bucket locks every new object for %s by itself: until then nothing can be deleted, not even by a check.", s.retention))
	}
	return notes
}

// Remove removes everything under the store's prefix, the lease and what others
// put there included. It is for stores that were made to try a server.
func (s *Store) Remove(ctx context.Context) error {
	if s.prefix == "" {
		return tripod.Errorf(tripod.Invalid, "%s: a whole bucket is not removed", s.place)
	}
	var left error
	opts := minio.ListObjectsOptions{Prefix: s.prefix, Recursive: true, WithVersions: s.versions}
	for o := range s.client.ListObjectsIter(ctx, s.bucket, opts) {
		if o.Err != nil {
			return errors.Join(left, s.fail(ctx, o.Err, "list", ""))
		}
		left = errors.Join(left, s.fail(ctx, s.removeVersion(ctx, o.Key, o.VersionID), "delete", strings.TrimPrefix(o.Key, s.prefix)))
	}
	return left
}

// Strangers calls fn for what lies under the store's prefix and the store does
// not show: names that no object can have, and versions and delete markers that
// others have laid over an object. what says it in a few words.
func (s *Store) Strangers(ctx context.Context, fn func(name, what string) error) error {
	tell := func(key string, h history) error {
		name := strings.TrimPrefix(key, s.prefix)
		over, hidden := h.overlaid()
		switch {
		case name == leaseName || strings.HasPrefix(name, probePrefix):
			return nil
		case store.CheckName(name) != nil:
			return fn(name, "not a name of Tripod's")
		case !over || !s.versions:
			return nil
		case hidden:
			return fn(name, "deleted by someone; Tripod still reads it")
		}
		return fn(name, "overwritten by someone; Tripod reads the original")
	}
	if s.versions {
		return s.histories(ctx, "", tell)
	}
	for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix, Recursive: true}) {
		if o.Err != nil {
			return s.fail(ctx, o.Err, "list", "")
		}
		if err := tell(o.Key, history{o}); err != nil {
			return err
		}
	}
	return ctx.Err()
}
