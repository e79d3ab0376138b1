package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// Subject is a vault under test, open for writing.
type Subject struct {
	vault.Reader
	vault.Writer
	vault.Admin
}

// Run runs the suite. open makes an empty vault of w, which ends with the test;
// it is called once for each sentence of the contract.
func Run(t *testing.T, open func(t *testing.T, w *World) Subject) {
	for i, c := range slices.Concat(blobChecks(), commitChecks(), documentChecks()) {
		t.Run(c.name, func(t *testing.T) {
			w := NewWorld(uint64(i))
			e := &env{T: t, w: w, v: open(t, w), m: w.Machine(1)}
			if err := e.v.PutDocument(t.Context(), vault.CertificateName(e.m.ID), e.m.Certificate); err != nil {
				t.Fatal(err)
			}
			c.run(e)
		})
	}
}

type check struct {
	name string // what a vault does, as a sentence
	run  func(e *env)
}

// env is what a check works with.
type env struct {
	*testing.T
	w *World
	v Subject
	m *Machine // has its certificate in the vault
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) want(what string, err error, kind tripod.ErrorKind) {
	e.Helper()
	if !errors.Is(err, kind) {
		e.Errorf("%s: got %v, want an error of kind %q", what, err, kind)
	}
}

func (e *env) put(blobs ...Blob) int64 {
	e.Helper()
	n, err := e.v.Put(e.Context(), frame.ClassOf(blobs[0].Kind), Frames(blobs...))
	e.must(err)
	return n
}

func (e *env) have(id tripod.ID) []tripod.Sum {
	e.Helper()
	sums, err := e.v.Have(e.Context(), []tripod.ID{id})
	e.must(err)
	if len(sums) != 1 {
		e.Fatalf("asked for one id, got %d answers", len(sums))
	}
	return sums[0]
}

// get fetches blobs and gives their frames.
func (e *env) get(ids ...tripod.ID) ([][]byte, error) {
	got := make([][]byte, len(ids))
	err := e.v.Get(e.Context(), ids, func(i int, encoded []byte) error {
		got[i] = bytes.Clone(encoded) // no lock: each index comes once
		return nil
	}, nil)
	return got, err
}

// tree puts a small tree and gives its root.
func (e *env) tree(n int) Blob {
	d := e.w.Data(n, 500)
	leaf := e.w.Node(tripod.Tree, d)
	root := e.w.Node(tripod.Tree, leaf)
	e.put(d)
	e.put(leaf, root)
	return root
}

// commit commits a record.
func (e *env) commit(record []byte) error {
	return e.v.Commit(e.Context(), record, e.m.Grants(record))
}

// documents gives the documents under a prefix.
func (e *env) documents(prefix string) (names []string, contents map[string][]byte) {
	e.Helper()
	contents = map[string][]byte{}
	e.must(e.v.Documents(e.Context(), prefix, func(name string, content []byte) error {
		names = append(names, name)
		contents[name] = bytes.Clone(content)
		return nil
	}))
	return names, contents
}

