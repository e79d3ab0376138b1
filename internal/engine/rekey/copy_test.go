package rekey

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
)

func (w *world) update(ctx context.Context, dst store.Store) error {
	src := w.open(w.s)
	return w.try(ctx, dst, func(v *local.Vault, s *local.Session) error {
		report, err := replicate.Run(ctx, src, v, s, replicate.Options{Now: noon(), DropReplaced: true})
		return errors.Join(err, report.Err())
	})
}

// opens counts what opens in a copy, and gives the number of the key in force.
func (w *world) opens(at store.Store) (n int, key uint32, err error) {
	v := w.open(at)
	sealed, err := unlock(w.t.Context(), v)
	if err != nil {
		return 0, 0, err
	}
	c, err := catalog.Open(w.t.Context(), v, sealed.Unlocked.Keys)
	if err != nil {
		return 0, 0, err
	}
	return len(c.Snapshots()), sealed.Descriptor.Number(), nil
}

// A second copy of the vault takes the new key over without any key; wherever that
// ends it opens what it had, and afterwards nothing of the old key is left in it.
func TestACopyTakesTheNewKeyOver(t *testing.T) {
	w := newWorld(t)
	dst := mem.New()
	must(t, replicate.Create(t.Context(), w.open(w.s), dst), w.update(t.Context(), dst))
	_, err := w.replace(t.Context(), w.s, Options{})
	must(t, err)
	step := 2
	if testing.Short() {
		step = 11
	}
	for n := 1; ; n += step {
		s := dst.Clone()
		f := faulty.New(s, faulty.On(faulty.From(n), faulty.Fail(tripod.Unavailable)))
		_ = w.update(t.Context(), f) // judged by what it leaves
		if got, key, err := w.opens(s); got != 4 || err != nil {
			t.Fatalf("ended at call %d: %d snapshots open, with key %d: %v", n, got, key, err)
		}
		must(t, w.update(t.Context(), s))
		got, sealed, err := w.snapshots(s)
		if err != nil || got != 4 || sealed.Descriptor.Number() != 2 || w.old(s, sealed.Descriptor) > 0 {
			t.Fatalf("ended at call %d, and again: %d snapshots, %v", n, got, err)
		}
		must(t, s.List(t.Context(), vault.KeyringPrefix, func(i store.Info) error {
			if n, _ := vault.ParseKeyringName(i.Name); n < sealed.Number-1 {
				return fmt.Errorf("%s is left", i.Name)
			}
			return nil
		}))
		if f.Count() < n {
			break
		}
	}
}

// The keyring of a copy that is not up to date opens, and changes nothing.
func TestAKeyringOfBeforeOnlyReads(t *testing.T) {
	w := newWorld(t)
	old := w.s.Clone()
	_, err := w.replace(t.Context(), w.s, Options{})
	must(t, err)
	name := vault.SuccessionName(2)
	info, err := w.s.Head(t.Context(), name)
	must(t, err)
	content := make([]byte, info.Size)
	_, _ = w.s.Get(t.Context(), name, content, 0)
	must(t, old.Put(t.Context(), name, content))
	if n, key, err := w.opens(old); n != 4 || key != 2 || err != nil {
		t.Errorf("%d snapshots, key %d, %v", n, key, err)
	}
	w.in(old, func(v *local.Vault, s *local.Session) error {
		sealed, err := unlock(t.Context(), s)
		if err != nil {
			return err
		}
		if !errors.Is(sealed.Damage, tripod.Corrupt) || tripod.HintOf(sealed.Damage) == "" {
			t.Errorf("damage: %v", sealed.Damage)
		}
		if err := sealed.ChangePassphrase(t.Context(), s, "", "a new passphrase", cheap()); !errors.Is(err, tripod.Conflict) {
			t.Errorf("changed: %v", err)
		}
		_, err = Replace(t.Context(), v, s, sealed, Options{Now: noon()})
		if !errors.Is(err, tripod.Conflict) {
			t.Errorf("replaced: %v", err)
		}
		o := snapshot.Shred{Company: w.made.Company.ID, Machine: w.machines[0].Machine, Time: time.Unix(1, 0)}
		if err := s.PutDocument(t.Context(), vault.ShredName(o.Machine), o.Encode(sealed.Unlocked.Keys.Sign)); !errors.Is(err, tripod.Denied) {
			t.Errorf("ordered: %v", err)
		}
		return nil
	})
}
