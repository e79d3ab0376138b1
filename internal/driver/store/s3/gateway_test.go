package s3_test

import (
	"context"
	"errors"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/s3"
	"tripod/internal/driver/store/s3test"
	"tripod/internal/driver/store/storetest"
)

func options(endpoint, bucket, prefix string) s3.Options {
	return s3.Options{
		Endpoint: endpoint, Bucket: bucket, Prefix: prefix, Region: s3test.Region, PlainHTTP: true,
		AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey,
	}
}

func open(t *testing.T, o s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A real server keeps the contract, whatever its bucket is like.
func TestContract(t *testing.T) {
	t.Parallel()
	g := s3test.Start(t)
	kinds := []string{"plain", "versions", "lock"}
	if testing.Short() {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g.Bucket(t, kind, kind)
			storetest.Run(t, func(t *testing.T) store.Store {
				s := open(t, options(g.Endpoint, kind, "some/prefix"))
				if got := s.Capabilities().Lock; got != (kind == "lock") {
					t.Errorf("locks: %v", got)
				}
				return patient{s}
			})
		})
	}
}

// patient lists again what the server could not list: this one fails at times
// when versions are deleted at the same moment.
type patient struct{ *s3.Store }

func (p patient) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	var infos []store.Info
	var err error
	for range 100 {
		infos = infos[:0]
		err = p.Store.List(ctx, prefix, func(i store.Info) error {
			infos = append(infos, i)
			return nil
		})
		if !errors.Is(err, tripod.Unavailable) {
			break
		}
	}
	if err != nil {
		return err
	}
	for _, i := range infos {
		if err := fn(i); err != nil {
			return err
		}
	}
	return nil
}
