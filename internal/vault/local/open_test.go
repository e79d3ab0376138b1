package local_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// refused wants an error of a kind that tells what to do.
func refused(t *testing.T, what string, err error, kind tripod.ErrorKind) {
	t.Helper()
	wantKind(t, what, err, kind)
	if tripod.HintOf(err) == "" {
		t.Errorf("%s: no hint: %v", what, err)
	}
}

func TestCreate(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	refused(t, "where a vault is", local.Create(t.Context(), s, w.Encoded, w.Keyring), tripod.Exists)

	s = mem.New()
	must(t, s.Put(t.Context(), "photos/1", nil))
	refused(t, "where something else is", local.Create(t.Context(), s, w.Encoded, w.Keyring), tripod.Conflict)

	s = newVault(t, w)
	must(t, s.Damage(vault.DescriptorName, faulty.Remove()))
	must(t, s.Put(t.Context(), vault.PackName(tripod.PackID{}), nil))
	refused(t, "over a vault without descriptor", local.Create(t.Context(), s, w.Encoded, w.Keyring), tripod.Conflict)

	wantKind(t, "of noise", local.Create(t.Context(), mem.New(), []byte("noise"), w.Keyring), tripod.Invalid)
	wantKind(t, "without keyring", local.Create(t.Context(), mem.New(), w.Encoded, nil), tripod.Invalid)
}

// TestCreateAgainAfterAnyFailure: a vault that was not made can be made, and
// none is seen without its keyring.
func TestCreateAgainAfterAnyFailure(t *testing.T) {
	w := vaulttest.NewWorld(1)
	failures := 0
	for n := range 12 {
		inner := mem.New()
		fault := []faulty.Fault{faulty.Fail(tripod.Unavailable), faulty.LoseAnswer(tripod.Unavailable)}[n%2]
		s := faulty.New(inner, faulty.On(faulty.Nth(1+n/2), fault))
		if local.Create(t.Context(), s, w.Encoded, []byte("the first keyring")) == nil {
			continue // a fault that was survived, or none
		}
		failures++
		err := local.Create(t.Context(), inner, w.Encoded, []byte("the second keyring"))
		if err != nil && !errors.Is(err, tripod.Exists) {
			t.Errorf("after operation %d failed: %v", n, err)
		}
		keyrings := 0
		must(t, open(t, inner, t.TempDir()).Documents(t.Context(), vault.KeyringPrefix, func(_ string, content []byte) error {
			keyrings++
			if (err == nil) != bytes.Equal(content, []byte("the second keyring")) {
				t.Errorf("after operation %d failed: keyring is %q", n, content)
			}
			return nil
		}))
		if keyrings != 1 {
			t.Errorf("after operation %d failed: %d keyrings", n, keyrings)
		}
	}
	if failures < 6 {
		t.Errorf("only %d failures", failures)
	}
}

func TestOpenWhatIsNoVault(t *testing.T) {
	w := vaulttest.NewWorld(1)
	try := func(what string, kind tripod.ErrorKind, descriptor []byte) {
		s := mem.New()
		if descriptor != nil {
			must(t, s.Put(t.Context(), vault.DescriptorName, descriptor))
		}
		_, err := local.Open(t.Context(), s, local.Options{IndexDir: t.TempDir()})
		refused(t, what, err, kind)
	}
	try("nothing", tripod.NotFound, nil)
	newer := bytes.Clone(w.Encoded)
	newer[bytes.IndexByte(newer, '\n')+1]++
	try("a newer format", tripod.Invalid, newer)
	for _, seed := range []uint64{1, 2, 3} {
		damaged := faulty.Zero(seed, 20)(bytes.Clone(w.Encoded))
		try("a damaged descriptor", tripod.Corrupt, append([]byte("tripod 1 vault\n\x01"), damaged[16:]...))
	}
	try("a huge one", tripod.Corrupt, make([]byte, 2<<20))
	try("an empty one", tripod.Corrupt, []byte{})
	try("the beginning of one", tripod.Corrupt, w.Encoded[:len(w.Encoded)/2])
}

// TestADescriptorIsMissing: what only a vault holds makes a vault without its
// descriptor a damaged one, and no empty place.
func TestADescriptorIsMissing(t *testing.T) {
	for name, want := range map[string]tripod.ErrorKind{
		vault.PackName(tripod.PackID{1}):                         tripod.Corrupt,
		vault.RecordName(snapshot.Key{Seq: 1}):                   tripod.Corrupt,
		vault.CertificateName(tripod.MachineID{2}):               tripod.Corrupt,
		vault.KeyringName(1):                                     tripod.NotFound, // vault init did not end
		"pack/of/wolves":                                         tripod.NotFound,
		"record/of/songs":                                        tripod.NotFound,
		vault.PackName(tripod.PackID{1})[len(vault.PackPrefix):]: tripod.NotFound,
		"old/" + vault.RecordName(snapshot.Key{Seq: 1}):          tripod.NotFound,
	} {
		s := mem.New()
		must(t, s.Put(t.Context(), name, nil))
		_, err := local.Describe(t.Context(), s)
		refused(t, "with "+name, err, want)
	}
}

