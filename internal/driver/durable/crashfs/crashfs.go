// Package crashfs is a simulated disk for tests of durability: a durable.FS in
// memory that remembers, for each file and each directory entry, what a power
// cut would leave of it.
//
// A test runs the code under test on a [Disk], takes crash states at any moment
// with [Disk.Crash], and looks what the code makes of each. In a crash state
// everything synced is there. A file not synced since its last write has kept
// its length or not, and of its 4 KiB pages any subset. A directory entry made,
// changed or removed since its directory's last sync is there in any of the
// versions it had. That is worse than any one file system behaves, and all of
// it has been seen on some.
//
// A Hook sees every operation before it happens and may fail it. A failed sync
// behaves as the worst of disks: what it should have written is lost, and a
// second sync reports success.
package crashfs

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tripod/internal/driver/durable"
)

// pageSize is the unit in which unsynced bytes are kept or lost.
const pageSize = 4096

// Op is one operation on a Disk, as its hook sees it.
type Op struct {
	Verb string // create, open, read, write, sync, close, rename, remove, mkdir, stat, readdir, syncdir, lock
	Name string // what it is done to
}

// Disk is a simulated disk. It may be used concurrently.
type Disk struct {
	mu    sync.Mutex
	root  *node
	hook  func(Op) error
	locks map[string]*lockState
}

type lockState struct {
	held   bool
	holder string
}

// node is a file or a directory.
type node struct {
	// Of a file. data is never changed in place, so that crash states share it.
	data   []byte
	synced []byte
	dirty  bool // data and synced differ
	broken bool // a sync failed: what is dirty stays lost
	links  int

	// Of a directory: what is seen, what is stable, and for each name whose
	// entry changed since the last sync the versions it had, nil for none.
	entries map[string]*node
	stable  map[string]*node
	changed map[string][]*node
}

func newDir() *node {
	return &node{entries: map[string]*node{}, stable: map[string]*node{}, changed: map[string][]*node{}}
}

func (n *node) isDir() bool { return n.entries != nil }

// set changes the entry base of directory n; to may be nil.
func (n *node) set(base string, to *node) {
	if len(n.changed[base]) == 0 {
		n.changed[base] = []*node{n.stable[base]}
	}
	n.changed[base] = append(n.changed[base], to)
	if to == nil {
		delete(n.entries, base)
	} else {
		n.entries[base] = to
	}
}

// New returns an empty disk.
func New() *Disk { return &Disk{root: newDir(), locks: map[string]*lockState{}} }

// SetHook makes hook see every operation before it happens. The operation
// fails with the hook's error; a failed write has written half. The hook may
// call Crash, nothing else of the disk. nil takes the hook away.
func (d *Disk) SetHook(hook func(Op) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = hook
}

func (d *Disk) ask(verb, name string) error {
	d.mu.Lock()
	hook := d.hook
	d.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(Op{Verb: verb, Name: name})
}

// Kill ends the processes that use the disk, which itself goes on: locks are
// freed, nothing is lost. Files still open stay usable and should not be used.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.locks {
		l.held = false
	}
}

// Crash returns a disk as it may be found after a power cut at this moment; r
// decides what is lost. The disk itself goes on unharmed.
func (d *Disk) Crash(r *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := New()
	after.root = d.root.crash(r, map[*node]*node{})
	for name, l := range d.locks {
		if r.IntN(2) == 0 {
			after.locks[name] = &lockState{holder: l.holder}
		}
	}
	return after
}

