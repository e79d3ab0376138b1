//go:build linux || darwin

package mount

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable"
	"tripod/internal/engine/browse"
	"tripod/internal/engine/catalog"
)

// forever is how long the kernel may keep what it was told: snapshots do not
// change.
const forever = 24 * time.Hour

// Serve mounts the snapshots and answers until the context ends or someone
// unmounts. It returns nil after both.
func Serve(ctx context.Context, o Options) error {
	info, err := os.Stat(o.Dir)
	if err != nil {
		err = durable.Classify(err, "mount on", o.Dir)
		if errors.Is(err, tripod.NotFound) {
			return tripod.Errorf(tripod.NotFound, "%w", err).WithHint("make the folder first")
		}
		return err
	}
	if !info.IsDir() {
		return tripod.Errorf(tripod.Invalid, "mount on %s: not a folder", o.Dir).WithHint("make an empty folder and name that")
	}
	keep := forever
	options := &fs.Options{
		EntryTimeout: &keep, AttrTimeout: &keep, NegativeTimeout: &keep, NullPermissions: true,
		Logger: log.New(io.Discard, "", 0),
		MountOptions: fuse.MountOptions{
			FsName: "tripod", Name: "tripod", Options: []string{"ro"}, AllowOther: o.AllowOther, MaxReadAhead: 1 << 20, MaxWrite: 1 << 20,
			Logger: log.New(io.Discard, "", 0),
		},
	}
	if o.AllowOther {
		options.Options = append(options.Options, "default_permissions")
	}
	server, err := fs.Mount(o.Dir, &top{options: o}, options)
	if err != nil {
		return errMount(o.Dir, err)
	}
	if o.Ready != nil {
		o.Ready()
	}
	ended := make(chan struct{})
	go func() {
		server.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	return unmount(server, o.Dir, ended)
}

// unmount takes the file system away. When it is in use it is detached: it
// vanishes from the tree of folders, and ends once nothing uses it any more.
func unmount(server *fuse.Server, dir string, ended <-chan struct{}) error {
	if err := server.Unmount(); err != nil {
		if detachErr := detach(dir); detachErr != nil {
			return errBusy(dir, errors.Join(err, detachErr))
		}
		return nil // ended with the process
	}
	<-ended
	return nil
}

func detach(dir string) error {
	for _, argv := range [][]string{{"umount", "-l", dir}, {"fusermount3", "-uz", dir}, {"fusermount", "-uz", dir}, {"umount", "-f", dir}} {
		if err := exec.Command(argv[0], argv[1:]...).Run(); err == nil { //nolint:gosec // fixed programs
			return nil
		}
	}
	return tripod.Errorf(tripod.Conflict, "it cannot be detached either")
}

// top is the root: a folder per host.
type top struct {
	fs.Inode
	options Options
}

var _ fs.NodeOnAdder = (*top)(nil)

// OnAdd makes the folders of hosts and snapshots; what is in a snapshot follows
// when it is looked at.
func (t *top) OnAdd(ctx context.Context) {
	for _, h := range layout(t.options.Snapshots) {
		dir := t.NewPersistentInode(ctx, &folder{}, fs.StableAttr{Mode: syscall.S_IFDIR})
		t.AddChild(h.name, dir, false)
		for _, s := range h.snapshots {
			dir.AddChild(s.name, dir.NewPersistentInode(ctx, newSnapshotNode(t.options.Browser, s.snapshot), fs.StableAttr{Mode: syscall.S_IFDIR}), false)
		}
		last := h.snapshots[len(h.snapshots)-1]
		link := &fs.MemSymlink{Data: []byte(last.name)}
		dir.AddChild("latest", dir.NewPersistentInode(ctx, link, fs.StableAttr{Mode: syscall.S_IFLNK}), false)
	}
}

// Getattr implements fs.NodeGetattrer.
func (t *top) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o555
	return fs.OK
}

// folder is a folder that only holds others.
type folder struct{ fs.Inode }

// Getattr implements fs.NodeGetattrer.
func (f *folder) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o555
	return fs.OK
}

// node is a file or folder of a snapshot.
type node struct {
	fs.Inode
	browser  *browse.Browser
	snapshot *catalog.Snapshot
	entry    tree.Entry
	whole    bool // the content of a disk or stream
}

