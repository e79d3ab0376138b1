package index

import "github.com/cockroachdb/pebble/v2/vfs"

// OpenOn opens an index on a file system that a test made.
func OpenOn(fsys vfs.FS) (*Index, error) { return openDB(&files{FS: fsys}, "/db", VaultID{1}) }
