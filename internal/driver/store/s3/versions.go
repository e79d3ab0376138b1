package s3

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"tripod/internal/core/tripod"
)

// known is what the lists of a bucket with versions have shown. A name under a
// prefix that was listed is one version and no more, unless it is in first.
type known struct {
	mu     sync.Mutex
	listed []string          // prefixes, none of which begins with another
	first  map[string]string // name -> the version that is the object
}

// history is what lies under one name: its versions, newest first, and its
// markers anywhere between, since not all servers tell them in their place.
type history []minio.ObjectInfo

// object is the oldest version that is no delete marker: the one that was put
// when the name was free. What others laid over it changes nothing.
func (h history) object() (o minio.ObjectInfo, found bool) {
	for i := len(h) - 1; i >= 0; i-- {
		if !h[i].IsDeleteMarker {
			return h[i], true
		}
	}
	return o, false
}

// overlaid tells whether something was laid over the object, and whether that
// hides it from others.
func (h history) overlaid() (over, hidden bool) {
	for i := range h {
		if h[i].IsLatest && h[i].IsDeleteMarker {
			hidden = true
		}
	}
	o, ok := h.object()
	return ok && !o.IsLatest, hidden
}

// page is how many versions and markers a server tells at a time, at most.
const page = 1000

// histories calls fn with every name's history, in ascending order of keys. It
// stops at fn's first error and returns it.
//
// The entries of a page may come in order of keys, or first all versions and
// then all markers. So a name is complete when all of two pages that came after
// it are of later names.
func (s *Store) histories(ctx context.Context, prefix string, fn func(key string, h history) error) error {
	var came []minio.ObjectInfo
	opts := minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true, WithVersions: true, MaxKeys: page}
	for o := range s.client.ListObjectsIter(ctx, s.bucket, opts) {
		if o.Err != nil {
			return s.fail(ctx, o.Err, "list", prefix)
		}
		if came = append(came, o); len(came) < 6*page {
			continue
		}
		end := came[len(came)-2*page].Key
		for i := range came[len(came)-2*page:] {
			end = min(end, came[len(came)-2*page+i].Key)
		}
		var err error
		if came, err = tellBefore(came, func(key string) bool { return key < end }, fn); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil { // which ends the loop without a word
		return err
	}
	_, err := tellBefore(came, func(string) bool { return true }, fn)
	return err
}

// tellBefore calls fn with the histories of the keys that are complete, and
// returns the rest.
func tellBefore(came []minio.ObjectInfo, complete func(key string) bool, fn func(key string, h history) error) ([]minio.ObjectInfo, error) {
	slices.SortStableFunc(came, func(a, b minio.ObjectInfo) int { return strings.Compare(a.Key, b.Key) })
	start := 0
	for start < len(came) && complete(came[start].Key) {
		end := start + 1
		for end < len(came) && came[end].Key == came[start].Key {
			end++
		}
		if err := fn(came[start].Key, came[start:end]); err != nil {
			return nil, err
		}
		start = end
	}
	return slices.Clone(came[start:]), nil
}

// history looks up one name.
func (s *Store) history(ctx context.Context, name string) (found history, err error) {
	key := s.key(name)
	opts := minio.ListObjectsOptions{Prefix: key, Recursive: true, WithVersions: true, MaxKeys: page}
	seen := 0
	for o := range s.client.ListObjectsIter(ctx, s.bucket, opts) {
		if o.Err != nil {
			return nil, s.fail(ctx, o.Err, "list", name)
		}
		// The name itself comes before those that begin with it.
		if seen++; o.Key == key {
			found = append(found, o)
			seen = 0
		}
		if seen > 2*page {
			break
		}
	}
	return found, ctx.Err()
}

// version gives the version of a name to read: "" for the newest, where there
// are no others.
func (s *Store) version(ctx context.Context, name string) (string, error) {
	if !s.versions {
		return "", nil
	}
	if v, ok := s.known.version(name); ok {
		return v, nil
	}
	h, err := s.history(ctx, name)
	if err != nil {
		return "", err
	}
	o, ok := h.object()
	if !ok {
		return "", errNoObject
	}
	return o.VersionID, nil
}

// errNoObject is the server's own, for names that only markers have.
var errNoObject = minio.ErrorResponse{Code: minio.NoSuchKey, StatusCode: 404, Message: "no such object"}

func (k *known) version(name string) (version string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v, ok := k.first[name]; ok {
		return v, true
	}
	for _, p := range k.listed {
		if strings.HasPrefix(name, p) {
			return "", true
		}
	}
	return "", false
}

// learn replaces what is known of a prefix by what a list of it has shown.
func (k *known) learn(prefix string, first map[string]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.first {
		if strings.HasPrefix(name, prefix) {
			delete(k.first, name)
		}
	}
	if k.first == nil {
		k.first = map[string]string{}
	}
	for name, version := range first {
		k.first[name] = version
	}
	var others []string
	for _, p := range k.listed {
		if strings.HasPrefix(prefix, p) {
			return
		}
		if !strings.HasPrefix(p, prefix) {
			others = append(others, p)
		}
	}
	k.listed = append(others, prefix)
}

func (k *known) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.first, name)
}

// listVersioned calls tell with every object under prefix.
func (s *Store) listVersioned(ctx context.Context, prefix string, tell func(minio.ObjectInfo) error) error {
	first := map[string]string{}
	err := s.histories(ctx, prefix, func(key string, h history) error {
		o, ok := h.object()
		if !ok {
			return nil // only markers: nothing was ever put here, or it was removed
		}
		if over, _ := h.overlaid(); over {
			first[strings.TrimPrefix(key, s.prefix)] = o.VersionID
		}
		return tell(o)
	})
	if err == nil {
		s.known.learn(prefix, first)
	}
	return err
}

// deleteVersions removes all that has the name, the object last: whenever it is
// interrupted, the object is still what it was.
func (s *Store) deleteVersions(ctx context.Context, name string) error {
	h, err := s.history(ctx, name)
	if err != nil {
		return err
	}
	object, ok := h.object()
	if !ok {
		return s.fail(ctx, errNoObject, "delete", name)
	}
	for _, o := range h {
		if o.VersionID == object.VersionID {
			continue
		}
		// A stranger may have locked what it laid over the object. That goes
		// when its lock ends, and is in nobody's way: it only must not become
		// the object, so that the object has to stay as well.
		if err := s.removeVersion(ctx, s.key(name), o.VersionID); err != nil {
			return s.refused(ctx, err, name, o.VersionID)
		}
	}
	if err := s.removeVersion(ctx, s.key(name), object.VersionID); err != nil {
		return s.refused(ctx, err, name, object.VersionID)
	}
	s.known.forget(name)
	return nil
}

func (s *Store) removeVersion(ctx context.Context, key, version string) error {
	return s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{VersionID: version})
}

// refused tells why a version could not be removed. Servers say it in different
// ways: what counts is that they refused and the version is still there.
func (s *Store) refused(ctx context.Context, err error, name, version string) error {
	err = s.fail(ctx, err, "delete", name)
	if ctx.Err() != nil || errors.Is(err, tripod.Unavailable) || !s.objLock {
		return err
	}
	until := s.locked(ctx, name, version)
	if until.IsZero() {
		return err
	}
	return tripod.Errorf(tripod.Denied, "delete %s: locked until %s", s.at(name), until.UTC().Format(time.RFC3339))
}
