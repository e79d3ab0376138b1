package files

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/sourcetest"
)

func TestTypes(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "file=12345", "dir/", "link->some/where")
	must(t, unix.Mkfifo(root+"/fifo", 0o600))
	l, err := net.Listen("unix", root+"/socket")
	must(t, err)
	defer l.Close() // lint:errcheck a test's
	must(t, os.Link(root+"/file", root+"/hard"), os.Chmod(root+"/dir", 0o755|os.ModeSticky|os.ModeSetgid), unix.Chmod(root+"/file", 0o4711))
	entries := sourcetest.Tree(t, open(t, newSystem(), Options{Paths: []string{root}}))
	for name, want := range map[string]source.Entry{
		"file":   {Type: source.Regular, Mode: 0o4711, Size: 5, Nlink: 2},
		"hard":   {Type: source.Regular, Mode: 0o4711, Size: 5, Nlink: 2},
		"dir":    {Type: source.Directory, Mode: 0o3755},
		"link":   {Type: source.Symlink, Mode: 0o777, Nlink: 1},
		"fifo":   {Type: source.FIFO, Mode: 0o600, Nlink: 1},
		"socket": {Type: source.Socket, Nlink: 1},
	} {
		e := find(t, entries, root+"/"+name)
		if e.Type != want.Type || e.Size != want.Size ||
			(want.Mode != 0 && e.Mode != want.Mode) || (want.Nlink != 0 && e.Nlink != want.Nlink) {
			t.Errorf("%s: %+v", name, *e)
		}
		if e.UID != uint32(os.Geteuid()) || e.Inode == 0 || e.Dev == 0 || e.CTime.Sec == 0 {
			t.Errorf("%s: %+v", name, *e)
		}
	}
	if a, b := find(t, entries, root+"/file"), find(t, entries, root+"/hard"); a.Inode != b.Inode || a.Dev != b.Dev {
		t.Error("hard links have one identity")
	}
}

func TestDeviceNodes(t *testing.T) {
	root := t.TempDir()
	err := errors.Join(
		unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(root+"/disk", unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))))
	if errors.Is(err, unix.EPERM) {
		t.Skip("not proved: device nodes, making them needs root")
	}
	must(t, err)
	entries := collect(t, open(t, newSystem(), Options{Paths: []string{root}}))
	if e := find(t, entries, root+"/null"); e.Type != source.CharDevice || e.Major != 1 || e.Minor != 3 {
		t.Errorf("null: %+v", *e)
	}
	if e := find(t, entries, root+"/disk"); e.Type != source.BlockDevice || e.Major != 259 || e.Minor != 70_000 {
		t.Errorf("disk: %+v", *e)
	}
}

func TestTimes(t *testing.T) {
	root := t.TempDir()
	for i, want := range []source.Time{{Sec: 0, Nsec: 1}, {Sec: -1, Nsec: 999_999_999}, {Sec: -1_000_000_000, Nsec: 5}, {Sec: 4_000_000_000, Nsec: 123_456_789}} {
		name := fmt.Sprintf("%s/%d", root, i)
		plant(t, root, fmt.Sprint(i))
		ts := unix.NsecToTimespec(time.Unix(want.Sec, want.Nsec).UnixNano())
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, 0))
		for system, s := range both() {
			if e := find(t, collect(t, open(t, s, Options{Paths: []string{root}})), name); e.MTime != want {
				t.Errorf("%s: %+v, want %+v", system, e.MTime, want)
			}
		}
	}
}

// acl is the binary form of a POSIX ACL: version 2, then tag, permissions, id.
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