func newSnapshotNode(b *browse.Browser, s catalog.Snapshot) *node {
	t := s.Record.Time
	e := tree.Entry{Type: tree.Dir, Mode: 0o555, Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
	return &node{browser: b, snapshot: &s, entry: e}
}

// path is how the browser is asked for the node.
func (n *node) path() string { return "/" + n.entry.Path() }

// content is the one entry of a snapshot that is no file tree.
func (n *node) content() tree.Entry {
	e := n.entry
	e.Type, e.Mode, e.Name, e.Size = tree.Regular, 0o400, contentName(n.snapshot), n.snapshot.Label.Bytes
	return e
}

func (n *node) isTree() bool { return n.snapshot.Record.Type == tripod.Files }

// Lookup implements fs.NodeLookuper.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child := &node{browser: n.browser, snapshot: n.snapshot}
	if n.isTree() {
		e, err := n.browser.Stat(ctx, *n.snapshot, "/"+tree.Join(n.entry.Path(), name))
		if err != nil {
			return nil, errno(err)
		}
		child.entry = *e
	} else {
		child.entry, child.whole = n.content(), true
		if name != child.entry.Name {
			return nil, syscall.ENOENT
		}
	}
	child.fill(&out.Attr)
	return n.NewInode(ctx, child, fs.StableAttr{Mode: systemType(child.entry.Type)}), fs.OK
}

// Readdir implements fs.NodeReaddirer.
func (n *node) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	entries := []tree.Entry{n.content()}
	if n.isTree() {
		var err error
		if entries, err = n.browser.List(ctx, *n.snapshot, n.path()); err != nil {
			return nil, errno(err)
		}
	}
	list := make([]fuse.DirEntry, len(entries))
	for i := range entries {
		list[i] = fuse.DirEntry{Name: entries[i].Name, Mode: systemType(entries[i].Type)}
	}
	return fs.NewListDirStream(list), fs.OK
}

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.fill(&out.Attr)
	return fs.OK
}

func (n *node) fill(out *fuse.Attr) {
	e := &n.entry
	out.Mode = systemType(e.Type) | e.Mode&0o7777
	out.Size = uint64(max(e.Size, 0))
	if e.Type == tree.Symlink {
		out.Size = uint64(len(e.Link))
	}
	out.Blocks = (uint64(max(e.Stored(), 0)) + 511) / 512
	out.Nlink = 1
	out.Owner = fuse.Owner{Uid: e.Owner.UID, Gid: e.Owner.GID}
	t := time.Unix(e.Sec, int64(e.Nsec))
	out.SetTimes(&t, &t, &t)
	if e.Type == tree.CharDevice || e.Type == tree.BlockDevice {
		out.Rdev = e.Major<<8 | e.Minor&0xff | e.Minor>>8<<20
	}
}

// Readlink implements fs.NodeReadlinker.
func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(n.entry.Link), fs.OK }

// Open implements fs.NodeOpener.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&(syscall.O_WRONLY|syscall.O_RDWR) != 0 {
		return nil, 0, syscall.EROFS
	}
	var f *browse.File
	var err error
	if n.whole {
		f, err = n.browser.Open(ctx, *n.snapshot, "")
	} else {
		f, err = n.browser.OpenEntry(ctx, &n.entry)
	}
	if err != nil {
		return nil, 0, errno(err)
	}
	return &handle{f}, fuse.FOPEN_KEEP_CACHE, fs.OK
}

type handle struct{ file *browse.File }

// Read implements fs.FileReader.
func (h *handle) Read(ctx context.Context, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.file.ReadAt(ctx, dest, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errno(err)
	}
	return fuse.ReadResultData(dest[:n]), fs.OK
}

// Listxattr implements fs.NodeListxattrer.
func (n *node) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	var names []byte
	for _, x := range n.entry.Xattrs {
		names = append(append(names, x.Name...), 0)
	}
	return answer(dest, string(names))
}

// Getxattr implements fs.NodeGetxattrer.
func (n *node) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	i := slices.IndexFunc(n.entry.Xattrs, func(x tree.Xattr) bool { return x.Name == name })
	if i < 0 {
		return 0, fs.ENOATTR
	}
	return answer(dest, n.entry.Xattrs[i].Value)
}

func answer(dest []byte, value string) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), fs.OK
}

// systemType is the type of an entry in the mode of a system call.
func systemType(t tree.FileType) uint32 {
	switch t {
	case tree.Dir:
		return syscall.S_IFDIR
	case tree.Symlink:
		return syscall.S_IFLNK
	case tree.Fifo:
		return syscall.S_IFIFO
	case tree.Socket:
		return syscall.S_IFSOCK
	case tree.CharDevice:
		return syscall.S_IFCHR
	case tree.BlockDevice:
		return syscall.S_IFBLK
	}
	return syscall.S_IFREG
}

// errno tells the kernel what went wrong, as far as it has words for it.
func errno(err error) syscall.Errno {
	switch {
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, tripod.NotFound):
		return syscall.ENOENT
	case errors.Is(err, tripod.Denied):
		return syscall.EACCES
	case errors.Is(err, tripod.Exhausted):
		return syscall.ENOMEM
	}
	return syscall.EIO
}
