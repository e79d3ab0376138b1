package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/s3"
	"tripod/internal/driver/store/s3test"
	"tripod/internal/driver/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContractOnFake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return onFake(t, s3test.NewFake("bucket")) })
	})
}

// A server that overwrites what it was told to leave is found out before a vault
// is made on it, and before anybody writes to one.
func TestAServerThatOverwritesIsRefused(t *testing.T) {
	f := s3test.NewFake("bucket")
	f.Lies = true
	server := httptest.NewServer(f)
	defer server.Close()
	o := options(server.Listener.Addr().String(), "bucket", place)
	if _, err := s3.Create(t.Context(), o); !errors.Is(err, tripod.Conflict) || !strings.Contains(err.Error(), "If-None-Match") || tripod.HintOf(err) == "" {
		t.Errorf("create: %v", err)
	}
	if keys := f.Keys(); len(keys) != 0 {
		t.Errorf("left behind: %v", keys)
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Exclusive(t.Context(), "a", nil); !errors.Is(err, tripod.Conflict) {
		t.Errorf("exclusive: %v", err)
	}
	f.Lies = false
	release, err := s.Exclusive(t.Context(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// Whatever the server answers has a kind, and says in a line what was wrong.
func TestAnswersAreClassed(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		kind   tripod.ErrorKind
		text   string
	}{
		{403, "InvalidAccessKeyId", tripod.Denied, "access key"},
		{403, "SignatureDoesNotMatch", tripod.Denied, "secret key"},
		{403, "AccessDenied", tripod.Denied, "does not allow"},
		{403, "RequestTimeTooSkewed", tripod.Denied, "clock"},
		{400, "AuthorizationHeaderMalformed", tripod.Denied, "region"},
		{404, "NoSuchBucket", tripod.Conflict, "bucket is gone"},
		{404, "NoSuchKey", tripod.NotFound, "no such object"},
		{412, "PreconditionFailed", tripod.Exists, "taken"},
		{409, "ConditionalRequestConflict", tripod.Unavailable, "same time"},
		{409, "ObjectParentIsFile", tripod.Conflict, "ObjectParentIsFile"},
		{429, "TooManyRequests", tripod.Unavailable, ""},
		{503, "SlowDown", tripod.Unavailable, ""},
		{500, "InternalError", tripod.Unavailable, ""},
		{507, "Whatever", tripod.Exhausted, "room"},
		{400, "QuotaExceeded", tripod.Exhausted, "room"},
		{400, "BadDigest", tripod.Unavailable, "arrive"},
		{501, "NotImplemented", tripod.Conflict, "does not know"},
		{418, "Teapot", tripod.Internal, "Teapot"},
	} {
		f := s3test.NewFake("bucket")
		s := onFake(t, f)
		f.Before(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return true
			}
			s3test.Fail(w, c.status, c.code)
			return false
		})
		err := s.Put(t.Context(), "x", []byte("data"))
		if tripod.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "put s3://fake.example/bucket/"+place+"/x") {
			t.Errorf("%d %s: %v, %v", c.status, c.code, tripod.KindOf(err), err)
		}
	}
}