func TestAttributes(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "file", "dir/", "link->file", "plain")
	none := ^uint32(0)
	list := acl([3]uint32{1, 6, none}, [3]uint32{2, 4, 12345}, [3]uint32{4, 4, none}, [3]uint32{0x10, 4, none}, [3]uint32{0x20, 0, none})
	set := func(name, attr string, value []byte) {
		t.Helper()
		err := unix.Lsetxattr(root+"/"+name, attr, value, 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			t.Skipf("not proved: extended attributes, %s on %s: %v", attr, root, err)
		}
		must(t, err)
	}
	set("file", "user.b", []byte("two\x00words"))
	set("file", "user.a", nil)
	set("file", "system.posix_acl_access", list)
	set("dir", "system.posix_acl_default", list)
	set("dir", "user.big", bytes.Repeat([]byte("x"), 3000))
	want := map[string][]source.Xattr{
		"file": {{Name: "system.posix_acl_access", Value: list}, {Name: "user.a"}, {Name: "user.b", Value: []byte("two\x00words")}},
		"dir":  {{Name: "system.posix_acl_default", Value: list}, {Name: "user.big", Value: bytes.Repeat([]byte("x"), 3000)}},
		"link": nil, "plain": nil,
	}
	if os.Geteuid() == 0 {
		capability := append([]byte{1, 0, 0, 2, 0, 4, 0, 0}, make([]byte, 12)...)
		set("file", "security.capability", capability)
		set("link", "trusted.of-the-link", []byte("1"))
		want["file"] = append([]source.Xattr{{Name: "security.capability", Value: capability}}, want["file"]...)
		want["link"] = []source.Xattr{{Name: "trusted.of-the-link", Value: []byte("1")}}
	}
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	entries := sourcetest.Tree(t, tree)
	for name, xattrs := range want {
		a, err := tree.Attributes(find(t, entries, root+"/"+name))
		must(t, err)
		if name == "link" && a.Target != "file" {
			t.Errorf("target %q", a.Target)
		}
		var got []source.Xattr
		for _, x := range a.Xattrs {
			if x.Name != "security.selinux" { // where the system labels by itself
				got = append(got, x)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(xattrs) {
			t.Errorf("%s: %v, want %v", name, got, xattrs)
		}
	}
}

func TestLongTarget(t *testing.T) {
	root := t.TempDir()
	target := strings.Repeat("\xfe/long", 600)
	must(t, os.Symlink(target, root+"/link"))
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	a, err := tree.Attributes(find(t, collect(t, tree), root+"/link"))
	if err != nil || a.Target != target {
		t.Errorf("target of %d bytes, %v", len(a.Target), err)
	}
}

func TestSparse(t *testing.T) {
	root := t.TempDir()
	f, err := os.Create(root + "/sparse")
	must(t, err, f.Truncate(10<<20))
	for _, off := range []int64{1 << 20, 5<<20 + 4096, 9 << 20} {
		_, err := f.WriteAt(bytes.Repeat([]byte("data"), 1024), off)
		must(t, err)
	}
	must(t, f.Close(), os.Truncate(root+"/sparse", 10<<20+1), os.WriteFile(root+"/full", make([]byte, 1<<20), 0o644))
	must(t, os.WriteFile(root+"/hole", nil, 0o644), os.Truncate(root+"/hole", 1<<20))
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	entries := sourcetest.Tree(t, tree)
	if e := find(t, entries, root+"/sparse"); e.Blocks*512 >= e.Size {
		t.Skip("not proved: sparse files, the file system of " + root + " keeps none")
	}
	sum := map[string]int64{}
	for _, name := range []string{"sparse", "full", "hole"} {
		f, err := tree.Open(find(t, entries, root+"/"+name))
		must(t, err)
		for r, err := range source.DataRanges(f) {
			must(t, err)
			sum[name] += r.Length
		}
		must(t, f.Close())
	}
	if sum["sparse"] < 3*4096 || sum["sparse"] > 1<<20 || sum["full"] != 1<<20 || sum["hole"] != 0 {
		t.Errorf("bytes of data: %v", sum)
	}
}

// What is appended while a file is read belongs to the next backup.
func TestSparseThatGrows(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(root+"/f", []byte("begin"), 0o644), os.Truncate(root+"/f", 1<<20))
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	f, err := tree.Open(find(t, collect(t, tree), root+"/f"))
	must(t, err, os.WriteFile(root+"/f", bytes.Repeat([]byte("x"), 2<<20), 0o644))
	for r, err := range source.DataRanges(f) {
		must(t, err)
		if r.End() > 1<<20 {
			t.Errorf("range %+v behind the end", r)
		}
	}
	must(t, f.Close())
}

