package local_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// model is what a vault must hold after a random history.
type model struct {
	w       *vaulttest.World
	m       *vaulttest.Machine
	store   *mem.Store
	dirs    []string // index directories that change places
	v       *local.Vault
	s       *local.Session
	blobs   []vaulttest.Blob
	held    map[tripod.ID][]tripod.Sum
	heads   map[int][]byte // by source
	records int
}

func (m *model) reopen(t *rapid.T, dir string) {
	m.close(t)
	v, err := local.Open(t.Context(), m.store, local.Options{IndexDir: dir})
	check(t, err)
	m.v = v
	m.s, err = v.Begin(t.Context(), vault.Holder{Text: "a history"}, nil)
	check(t, err)
}

func (m *model) close(t *rapid.T) {
	if m.v != nil {
		check(t, m.s.Close())
		check(t, m.v.Close())
		m.v = nil
	}
}

func check(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// add puts blobs of one class, and notes them.
func (m *model) add(t *rapid.T, blobs ...vaulttest.Blob) {
	class := vaulttest.ClassOf(blobs)
	_, err := m.s.Put(t.Context(), class, vaulttest.Frames(blobs...))
	check(t, err)
	for _, b := range blobs {
		if !slices.Contains(m.held[b.ID], b.Sum) {
			m.held[b.ID] = append(m.held[b.ID], b.Sum)
			m.blobs = append(m.blobs, b)
		}
	}
}

func (m *model) putData(t *rapid.T) {
	var batch []vaulttest.Blob
	for range rapid.IntRange(1, 6).Draw(t, "blobs") {
		b := m.w.Data(rapid.IntRange(0, 40).Draw(t, "data"), 40)
		if rapid.IntRange(0, 5).Draw(t, "variant") == 0 {
			b = m.w.Variant(b, rapid.IntRange(0, 2).Draw(t, "which"))
		}
		batch = append(batch, b)
	}
	m.add(t, batch...)
}

// putNodes puts a chain of nodes over things that are there.
func (m *model) putNodes(t *rapid.T) {
	if len(m.blobs) == 0 {
		return
	}
	var batch []vaulttest.Blob
	for range rapid.IntRange(1, 3).Draw(t, "nodes") {
		var below []vaulttest.Blob
		for range rapid.IntRange(0, 3).Draw(t, "children") {
			below = append(below, rapid.SampledFrom(m.blobs).Draw(t, "child"))
		}
		if len(batch) > 0 {
			below = append(below, batch[len(batch)-1])
		}
		batch = append(batch, m.w.Node(tripod.Tree, below...))
	}
	m.add(t, batch...)
}

func (m *model) commit(t *rapid.T) {
	trees := slices.DeleteFunc(slices.Clone(m.blobs), func(b vaulttest.Blob) bool { return b.Kind != tripod.Tree })
	if len(trees) == 0 {
		return
	}
	n := rapid.IntRange(0, 2).Draw(t, "source")
	record := m.m.Record(m.w.Source(n), m.heads[n], rapid.SampledFrom(trees).Draw(t, "root").ID, nil)
	check(t, m.s.Commit(t.Context(), record, m.m.Grants(record)))
	m.heads[n] = record
	m.records++
}

// damageIndex changes one file of an index that is not in use.
func (m *model) damageIndex(t *rapid.T) {
	m.close(t)
	dir := rapid.SampledFrom(m.dirs).Draw(t, "dir")
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
	check(t, err)
	if len(files) > 0 {
		name := rapid.SampledFrom(files).Draw(t, "file")
		if rapid.Bool().Draw(t, "remove") {
			check(t, os.Remove(name))
		} else {
			check(t, os.Truncate(name, 10))
		}
	}
	m.reopen(t, dir)
}

func (m *model) check(t *rapid.T) {
	var ids []tripod.ID
	for id := range m.held {
		ids = append(ids, id)
	}
	sums, err := m.s.Have(t.Context(), ids)
	check(t, err)
	for i, id := range ids {
		if len(sums[i]) != len(m.held[id]) {
			t.Fatalf("blob %.16s: %d sums, want %d", id, len(sums[i]), len(m.held[id]))
		}
	}
	check(t, matches(t.Context(), m.v, m.blobs...))
	stats, err := m.v.Stats(t.Context())
	check(t, err)
	if int(stats.Blobs) != len(m.held) || int(stats.Records) != m.records || len(m.v.Damaged()) != 0 {
		t.Fatalf("stats %+v, want %d blobs, %d records", stats, len(m.held), m.records)
	}
}

// TestHistories: whatever is put, committed and reopened in whatever order, with
// indexes that are old, damaged or gone, a vault holds what a map would.
func TestHistories(t *testing.T) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &model{w: vaulttest.NewWorld(uint64(n)), store: mem.New(), held: map[tripod.ID][]tripod.Sum{}, heads: map[int][]byte{}}
		for _, name := range []string{"a", "b"} {
			m.dirs = append(m.dirs, filepath.Join(root, name))
		}
		defer func() {
			for _, dir := range m.dirs {
				os.RemoveAll(dir)
			}
		}()
		m.m = m.w.Machine(1)
		check(t, local.Create(t.Context(), m.store, m.w.Encoded, m.w.Keyring))
		m.reopen(t, m.dirs[0])
		defer m.close(t)
		check(t, m.s.PutDocument(t.Context(), vault.CertificateName(m.m.ID), m.m.Certificate))
		t.Repeat(map[string]func(*rapid.T){
			"put data":     m.putData,
			"put nodes":    m.putNodes,
			"commit":       m.commit,
			"reopen":       func(t *rapid.T) { m.reopen(t, rapid.SampledFrom(m.dirs).Draw(t, "dir")) },
			"damage index": m.damageIndex,
			"":             m.check,
		})
	})
}
