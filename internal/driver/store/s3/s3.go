// Package s3 is the store in a bucket of an S3 server: every object is one of
// the bucket's, under its name behind the store's prefix, written by one PUT.
//
// Names are created once because the server refuses to create what is there
// (If-None-Match). A server that does not is found out by Create and by
// Exclusive, and refused: on it two writers could destroy each other's objects.
//
// Whoever has the credentials can lay other versions and delete markers over an
// object of a bucket that keeps versions. So there an object is the oldest
// version of its name: what comes later, the store neither reads nor is stopped
// by, and a lock (Object Lock in compliance mode, see lock.go) keeps its promise
// though anybody may write. Delete removes versions and lays no markers.
//
// The bucket holds, under the prefix and besides objects:
//
//	.lock        says who holds the store for writing; see lease.go
//	.probe-*     what Create and Check try the server with; removed at once
//
// Files: s3.go has the contract, versions.go what differs in a bucket with
// versions, lock.go and lease.go locks and the one writer, probe.go what is
// tried before a server is trusted, classify.go the errors, options.go where a
// store is.
package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Store is a store.Store and store.Exclusive in a bucket.
type Store struct {
	client    *minio.Core
	transport http.RoundTripper
	bucket    string
	prefix    string // empty, or ends in a slash
	place     string // for messages

	versions  bool // the bucket keeps versions
	objLock   bool // Object Lock is on in the bucket, as it says
	retention string
	canLock   func() bool

	known known

	turn   chan struct{} // holds a token while somebody of this process has the store
	holder atomic.Pointer[string]
	lease  atomic.Pointer[lease]
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Exclusive = (*Store)(nil)
)