func TestGrow(t *testing.T) {
	value := []byte("longer")
	results := map[string][]any{ // what the calls return, one after the other
		"plain":                 {6, 6},
		"grew in between":       {3, unix.ERANGE, 6, 6},
		"interrupted":           {unix.EINTR, 6, unix.EINTR, 6},
		"not kept here":         {unix.ENOTSUP},
		"shrank to nothing":     {6, 0},
		"empty":                 {0},
		"refused":               {unix.EACCES},
		"removed after the ask": {6, unix.ENODATA},
	}
	for name, script := range results {
		got, err := grow(nil, func(b []byte) (int, error) {
			next := script[0]
			script = script[1:]
			if errno, ok := next.(syscall.Errno); ok {
				return 0, errno
			}
			copy(b, value)
			return next.(int), nil
		})
		wantErr := name == "refused" || name == "removed after the ask"
		full := name == "plain" || name == "grew in between" || name == "interrupted"
		if len(script) != 0 || (err != nil) != wantErr || (string(got) == "longer") != full {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// deepPath makes a path too long for one call, through open folders.
func deepPath(t *testing.T, root string, length int) string {
	t.Helper()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	path := root
	name := strings.Repeat("d", 200)
	for len(path) < length {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err, unix.Close(fd))
		fd, path = next, path+"/"+name
	}
	file, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	_, err = unix.Write(file, []byte("deep"))
	must(t, err, unix.Close(file), unix.Symlinkat("target", fd, "link"), unix.Close(fd))
	return path
}

func TestDeepPath(t *testing.T) {
	root := t.TempDir()
	path := deepPath(t, root, 5000)
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	entries := sourcetest.Tree(t, tree)
	f, err := tree.Open(find(t, entries, path+"/file"))
	must(t, err)
	got, err := io.ReadAll(f)
	must(t, err, f.Close())
	if string(got) != "deep" {
		t.Errorf("content %q", got)
	}
	if a, err := tree.Attributes(find(t, entries, path+"/link")); err != nil || a.Target != "target" {
		t.Errorf("link: %+v, %v", a, err)
	}
	// Named itself.
	named := collect(t, open(t, newSystem(), Options{Paths: []string{path + "/file"}}))
	find(t, named, path+"/file")
	// The way without links that a swapped folder takes.
	d, err := linux{}.reopen(path[1:])
	must(t, err)
	d.close()
}

func TestReopenRefusesLinks(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	plant(t, root, "a/b/", "link->a")
	for path, want := range map[string]bool{"/a/b": true, "/link/b": false, "/link": false} {
		d, err := linux{}.reopen(root[1:] + path)
		if (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			d.close()
		}
	}
}

func mount(t *testing.T, kind, at string) {
	t.Helper()
	if err := unix.Mount("none", at, kind, 0, ""); err != nil {
		t.Skipf("not proved: other file systems below a path, mounting %s: %v", kind, err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
}

func TestOneFileSystem(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a/", "mnt/", "z")
	mount(t, "tmpfs", root+"/mnt")
	plant(t, root, "mnt/in/x", "mnt/out")
	o := Options{Paths: []string{root}, OneFileSystem: true}
	expect(t, below(collect(t, open(t, newSystem(), o)), root), "a", "mnt", "z")
	o.Paths = []string{root, root + "/mnt/in"}
	expect(t, below(collect(t, open(t, newSystem(), o)), root), "a", "mnt", "z", "mnt/in", "mnt/in/x")
	o.Paths = []string{root, root + "/mnt"}
	expect(t, below(collect(t, open(t, newSystem(), o)), root), "a", "mnt", "z", "mnt/in", "mnt/out", "mnt/in/x")
	o.OneFileSystem = false
	expect(t, below(collect(t, open(t, newSystem(), o)), root), "a", "mnt", "z", "mnt/in", "mnt/out", "mnt/in/x")
}

func TestKernelFileSystems(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a/", "proc/", "z")
	mount(t, "proc", root+"/proc")
	var heard told
	entries := collect(t, open(t, newSystem(), Options{Paths: []string{root}, Watcher: heard.watcher()}))
	expect(t, below(entries, root), "a", "proc", "z")
	if len(heard.notes) != 1 || !strings.Contains(heard.notes[0], "proc") {
		t.Errorf("notes %q", heard.notes)
	}
	named := collect(t, open(t, newSystem(), Options{Paths: []string{root, root + "/proc/sys/kernel"}}))
	find(t, named, root+"/proc/sys/kernel/ostype")
	named = collect(t, open(t, newSystem(), Options{Paths: []string{root + "/proc"}}))
	find(t, named, root+"/proc/sys/kernel/ostype")
}

func TestParseNamesStopsAtNonsense(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 19), make([]byte, 40), bytes.Repeat([]byte{0xff}, 60)} {
		var s scratch
		parseNames(b, &s)
		if len(s.take()) != 0 {
			t.Errorf("names in %x", b)
		}
	}
}

func TestLargeFolder(t *testing.T) {
	root := t.TempDir()
	const n = 3*batchSize + 7
	for i := range n {
		must(t, os.WriteFile(fmt.Sprintf("%s/%04d", root, i), nil, 0o644))
	}
	plant(t, root, "0500x/in", "2500x/in")
	tree := open(t, newSystem(), Options{Paths: []string{root}})
	batches, entries := 0, 0
	must(t, tree.Walk(t.Context(), func(batch []source.Entry) error {
		if "/"+batch[0].Parent == root {
			batches++
			entries += len(batch)
		}
		return nil
	}))
	if entries != n+2 || batches != 4 {
		t.Errorf("%d entries in %d batches", entries, batches)
	}
	sourcetest.Tree(t, tree)
}

func TestKinds(t *testing.T) {
	for err, want := range map[error]tripod.ErrorKind{
		unix.ENOENT: tripod.NotFound, unix.EACCES: tripod.Denied, unix.EPERM: tripod.Denied,
		unix.EMFILE: tripod.Exhausted, unix.ELOOP: tripod.Conflict, unix.ENOTDIR: tripod.Conflict,
		unix.EIO: tripod.Unavailable, errChanged: tripod.Conflict,
	} {
		if got := tripod.KindOf(failure("file", "x", err)); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
	if got := failure("file", "a\nb", unix.EIO).Error(); strings.Contains(got, "\n") {
		t.Errorf("a message of two lines: %q", got)
	}
	// A path stands once.
	_, err := os.Open("/nothing/here")
	if got := failure("file", "nothing/here", err).Error(); strings.Count(got, "/nothing/here") != 1 {
		t.Errorf("message %q", got)
	}
}

// Root may read everything, so root runs this test again as nobody.
func TestPermissionDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		again := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestPermissionDenied$", "-test.v") //nolint:gosec // this test itself
		again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		again.Dir = "/"
		out, err := again.CombinedOutput()
		if !strings.Contains(string(out), "PermissionDenied") {
			t.Skipf("not proved: the kernel's own refusals, running as nobody: %v", err)
		}
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	root := t.TempDir()
	plant(t, root, "closed/x", "file=secret", "names/x")
	must(t, os.Chmod(root+"/closed", 0), os.Chmod(root+"/file", 0), os.Chmod(root+"/names", 0o400))
	var heard told
	tree := open(t, newSystem(), Options{Paths: []string{root}, Watcher: heard.watcher()})
	entries := collect(t, tree)
	must(t, os.Chmod(root+"/closed", 0o700), os.Chmod(root+"/names", 0o700)) // for the clean-up
	expect(t, below(entries, root), "closed", "file", "names")
	expect(t, heard.warnings, root[1:]+"/closed", root[1:]+"/names/x")
	for _, err := range heard.errs {
		if !errors.Is(err, tripod.Denied) || tripod.HintOf(err) == "" {
			t.Errorf("warning %v", err)
		}
	}
	if _, err := tree.Open(find(t, entries, root+"/file")); !errors.Is(err, tripod.Denied) {
		t.Errorf("open: %v", err)
	}
	// Files of others are read without the right to leave their access time.
	others := open(t, newSystem(), Options{Paths: []string{"/etc/passwd"}})
	f, err := others.Open(find(t, collect(t, others), "/etc/passwd"))
	must(t, err, f.Close())
}