// crash returns what is left of n. A file under two names stays one file.
func (n *node) crash(r *rand.Rand, seen map[*node]*node) *node {
	if done, ok := seen[n]; ok {
		done.links++
		return done
	}
	left := &node{links: 1}
	seen[n] = left
	if !n.isDir() {
		left.data = n.synced
		if n.dirty {
			left.data = tear(r, n.synced, n.data)
		}
		left.synced = left.data
		return left
	}
	left.entries = maps.Clone(n.stable)
	for _, name := range slices.Sorted(maps.Keys(n.changed)) { // sorted: a seed is a history
		versions := n.changed[name]
		if v := versions[r.IntN(len(versions))]; v != nil {
			left.entries[name] = v
		} else {
			delete(left.entries, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left.entries)) {
		left.entries[name] = left.entries[name].crash(r, seen)
	}
	left.stable, left.changed = maps.Clone(left.entries), map[string][]*node{}
	return left
}

// tear returns a mix of a file's stable and its unsynced bytes.
func tear(r *rand.Rand, stable, data []byte) []byte {
	length := len(data)
	switch r.IntN(4) {
	case 0:
		length = len(stable)
	case 1:
		length = r.IntN(len(data) + 1)
	}
	mix := make([]byte, length)
	copy(mix, stable)
	for at := 0; at < length; at += pageSize {
		if r.IntN(2) == 0 && at < len(data) {
			copy(mix[at:min(at+pageSize, length)], data[at:])
		}
	}
	return mix
}

// find returns the directory that holds name, and name's last part.
func (d *Disk) find(name string) (dir *node, base string, err error) {
	name = path.Clean(name)
	if !fs.ValidPath(name) {
		return nil, "", syscall.EINVAL
	}
	dir = d.root
	parts := strings.Split(name, "/")
	for _, part := range parts[:len(parts)-1] {
		next := dir.entries[part]
		if next == nil {
			return nil, "", syscall.ENOENT
		}
		if !next.isDir() {
			return nil, "", syscall.ENOTDIR
		}
		dir = next
	}
	return dir, parts[len(parts)-1], nil
}

func (d *Disk) lookup(name string) (*node, error) {
	dir, base, err := d.find(name)
	if err != nil {
		return nil, err
	}
	if base == "." {
		return dir, nil
	}
	if n := dir.entries[base]; n != nil {
		return n, nil
	}
	return nil, syscall.ENOENT
}

// do runs one operation under the lock, after the hook, and gives its error the
// form that package os gives to errors.
func (d *Disk) do(verb, name string, op func() error) error {
	err := d.ask(verb, name)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		err = op()
	}
	if err != nil {
		return &fs.PathError{Op: verb, Path: name, Err: err}
	}
	return nil
}

// add makes an entry that was not there.
func (d *Disk) add(name string, n *node) error {
	dir, base, err := d.find(name)
	if err != nil {
		return err
	}
	if base == "." || dir.entries[base] != nil {
		return syscall.EEXIST
	}
	dir.set(base, n)
	return nil
}

// Create implements durable.FS.
func (d *Disk) Create(name string, _ fs.FileMode) (durable.File, error) {
	n := &node{links: 1}
	if err := d.do("create", name, func() error { return d.add(name, n) }); err != nil {
		return nil, err
	}
	return &file{disk: d, node: n, name: name}, nil
}

