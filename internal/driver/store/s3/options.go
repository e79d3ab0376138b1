package s3

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"tripod/internal/core/tripod"
)

// Scheme begins the location of a store in a bucket.
const Scheme = "s3://"

// Options say where a store is and who asks for it.
type Options struct {
	Endpoint  string // HOST or HOST:PORT
	Bucket    string
	Prefix    string // names parts separated by slashes; may be empty
	Region    string // asked for when empty
	PlainHTTP bool   // instead of HTTPS

	AccessKey    string
	SecretKey    string
	SessionToken string // of temporary keys

	// Transport sends the requests; nil means one made for the store.
	Transport http.RoundTripper
}

// String names the store as people do; it shows no secrets.
func (o *Options) String() string {
	return strings.TrimSuffix(Scheme+o.Endpoint+"/"+o.Bucket+"/"+o.Prefix, "/")
}

// Locate reads a location: s3://HOST[:PORT]/BUCKET[/PREFIX], or
// s3://BUCKET[/PREFIX] where an endpoint is given besides, which may be a whole
// http:// or https:// address.
func Locate(location, endpoint string) (Options, error) {
	var o Options
	rest, ok := strings.CutPrefix(location, Scheme)
	// The location is not repeated: it may hold a password.
	if !ok || strings.ContainsAny(rest, "?#@ \t\n\\") {
		return o, tripod.Errorf(tripod.Invalid, "S3 location: must be s3://HOST[:PORT]/BUCKET[/PREFIX]").
			WithHint("keys are no part of it: set TRIPOD_S3_ACCESS_KEY and TRIPOD_S3_SECRET_KEY")
	}
	rest = strings.TrimSuffix(rest, "/")
	if endpoint != "" {
		if e, plain := strings.CutPrefix(endpoint, "http://"); plain {
			endpoint, o.PlainHTTP = e, true
		}
		o.Endpoint = strings.TrimSuffix(strings.TrimPrefix(endpoint, "https://"), "/")
		if o.Endpoint == "" || strings.ContainsAny(o.Endpoint, "/@?#") {
			return o, tripod.Errorf(tripod.Invalid, "S3 endpoint: must be HOST or HOST:PORT")
		}
		rest = strings.TrimPrefix(rest, o.Endpoint+"/")
	} else {
		o.Endpoint, rest, _ = strings.Cut(rest, "/")
		if !strings.ContainsAny(o.Endpoint, ".:") && o.Endpoint != "localhost" {
			return o, tripod.Errorf(tripod.Invalid, "%s: no server is named", location).
				WithHint("write s3://HOST/BUCKET, or name the server by --s3-endpoint or TRIPOD_S3_ENDPOINT")
		}
	}
	o.Bucket, o.Prefix, _ = strings.Cut(rest, "/")
	return o, o.place()
}

// place checks what Locate reads.
func (o *Options) place() error {
	if o.Endpoint == "" || o.Bucket == "" {
		return tripod.Errorf(tripod.Invalid, "%s: no bucket is named", o).WithHint("write s3://HOST/BUCKET")
	}
	if err := s3utils.CheckValidBucketNameStrict(o.Bucket); err != nil {
		return tripod.Errorf(tripod.Invalid, "bucket %q: %w", o.Bucket, err)
	}
	if o.Prefix == "" {
		return nil
	}
	if len(o.Prefix) > maxPrefix {
		return tripod.Errorf(tripod.Invalid, "%s: the prefix has more than %d bytes", o, maxPrefix)
	}
	for part := range strings.SplitSeq(o.Prefix, "/") {
		ok := part != "" && part != "." && part != ".."
		for _, c := range []byte(part) {
			ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.", c) >= 0)
		}
		if !ok {
			return tripod.Errorf(tripod.Invalid, "prefix %q: may hold letters, digits, '-', '_' and '.', in parts with single slashes between", o.Prefix)
		}
	}
	return nil
}

// maxPrefix leaves room for a name in the 1,024 bytes of a key.
const maxPrefix = 512

func (o *Options) validate() error {
	if err := o.place(); err != nil {
		return err
	}
	if o.AccessKey == "" || o.SecretKey == "" {
		return tripod.Errorf(tripod.Denied, "%s: no access key is given", o).WithHint("set TRIPOD_S3_ACCESS_KEY and TRIPOD_S3_SECRET_KEY, or their _FILE")
	}
	return nil
}

// stall is how long a connection may make no progress.
const stall = 2 * time.Minute

func newTransport() http.RoundTripper {
	dialer := &net.Dialer{Timeout: 15 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &watched{c}, nil
		},
		TLSHandshakeTimeout: 15 * time.Second,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     time.Minute, // less than stall, which would end it loudly
		DisableCompression:  true,        // lengths are those of the objects
	}
}

// watched is a connection that ends when nothing moves on it, in either
// direction: a server that went away in the middle of a PUT says nothing.
type watched struct{ net.Conn }

func (w *watched) Read(p []byte) (int, error) {
	_ = w.SetDeadline(time.Now().Add(stall)) // a closed connection says so below
	return w.Conn.Read(p)
}

func (w *watched) Write(p []byte) (int, error) {
	_ = w.SetDeadline(time.Now().Add(stall))
	n, err := w.Conn.Write(p)
	_ = w.SetDeadline(time.Now().Add(stall))
	return n, err
}