func blobChecks() []check {
	return []check{
		{"what is put can be got, as it was", func(e *env) {
			blobs := []Blob{e.w.Data(1, 16), e.w.Data(2, 100), e.w.Data(3, 70_000), e.w.Data(4, 3<<20)}
			e.put(blobs...)
			order := []int{3, 0, 2, 1, 0}
			var ids []tripod.ID
			for _, i := range order {
				ids = append(ids, blobs[i].ID)
			}
			got, err := e.get(ids...)
			e.must(err)
			for at, i := range order {
				if !bytes.Equal(got[at], blobs[i].Frame) {
					e.Errorf("blob %d is not what was put", i)
				}
			}
		}},
		{"a blob longer than a pack can be put alone", func(e *env) {
			b := e.w.Data(1, tripod.MaxPack+1000)
			e.put(b)
			got, err := e.get(b.ID)
			e.must(err)
			if !bytes.Equal(got[0], b.Frame) {
				e.Error("not what was put")
			}
			_, err = e.v.Put(e.Context(), frame.DataClass, Frames(b, e.w.Data(2, 16)))
			e.want("with another one", err, tripod.Invalid)
		}},
		{"it tells under which sums it has a blob", func(e *env) {
			a, b, none := e.w.Data(1, 50), e.w.Data(2, 50), e.w.Data(3, 50)
			e.put(a, b)
			sums, err := e.v.Have(e.Context(), IDs(b, none, a, b))
			e.must(err)
			want := [][]tripod.Sum{{b.Sum}, nil, {a.Sum}, {b.Sum}}
			if len(sums) != len(want) {
				e.Fatalf("%d answers to %d questions", len(sums), len(want))
			}
			for i := range want {
				if !slices.Equal(sums[i], want[i]) {
					e.Errorf("id %d: %v, want %v", i, sums[i], want[i])
				}
			}
			if sums, err := e.v.Have(e.Context(), nil); err != nil || len(sums) != 0 {
				e.Errorf("nothing asked: %v %v", sums, err)
			}
		}},
		{"what it has already it does not store again", func(e *env) {
			a, b := e.w.Data(1, 5000), e.w.Data(2, 5000)
			if n := e.put(a, a); n < int64(len(a.Frame)) || n >= 2*int64(len(a.Frame)) {
				e.Errorf("stored %d bytes for twice the same blob of %d", n, len(a.Frame))
			}
			if n := e.put(a); n != 0 {
				e.Errorf("stored %d bytes for a blob that is there", n)
			}
			if n := e.put(a, b); n < int64(len(b.Frame)) || n >= 2*int64(len(b.Frame)) {
				e.Errorf("stored %d bytes for one new blob of %d", n, len(b.Frame))
			}
			if n, err := e.v.Put(e.Context(), frame.DataClass, nil); n != 0 || err != nil {
				e.Errorf("nothing put: %d %v", n, err)
			}
		}},
		{"variants of a blob are kept side by side, and readers take the one they accept", func(e *env) {
			a := e.w.Data(1, 50)
			v := e.w.Variant(a, 1)
			e.put(a)
			e.put(v)
			if sums := e.have(a.ID); len(sums) != 2 || !slices.Contains(sums, a.Sum) || !slices.Contains(sums, v.Sum) {
				e.Errorf("sums %v", sums)
			}
			for _, want := range []Blob{a, v} {
				accepted := 0
				e.must(e.v.Get(e.Context(), IDs(a), func(_ int, encoded []byte) error {
					if !bytes.Equal(encoded, want.Frame) {
						return tripod.Errorf(tripod.Corrupt, "does not open")
					}
					accepted++
					return nil
				}, nil))
				if accepted != 1 {
					e.Errorf("accepted %d times", accepted)
				}
			}
			err := e.v.Get(e.Context(), IDs(a), func(int, []byte) error { return tripod.Errorf(tripod.Corrupt, "does not open") }, nil)
			e.want("when none is accepted", err, tripod.Corrupt)
		}},
		{"frames with a wrong sum are refused", func(e *env) {
			a := e.w.Data(1, 100)
			for _, at := range []int{len(a.Frame) - 1, 70, 40} {
				bad := bytes.Clone(a.Frame)
				bad[at] ^= 1
				_, err := e.v.Put(e.Context(), frame.DataClass, [][]byte{bad})
				e.want(fmt.Sprintf("byte %d changed", at), err, tripod.Corrupt)
			}
			_, err := e.v.Put(e.Context(), frame.DataClass, [][]byte{a.Frame[:90]})
			e.want("cut short", err, tripod.Corrupt)
			if sums := e.have(a.ID); len(sums) != 0 {
				e.Errorf("it has what it refused: %v", sums)
			}
		}},
		{"frames of another company or class are refused", func(e *env) {
			foreign := NewWorld(1<<40).Data(1, 100)
			_, err := e.v.Put(e.Context(), frame.DataClass, Frames(foreign))
			e.want("another company's", err, tripod.Invalid)
			_, err = e.v.Put(e.Context(), frame.NodeClass, Frames(e.w.Data(1, 100)))
			e.want("data among nodes", err, tripod.Invalid)
			_, err = e.v.Put(e.Context(), frame.DataClass, Frames(e.w.Node(tripod.Tree)))
			e.want("a node among data", err, tripod.Invalid)
			_, err = e.v.Put(e.Context(), frame.DataClass, [][]byte{append(bytes.Clone(e.w.Data(1, 100).Frame), 0)})
			e.want("more than a frame", err, tripod.Invalid)
		}},
		{"nodes are refused while anything below them is missing", func(e *env) {
			d1, d2 := e.w.Data(1, 50), e.w.Data(2, 50)
			leaf := e.w.Node(tripod.Tree, d1, d2)
			root := e.w.Node(tripod.Tree, leaf)
			put := func(blobs ...Blob) error {
				_, err := e.v.Put(e.Context(), frame.NodeClass, Frames(blobs...))
				return err
			}
			e.want("without data", put(leaf), tripod.NotFound)
			e.put(d1)
			e.want("without half the data", put(leaf), tripod.NotFound)
			e.want("a root without its leaf", put(root), tripod.NotFound)
			e.put(d2)
			e.want("top-down", put(root, leaf), tripod.NotFound)
			if len(e.have(leaf.ID))+len(e.have(root.ID)) != 0 {
				e.Error("a refused batch left nodes behind")
			}
			e.must(put(leaf, root))
			if len(e.have(leaf.ID)) != 1 || len(e.have(root.ID)) != 1 {
				e.Error("closed nodes count as missing")
			}
		}},
		{"missing blobs are named", func(e *env) {
			a, none := e.w.Data(1, 50), e.w.Data(2, 50)
			e.put(a)
			_, err := e.get(none.ID)
			e.want("missing", err, tripod.NotFound)
			var told []int
			var mu sync.Mutex
			got := 0
			e.must(e.v.Get(e.Context(), IDs(none, a, none), func(i int, _ []byte) error {
				mu.Lock()
				defer mu.Unlock()
				got++
				if i != 1 {
					e.Errorf("blob %d delivered", i)
				}
				return nil
			}, func(i int, err error) error {
				e.want("told", err, tripod.NotFound)
				told = append(told, i) // no lock: calls of onError come one at a time
				return nil
			}))
			slices.Sort(told)
			if got != 1 || !slices.Equal(told, []int{0, 2}) {
				e.Errorf("delivered %d, told of %v", got, told)
			}
			stop := errors.New("stop")
			err = e.v.Get(e.Context(), IDs(none), func(int, []byte) error { return nil }, func(int, error) error { return stop })
			if !errors.Is(err, stop) {
				e.Errorf("onError's error: got %v", err)
			}
		}},
		{"an error of the caller ends Get", func(e *env) {
			var blobs []Blob
			for i := range 50 {
				blobs = append(blobs, e.w.Data(i, 3000))
			}
			e.put(blobs...)
			stop := errors.New("stop")
			err := e.v.Get(e.Context(), IDs(blobs...), func(int, []byte) error { return stop }, nil)
			if !errors.Is(err, stop) {
				e.Errorf("got %v", err)
			}
			e.must(e.v.Get(e.Context(), nil, func(int, []byte) error { return stop }, nil))
		}},
		{"a context that has ended ends every call", func(e *env) {
			a := e.w.Data(1, 50)
			e.put(a)
			ctx, cancel := context.WithCancel(e.Context())
			cancel()
			_, errHave := e.v.Have(ctx, IDs(a))
			_, errPut := e.v.Put(ctx, frame.DataClass, Frames(e.w.Data(2, 50)))
			errGet := e.v.Get(ctx, IDs(a), func(int, []byte) error { return nil }, nil)
			errList := e.v.Documents(ctx, "", func(string, []byte) error { return nil })
			for what, err := range map[string]error{"have": errHave, "put": errPut, "get": errGet, "documents": errList} {
				if !errors.Is(err, context.Canceled) {
					e.Errorf("%s: got %v", what, err)
				}
			}
		}},
		{"batches can be put at the same time", func(e *env) {
			var wg sync.WaitGroup
			var all []Blob
			for n := range 12 {
				var batch []Blob
				for i := range 40 {
					batch = append(batch, e.w.Data(n*30+i, 2000)) // neighbours share a quarter
				}
				all = append(all, batch...)
				wg.Go(func() {
					if _, err := e.v.Put(e.Context(), frame.DataClass, Frames(batch...)); err != nil {
						e.Error(err)
					}
				})
			}
			wg.Wait()
			got, err := e.get(IDs(all...)...)
			e.must(err)
			for i := range all {
				if !bytes.Equal(got[i], all[i].Frame) {
					e.Fatalf("blob %d is not what was put", i)
				}
			}
		}},
	}
}

