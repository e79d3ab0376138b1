package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"tripod/internal/cli"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/disk"
	"tripod/internal/driver/source/files"
	"tripod/internal/driver/source/stream"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/storetest"
)

// direct wires the commands that work on a vault in this process, on this
// machine's disks.
func direct(version string) cli.Env {
	return cli.Env{
		Version:    version,
		In:         os.Stdin,
		Out:        os.Stdout,
		Err:        os.Stderr,
		Store:      openStore,
		CheckStore: checkStore,
		Files: func(o cli.FilesOptions) (source.Tree, error) {
			return files.New(files.Options{
				Paths: o.Paths, Exclude: o.Exclude, ExcludeFiles: o.ExcludeFiles, ExcludeCaches: o.ExcludeCaches,
				OneFileSystem: o.OneFileSystem, Skip: o.Skip, Watcher: o.Watcher,
			})
		},
		Disk: func(path string) (source.Disk, error) { return disk.Open(path) },
		Stream: func(ctx context.Context, name string, r io.Reader) (source.Stream, error) {
			return stream.New(ctx, name, r)
		},
		Docs: writeDocs,
	}
}

func openStore(_ context.Context, location string, create bool) (cli.Store, error) {
	if create {
		return fs.Create(location)
	}
	return fs.Open(location)
}

// checkStore runs the suite that every store of the program has to pass, in a
// folder of its own.
func checkStore(ctx context.Context, location string, tell func(cli.StoreCheck)) (err error) {
	s, err := fs.Open(location)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	prefix := fmt.Sprintf("check-%x", rand.Text()[:8])
	return storetest.Check(ctx, s, prefix, func(r storetest.Result) {
		tell(cli.StoreCheck{Name: r.Name, OK: r.OK, Skipped: r.Skipped, Took: r.Took, Err: r.Err})
	})
}