// Open implements durable.FS.
func (d *Disk) Open(name string) (durable.File, error) {
	var n *node
	err := d.do("open", name, func() (err error) {
		if n, err = d.lookup(name); err == nil && n.isDir() {
			err = syscall.ENOENT
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &file{disk: d, node: n, name: name}, nil
}

// Rename implements durable.FS.
func (d *Disk) Rename(from, to string, replace bool) error {
	return d.do("rename", to, func() error {
		fromDir, fromBase, err := d.find(from)
		if err != nil {
			return err
		}
		n := fromDir.entries[fromBase]
		if n == nil {
			return syscall.ENOENT
		}
		toDir, toBase, err := d.find(to)
		if err != nil {
			return err
		}
		if old := toDir.entries[toBase]; old != nil {
			if !replace {
				return syscall.EEXIST
			}
			if old.isDir() {
				return syscall.EISDIR
			}
			old.links--
		}
		toDir.set(toBase, n)
		fromDir.set(fromBase, nil)
		return nil
	})
}

// Remove implements durable.FS.
func (d *Disk) Remove(name string) error {
	return d.do("remove", name, func() error {
		dir, base, err := d.find(name)
		if err != nil {
			return err
		}
		n := dir.entries[base]
		switch {
		case n == nil:
			return syscall.ENOENT
		case n.isDir() && len(n.entries) > 0:
			return syscall.ENOTEMPTY
		}
		n.links--
		dir.set(base, nil)
		return nil
	})
}

// Mkdir implements durable.FS.
func (d *Disk) Mkdir(name string, _ fs.FileMode) error {
	return d.do("mkdir", name, func() error { return d.add(name, newDir()) })
}

// SyncDir implements durable.FS.
func (d *Disk) SyncDir(name string) error {
	return d.do("syncdir", name, func() error {
		n, err := d.lookup(name)
		if err != nil {
			return err
		}
		if !n.isDir() {
			return syscall.ENOTDIR
		}
		n.stable, n.changed = maps.Clone(n.entries), map[string][]*node{}
		return nil
	})
}

// Stat implements durable.FS.
func (d *Disk) Stat(name string) (info fs.FileInfo, err error) {
	err = d.do("stat", name, func() error {
		n, err := d.lookup(name)
		if err == nil {
			info = n.info(path.Base(name))
		}
		return err
	})
	return info, err
}

// ReadDir implements durable.FS.
func (d *Disk) ReadDir(name string) (list []fs.DirEntry, err error) {
	err = d.do("readdir", name, func() error {
		n, err := d.lookup(name)
		if err != nil {
			return err
		}
		if !n.isDir() {
			return syscall.ENOTDIR
		}
		for _, base := range slices.Sorted(maps.Keys(n.entries)) {
			list = append(list, fs.FileInfoToDirEntry(n.entries[base].info(base)))
		}
		return nil
	})
	return list, err
}

// TryLock implements durable.Locker.
func (d *Disk) TryLock(name, holder string) (release func(clean bool) error, left string, err error) {
	err = d.do("lock", name, func() error {
		l := d.locks[name]
		if l == nil {
			l = &lockState{}
			d.locks[name] = l
		}
		left = l.holder
		if l.held {
			return nil
		}
		l.held, l.holder = true, holder
		var once sync.Once
		release = func(clean bool) error {
			once.Do(func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				l.held = false
				if clean {
					l.holder = ""
				}
			})
			return nil
		}
		return nil
	})
	return release, left, err
}

// info describes a node.
type info struct {
	name string
	size int64
	mode fs.FileMode
}

func (n *node) info(name string) info {
	if n.isDir() {
		return info{name, 0, fs.ModeDir | 0o700}
	}
	return info{name, int64(len(n.data)), 0o600}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }

// file is an open file.
type file struct {
	disk *Disk
	node *node
	name string
}

func (f *file) Write(p []byte) (n int, err error) {
	failed := f.disk.ask("write", f.name)
	if failed != nil {
		p = p[:len(p)/2]
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.node.data = slices.Concat(f.node.data, p)
	f.node.dirty = true
	if failed != nil {
		return len(p), &fs.PathError{Op: "write", Path: f.name, Err: failed}
	}
	return len(p), nil
}

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.disk.do("read", f.name, func() error {
		if off < int64(len(f.node.data)) {
			n = copy(p, f.node.data[off:])
		}
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *file) Sync() error {
	failed := f.disk.ask("sync", f.name)
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := f.node
	switch {
	case failed != nil:
		n.broken = true
		return &fs.PathError{Op: "sync", Path: f.name, Err: failed}
	case !n.broken:
		n.synced, n.dirty = n.data, false
	}
	return nil
}

func (f *file) Size() (size int64, err error) {
	err = f.disk.do("stat", f.name, func() error {
		size = int64(len(f.node.data))
		return nil
	})
	return size, err
}

func (f *file) Linked() bool {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.node.links > 0
}

func (f *file) Close() error { return f.disk.do("close", f.name, func() error { return nil }) }