// Open opens the store that o names. It asks the server whether the bucket is
// there and what it promises; the errors are those of a store's methods, and
// NotFound when there is no such bucket.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	transport := o.Transport
	if transport == nil {
		transport = newTransport()
	}
	client, err := minio.NewCore(o.Endpoint, &minio.Options{
		Creds:      credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken),
		Secure:     !o.PlainHTTP,
		Region:     o.Region,
		Transport:  transport,
		MaxRetries: 1, // package retry does that
	})
	if err != nil {
		return nil, tripod.Errorf(tripod.Invalid, "S3 endpoint %s: %w", o.Endpoint, err)
	}
	s := &Store{
		client: client, transport: transport, bucket: o.Bucket, prefix: o.Prefix, place: o.String(),
		turn: make(chan struct{}, 1),
	}
	if s.prefix != "" {
		s.prefix += "/"
	}
	s.canLock = sync.OnceValue(s.probeLock)
	if err := s.look(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Create opens the store as Open does and tries whether its server is one that
// a new vault may rely on; Conflict says that it is not. The bucket must be
// there: where it lies and who may see it is for its owner to say.
func Create(ctx context.Context, o Options) (*Store, error) {
	s, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.probeCreate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// look asks for what decides how the store works.
func (s *Store) look(ctx context.Context) error {
	v, err := s.client.GetBucketVersioning(ctx, s.bucket)
	switch {
	case codeOf(err) == minio.NoSuchBucket:
		return tripod.Errorf(tripod.NotFound, "%s: there is no bucket %s", s.place, s.bucket).
			WithHint("check the name and the endpoint, or make the bucket first")
	case isUnknown(err): // by a server without versions
		return nil
	case err != nil:
		return s.fail(ctx, err, "open", "")
	}
	// Once there were versions they stay, also while no new ones are made.
	s.versions = v.Enabled() || v.Suspended()
	if !v.Enabled() {
		return nil
	}
	on, mode, validity, unit, err := s.client.GetObjectLockConfig(ctx, s.bucket)
	switch {
	case err != nil && ctx.Err() == nil && !errors.Is(s.fail(ctx, err, "", ""), tripod.Unavailable):
		return nil // none, unknown, or not for us to see: no locks
	case err != nil:
		return s.fail(ctx, err, "open", "")
	}
	s.objLock = on == "Enabled"
	if mode != nil && validity != nil && unit != nil && *validity > 0 {
		s.retention = tripod.Count(int(*validity), strings.ToLower(strings.TrimSuffix(string(*unit), "S")))
	}
	return nil
}

// Close gives back the connections. The store must not be in use.
func (s *Store) Close() error {
	if t, ok := s.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	return nil
}

func (s *Store) key(name string) string { return s.prefix + name }

// check is what every operation on an object does first.
func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckName(name)
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	ctx, done, err := s.writing(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := s.free(ctx, name); err != nil {
		return err
	}
	var opts minio.PutObjectOptions
	opts.SetMatchETagExcept("*")
	_, err = s.put(ctx, s.key(name), data, opts)
	switch {
	case err == nil:
		return nil
	case codeOf(err) == minio.PreconditionFailed, codeOf(err) == "" && s.others(ctx, name, data):
		return s.taken(name)
	}
	return s.fail(ctx, err, "put", name)
}

func (s *Store) taken(name string) error {
	return tripod.Errorf(tripod.Exists, "put %s: the name is taken", s.at(name))
}

// free returns Exists when the name is taken. The server sees to it that only
// one of several gets it; but it takes a name for free that a delete marker
// hides, and may close the connection on what it refuses, so that its answer is
// lost.
func (s *Store) free(ctx context.Context, name string) error {
	switch _, err := s.Head(ctx, name); {
	case err == nil:
		return s.taken(name)
	case !errors.Is(err, tripod.NotFound):
		return err
	}
	return nil
}

// others reports whether a PUT without an answer came too late: the name is
// taken, and not by what was sent.
func (s *Store) others(ctx context.Context, name string, data []byte) bool {
	got := make([]byte, len(data)+1) // one more, to see that it ends there
	n, err := s.Get(ctx, name, got, 0)
	return (err == nil || errors.Is(err, io.EOF)) && !bytes.Equal(got[:n], data)
}

// put sends one PUT. Its bytes are covered by a SHA-256 that is signed, so that
// the server refuses what did not arrive whole and as it was sent.
func (s *Store) put(ctx context.Context, key string, data []byte, opts minio.PutObjectOptions) (minio.UploadInfo, error) {
	sum := sha256.Sum256(data)
	return s.putSummed(ctx, key, data, hex.EncodeToString(sum[:]), opts)
}

func (s *Store) putSummed(ctx context.Context, key string, data []byte, sum string, opts minio.PutObjectOptions) (minio.UploadInfo, error) {
	opts.DisableContentSha256 = true // which would replace sum by one for each part of the bytes
	contentMD5 := ""
	if s.objLock {
		// S3 wants it where the bucket locks new objects by itself.
		m := md5.Sum(data)
		contentMD5 = base64.StdEncoding.EncodeToString(m[:])
	}
	return s.client.PutObject(ctx, s.bucket, key, bytes.NewReader(data), int64(len(data)), contentMD5, sum, opts)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, tripod.Errorf(tripod.Invalid, "get %s: offset %d is negative", name, off)
	}
	if len(p) == 0 {
		_, err := s.Head(ctx, name)
		return 0, err
	}
	version, err := s.version(ctx, name)
	if err != nil {
		return 0, s.fail(ctx, err, "get", name)
	}
	n, err := s.read(ctx, s.key(name), version, p, off)
	if err == io.EOF { //nolint:errorlint // the contract says io.EOF itself
		return n, err
	}
	return n, s.fail(ctx, err, "get", name)
}

// read fills p from off, as Get does, with the server's errors.
func (s *Store) read(ctx context.Context, key, version string, p []byte, off int64) (int, error) {
	opts := minio.GetObjectOptions{VersionID: version}
	if err := opts.SetRange(off, off+int64(len(p))-1); err != nil {
		return 0, err
	}
	body, info, header, err := s.client.GetObject(ctx, s.bucket, key, opts)
	if codeOf(err) == minio.InvalidRange || statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		return 0, io.EOF
	}
	if err != nil {
		return 0, err
	}
	defer body.Close()
	total := info.Size
	if r := header.Get("Content-Range"); r != "" {
		var first, last int64
		if _, err := fmt.Sscanf(r, "bytes %d-%d/%d", &first, &last, &total); err != nil || first != off {
			return 0, tripod.Errorf(tripod.Conflict, "the server answered with the range %q when asked from %d", r, off)
		}
	} else if off > 0 {
		return 0, tripod.Errorf(tripod.Conflict, "the server does not read parts of objects")
	}
	want := int(max(0, min(int64(len(p)), total-off)))
	if n, err := io.ReadFull(body, p[:want]); err != nil {
		return 0, tripod.Errorf(tripod.Unavailable, "the answer broke off after %d of %d bytes: %w", n, want, err)
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, name string) (store.Info, error) {
	if err := check(ctx, name); err != nil {
		return store.Info{}, err
	}
	version, err := s.version(ctx, name)
	if err != nil {
		return store.Info{}, s.fail(ctx, err, "head", name)
	}
	info, err := s.client.StatObject(ctx, s.bucket, s.key(name), minio.StatObjectOptions{VersionID: version})
	if err != nil {
		return store.Info{}, s.fail(ctx, err, "head", name)
	}
	return store.Info{Name: name, Size: info.Size}, nil
}

// List implements store.Store. What has a name that no object can have is left
// out; see Strangers.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if prefix != "" && store.CheckName(strings.TrimSuffix(prefix, "/")) != nil {
		return nil // no object's name begins so
	}
	last := ""
	tell := func(o minio.ObjectInfo) error {
		name, ok := strings.CutPrefix(o.Key, s.prefix)
		if !ok || store.CheckName(name) != nil {
			return nil
		}
		if name <= last {
			return tripod.Errorf(tripod.Conflict, "list %s: the server told of %s after %s, out of order", s.at(prefix), name, last)
		}
		last = name
		return fn(store.Info{Name: name, Size: o.Size})
	}
	if s.versions {
		return s.listVersioned(ctx, prefix, tell)
	}
	for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true}) {
		if o.Err != nil {
			return s.fail(ctx, o.Err, "list", prefix)
		}
		if err := tell(o); err != nil {
			return err
		}
	}
	return ctx.Err() // which ends the loop without a word
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	ctx, done, err := s.writing(ctx)
	if err != nil {
		return err
	}
	defer done()
	if s.versions {
		return s.deleteVersions(ctx, name)
	}
	// The server does not say whether there was something to delete.
	if _, err := s.Head(ctx, name); err != nil {
		return err
	}
	err = s.client.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{})
	return s.fail(ctx, err, "delete", name)
}
