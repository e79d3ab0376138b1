package reader

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"tripod/internal/core/chunk"
	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// world writes a vault directory with the product's core.
type world struct {
	t       *testing.T
	dir     string
	company *seal.CompanyKeys
	machine *seal.MachineKeys
	code    seal.RecoveryCode
	sealer  *seal.Sealer
	packs   map[frame.Class]*frame.Pack
	held    map[tripod.ID]bool
	last    map[tripod.SourceID]snapshot.Record
	prev    map[tripod.SourceID][]byte
}

const testPassphrase = "open sesame"

func newWorld(t *testing.T) *world {
	company, err := seal.NewCompany()
	must(t, err)
	machine, err := company.NewMachine()
	must(t, err)
	w := &world{
		t: t, dir: t.TempDir(), company: company, machine: machine, code: seal.NewRecoveryCode(), sealer: machine.Sealer(seal.Fast),
		packs: map[frame.Class]*frame.Pack{}, held: map[tripod.ID]bool{},
		last: map[tripod.SourceID]snapshot.Record{}, prev: map[tripod.SourceID][]byte{},
	}
	for _, c := range []frame.Class{frame.DataClass, frame.NodeClass} {
		w.packs[c] = new(frame.Pack)
		w.packs[c].Reset(c)
	}
	ring, err := seal.NewKeyring(company, testPassphrase, w.code, seal.Argon{Time: 1, Memory: 256, Threads: 1}, time.Unix(1, 0))
	must(t, err)
	pub := machine.Company
	d := snapshot.Descriptor{Company: pub.ID, Vault: vectorID(9), Box: pub.Box, Sign: pub.Sign, Created: time.Unix(1, 0)}
	w.put("vault", d.Encode(company.Sign))
	w.put("keyring/00000001", ring.Marshal())
	by, invitation, err := seal.NewSigner()
	must(t, err)
	inv := snapshot.Invitation{Company: pub.ID, Key: by}
	cert := snapshot.Certificate{
		Company: pub.ID, Machine: machine.Machine, Key: public(machine.Sign), Enrolled: time.Unix(2, 0), Invitation: inv.Encode(company.Sign),
	}
	w.put("machine/"+machine.Machine.String(), cert.Encode(invitation))
	return w
}

func (w *world) put(name string, b []byte) {
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600))
}

func (w *world) emit(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
	r := w.sealer.Ref(kind, refs, plain)
	if !w.held[r.ID()] {
		w.held[r.ID()] = true
		must(w.t, w.packs[frame.ClassOf(kind)].Add(w.sealer.Seal(nil, kind, &r, refs, plain)))
	}
	return r, nil
}

func (w *world) blob(plain []byte) seal.Ref {
	r, _ := w.emit(tripod.Data, nil, plain)
	return r
}

// commit closes the packs and writes grant and record.
func (w *world) commit(kind tripod.SourceType, source string, root seal.Ref) {
	for class, p := range w.packs {
		if !p.Empty() {
			id, raw := p.Finish()
			w.put("pack/"+id.String()[:2]+"/"+id.String(), raw)
			p.Reset(class)
		}
	}
	label := snapshot.Label{Host: "here", Paths: []string{source}}
	id := w.machine.SourceID(source)
	r := snapshot.Record{
		Company: w.company.ID, Key: snapshot.Key{Machine: w.machine.Machine, Source: id, Seq: w.last[id].Key.Seq + 1},
		Incarnation: 1, Type: kind, Root: root.ID(), Label: seal.SealLabel(&root, label.Marshal()), Time: time.Unix(100+int64(len(w.held)), 0),
	}
	if prev := w.prev[id]; prev != nil {
		r.Prev = snapshot.HashOf(prev)
	}
	raw := r.Sign(w.machine.Sign)
	c := seal.GrantContext{Company: r.Company, Machine: r.Key.Machine, Source: id, Seq: r.Key.Seq, Root: r.Root}
	sealed, err := seal.SealGrant(w.machine.Company.Box, &c, &root)
	must(w.t, err)
	recipient := blake3.Sum256(w.machine.Company.Box)
	g := snapshot.Grant{Company: r.Company, Key: r.Key, Recipient: recipient, Sealed: sealed}
	path := keyPath(r.Key)
	w.put("grant/"+path+"/"+hexOf(recipient[:8]), g.Encode(w.machine.Sign))
	w.put("record/"+path, raw)
	w.last[id], w.prev[id] = r, raw
}

func keyPath(k snapshot.Key) string {
	seq := []byte(strings.Repeat("0", 20))
	for i, n := 19, k.Seq; n > 0; i, n = i-1, n/10 {
		seq[i] += byte(n % 10)
	}
	return k.Machine.String() + "/" + k.Source.String() + "/" + string(seq)
}

