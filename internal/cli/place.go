package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

// Bucket is a location s3://... and how to reach it.
type Bucket struct {
	Location     string
	Endpoint     string // HOST[:PORT] or an address; "" when the location names it
	Region       string
	InsecureHTTP bool

	AccessKey    string
	SecretKey    string
	SessionToken string
}

// Exposed is what a store offers in which others may put things that are
// none of its objects; fn hears of each.
type Exposed interface {
	Strangers(ctx context.Context, fn func(name, what string) error) error
}

const bucketScheme = "s3://"

// inBucket reports whether a location is one in a bucket, not a directory.
func inBucket(location string) bool { return strings.HasPrefix(location, bucketScheme) }

// bucketFlags adds the flags that say how buckets are reached.
func (a *app) bucketFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.bucket.Endpoint, "s3-endpoint", "", "the S3 server `HOST[:PORT]` of a location s3://BUCKET/PREFIX (or TRIPOD_S3_ENDPOINT)")
	f.StringVar(&a.bucket.Region, "s3-region", "", "the `REGION` of the bucket (or TRIPOD_S3_REGION)")
	f.BoolVar(&a.bucket.InsecureHTTP, "s3-insecure-http", false, "speak plain HTTP with the S3 server (or TRIPOD_S3_INSECURE_HTTP=true)")
}

// route sends locations in buckets to those who know them.
func (a *app) route() {
	openDir, checkDir := a.env.Store, a.env.CheckStore
	a.env.Store = func(ctx context.Context, location string, create bool) (Store, error) {
		if !inBucket(location) {
			return openDir(ctx, location, create)
		}
		b, err := a.reach(ctx, location)
		if err != nil {
			return nil, err
		}
		return a.env.Bucket(ctx, b, create)
	}
	a.env.CheckStore = func(ctx context.Context, location string, tell func(StoreCheck)) error {
		if !inBucket(location) {
			return checkDir(ctx, location, tell)
		}
		b, err := a.reach(ctx, location)
		if err != nil {
			return err
		}
		return a.env.CheckBucket(ctx, b, tell)
	}
}

