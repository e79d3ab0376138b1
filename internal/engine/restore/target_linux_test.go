package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/restore"
)

// outside is a folder that no restore may touch.
type outside struct {
	dir  string
	list string
}

func newOutside(t testing.TB) *outside {
	t.Helper()
	o := &outside{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(o.dir, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.list = o.look(t)
	return o
}

func (o *outside) look(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(o.dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := os.Lstat(p)
		if err != nil {
			return err
		}
		content, _ := os.ReadFile(p)
		fmt.Fprintln(&b, p, i.Mode(), i.Size(), i.ModTime(), string(content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (o *outside) check(t testing.TB) {
	t.Helper()
	if got := o.look(t); got != o.list {
		t.Errorf("the restore reached outside:\n got %s\nwant %s", got, o.list)
	}
}

// raw commits entries as they are, in the order given, as a hostile machine
// could.
func raw(w *World, entries ...tree.Entry) {
	// The builder refuses impossible names; they are put in behind its back.
	b := tree.NewBuilder(seal.Secret{}, func(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
		plain = bytes.ReplaceAll(bytes.ReplaceAll(plain, []byte("UP"), []byte("..")), []byte("SLASH"), []byte("/evil"))
		return w.Emit(kind, refs, plain)
	})
	for i := range entries {
		if err := b.Add(&entries[i]); err != nil {
			w.TB.Fatal(err)
		}
	}
	root, err := b.Finish()
	if err != nil {
		w.TB.Fatal(err)
	}
	w.Commit("raw", tripod.Files, root, snapshot.Label{Host: "h", Paths: []string{"/"}})
}

func inline(parent, name, text string) tree.Entry {
	return tree.Entry{Parent: parent, Name: name, Type: tree.Regular, Mode: 0o644, Size: int64(len(text)), Content: tree.Content{Inline: []byte(text)}}
}

func TestHostileSnapshotsStayInside(t *testing.T) {
	out := newOutside(t)
	for name, entries := range map[string][]tree.Entry{
		"a file below a planted link": {
			{Type: tree.Dir, Mode: 0o755},
			{Name: "d", Type: tree.Symlink, Mode: 0o777, Link: out.dir},
			inline("d", "evil", "x"),
		},
		"a folder that is not listed": {{Type: tree.Dir, Mode: 0o755}, inline("not/there", "evil", "x")},
		"a name of two dots":          {{Type: tree.Dir, Mode: 0o755}, inline("", "UP", "x")},
		"a name with a slash":         {{Type: tree.Dir, Mode: 0o755}, inline("", "UPSLASH", "x")},
		"a parent of two dots":        {{Type: tree.Dir, Mode: 0o755}, inline("UP/UP", "evil", "x")},
		"an absolute name":            {{Type: tree.Dir, Mode: 0o755}, inline("", "SLASH", "x")},
		"a link to the secret and a file of its name": {
			{Type: tree.Dir, Mode: 0o755},
			{Name: "s", Type: tree.Symlink, Mode: 0o777, Link: filepath.Join(out.dir, "secret")},
			inline("s", "x", "evil"),
		},
	} {
		for _, rule := range []restore.Overwrite{restore.Never, restore.Changed, restore.Always} {
			w := New(t)
			raw(w, entries...)
			dir := filepath.Join(t.TempDir(), "target")
			r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: rule})
			var links int64
			for i := range entries {
				if entries[i].Type == tree.Symlink {
					links++
				}
			}
			if err == nil && r.Files > links {
				t.Errorf("%s: was restored: %+v", name, r)
			}
			out.check(t)
			above, _ := os.ReadDir(filepath.Dir(dir))
			if len(above) > 1 {
				t.Errorf("%s: left something beside the target", name)
			}
		}
	}
}

func TestLinksInTheTargetAreNotFollowed(t *testing.T) {
	out := newOutside(t)
	w, want := New(t), mixed(11)
	w.Snapshot("/home/me", want, TinySizes())
	for _, rule := range []restore.Overwrite{restore.Never, restore.Changed, restore.Always} {
		dir := t.TempDir()
		for link, to := range map[string]string{"a": out.dir, "f1": filepath.Join(out.dir, "secret"), "f11": filepath.Join(out.dir, "new"), "c": "elsewhere"} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: rule})
		if err != nil || r.Conflicts < 2 {
			t.Fatalf("%+v: %v", r, err)
		}
		out.check(t)
		for _, p := range r.Problems {
			if !errors.Is(p, tripod.Conflict) || !strings.Contains(p.Error(), dir) {
				t.Errorf("not a named conflict: %v", p)
			}
		}
	}
}

// An attacker who may write to the target swaps folders for links while the
// restore runs.
func TestARacingAttackerGainsNothing(t *testing.T) {
	out := newOutside(t)
	w := New(t)
	all := []File{Dir("")}
	r := rand.New(rand.NewPCG(12, 1))
	for d := range 30 {
		all = append(all, Dir(fmt.Sprintf("d%02d", d)))
		for f := range 20 {
			all = append(all, Text(fmt.Sprintf("d%02d/f%02d", d, f), random(r, 30+f*20)))
		}
	}
	w.Snapshot("/", all, TinySizes())
	snap := latest(t, w)
	for round := range 10 {
		dir := t.TempDir()
		var stop atomic.Bool
		done := make(chan int)
		go func() {
			swaps := 0
			for i := 0; !stop.Load(); i++ {
				at := filepath.Join(dir, fmt.Sprintf("d%02d", i%30))
				if os.Rename(at, fmt.Sprintf("%s-%d", at, i)) == nil && os.Symlink(out.dir, at) == nil {
					swaps++
				}
			}
			done <- swaps
		}()
		_, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: dir, Overwrite: restore.Overwrite(round % 3)})
		stop.Store(true)
		swaps := <-done
		out.check(t)
		if err != nil && !errors.Is(err, tripod.Conflict) && !errors.Is(err, tripod.Denied) {
			t.Errorf("%d swaps: %v", swaps, err)
		}
	}
}