// No secret is in what is said, and no name of a bucket is guessed.
func TestOpen(t *testing.T) {
	g := s3test.Start(t)
	g.Bucket(t, "here", "plain")
	for text, c := range map[string]struct {
		change func(*s3.Options)
		kind   tripod.ErrorKind
	}{
		"secret key":   {func(o *s3.Options) { o.SecretKey = "wrong-and-secret" }, tripod.Denied},
		"access key":   {func(o *s3.Options) { o.AccessKey = "NOBODY" }, tripod.Denied},
		"no bucket":    {func(o *s3.Options) { o.Bucket = "nowhere" }, tripod.NotFound},
		"is given":     {func(o *s3.Options) { o.SecretKey = "" }, tripod.Denied},
		"plain HTTP":   {func(o *s3.Options) { o.PlainHTTP = false }, tripod.Conflict},
		"connection":   {func(o *s3.Options) { o.Endpoint = "127.0.0.1:1" }, tripod.Unavailable},
		"characters":   {func(o *s3.Options) { o.Bucket = "UPPER" }, tripod.Invalid},
		"may hold":     {func(o *s3.Options) { o.Prefix = "a/../b" }, tripod.Invalid},
		"no address":   {func(o *s3.Options) { o.Endpoint = "nowhere.invalid" }, tripod.Unavailable},
		"has more tha": {func(o *s3.Options) { o.Prefix = strings.Repeat("x", 600) }, tripod.Invalid},
	} {
		o := options(g.Endpoint, "here", place)
		c.change(&o)
		_, err := s3.Open(t.Context(), o)
		if tripod.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), text) || strings.Contains(err.Error(), "secret"+"-") || strings.Contains(err.Error(), s3test.SecretKey) {
			t.Errorf("%s: %v, %v", text, tripod.KindOf(err), err)
		}
	}
	s := open(t, options(g.Endpoint, "here", place))
	if err := s.Put(t.Context(), "x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Delete(t.Context(), "x"), g.Client.RemoveBucket(t.Context(), "here")); err != nil {
		t.Fatal(err)
	}
	_, getErr := s.Get(t.Context(), "x", make([]byte, 1), 0)
	for _, err := range []error{getErr, s.List(t.Context(), "", func(store.Info) error { return nil })} {
		if !errors.Is(err, tripod.Conflict) || !strings.Contains(err.Error(), "bucket is gone") {
			t.Errorf("after the bucket was removed: %v", err)
		}
	}
}

// A connection that breaks in the middle of an object is no short object.
func TestABrokenAnswerIsUnavailable(t *testing.T) {
	f := s3test.NewFake("bucket")
	server := httptest.NewServer(f)
	defer server.Close()
	f.Set(place+"/x", strings.Repeat("data", 1000))
	o := options(server.Listener.Addr().String(), "bucket", place)
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			return true
		}
		w.Header().Set("Content-Length", "4000")
		w.Header().Set("Content-Range", "bytes 0-3999/4000")
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, strings.Repeat("data", 500))
		panic(http.ErrAbortHandler)
	})
	if n, err := s.Get(t.Context(), "x", make([]byte, 4000), 0); n != 0 || !errors.Is(err, tripod.Unavailable) {
		t.Errorf("get: %d bytes, %v", n, err)
	}
	// Nor is a server good that gives other parts than it was asked for.
	for _, answer := range []string{"bytes 5-8/4000", ""} {
		f.Before(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Range", answer)
			w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
			io.WriteString(w, "data")
			return false
		})
		if n, err := s.Get(t.Context(), "x", make([]byte, 4), 4); n != 0 || !errors.Is(err, tripod.Conflict) {
			t.Errorf("range %q: %d bytes, %v", answer, n, err)
		}
	}
}

// The server is sent the sum of what it is to store, under its signature.
func TestPutsCarryTheirSum(t *testing.T) {
	f := s3test.NewFake("bucket")
	s := onFake(t, f)
	var sum, signed string
	f.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			sum, signed = r.Header.Get("X-Amz-Content-Sha256"), r.Header.Get("Authorization")
		}
		return true
	})
	if err := s.Put(t.Context(), "x", []byte("data")); err != nil {
		t.Fatal(err)
	}
	if sum != "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7" || !strings.Contains(signed, "x-amz-content-sha256") {
		t.Errorf("sum %q, signed %q", sum, signed)
	}
}