func (w *world) list(data []byte, piece int) seal.Ref {
	l := tree.NewListBuilder(w.emit)
	for len(data) > 0 {
		n := min(piece, len(data))
		must(w.t, l.Add(w.blob(data[:n]), int64(n)))
		data = data[n:]
	}
	root, err := l.Finish()
	must(w.t, err)
	return root
}

// files is a tree with every form of content, and what restoring must give.
func (w *world) files() (seal.Ref, map[string][]byte) {
	want := map[string][]byte{}
	var entries []tree.Entry
	add := func(path string, e tree.Entry) {
		e.Parent, e.Name = tree.SplitPath(path)
		e.Sec, e.Owner = 1_600_000_000, tree.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
		if e.Mode == 0 {
			e.Mode = 0o640
		}
		entries = append(entries, e)
	}
	file := func(path string, content []byte, c tree.Content) {
		want[path] = content
		add(path, tree.Entry{Type: tree.Regular, Size: int64(len(content)), Content: c})
	}
	add("", tree.Entry{Type: tree.Dir, Mode: 0o755})
	add("docs", tree.Entry{Type: tree.Dir, Mode: 0o500})
	file("inline", []byte("short"), tree.Content{Inline: []byte("short")})
	file("empty", nil, tree.Content{})
	bundle := w.blob(xof("bundle", 5000))
	file("docs/a", xof("bundle", 5000)[:2000], tree.Content{Pieces: []tree.Piece{{Ref: bundle, Length: 2000}}})
	file("docs/b", xof("bundle", 5000)[2000:], tree.Content{Pieces: []tree.Piece{{Ref: bundle, Offset: 2000, Length: 3000}}})
	long := bytes.Repeat([]byte("all work and no play\n"), 100_000)
	root := w.list(long, 1000)
	file("docs/long", long, tree.Content{List: &root})
	sparse := make([]byte, 1<<20)
	copy(sparse[4096:], xof("sparse", 4096))
	copy(sparse[65536:], xof("sparse", 8192)[4096:])
	want["sparse"] = sparse
	add("sparse", tree.Entry{Type: tree.Regular, Size: 1 << 20, Ranges: []tree.Range{{Offset: 4096, Length: 4096}, {Offset: 65536, Length: 4096}}, Content: tree.Content{
		Pieces: []tree.Piece{{Ref: w.blob(xof("sparse", 8192)), Length: 8192}},
	}})
	want["hard"], want["docs/hard"] = []byte("hard"), []byte("hard")
	hard := tree.Entry{Type: tree.Regular, Size: 4, Group: 1, Content: tree.Content{Inline: []byte("hard")}}
	add("hard", hard)
	add("docs/hard", hard)
	add("soft", tree.Entry{Type: tree.Symlink, Link: "docs/a"})
	add("pipe", tree.Entry{Type: tree.Fifo})
	for i := range 3000 {
		name := "many/" + string([]byte{'f', byte(128 + i/100), byte(128 + i%100)})
		content := xof(name, i%20)
		file(name, content, tree.Content{Inline: content})
	}
	add("many", tree.Entry{Type: tree.Dir, Mode: 0o755})
	sort.Slice(entries, func(i, j int) bool {
		return tree.Compare(entries[i].Parent, entries[i].Name, entries[j].Parent, entries[j].Name) < 0
	})
	b := tree.NewBuilder(w.machine.TreeKey(), w.emit)
	for i := range entries {
		must(w.t, b.Add(&entries[i]))
	}
	top, err := b.Finish()
	must(w.t, err)
	return top, want
}

func TestReaderRestoresWhatCoreWrote(t *testing.T) {
	w := newWorld(t)
	root, want := w.files()
	w.commit(tripod.Files, "/home", root)
	piped := xof("piped", 3<<20)
	w.commit(tripod.Stream, "dump", w.streamRoot(piped))
	image := make([]byte, 300<<16+777)
	copy(image[5<<16:], xof("block", 1<<16))
	copy(image[300<<16:], xof("tail", 777))
	d, err := tree.NewDiskBuilder(int64(len(image)), 1<<16, w.emit)
	must(t, err, d.Add(5, w.blob(image[5<<16:6<<16])), d.Add(300, w.blob(image[300<<16:])))
	disk, err := d.Finish()
	must(t, err)
	w.commit(tripod.DiskImage, "/dev/vda", disk)

	for _, secret := range []string{testPassphrase, w.code.String(), strings.ToLower(w.code.String())} {
		v, err := Open(w.dir, secret)
		must(t, err)
		snaps, err := v.Snapshots()
		must(t, err)
		if len(snaps) != 3 {
			t.Fatalf("%d snapshots", len(snaps))
		}
		for _, s := range snaps {
			out := filepath.Join(t.TempDir(), "out")
			report, err := v.Restore(s, out)
			must(t, err)
			switch s.Kind {
			case "files":
				compare(t, out, want)
				if len(report.Skipped) != 1 {
					t.Errorf("skipped %v", report.Skipped)
				}
			case "disk":
				compare(t, out, map[string][]byte{"disk": image})
			case "stream":
				compare(t, out, map[string][]byte{"stream": piped})
			}
		}
	}
}

