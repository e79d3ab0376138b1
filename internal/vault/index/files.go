package index

import (
	"bytes"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// files is the file system under the database. It never syncs, because an
// index is derived: after a power cut it is verified, and rebuilt if need be.
//
// A write that fails it remembers and reports as done: Pebble ends the process
// when it cannot write its manifest, and tries for ever to write a table to a
// full disk. The index asks broken before it trusts an answer, and whoever opens
// it next verifies it, because the note of the boot is gone.
type files struct {
	vfs.FS
	boot string // path of the note under which start of the system the files were written

	mu  sync.Mutex
	err error
}

// fail remembers the first error.
func (f *files) fail(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		if f.boot != "" {
			_ = os.Remove(f.boot)
		}
	}
}

func (f *files) broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// bootID names this start of the system, or is empty where it has no name.
func bootID() []byte {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(id)
}

// sameBoot reports whether the files were last written under this start of the
// system: then everything written is there, synced or not.
func (f *files) sameBoot() bool {
	id := bootID()
	noted, err := os.ReadFile(f.boot)
	return err == nil && len(id) > 0 && bytes.Equal(id, noted)
}

func (f *files) noteBoot() {
	if !f.sameBoot() {
		// Without the note the next one to open verifies more than it had to.
		_ = os.WriteFile(f.boot, bootID(), 0o600)
	}
}

func (f *files) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		f.fail(err)
		file, err = vfs.NewMem().Create("lost", "")
	}
	if err != nil {
		return nil, err
	}
	return &lazyFile{File: file, fs: f}, nil
}

// Create implements vfs.FS.
func (f *files) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.wrap(f.FS.Create(name, c))
}

// ReuseForWrite implements vfs.FS.
func (f *files) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.wrap(f.FS.ReuseForWrite(from, to, c))
}

// Rename implements vfs.FS.
func (f *files) Rename(from, to string) error {
	f.fail(f.FS.Rename(from, to))
	return nil
}

// OpenDir implements vfs.FS.
func (f *files) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &lazyFile{File: d, fs: f}, nil
}

// Unwrap implements vfs.FS.
func (f *files) Unwrap() vfs.FS { return f.FS }

// lazyFile is a file that is never synced and whose failures its files keep.
type lazyFile struct {
	vfs.File
	fs *files
}

func (f *lazyFile) Write(p []byte) (int, error) {
	_, err := f.File.Write(p)
	f.fs.fail(err)
	return len(p), nil
}

func (f *lazyFile) Sync() error                  { return nil }
func (f *lazyFile) SyncData() error              { return nil }
func (f *lazyFile) SyncTo(int64) (bool, error)   { return false, nil }
func (f *lazyFile) Preallocate(_, _ int64) error { return nil }

func (f *lazyFile) Close() error {
	f.fs.fail(f.File.Close())
	return nil
}
