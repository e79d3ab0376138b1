// Package s3test has S3 servers for tests: Gateway is a real one, versitygw over
// a temporary directory; Fake is one in memory that can be made to lie and to
// fail.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The keys of both servers, and the region of both.
const (
	AccessKey = "ACCESSKEY"
	SecretKey = "not-so-secret-key"
	Region    = "us-east-1"
)

// Gateway is a running versitygw.
type Gateway struct {
	Endpoint string
	Data     string // buckets are folders here
	Client   *minio.Client
}

// Start starts versitygw until the test ends. Where it is not installed the test
// is skipped as not proved.
func Start(t testing.TB) *Gateway {
	t.Helper()
	program := find()
	if program == "" {
		t.Skip("not proved: a real S3 server, versitygw is neither on PATH nor in .cache/bin (scripts/install-deps builds it)")
	}
	dir := t.TempDir()
	g := &Gateway{Data: filepath.Join(dir, "data")}
	for _, name := range []string{"data", "versions", "iam"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.Endpoint = free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-q", "-p", g.Endpoint, "-a", AccessKey, "-s", SecretKey, "-r", Region,
		"--iam-dir", filepath.Join(dir, "iam"), "posix", "--versioning-dir", filepath.Join(dir, "versions"), g.Data)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed, or told below
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	deadline := time.After(time.Minute)
	for {
		if c, err := net.Dial("tcp", g.Endpoint); err == nil {
			_ = c.Close() // it was only tried
			break
		}
		select {
		case <-ended:
			if bytes.Contains(log.Bytes(), []byte("xattr")) {
				t.Skipf("not proved: a real S3 server, versitygw needs a file system with extended attributes: %s", log.Bytes())
			}
			t.Fatalf("versitygw did not start: %s", log.Bytes())
		case <-deadline:
			t.Fatal("versitygw does not answer")
		case <-time.After(10 * time.Millisecond): // look again
		}
	}
	g.Client, err = minio.New(g.Endpoint, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: Region})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Installed reports whether Start will find versitygw.
func Installed() bool { return find() != "" }

// find gives the program, or "".
func find() string {
	if name, err := exec.LookPath("versitygw"); err == nil {
		return name
	}
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		name := filepath.Join(dir, ".cache", "bin", "versitygw")
		if _, err := os.Stat(name); err == nil {
			return name
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// Bucket makes a bucket: plain, with "versions", or with "lock", which has them
// too.
func (g *Gateway) Bucket(t testing.TB, name, kind string) {
	t.Helper()
	ctx := t.Context()
	err := g.Client.MakeBucket(ctx, name, minio.MakeBucketOptions{ObjectLocking: kind == "lock"})
	if err == nil && kind == "versions" {
		err = g.Client.EnableVersioning(ctx, name)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("make the bucket %s: %w", name, err))
	}
}