func commitChecks() []check {
	return []check{
		{"a committed snapshot is seen with its grants", func(e *env) {
			record := e.m.Record(e.w.Source(1), nil, e.tree(1).ID, nil)
			grants := append(e.m.Grants(record), e.m.Grant(record, []byte("somebody"), 1))
			e.must(e.v.Commit(e.Context(), record, grants))
			names, contents := e.documents(vault.RecordPrefix)
			r, err := snapshot.ParseRecord(record)
			e.must(err)
			if len(names) != 1 || names[0] != vault.RecordName(r.Key) || !bytes.Equal(contents[names[0]], record) {
				e.Errorf("records %v", names)
			}
			if names, contents := e.documents(vault.GrantPrefix + vault.KeyPath(r.Key)); len(names) != 2 ||
				!bytes.Equal(contents[vault.GrantName(r.Key, snapshot.HashOf(e.w.Descriptor.Box))], grants[0]) {
				e.Errorf("grants %v", names)
			}
		}},
		{"committing again what is there succeeds", func(e *env) {
			record := e.m.Record(e.w.Source(1), nil, e.tree(1).ID, nil)
			e.must(e.commit(record))
			e.must(e.commit(record))
			e.must(e.v.Commit(e.Context(), record, [][]byte{e.m.Grant(record, e.w.Descriptor.Box, 2)}))
			if names, contents := e.documents(vault.GrantPrefix); len(names) != 1 || !bytes.Equal(contents[names[0]], e.m.Grants(record)[0]) {
				e.Error("the first commit's grant was replaced")
			}
		}},
		{"records must follow their chain", func(e *env) {
			root, source := e.tree(1).ID, e.w.Source(1)
			first := e.m.Record(source, nil, root, nil)
			second := e.m.Record(source, first, root, nil)
			e.want("the second first", e.commit(second), tripod.Conflict)
			e.must(e.commit(first))
			e.want("another first", e.commit(e.m.Record(source, nil, root, func(r *snapshot.Record) { r.Incarnation = 2 })), tripod.Conflict)
			e.must(e.commit(second))
			e.want("a fourth", e.commit(e.m.Record(source, e.m.Record(source, second, root, nil), root, nil)), tripod.Conflict)
			e.want("a wrong predecessor", e.commit(e.m.Record(source, second, root, func(r *snapshot.Record) { r.Prev[0] ^= 1 })), tripod.Conflict)
			e.must(e.commit(e.m.Record(e.w.Source(2), nil, root, nil)))
		}},
		{"the root must be there, closed and of the right kind", func(e *env) {
			d := e.w.Data(9, 50)
			list := e.w.Node(tripod.List, d)
			root := e.w.Node(tripod.Tree, list)
			source := e.w.Source(1)
			e.want("missing", e.commit(e.m.Record(source, nil, root.ID, nil)), tripod.NotFound)
			e.put(d)
			e.put(list)
			e.want("data", e.commit(e.m.Record(source, nil, d.ID, nil)), tripod.Invalid)
			e.want("a list for files", e.commit(e.m.Record(source, nil, list.ID, nil)), tripod.Invalid)
			e.must(e.commit(e.m.Record(source, nil, list.ID, func(r *snapshot.Record) { r.Type = tripod.Stream })))
		}},
		{"only machines of the company commit", func(e *env) {
			root, source := e.tree(1).ID, e.w.Source(1)
			stranger := e.w.Machine(2) // whose certificate is not in the vault
			record := stranger.Record(source, nil, root, nil)
			e.want("no certificate", e.v.Commit(e.Context(), record, stranger.Grants(record)), tripod.Denied)
			record = e.m.Record(source, nil, root, nil)
			record[len(record)-1] ^= 1
			e.want("a wrong signature", e.v.Commit(e.Context(), record, e.m.Grants(record)), tripod.Denied)
			record = stranger.Record(source, nil, root, func(r *snapshot.Record) { r.Key.Machine = e.m.ID })
			e.want("another machine's name", e.v.Commit(e.Context(), record, stranger.Grants(record)), tripod.Denied)
			record = e.m.Record(source, nil, root, func(r *snapshot.Record) { r.Company[0] ^= 1 })
			e.want("another company", e.v.Commit(e.Context(), record, e.m.Grants(record)), tripod.Denied)
			e.want("no record", e.v.Commit(e.Context(), []byte("text"), nil), tripod.Corrupt)
			if names, _ := e.documents(vault.RecordPrefix); len(names) != 0 {
				e.Errorf("it has what it refused: %v", names)
			}
		}},
		{"the company gets a grant, and all grants are the record's", func(e *env) {
			root, source := e.tree(1).ID, e.w.Source(1)
			record := e.m.Record(source, nil, root, nil)
			other := e.m.Record(e.w.Source(2), nil, root, nil)
			e.want("none", e.v.Commit(e.Context(), record, nil), tripod.Invalid)
			e.want("to somebody else", e.v.Commit(e.Context(), record, [][]byte{e.m.Grant(record, []byte("x"), 0)}), tripod.Invalid)
			e.want("for another snapshot", e.v.Commit(e.Context(), record, append(e.m.Grants(record), e.m.Grants(other)...)), tripod.Invalid)
			bad := bytes.Clone(e.m.Grants(record)[0])
			bad[len(bad)-1] ^= 1
			e.want("with a wrong signature", e.v.Commit(e.Context(), record, [][]byte{bad}), tripod.Denied)
			if names, _ := e.documents(vault.GrantPrefix); len(names) != 0 {
				e.Errorf("it has what it refused: %v", names)
			}
		}},
	}
}