func TestFilesInTheWayOfFolders(t *testing.T) {
	w, want := New(t), mixed(13)
	w.Snapshot("/home/me", want, TinySizes())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "f5"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Always})
	if err != nil || r.Conflicts != 2 || r.Blocked != 2 || r.Files != 62-24-1 {
		t.Fatalf("%+v: %v", r, err)
	}
}

func TestMetadata(t *testing.T) {
	me, group := uint32(os.Geteuid()), uint32(os.Getegid())
	mine := tree.Owner{UID: me, GID: group}
	all := []File{Dir("")}
	add := func(f File) { f.Owner = mine; all = append(all, f) }
	for i, mode := range []uint32{0, 0o400, 0o644, 0o777, 0o4755, 0o2755, 0o1777, 0o7777} {
		f := Text(fmt.Sprint("file", i), strings.Repeat("x", i*700))
		f.Mode, f.Sec, f.Nsec = mode, int64(-1000*i), uint32(i)
		add(f)
		d := Dir(fmt.Sprint("dir", i))
		d.Mode = mode
		add(d)
	}
	x := Text("xattr", "x")
	x.Mode = 0o444
	x.Xattrs = []tree.Xattr{{Name: "user.a", Value: "1"}, {Name: "user.b", Value: strings.Repeat("v", 200)}}
	add(x)
	fifo := Text("fifo", "")
	fifo.Type, fifo.Mode = tree.Fifo, 0o622
	add(fifo)
	sparse := Text("sparse", random(rand.New(rand.NewPCG(1, 1)), 5000))
	sparse.Ranges = []tree.Range{{Offset: 1 << 20, Length: 3000}, {Offset: 5 << 20, Length: 2000}}
	sparse.Size = 20 << 20
	add(sparse)
	holes := Text("holes", "")
	holes.Ranges, holes.Size = []tree.Range{}, 1<<20
	add(holes)
	w := New(t)
	w.Snapshot("/", all, TinySizes())
	dir := t.TempDir()
	r, err := restoreAll(t, w, restore.Options{To: dir})
	if err != nil || r.Warnings != 0 {
		t.Fatalf("%+v: %v", r, err)
	}
	for i := range all[1:] {
		f := &all[i+1]
		path := filepath.Join(dir, f.Name)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != f.Mode || int64(st.Mtim.Sec) != f.Sec || uint32(st.Mtim.Nsec) != f.Nsec || st.Uid != me || st.Gid != group {
			t.Errorf("%s: mode %o, time %d.%d", f.Name, st.Mode, st.Mtim.Sec, st.Mtim.Nsec)
		}
		if f.Ranges != nil && st.Blocks*512 > 1<<19 {
			t.Errorf("%s: takes %d bytes", f.Name, st.Blocks*512)
		}
		if f.Type == tree.Regular {
			if got, err := os.ReadFile(path); (err == nil || os.Geteuid() == 0) && !bytes.Equal(got, content(f)) {
				t.Errorf("%s: content differs, %v", f.Name, err)
			}
		}
		for _, a := range f.Xattrs {
			b := make([]byte, 1000)
			n, err := unix.Lgetxattr(path, a.Name, b)
			if err != nil || string(b[:n]) != a.Value {
				t.Errorf("%s: %s is %q, %v", f.Name, a.Name, b[:max(n, 0)], err)
			}
		}
	}
}