func TestLocate(t *testing.T) {
	for _, c := range []struct{ location, endpoint, want string }{
		{"s3://s3.example.com/backups", "", "s3.example.com|backups||false"},
		{"s3://s3.example.com:9000/backups/a/b/", "", "s3.example.com:9000|backups|a/b|false"},
		{"s3://localhost/backups", "", "localhost|backups||false"},
		{"s3://backups/a", "s3.example.com", "s3.example.com|backups|a|false"},
		{"s3://backups/a", "https://s3.example.com/", "s3.example.com|backups|a|false"},
		{"s3://backups/a", "http://127.0.0.1:7070", "127.0.0.1:7070|backups|a|true"},
		{"s3://s3.example.com/backups/a", "s3.example.com", "s3.example.com|backups|a|false"},
	} {
		o, err := s3.Locate(c.location, c.endpoint)
		if got := fmt.Sprintf("%s|%s|%s|%v", o.Endpoint, o.Bucket, o.Prefix, o.PlainHTTP); err != nil || got != c.want {
			t.Errorf("%s at %q: %s, %v; want %s", c.location, c.endpoint, got, err, c.want)
		}
	}
	for _, bad := range []string{
		"s3://", "s3://host.example", "s3://backups/a", "s3://host.example//a", "s3://key:geheim@host.example/backups", "s3://host.example/backups/a//b",
		"s3://host.example/backups?x=geheim", "s3://host.example/UPPER", "s3://host.example/backups/ä",
	} {
		if o, err := s3.Locate(bad, ""); !errors.Is(err, tripod.Invalid) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %+v, %v", bad, o, err)
		}
	}
}

