package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tripod/internal/cli"
	"tripod/internal/cli/terminal"
	"tripod/internal/driver/durable"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/disk"
	"tripod/internal/driver/source/files"
	"tripod/internal/driver/source/stream"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/limit"
	"tripod/internal/driver/store/storetest"
)

// direct wires the commands that work on a vault in this process, on this
// machine's disks.
func direct(version string) cli.Env {
	return cli.Env{
		Version:     version,
		In:          os.Stdin,
		Out:         os.Stdout,
		Err:         os.Stderr,
		Store:       openStore,
		CheckStore:  checkStore,
		Bucket:      openBucket,
		CheckBucket: checkBucket,
		Limit: func(s store.Store, n int64) store.Store {
			return limit.New(s, limit.Options{Up: n, Down: n})
		},
		Files: func(o cli.FilesOptions) (source.Tree, error) {
			return files.New(files.Options{
				Paths: o.Paths, Exclude: o.Exclude, ExcludeFiles: o.ExcludeFiles, ExcludeCaches: o.ExcludeCaches,
				OneFileSystem: o.OneFileSystem, Skip: o.Skip, Watcher: o.Watcher,
			})
		},
		Disk: func(path string) (source.Disk, error) { return disk.Open(path) },
		Stream: func(ctx context.Context, name string, in *os.File, command []string) (source.Stream, error) {
			if len(command) > 0 {
				return stream.Command(ctx, name, command...)
			}
			return stream.New(ctx, name, terminal.Interruptible(ctx, in))
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

// checkStore runs the suite that every store of the program has to pass on a
// store in a folder of its own: the directory stays as it is, also when there is
// a vault in it, which sees no hidden folders.
func checkStore(ctx context.Context, location string, tell func(cli.StoreCheck)) (err error) {
	outer, err := durable.OpenRoot(location) // it must be there, and a directory
	if err != nil {
		return err
	}
	if err := outer.Close(); err != nil {
		return err
	}
	folder := filepath.Join(location, ".tripod-store-check-"+rand.Text())
	s, err := fs.Create(folder)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.Close())
		if left := os.RemoveAll(folder); left != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", durable.Classify(left, "remove", folder)))
		}
	}()
	return storetest.Check(ctx, s, "check", func(r storetest.Result) {
		tell(cli.StoreCheck{Name: r.Name, OK: r.OK, Skipped: r.Skipped, Took: r.Took, Err: r.Err})
	})
}