func TestOwnersAndDevices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not proved: owners and devices, needs root")
	}
	all := []File{Dir("")}
	f := Text("theirs", strings.Repeat("x", 500))
	f.Owner, f.Mode = tree.Owner{UID: 12345, GID: 54321}, 0o6755
	all = append(all, f)
	byName := Text("named", "x")
	byName.Owner = tree.Owner{UID: 4711, GID: 4712, User: "root", Group: "root"}
	all = append(all, byName)
	l := Link("link", "x")
	l.Owner = tree.Owner{UID: 12345, GID: 54321}
	all = append(all, l)
	dev := Text("dev", "")
	dev.Type, dev.Major, dev.Minor, dev.Mode = tree.CharDevice, 1, 3, 0o666
	all = append(all, dev)
	w := New(t)
	w.Snapshot("/", all, TinySizes())
	for _, numeric := range []bool{false, true} {
		dir := t.TempDir()
		if r, err := restoreAll(t, w, restore.Options{To: dir, NumericOwner: numeric}); err != nil || r.Warnings != 0 {
			if r.Failed == 1 && errors.Is(err, tripod.Denied) {
				t.Skip("not proved: devices, not allowed here")
			}
			t.Fatalf("%+v: %v", r, err)
		}
		named := uint32(0)
		if numeric {
			named = 4711
		}
		for name, uid := range map[string]uint32{"theirs": 12345, "named": named, "link": 12345, "dev": 0} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Uid != uid {
				t.Errorf("%s: belongs to %d, not %d: %v", name, st.Uid, uid, err)
			}
			if name == "theirs" && st.Mode&0o7777 != 0o6755 {
				t.Errorf("%s: mode %o", name, st.Mode)
			}
			if name == "dev" && (st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 1 || unix.Minor(st.Rdev) != 3) {
				t.Errorf("device %o %x", st.Mode, st.Rdev)
			}
		}
	}
}

