package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tripod/internal/cli"
	"tripod/internal/driver/store/s3test"
)

// A server that is busy for a while is asked again, also while the store is opened.
func TestABusyServerIsAskedAgain(t *testing.T) {
	f := s3test.NewFake("backups")
	server := httptest.NewServer(f)
	defer server.Close()
	asked := map[string]int{}
	f.Before(func(w http.ResponseWriter, r *http.Request) bool {
		what := r.Method + " " + r.URL.String()
		if asked[what]++; strings.Contains(what, ".probe-") || asked[what] > 2 {
			return true
		}
		s3test.Fail(w, []int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[asked[what]-1], "Busy")
		return false
	})
	b := &cli.Bucket{
		Location: "s3://" + server.Listener.Addr().String() + "/backups/vault", Region: s3test.Region, InsecureHTTP: true,
		AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey,
	}
	s, err := openBucket(t.Context(), b, true)
	if err != nil {
		t.Fatal(err)
	}
	data, got := []byte("data"), make([]byte, 4)
	err = s.Put(t.Context(), "x", data)
	if err == nil {
		_, err = s.Get(t.Context(), "x", got, 0)
	}
	if err := errors.Join(err, s.Close()); err != nil || !bytes.Equal(got, data) || len(asked) < 4 {
		t.Errorf("%q, %v, asked %v", got, err, asked)
	}
}

// A directory that was checked is as it was, also when the check was interrupted.
func TestACheckedDirectoryStaysAsItIs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, stop := range []int{1, 5, 0} {
		ctx, cancel := context.WithCancel(t.Context())
		checks := 0
		err := checkStore(ctx, dir, func(c cli.StoreCheck) {
			if !c.OK && !c.Skipped {
				t.Errorf("%s: %v", c.Name, c.Err)
			}
			if checks++; checks == stop {
				cancel()
			}
		})
		if stop > 0 && (!errors.Is(err, context.Canceled) || checks != stop) || stop == 0 && err != nil {
			t.Errorf("stopped at check %d: %d ran, %v", stop, checks, err)
		}
		cancel()
		entries, err := os.ReadDir(dir)
		if err != nil || !slices.EqualFunc(entries, []string{"mine"}, func(e os.DirEntry, name string) bool { return e.Name() == name }) {
			t.Errorf("stopped at check %d: left %v, %v", stop, entries, err)
		}
	}
}