// TestSecondSessionWaits: it is told for whom, then sees what the first wrote.
func TestSecondSessionWaits(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	a := w.Data(1, 100)
	indexes := []string{t.TempDir(), t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		first, second := open(t, s, indexes[0]), open(t, s, indexes[1])
		session, err := first.Begin(t.Context(), vault.Holder{Text: "the first"}, nil)
		must(t, err)
		told := make(chan string, 5)
		done := make(chan error)
		go func() {
			session, err := second.Begin(t.Context(), vault.Holder{Text: "the second"}, func(holder string) { told <- holder })
			if err == nil {
				var sums [][]tripod.Sum
				sums, err = session.Have(t.Context(), vaulttest.IDs(a))
				if err == nil && len(sums[0]) != 1 {
					err = errors.New("it does not see what the first put")
				}
				err = errors.Join(err, session.Close())
			}
			done <- err
		}()
		if holder := <-told; holder != "the first" {
			t.Errorf("waits for %q", holder)
		}
		readBack(t, second) // reading goes on meanwhile
		put(t, session, a)
		readBack(t, second, a)
		must(t, session.Close())
		must(t, session.Close())
		must(t, <-done)
		_, err = session.Have(t.Context(), vaulttest.IDs(a))
		refused(t, "a session that has ended", err, tripod.Fenced)
	})
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	s := newVault(t, vaulttest.NewWorld(1))
	begin(t, open(t, s, t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := open(t, s, t.TempDir()).Begin(ctx, vault.Holder{}, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestSessionsOfOneVaultShareTheStore: others wait until the last has ended.
func TestSessionsOfOneVaultShareTheStore(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	v := open(t, s, t.TempDir())
	first, second := begin(t, v), begin(t, v)
	a := w.Data(1, 100)
	put(t, first, a)
	must(t, first.Close())
	have, err := second.Have(t.Context(), vaulttest.IDs(a))
	if err != nil || len(have[0]) != 1 {
		t.Errorf("one session does not see what another put: %v, %v", have, err)
	}
	other := open(t, s, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := other.Begin(ctx, vault.Holder{}, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("another process writes beside the second session: %v", err)
	}
	must(t, second.Close())
	session, err := other.Begin(t.Context(), vault.Holder{}, nil)
	must(t, err)
	must(t, session.Close())
}

// TestReadersBesideAWriterOnOneIndex: a second opener of one cache directory gets
// an index of its own.
func TestReadersBesideAWriterOnOneIndex(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	dir := t.TempDir()
	session := begin(t, open(t, s, dir))
	a := w.Data(1, 100)
	put(t, session, a)
	readBack(t, open(t, s, dir), a)
	put(t, session, w.Data(2, 100))
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o400))
	readBack(t, open(t, s, file), a) // no directory at all
}

// TestALongLivedReaderSeesWhatIsNew: by name at once, by index when it misses.
func TestALongLivedReaderSeesWhatIsNew(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	reader := open(t, s, t.TempDir())
	a := w.Data(1, 100)
	wantKind(t, "before", matches(t.Context(), reader, a), tripod.NotFound)
	session := begin(t, open(t, s, t.TempDir()))
	put(t, session, a)
	readBack(t, reader, a)
	// The blob moves to another pack, as compaction does it.
	packs := packsOf(t, s)
	put(t, session, w.Variant(a, 1))
	must(t, s.Delete(t.Context(), packs[0]))
	err := reader.Get(t.Context(), vaulttest.IDs(a), func(int, []byte) error { return nil }, nil)
	if err != nil {
		t.Errorf("after its pack went, with a variant elsewhere: %v", err)
	}
}

// TestOthersNodesAreClosedInAnyOrder: trees whose packs lie in no order are
// closed all the same, and those with a hole are not, until it is filled.
func TestOthersNodesAreClosedInAnyOrder(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	session := begin(t, open(t, s, t.TempDir()))
	var roots, data []vaulttest.Blob
	for n := range 30 {
		d := w.Data(n, 100)
		node := d
		put(t, session, d)
		for range 6 { // each level in a pack of its own
			node = w.Node(tripod.Tree, node)
			put(t, session, node)
		}
		roots, data = append(roots, node), append(data, d)
	}
	must(t, session.Close())
	held := func(s *local.Session, b vaulttest.Blob) bool {
		sums, err := s.Have(t.Context(), vaulttest.IDs(b))
		must(t, err)
		return len(sums[0]) > 0
	}
	heard := 0
	v, err := local.Open(t.Context(), s, local.Options{IndexDir: t.TempDir(), Progress: func(e run.Event) {
		if heard++; e.Phase != run.Opening {
			t.Errorf("progress %+v", e)
		}
	}})
	must(t, err)
	other := begin(t, v)
	for i := range roots {
		if !held(other, roots[i]) {
			t.Fatalf("tree %d is open", i)
		}
	}
	if heard == 0 {
		t.Error("no progress")
	}
	must(t, other.Close())

	// One data blob's pack goes: that tree is open, the others are closed.
	lost := -1
	for _, name := range packsOf(t, s) {
		clone := s.Clone()
		must(t, clone.Delete(t.Context(), name))
		probe := open(t, clone, t.TempDir())
		if errors.Is(matches(t.Context(), probe, data[7]), tripod.NotFound) {
			must(t, s.Delete(t.Context(), name))
			lost = 7
			break
		}
	}
	for _, dir := range []string{"", t.TempDir()} {
		v := v
		if dir != "" {
			v = open(t, s, dir)
		}
		session := begin(t, v)
		for i := range roots {
			if held(session, roots[i]) != (i != lost) {
				t.Errorf("tree %d: closed is wrong", i)
			}
		}
		must(t, session.Close())
	}
	session = begin(t, v)
	put(t, session, data[7])
	node := data[7]
	for range 6 { // the nodes are there: only their closed bits are set
		node = w.Node(tripod.Tree, node)
		if n := put(t, session, node); n != 0 {
			t.Errorf("stored %d bytes of a node that is there", n)
		}
	}
	if !held(session, roots[7]) {
		t.Error("the tree stays open")
	}
	must(t, session.Close())
	must(t, v.Close())
}

// TestANodeIsNotClosedByALiar: whoever sends a node's id and sum with other refs
// does not close it.
func TestANodeIsNotClosedByALiar(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	session := begin(t, open(t, s, t.TempDir()))
	d := w.Data(1, 100)
	node := w.Node(tripod.Tree, d)
	put(t, session, d)
	dataPack := packsOf(t, s)
	put(t, session, node)
	must(t, session.Close())
	must(t, s.Delete(t.Context(), dataPack[0])) // the node is open now
	session = begin(t, open(t, s, t.TempDir()))
	forged := w.Forge(node, nil)
	_, err := session.Put(t.Context(), 2, [][]byte{forged})
	wantKind(t, "a forged node", err, tripod.Corrupt)
	sums, err := session.Have(t.Context(), vaulttest.IDs(node))
	if err != nil || len(sums[0]) != 0 {
		t.Errorf("the node counts as closed: %v %v", sums, err)
	}
}

func TestCheckPacksTellsOfForeignObjects(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := newVault(t, w)
	session := begin(t, open(t, s, t.TempDir()))
	put(t, session, w.Data(1, 100))
	for _, name := range []string{"notes", "pack/x", "pack/00/" + tripod.PackID{1}.String(), "record/x"} {
		must(t, s.Put(t.Context(), name, []byte("x")))
	}
	told := map[string]bool{}
	v := open(t, s, t.TempDir())
	must(t, v.CheckPacks(t.Context(), 1, nil, func(object string, _ tripod.ID, err error) error {
		told[object] = true
		wantKind(t, object, err, tripod.Invalid)
		return nil
	}))
	if len(told) != 4 {
		t.Errorf("told of %v", told)
	}
	readBack(t, v, w.Data(1, 100))
	none := 0
	must(t, v.CheckPacks(t.Context(), 0, func(run.Event) { none++ }, func(string, tripod.ID, error) error { return nil }))
	if none != 0 {
		t.Errorf("%d packs read of none", none)
	}
}

// TestAReaderNeedsNoRightToWrite: a vault on a read-only store can be read.
func TestAReaderNeedsNoRightToWrite(t *testing.T) {
	w := vaulttest.NewWorld(1)
	dir := t.TempDir()
	inner, err := fs.Open(dir)
	must(t, err)
	defer inner.Close()
	must(t, local.Create(t.Context(), inner, w.Encoded, w.Keyring))
	session := begin(t, open(t, inner, t.TempDir()))
	a := w.Data(1, 100)
	put(t, session, a)
	must(t, session.Close())
	readOnly := faulty.New(inner, faulty.On(faulty.Every(faulty.Put), faulty.Fail(tripod.Denied)))
	readBack(t, open(t, readOnly, t.TempDir()), a)
}