func TestHardLinks(t *testing.T) {
	w := New(t)
	all := []File{Dir(""), Dir("a"), Dir("z")}
	for _, path := range []string{"a/one", "a/two", "z/three"} {
		f := Text(path, strings.Repeat("linked", 100))
		f.Group = 7
		all = append(all, f)
	}
	w.Snapshot("/", all, TinySizes())
	dir := t.TempDir()
	for _, rule := range []restore.Overwrite{restore.Never, restore.Changed, restore.Always} {
		r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: rule})
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if rule == restore.Changed && (r.Unchanged != 3 || r.Files != 0) {
			t.Errorf("what is right already is made again: %+v", r)
		}
		var inode uint64
		for _, f := range all[3:] {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, f.Path()), &st); err != nil || st.Nlink != 3 || (inode != 0 && inode != st.Ino) {
				t.Errorf("rule %d: %s: %d names, inode %d and %d, %v", rule, f.Path(), st.Nlink, st.Ino, inode, err)
			}
			inode = st.Ino
		}
		for _, d := range []string{"", "a", "z"} {
			if left, _ := filepath.Glob(filepath.Join(dir, d, ".tripod*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	}
	part := t.TempDir()
	if _, err := restoreAll(t, w, restore.Options{To: part, Path: "/z"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(part, "z/three")); err != nil || len(got) != 600 {
		t.Errorf("the last name alone: %d bytes, %v", len(got), err)
	}
}

func TestAFullTargetIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("not proved: no space left, cannot mount a small file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	w := New(t)
	_, all := big(1 << 20)
	all = append(all, Text("d/small", "x"))
	w.Snapshot("/d", all, Sizes{Chunk: 128 << 10})
	_, err := restoreAll(t, w, restore.Options{To: filepath.Join(dir, "new")})
	if !errors.Is(err, tripod.Exhausted) || !strings.Contains(err.Error(), dir) || tripod.HintOf(err) == "" {
		t.Errorf("%v, hint %q", err, tripod.HintOf(err))
	}
	if _, err := os.Lstat(filepath.Join(dir, "new/big")); err == nil {
		t.Error("a file without all its content was left")
	}
}

func TestATornFileIsTold(t *testing.T) {
	w := New(t)
	f := Text("d/torn", "x")
	f.Torn = true
	w.Snapshot("/d", append(Parents("d/torn"), f), TinySizes())
	r, err := restoreAll(t, w, restore.Options{To: t.TempDir()})
	if err != nil || r.Warnings != 1 || r.Files != 1 || !strings.Contains(r.Problems[0].Error(), "torn") {
		t.Fatalf("%+v: %v", r, err)
	}
}

func TestALyingReaderIsRefusedByName(t *testing.T) {
	w := New(t)
	a, b := Text("d/a", strings.Repeat("a", 90)), Text("d/b", strings.Repeat("b", 95))
	w.Snapshot("/d", append(Parents("d/x"), a, b), Sizes{Inline: 8, Bundled: 10, Bundle: 10, Chunk: 1000})
	snap := latest(t, w)
	idA := w.Data([]byte(a.Data))
	idB := w.Data([]byte(b.Data))
	for name, lie := range map[string]func(id tripod.ID, f []byte) []byte{
		"swapped": func(id tripod.ID, f []byte) []byte {
			if id == idA.ID() {
				return w.Vault.Frames[idB.ID()]
			}
			return f
		},
		"another kind": func(id tripod.ID, f []byte) []byte {
			if id == idA.ID() {
				return w.Vault.Frames[snap.Root.ID()]
			}
			return f
		},
		"two frames": func(id tripod.ID, f []byte) []byte {
			if id == idA.ID() {
				return append(bytes.Clone(f), f...)
			}
			return f
		},
		"another company": func(id tripod.ID, f []byte) []byte {
			if id == idA.ID() {
				f = bytes.Clone(f)
				f[9] ^= 1
			}
			return f
		},
	} {
		w.Vault.OnFrame = lie
		dir := t.TempDir()
		r, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: dir})
		if !errors.Is(err, tripod.Corrupt) || r.Failed != 1 || len(r.Damaged) != 1 || !strings.HasSuffix(r.Damaged[0], "/a") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		id := idA.ID().String()[:16]
		if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error(), id) {
			t.Errorf("%s: the blob %s is not named: %v", name, id, r.Problems)
		}
		if _, err := os.Lstat(filepath.Join(dir, "a")); err == nil {
			t.Errorf("%s: the file is there", name)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "b")); string(got) != string(b.Data) {
			t.Errorf("%s: the other file is not", name)
		}
	}
	w.Vault.OnFrame = nil
	good := w.Vault.Frames[idA.ID()]
	w.Vault.Frames[idA.ID()] = w.Vault.Frames[idB.ID()]
	w.Vault.Variants = map[tripod.ID][][]byte{idA.ID(): {good}}
	if _, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: t.TempDir()}); err != nil {
		t.Errorf("the variant that fits was not taken: %v", err)
	}
}

// Links that appear after the restore looked are in the way, and no more.
func TestLinksPlantedMeanwhileAreNotFollowed(t *testing.T) {
	out := newOutside(t)
	w, want := New(t), mixed(14)
	w.Snapshot("/home/me", want, TinySizes())
	snap := latest(t, w)
	for _, rule := range []restore.Overwrite{restore.Never, restore.Changed, restore.Always} {
		dir := t.TempDir()
		w.Vault.OnGet = func(int) error {
			for i := range want {
				at := filepath.Join(dir, strings.TrimPrefix(want[i].Path(), "home/me"))
				if want[i].Type == tree.Regular {
					_ = os.Symlink(filepath.Join(out.dir, "secret"), at) // where its folder is there already
				}
			}
			return nil
		}
		_, err := restore.Files(context.Background(), w.Vault, snap, restore.Options{To: dir, Overwrite: rule})
		if err == nil {
			t.Error("no link was planted in time")
		}
		out.check(t)
	}
}

// forgetful delivers every second blob and says it was all.
type forgetful struct{ *Vault }

func (f forgetful) Get(ctx context.Context, ids []tripod.ID, use func(int, []byte) error, onError func(int, error) error) error {
	if len(ids) < 2 {
		return f.Vault.Get(ctx, ids, use, onError)
	}
	return f.Vault.Get(ctx, ids[:len(ids)/2], use, onError)
}

func TestWhatIsNotDeliveredIsMissed(t *testing.T) {
	w, want := New(t), mixed(15)
	w.Snapshot("/home/me", want, TinySizes())
	r, err := restore.Files(context.Background(), forgetful{w.Vault}, latest(t, w), restore.Options{To: t.TempDir()})
	// What lies below a node of the tree that is missed cannot be counted.
	unknown := slices.ContainsFunc(r.Problems, func(p error) bool { return strings.Contains(p.Error(), "is not known") })
	if !errors.Is(err, tripod.Corrupt) || r.Failed == 0 || (r.Files+r.Failed != 62 && !unknown) {
		t.Fatalf("%+v: %v", r, err)
	}
}