// What others lay over an object, by its very keys, changes nothing for those
// who read it, and a lock keeps it.
func TestWhatOthersLayOverAnObject(t *testing.T) {
	t.Parallel()
	g := s3test.Start(t)
	kinds := []string{"versions", "lock"}
	if testing.Short() {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		g.Bucket(t, kind, kind)
		ctx := t.Context()
		writer, reader := open(t, options(g.Endpoint, kind, place)), open(t, options(g.Endpoint, kind, place))
		original := []byte("original")
		names := []string{"deleted", "overwritten", "both", "untouched"}
		for _, name := range names {
			if err := writer.Put(ctx, name, original); err != nil {
				t.Fatal(err)
			}
		}
		listed := func(s *s3.Store) (got []string) {
			err := s.List(ctx, "", func(i store.Info) error {
				got = append(got, fmt.Sprintf("%s %d", i.Name, i.Size))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return got
		}
		want := []string{"both 8", "deleted 8", "overwritten 8", "untouched 8"}
		if got := listed(writer); !slices.Equal(got, want) { // it thinks that it knows them
			t.Fatalf("listed %q", got)
		}
		if kind == "lock" {
			for _, name := range names {
				if err := writer.Lock(ctx, name, time.Now().Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
		}
		remove := func(name string) {
			if err := g.Client.RemoveObject(ctx, kind, place+"/"+name, minio.RemoveObjectOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		overwrite := func(name string) {
			if _, err := g.Client.PutObject(ctx, kind, place+"/"+name, strings.NewReader("garbage"), 7, minio.PutObjectOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		remove("deleted")
		overwrite("overwritten")
		remove("both")
		overwrite("both")
		for s, after := range map[*s3.Store]string{reader: "before a list", writer: "after a list"} {
			if s == writer {
				if got := listed(s); !slices.Equal(got, want) {
					t.Errorf("%s: listed %q", kind, got)
				}
			}
			for _, name := range names {
				got := make([]byte, 20)
				n, err := s.Get(ctx, name, got, 0)
				if !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], original) {
					t.Errorf("%s: %s, %s: read %q, %v", kind, name, after, got[:n], err)
				}
				if info, err := s.Head(ctx, name); err != nil || info.Size != 8 {
					t.Errorf("%s: %s, %s: %+v, %v", kind, name, after, info, err)
				}
				if err := s.Put(ctx, name, []byte("another")); !errors.Is(err, tripod.Exists) {
					t.Errorf("%s: %s, %s: put: %v", kind, name, after, err)
				}
			}
		}
		var strange []string
		if err := reader.Strangers(ctx, func(name, what string) error {
			strange = append(strange, name+" "+strings.Fields(what)[0])
			return nil
		}); err != nil || !slices.Equal(strange, []string{"both overwritten", "deleted deleted", "overwritten overwritten"}) {
			t.Errorf("%s: strangers %q, %v", kind, strange, err)
		}
		if kind == "lock" {
			for _, name := range names {
				if err := writer.Delete(ctx, name); !errors.Is(err, tripod.Denied) {
					t.Errorf("%s: delete while locked: %v", name, err)
				}
			}
			if err := writer.Delete(context.Background(), "both"); !strings.Contains(fmt.Sprint(err), "locked until") {
				t.Errorf("delete while locked: %v", err)
			}
			continue
		}
		for _, name := range names {
			if err := writer.Delete(ctx, name); err != nil {
				t.Errorf("%s: delete %s: %v", kind, name, err)
			}
			if _, err := reader.Head(ctx, name); !errors.Is(err, tripod.NotFound) {
				t.Errorf("%s: %s after its deletion: %v", kind, name, err)
			}
		}
	}
}

// A bucket that locks new objects by itself takes a vault; nothing can be deleted
// from it.
func TestABucketWithADefaultRetention(t *testing.T) {
	g := s3test.Start(t)
	g.Bucket(t, "frozen", "lock")
	mode, days, unit := minio.Compliance, uint(1), minio.Days
	if err := g.Client.SetBucketObjectLockConfig(t.Context(), "frozen", &mode, &days, &unit); err != nil {
		t.Fatal(err)
	}
	s := open(t, options(g.Endpoint, "frozen", place))
	if notes := strings.Join(s.Describe(), " "); !strings.Contains(notes, "for 1 day by itself") {
		t.Errorf("described as: %s", notes)
	}
	release, err := s.Exclusive(t.Context(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Put(t.Context(), "x", []byte("x")), release()); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "x"); !errors.Is(err, tripod.Denied) {
		t.Errorf("delete: %v", err)
	}
	if err := s.Put(t.Context(), "x", nil); !errors.Is(err, tripod.Exists) {
		t.Errorf("put after it: %v", err)
	}
	again, err := s.Exclusive(t.Context(), "b", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
}

// A server that says yes to every lock and keeps none is found out.
func TestLocksAreTried(t *testing.T) {
	if testing.Short() {
		t.Skip("long: it waits for a lock's end")
	}
	t.Parallel()
	g := s3test.Start(t)
	g.Bucket(t, "lock", "lock")
	o := options(g.Endpoint, "lock", place)
	o.Transport = &yes{http.DefaultTransport}
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	s := open(t, o)
	if s.Capabilities().Lock {
		t.Error("a lock that is not kept is claimed")
	}
	if err := s.Put(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Lock(t.Context(), "x", time.Now().Add(time.Hour)); !errors.Is(err, tripod.Invalid) {
		t.Errorf("lock: %v", err)
	}
}

// yes is a server that says that it locks.
type yes struct{ http.RoundTripper }

func (y *yes) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && r.URL.Query().Has("retention") {
		w := httptest.NewRecorder()
		return w.Result(), nil
	}
	resp, err := y.RoundTripper.RoundTrip(r)
	if err == nil && r.Method == http.MethodHead {
		resp.Header.Set("X-Amz-Object-Lock-Mode", "COMPLIANCE")
		resp.Header.Set("X-Amz-Object-Lock-Retain-Until-Date", "2099-01-01T00:00:00Z")
	}
	return resp, err
}

func TestForeignNamesAreUnseen(t *testing.T) {
	f := s3test.NewFake("bucket")
	for _, key := range []string{"outside", place + "x/near", place + "/Upper", place + "/pack/.hidden", place + "/a b", place + "/pack/a"} {
		f.Set(key, "x")
	}
	s := onFake(t, f)
	var got, strange []string
	err := errors.Join(s.List(t.Context(), "", func(i store.Info) error {
		got = append(got, i.Name)
		return nil
	}), s.Strangers(t.Context(), func(name, _ string) error {
		strange = append(strange, name)
		return nil
	}))
	if err != nil || !slices.Equal(got, []string{"pack/a"}) || !slices.Equal(strange, []string{"Upper", "a b", "pack/.hidden"}) {
		t.Errorf("listed %q, strangers %q, %v", got, strange, err)
	}
}
