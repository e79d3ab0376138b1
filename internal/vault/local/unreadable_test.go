package local_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// lost asks for blobs and counts what is told of them, by kind.
func lost(ctx context.Context, v *local.Vault, blobs ...vaulttest.Blob) (damaged int, err error) {
	var mu sync.Mutex
	err = v.Get(ctx, vaulttest.IDs(blobs...), func(int, []byte) error { return nil }, func(_ int, err error) error {
		mu.Lock()
		defer mu.Unlock()
		if !errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.Unavailable) || !strings.Contains(err.Error(), "cannot be read") {
			return err
		}
		damaged++
		return nil
	})
	return damaged, err
}

// TestAnUnreadableObjectIsDamage: one object that is out of reach, in a store
// that answers, costs what is in it and nothing else; many in a row, or the
// descriptor too, are a store out of reach.
func TestAnUnreadableObjectIsDamage(t *testing.T) {
	w := vaulttest.NewWorld(1)
	inner := newVault(t, w)
	s := faulty.New(inner)
	v := open(t, s, t.TempDir())
	session := begin(t, v)
	var blobs []vaulttest.Blob
	for n := range 12 { // each in a pack of its own
		blobs = append(blobs, w.Data(n, 500))
		put(t, session, blobs[n])
	}
	put(t, session, w.Data(100, 300), w.Data(101, 300))
	two := []vaulttest.Blob{w.Data(100, 300), w.Data(101, 300)}
	must(t, session.Close())
	packs := packsOf(t, inner)
	unreachable := func(name string) faulty.Rule {
		return faulty.On(faulty.All(faulty.Every(faulty.Get), faulty.Names(name)), faulty.Fail(tripod.Unavailable))
	}

	s.Script(unreachable(packs[0]), unreachable(packs[7]))
	if n, err := lost(t.Context(), v, append(two, blobs...)...); err != nil || n < 2 || n > 3 {
		t.Errorf("two packs: %d blobs are told as damaged, %v", n, err)
	}
	s.Script(unreachable("pack/*/*"))
	_, err := lost(t.Context(), v, blobs...)
	wantKind(t, "all packs", err, tripod.Unavailable)
	err = v.CheckTables(t.Context(), func(string, error) error { return nil })
	wantKind(t, "all tables", err, tripod.Unavailable)
	_, err = lost(t.Context(), open(t, s, t.TempDir()), blobs...)
	wantKind(t, "all packs, by a new index", err, tripod.Unavailable)
	s.Script()
	readBack(t, v, blobs...)
	s.Script(unreachable(packs[0]), unreachable(vault.DescriptorName))
	_, err = lost(t.Context(), v, append(two, blobs...)...)
	wantKind(t, "the descriptor too", err, tripod.Unavailable)
}

// TestAnUnreadableDocumentIsEmpty: the others are handed on.
func TestAnUnreadableDocumentIsEmpty(t *testing.T) {
	w := vaulttest.NewWorld(1)
	s := faulty.New(newVault(t, w))
	must(t, s.Put(t.Context(), vault.KeyringName(2), []byte("x")))
	v := open(t, s, t.TempDir())
	s.Script(faulty.On(faulty.All(faulty.Every(faulty.Get), faulty.Names(vault.KeyringName(2))), faulty.Fail(tripod.Unavailable)))
	got := map[string]int{}
	must(t, v.Documents(t.Context(), vault.KeyringPrefix, func(name string, content []byte) error {
		got[name] = len(content)
		return nil
	}))
	if len(got) != 2 || got[vault.KeyringName(1)] == 0 || got[vault.KeyringName(2)] != 0 {
		t.Errorf("got %v", got)
	}
	s.Script(faulty.On(faulty.Every(faulty.Get), faulty.Fail(tripod.Unavailable)))
	err := v.Documents(t.Context(), vault.KeyringPrefix, func(string, []byte) error { return nil })
	wantKind(t, "a store out of reach", err, tripod.Unavailable)
}
