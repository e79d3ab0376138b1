package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"

	"tripod/internal/cli"
	"tripod/internal/driver/store/retry"
	"tripod/internal/driver/store/s3"
	"tripod/internal/driver/store/storetest"
)

// bucketStore is a store in a bucket, with patience.
type bucketStore struct {
	*retry.Store
	io.Closer
	cli.Exposed
}

func bucketOptions(b *cli.Bucket) (s3.Options, error) {
	o, err := s3.Locate(b.Location, b.Endpoint)
	o.Region = b.Region
	o.PlainHTTP = o.PlainHTTP || b.InsecureHTTP
	o.AccessKey, o.SecretKey, o.SessionToken = b.AccessKey, b.SecretKey, b.SessionToken
	return o, err
}

func openBucket(ctx context.Context, b *cli.Bucket, create bool) (cli.Store, error) {
	o, err := bucketOptions(b)
	if err != nil {
		return nil, err
	}
	open := s3.Open
	if create {
		open = s3.Create
	}
	var s *s3.Store
	err = retry.Do(ctx, retry.Options{}, func() (err error) {
		s, err = open(ctx, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return bucketStore{retry.New(s, retry.Options{}), s, s}, nil
}

// checkBucket puts a bucket through the suite, and through what is special to
// its server, under a prefix of its own below that of the location, which stays
// as it is.
func checkBucket(ctx context.Context, b *cli.Bucket, tell func(cli.StoreCheck)) (err error) {
	o, err := bucketOptions(b)
	if err != nil {
		return err
	}
	var outer *s3.Store
	err = retry.Do(ctx, retry.Options{}, func() (err error) {
		outer, err = s3.Open(ctx, o)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, outer.Close()) }()
	o.Prefix = strings.TrimPrefix(o.Prefix+"/.tripod-store-check-"+strings.ToLower(rand.Text()), "/")
	s, err := s3.Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Remove(context.WithoutCancel(ctx)), s.Close()) }()
	for _, note := range s.Describe() {
		tell(cli.StoreCheck{Name: note, Note: true})
	}
	broken := s.Check(ctx, "probe", func(p s3.Probe) {
		tell(cli.StoreCheck{Name: p.Name, OK: p.Err == nil, Skipped: p.Skipped, Took: p.Took, Err: p.Err})
	})
	if ctx.Err() != nil {
		return broken
	}
	suite := storetest.Check(ctx, retry.New(s, retry.Options{}), "check", func(r storetest.Result) {
		tell(cli.StoreCheck{Name: r.Name, OK: r.OK, Skipped: r.Skipped, Took: r.Took, Err: r.Err})
	})
	if ctx.Err() != nil {
		return suite
	}
	tell(cli.StoreCheck{Name: "what was stored survives a power cut of the server", Trusted: true})
	strangers := outer.Strangers(ctx, func(name, what string) error {
		if !strings.HasPrefix(name, ".tripod-store-check-") {
			tell(cli.StoreCheck{Name: name + ": " + what, Note: true})
		}
		return nil
	})
	return errors.Join(broken, suite, strangers)
}