// reach gathers how a bucket is reached: flags before the environment before
// the file before what the environment holds for other programs.
func (a *app) reach(ctx context.Context, location string) (*Bucket, error) {
	b := &Bucket{Location: location, Endpoint: first(a.bucket.Endpoint, os.Getenv("TRIPOD_S3_ENDPOINT"))}
	host := strings.TrimPrefix(strings.TrimPrefix(b.Endpoint, "http://"), "https://")
	fromFile, err := a.bucketFile(location, bucketScheme+strings.TrimSuffix(host, "/")+"/"+strings.TrimPrefix(location, bucketScheme))
	if err != nil {
		return nil, err
	}
	b.Endpoint = first(b.Endpoint, fromFile.Endpoint)
	b.Region = first(a.bucket.Region, os.Getenv("TRIPOD_S3_REGION"), fromFile.Region, os.Getenv("AWS_REGION"))
	b.InsecureHTTP = a.bucket.InsecureHTTP || fromFile.InsecureHTTP
	if v := os.Getenv("TRIPOD_S3_INSECURE_HTTP"); v != "" && !a.bucket.InsecureHTTP {
		if b.InsecureHTTP, err = strconv.ParseBool(v); err != nil {
			return nil, tripod.Errorf(tripod.Invalid, "TRIPOD_S3_INSECURE_HTTP: must be true or false")
		}
	}
	access, ownAccess, err := a.Secret(ctx, "TRIPOD_S3_ACCESS_KEY")
	if err != nil {
		return nil, err
	}
	secret, ownSecret, err := a.Secret(ctx, "TRIPOD_S3_SECRET_KEY")
	switch {
	case err != nil:
		return nil, err
	case ownAccess != ownSecret:
		return nil, tripod.Errorf(tripod.Denied, "only one of TRIPOD_S3_ACCESS_KEY and TRIPOD_S3_SECRET_KEY is set").WithHint("set both, or neither")
	case ownAccess:
		b.AccessKey, b.SecretKey = access, secret
		b.SessionToken, _, err = a.Secret(ctx, "TRIPOD_S3_SESSION_TOKEN")
		return b, err
	case fromFile.AccessKey != "":
		b.AccessKey, b.SecretKey, b.SessionToken = fromFile.AccessKey, fromFile.SecretKey, fromFile.SessionToken
		return b, nil
	}
	b.AccessKey, b.SecretKey, b.SessionToken = os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")
	return b, nil
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// bucketsFile holds how buckets are reached, by the beginnings of their locations.
const bucketsFile = "s3.json"

type bucketSettings struct {
	Endpoint     string `json:"endpoint"`
	Region       string `json:"region"`
	InsecureHTTP bool   `json:"insecure_http"`
	AccessKey    string `json:"access_key"`
	SecretKey    string `json:"secret_key"`
	SessionToken string `json:"session_token"`
}

// bucketFile reads what the configuration has for a location, written in one way
// or another: the entry whose name is the longest beginning of it, in whole parts.
func (a *app) bucketFile(location, other string) (s bucketSettings, err error) {
	dir, err := configDir()
	if err != nil {
		return s, err
	}
	name := filepath.Join(dir, bucketsFile)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, terminal.System(err, "read")
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		a.Warn("", tripod.Errorf(tripod.Denied, "%s can be read by other users of this machine", name).WithHint("chmod 600 %s", name))
	}
	var all map[string]bucketSettings
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return s, tripod.Errorf(tripod.Invalid, "%s: %w", name, err).WithHint("the guide shows what it holds, under \"A vault in a bucket\"")
	}
	best := ""
	for prefix, settings := range all {
		whole := strings.TrimSuffix(prefix, "/") + "/"
		if len(whole) > len(best) && (strings.HasPrefix(location+"/", whole) || strings.HasPrefix(other+"/", whole)) {
			best, s = whole, settings
		}
	}
	return s, nil
}

// vacantBucket refuses a place in a bucket where a vault or anything else is.
func (a *app) vacantBucket(ctx context.Context, location string) error {
	s, err := a.env.Store(ctx, location, false)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer s.Close()
	switch _, err := local.Describe(ctx, s); {
	case err == nil:
		return errVaultExists(location)
	case !errors.Is(err, tripod.NotFound) && !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.Invalid):
		return fmt.Errorf("vault: %w", err)
	}
	occupied := func(name, what string) error {
		return tripod.Errorf(tripod.Exists, "%s is not empty: it holds %s%s", location, terminal.Printable(name), what).
			WithHint("give a prefix of its own, which nothing lies under: %s/NAME", strings.TrimSuffix(location, "/"))
	}
	err = s.List(ctx, "", func(i store.Info) error {
		if i.Name == vault.KeyringName(1) {
			return nil // of an attempt that was interrupted
		}
		return occupied(i.Name, "")
	})
	if other, ok := s.(Exposed); ok && err == nil {
		err = other.Strangers(ctx, func(name, what string) error { return occupied(name, ", "+what) })
	}
	return err
}

// maxStrangers is how many are told one by one.
const maxStrangers = 5

// tellStrangers warns of what others have put into the store, or laid over what
// is in it.
func (a *app) tellStrangers(ctx context.Context, s Store) error {
	other, ok := s.(Exposed)
	if !ok {
		return nil
	}
	n := 0
	err := other.Strangers(ctx, func(name, what string) error {
		if n++; n <= maxStrangers {
			a.Warn(name, tripod.Errorf(tripod.Invalid, "%s: %s", name, what).WithHint("Tripod leaves it alone; find out who did it"))
		}
		return nil
	})
	if n > maxStrangers {
		a.Warn("", tripod.Errorf(tripod.Invalid, "and %s more like these", tripod.Number(int64(n-maxStrangers))))
	}
	return err
}
