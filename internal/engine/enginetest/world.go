package enginetest

import (
	"crypto/ed25519"
	"slices"
	"sort"
	"testing"
	"time"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// World is a company with a vault and one machine that backs up to it.
type World struct {
	TB      testing.TB
	Vault   *Vault
	Keys    *seal.CompanyKeys
	Machine *Machine
	Invite  ed25519.PrivateKey
	Public  seal.CompanyPublic
	now     time.Time
}

// Machine is a machine that may write.
type Machine struct {
	*seal.MachineKeys
	sealer *seal.Sealer
	last   map[tripod.SourceID]*last
}

type last struct {
	seq  uint64
	hash snapshot.Hash
}

// New makes a world.
func New(tb testing.TB) *World {
	tb.Helper()
	keys, err := seal.NewCompany()
	if err != nil {
		tb.Fatal(err)
	}
	public, err := keys.Public()
	if err != nil {
		tb.Fatal(err)
	}
	w := &World{TB: tb, Vault: NewVault(), Keys: keys, Public: public, now: time.Unix(1_700_000_000, 0)}
	d := snapshot.Descriptor{Company: keys.ID, Vault: [16]byte{1}, Box: public.Box, Sign: public.Sign, Created: w.now}
	w.Vault.Docs[vault.DescriptorName] = d.Encode(keys.Sign)
	w.Machine = w.Enrol()
	return w
}

// Enrol adds a machine.
func (w *World) Enrol() *Machine {
	w.TB.Helper()
	m, err := w.Keys.NewMachine()
	if err != nil {
		w.TB.Fatal(err)
	}
	public, invite, err := seal.NewSigner()
	if err != nil {
		w.TB.Fatal(err)
	}
	w.Invite = invite
	i := snapshot.Invitation{Company: w.Keys.ID, Key: public}
	key, ok := m.Sign.Public().(ed25519.PublicKey)
	if !ok {
		w.TB.Fatal("machine key")
	}
	c := snapshot.Certificate{Company: w.Keys.ID, Machine: m.Machine, Key: key, Enrolled: w.now, Invitation: i.Encode(w.Keys.Sign)}
	w.Vault.Docs[vault.CertificatePrefix+m.Machine.String()] = c.Encode(invite)
	return &Machine{MachineKeys: m, sealer: m.Sealer(seal.Fast), last: map[tripod.SourceID]*last{}}
}

// Emit seals a node into the vault.
func (w *World) Emit(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
	ref := w.Machine.sealer.Ref(kind, refs, plain)
	w.put(kind, &ref, refs, plain)
	return ref, nil
}

// Data seals a data blob into the vault.
func (w *World) Data(plain []byte) seal.Ref {
	ref := w.Machine.sealer.Ref(tripod.Data, nil, plain)
	w.put(tripod.Data, &ref, nil, plain)
	return ref
}

func (w *World) put(kind tripod.BlobKind, ref *seal.Ref, refs []tripod.ID, plain []byte) {
	id := ref.ID()
	if w.Vault.Frames[id] == nil {
		w.Vault.Frames[id] = w.Machine.sealer.Seal(nil, kind, ref, refs, plain)
		w.Vault.Order = append(w.Vault.Order, id)
	}
}

// File is an entry with its content: Data are the bytes of a regular file, or
// of its Ranges one after another.
type File struct {
	tree.Entry
	Data []byte
}

// Sizes decide how content is cut.
type Sizes struct {
	Inline, Bundled, Bundle, Chunk int // bytes
}

// DefaultSizes are those of a backup.
func DefaultSizes() Sizes {
	return Sizes{Inline: 512, Bundled: 128 << 10, Bundle: 1 << 20, Chunk: 1 << 20}
}

// TinySizes make many blobs of little data.
func TinySizes() Sizes { return Sizes{Inline: 8, Bundled: 64, Bundle: 200, Chunk: 100} }

// Tree stores files, in any order, and returns the root.
func (w *World) Tree(files []File, sizes Sizes) seal.Ref {
	w.TB.Helper()
	files = slices.Clone(files)
	sort.Slice(files, func(i, j int) bool {
		return tree.Compare(files[i].Parent, files[i].Name, files[j].Parent, files[j].Name) < 0
	})
	var bundle []byte
	var waiting []int
	flush := func() {
		if len(bundle) == 0 {
			return
		}
		ref := w.Data(bundle)
		var at uint32
		for _, i := range waiting {
			n := uint32(len(files[i].Data))
			files[i].Content.Pieces = []tree.Piece{{Ref: ref, Offset: at, Length: n}}
			at += n
		}
		bundle, waiting = bundle[:0], waiting[:0]
	}
	for i := range files {
		f := &files[i]
		if f.Type != tree.Regular {
			continue
		}
		if f.Ranges == nil {
			f.Size = int64(len(f.Data))
		}
		f.Content = tree.Content{}
		switch {
		case len(f.Data) <= sizes.Inline:
			f.Content.Inline = f.Data
		case len(f.Data) <= sizes.Bundled:
			bundle, waiting = append(bundle, f.Data...), append(waiting, i)
			if len(bundle) >= sizes.Bundle {
				flush()
			}
		default:
			w.chunked(f, sizes.Chunk)
		}
	}
	flush()
	b := tree.NewBuilder(w.Machine.TreeKey(), w.Emit)
	for i := range files {
		w.check(b.Add(&files[i].Entry))
	}
	root, err := b.Finish()
	w.check(err)
	return root
}

func (w *World) chunked(f *File, chunk int) {
	n := (len(f.Data) + chunk - 1) / chunk
	if n >= tree.ListFrom {
		root := w.List(f.Data, chunk)
		f.Content.List = &root
		return
	}
	for p := range slices.Chunk(f.Data, chunk) {
		f.Content.Pieces = append(f.Content.Pieces, tree.Piece{Ref: w.Data(p), Length: uint32(len(p))})
	}
}

// List stores bytes as a list.
func (w *World) List(data []byte, chunk int) seal.Ref {
	l := tree.NewListBuilder(w.Emit)
	for p := range slices.Chunk(data, chunk) {
		w.check(l.Add(w.Data(p), int64(len(p))))
	}
	root, err := l.Finish()
	w.check(err)
	return root
}

// Disk stores a disk image; blocks of zeros are left out.
func (w *World) Disk(image []byte, block int) seal.Ref {
	b, err := tree.NewDiskBuilder(int64(len(image)), block, w.Emit)
	w.check(err)
	var i int64
	for p := range slices.Chunk(image, block) {
		if slices.ContainsFunc(p, func(c byte) bool { return c != 0 }) {
			w.check(b.Add(i, w.Data(p)))
		}
		i++
	}
	root, err := b.Finish()
	w.check(err)
	return root
}

// Sleep moves the clock on; back, when d is negative.
func (w *World) Sleep(d time.Duration) { w.now = w.now.Add(d) }

// Commit adds a snapshot with a grant to the company, one hour after the one
// before, and returns its record.
func (w *World) Commit(source string, t tripod.SourceType, root seal.Ref, label snapshot.Label) *snapshot.Record {
	w.TB.Helper()
	w.now = w.now.Add(time.Hour)
	m := w.Machine
	id := m.SourceID(source)
	l := m.last[id]
	if l == nil {
		l = &last{}
		m.last[id] = l
	}
	r := &snapshot.Record{
		Company: w.Keys.ID, Key: snapshot.Key{Machine: m.Machine, Source: id, Seq: l.seq + 1}, Incarnation: 1,
		Prev: l.hash, Type: t, Root: root.ID(), Time: w.now, SizeClass: snapshot.Class(label.Bytes), Label: seal.SealLabel(&root, label.Marshal()),
	}
	encoded := r.Sign(m.Sign)
	l.seq, l.hash = r.Key.Seq, snapshot.HashOf(encoded)
	w.Vault.Docs[vault.RecordPrefix+vault.KeyPath(r.Key)] = encoded
	c := seal.GrantContext{Company: w.Keys.ID, Machine: m.Machine, Source: id, Seq: r.Key.Seq, Root: r.Root}
	sealed, err := seal.SealGrant(w.Public.Box, &c, &root)
	w.check(err)
	g := snapshot.Grant{Company: w.Keys.ID, Key: r.Key, Recipient: snapshot.HashOf(w.Public.Box), Sealed: sealed}
	w.Vault.Docs[vault.GrantName(r.Key, g.Recipient)] = g.Encode(m.Sign)
	return r
}

// Snapshot stores files and commits them under the path they were protected by.
func (w *World) Snapshot(path string, files []File, sizes Sizes) *snapshot.Record {
	w.TB.Helper()
	var count, size int64
	for i := range files {
		size += int64(len(files[i].Data))
		if files[i].Type != tree.Dir {
			count++
		}
	}
	return w.Commit(path, tripod.Files, w.Tree(files, sizes), snapshot.Label{Host: "host", Paths: []string{path}, Files: count, Bytes: size})
}

func (w *World) check(err error) {
	w.TB.Helper()
	if err != nil {
		w.TB.Fatal(err)
	}
}

// Dir is a folder.
func Dir(path string) File { return entry(path, tree.Dir, 0o755) }

// Text is a regular file.
func Text(path, data string) File {
	f := entry(path, tree.Regular, 0o644)
	f.Data, f.Size = []byte(data), int64(len(data))
	return f
}

// Link is a symbolic link.
func Link(path, target string) File {
	f := entry(path, tree.Symlink, 0o777)
	f.Link = target
	return f
}

func entry(path string, t tree.FileType, mode uint32) File {
	f := File{Entry: tree.Entry{Type: t, Mode: mode, Sec: 1_600_000_000, Nsec: 123_456_789}}
	f.Parent, f.Name = tree.SplitPath(path)
	return f
}

// Parents are the folders above a path, from the root on.
func Parents(path string) []File {
	out := []File{Dir("")}
	for i := range len(path) {
		if path[i] == '/' {
			out = append(out, Dir(path[:i]))
		}
	}
	return out
}