func (w *world) streamRoot(b []byte) seal.Ref {
	l := tree.NewListBuilder(w.emit)
	must(w.t, chunk.NewSplitter(w.machine.ChunkKey()).Split(bytes.NewReader(b), func(c []byte) error {
		return l.Add(w.blob(c), int64(len(c)))
	}))
	root, err := l.Finish()
	must(w.t, err)
	return root
}

func compare(t *testing.T, dir string, want map[string][]byte) {
	t.Helper()
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%q differs: %v", name, err)
		}
	}
	if _, tree := want["docs/a"]; !tree {
		return
	}
	a, err := os.Stat(filepath.Join(dir, "hard"))
	must(t, err)
	b, err := os.Stat(filepath.Join(dir, "docs/hard"))
	must(t, err)
	docs, err := os.Stat(filepath.Join(dir, "docs"))
	must(t, err)
	link, err := os.Readlink(filepath.Join(dir, "soft"))
	must(t, err)
	if !os.SameFile(a, b) || docs.Mode().Perm() != 0o500 || docs.ModTime().Unix() != 1_600_000_000 || a.Mode().Perm() != 0o640 || link != "docs/a" {
		t.Error("links, modes or times differ")
	}
	must(t, os.Chmod(filepath.Join(dir, "docs"), 0o700))
}

// Every object of a vault, damaged, missing or swapped, must be noticed.
func TestReaderNoticesEveryLie(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		w.commit(tripod.Stream, "dump", w.list(xof("x", 100_000), 50_000))
		w.commit(tripod.Stream, "other", w.list(xof("y", 1000), 500))
	}
	read := func() error {
		v, err := Open(w.dir, testPassphrase)
		if err != nil {
			return err
		}
		if len(v.Warnings) > 0 { // a keyring may be damaged for another holder alone
			return errors.New(v.Warnings[0])
		}
		snaps, err := v.Snapshots()
		if err != nil {
			return err
		}
		if len(snaps) != 4 {
			t.Fatalf("%d snapshots", len(snaps))
		}
		for _, s := range snaps {
			if _, err := v.Restore(s, t.TempDir()); err != nil {
				return err
			}
		}
		return nil
	}
	must(t, read())
	v := &Vault{dir: w.dir}
	names, err := v.names(".")
	must(t, err)
	for i, name := range names {
		path := filepath.Join(w.dir, name)
		good, err := os.ReadFile(path)
		must(t, err)
		try := func(what string, b []byte) {
			if b == nil {
				must(t, os.Remove(path))
			} else {
				must(t, os.WriteFile(path, b, 0o600))
			}
			newest := strings.HasPrefix(name, "record/") && strings.HasSuffix(name, "2") // hiding it shows only against a known head
			if (b != nil || !newest) && read() == nil {
				t.Errorf("%s: %s went unseen", name, what)
			}
			must(t, os.WriteFile(path, good, 0o600))
		}
		for k := 0; k < len(good); k += max(1, len(good)/23) {
			bad := bytes.Clone(good)
			bad[k] ^= 1 << (k % 8)
			try("a flipped bit", bad)
		}
		try("truncation", good[:len(good)-1])
		try("growth", append(bytes.Clone(good), 0))
		if !strings.HasSuffix(name, "2") || !strings.HasPrefix(name, "record/") {
			try("absence", nil)
		}
		other, err := os.ReadFile(filepath.Join(w.dir, names[(i+1)%len(names)]))
		must(t, err)
		try("a swap", other)
	}
}

func TestForgottenSnapshotsAreNotListed(t *testing.T) {
	w := newWorld(t)
	w.commit(tripod.Stream, "dump", w.list([]byte("one"), 3))
	id := w.machine.SourceID("dump")
	o := snapshot.Order{Company: w.company.ID, Key: w.last[id].Key, Record: snapshot.HashOf(w.prev[id]), Time: time.Unix(5, 0)}
	name := "forget/" + keyPath(o.Key)
	w.put(name, o.Encode(w.stranger()))
	v, err := Open(w.dir, testPassphrase)
	must(t, err)
	if _, err := v.Snapshots(); err == nil {
		t.Fatal("anyone may order to forget")
	}
	w.put(name, o.Encode(w.company.Sign))
	snaps, err := v.Snapshots()
	if err != nil || len(snaps) != 0 {
		t.Fatal(snaps, err)
	}
}

func (w *world) stranger() ed25519.PrivateKey {
	_, k, err := seal.NewSigner()
	must(w.t, err)
	return k
}