func documentChecks() []check {
	return []check{
		{"documents come in ascending order, whole, under any prefix", func(e *env) {
			root := e.tree(1).ID
			var last []byte
			for range 5 {
				last = e.m.Record(e.w.Source(1), last, root, nil)
				e.must(e.commit(last))
			}
			all, contents := e.documents("")
			if len(all) != 1+1+1+5+5 || !slices.IsSorted(all) {
				e.Errorf("documents %q", all)
			}
			if !bytes.Equal(contents[vault.DescriptorName], e.w.Encoded) || !bytes.Equal(contents[vault.KeyringName(1)], e.w.Keyring) {
				e.Error("descriptor or keyring is not what was put")
			}
			for _, prefix := range []string{"re", "record", "record/", "record/" + e.m.ID.String()} {
				if names, _ := e.documents(prefix); len(names) != 5 {
					e.Errorf("under %q: %q", prefix, names)
				}
			}
			if names, _ := e.documents("pack/"); len(names) != 0 {
				e.Errorf("packs count as documents: %q", names)
			}
			stop := errors.New("stop")
			if err := e.v.Documents(e.Context(), "", func(string, []byte) error { return stop }); !errors.Is(err, stop) {
				e.Errorf("fn's error: got %v", err)
			}
		}},
		{"a document's name is taken once", func(e *env) {
			name := vault.CertificateName(e.m.ID)
			e.want("again", e.v.PutDocument(e.Context(), name, e.m.Certificate), tripod.Exists)
		}},
		{"certificates must go back to the company", func(e *env) {
			m := e.w.Machine(2)
			name := vault.CertificateName(m.ID)
			stranger := NewWorld(1 << 41).Machine(2)
			e.want("a stranger's", e.v.PutDocument(e.Context(), vault.CertificateName(stranger.ID), stranger.Certificate), tripod.Denied)
			e.want("another machine's", e.v.PutDocument(e.Context(), name, e.m.Certificate), tripod.Invalid)
			e.want("noise", e.v.PutDocument(e.Context(), name, []byte("noise")), tripod.Corrupt)
			e.must(e.v.PutDocument(e.Context(), name, m.Certificate))
		}},
		{"keyrings are numbered without gaps", func(e *env) {
			e.want("the first again", e.v.PutDocument(e.Context(), vault.KeyringName(1), []byte("x")), tripod.Exists)
			e.want("the third", e.v.PutDocument(e.Context(), vault.KeyringName(3), []byte("x")), tripod.Invalid)
			e.must(e.v.PutDocument(e.Context(), vault.KeyringName(2), []byte("x")))
			e.must(e.v.PutDocument(e.Context(), vault.KeyringName(3), []byte("x")))
		}},
		{"no other documents can be put", func(e *env) {
			record := e.m.Record(e.w.Source(1), nil, e.tree(1).ID, nil)
			r, err := snapshot.ParseRecord(record)
			e.must(err)
			for _, name := range []string{"vault", "pack/00/" + e.m.ID.String(), vault.RecordName(r.Key), "machine/x", "notes", "keyring/1", ""} {
				e.want(name, e.v.PutDocument(e.Context(), name, record), tripod.Invalid)
			}
		}},
		{"orders to forget name a record that is there and not locked", func(e *env) {
			root, source := e.tree(1).ID, e.w.Source(1)
			free := e.m.Record(source, nil, root, nil)
			locked := e.m.Record(source, free, root, func(r *snapshot.Record) { r.LockUntil = time.Now().Add(time.Hour) })
			forget := func(record []byte) error {
				name, order := e.w.Forget(record)
				return e.v.PutDocument(e.Context(), name, order)
			}
			e.want("no such snapshot", forget(free), tripod.NotFound)
			e.must(e.commit(free))
			e.must(e.commit(locked))
			e.want("another record", forget(e.m.Record(source, nil, root, func(r *snapshot.Record) { r.Incarnation = 7 })), tripod.Conflict)
			e.want("locked", forget(locked), tripod.Denied)
			name, order := e.w.Forget(free)
			order[len(order)-1] ^= 1
			e.want("a wrong signature", e.v.PutDocument(e.Context(), name, order), tripod.Denied)
			e.must(forget(free))
			e.want("twice", forget(free), tripod.Exists)
		}},
		{"further holders of a snapshot get grants from its machine alone", func(e *env) {
			record := e.m.Record(e.w.Source(1), nil, e.tree(1).ID, nil)
			r, err := snapshot.ParseRecord(record)
			e.must(err)
			name := vault.GrantName(r.Key, snapshot.HashOf([]byte("x")))
			grant := e.m.Grant(record, []byte("x"), 3)
			e.want("before the snapshot", e.v.PutDocument(e.Context(), name, grant), tripod.NotFound)
			e.must(e.commit(record))
			bad := bytes.Clone(grant)
			bad[len(bad)-1] ^= 1
			e.want("a wrong signature", e.v.PutDocument(e.Context(), name, bad), tripod.Denied)
			e.want("another name", e.v.PutDocument(e.Context(), vault.GrantName(r.Key, snapshot.Hash{1}), grant), tripod.Invalid)
			e.must(e.v.PutDocument(e.Context(), name, grant))
		}},
	}
}
