package reader

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/driver/source/stream"
	storefs "tripod/internal/driver/store/fs"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/keyring"
	"tripod/internal/engine/rekey"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

// The reader follows the company's keys from the specification alone: while one is
// replaced, after it, and after a machine was shredded.
func TestReaderFollowsTheCompanysKeys(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	store, err := storefs.Open(dir)
	must(t, err)
	cost := seal.Argon{Time: 1, Memory: 256, Threads: 1}
	made, err := keyring.New(testPassphrase, time.Unix(1, 0), cost)
	must(t, err, local.Create(ctx, store, made.Descriptor, made.Keyring))
	in := func(do func(v *local.Vault, s *local.Session, sealed *keyring.Sealed) error) error {
		v, err := local.Open(ctx, store, local.Options{IndexDir: t.TempDir()})
		must(t, err)
		s, err := v.Begin(ctx, vault.Holder{Text: "test"}, nil)
		must(t, err)
		sealed, err := keyring.Load(ctx, s)
		must(t, err)
		_, err = sealed.OpenPassphrase(testPassphrase)
		must(t, err)
		return errors.Join(do(v, s, sealed), s.Close(), v.Close())
	}
	content := map[string][]byte{"one": xof("one", 3<<20), "two": xof("two", 2<<20)}
	machines := map[string]*seal.MachineKeys{}
	for name := range content {
		must(t, in(func(v *local.Vault, s *local.Session, _ *keyring.Sealed) error {
			m, err := made.Company.NewMachine()
			must(t, err, keyring.Endorse(ctx, s, v.Descriptor(), made.Company, m, time.Unix(2, 0)))
			machines[name] = m
			piped, err := stream.New(ctx, name, bytes.NewReader(content[name]))
			must(t, err)
			o := backup.Options{Keys: m, Vault: patient{s}, CacheDir: t.TempDir(), Host: "here", Paths: []string{name}, Now: time.Unix(3, 0)}
			_, err = backup.Stream(ctx, piped, o)
			return err
		}))
	}
	reads := func(what, secret string, names ...string) {
		t.Helper()
		r, err := Open(dir, secret)
		must(t, err)
		snaps, err := r.Snapshots()
		must(t, err)
		if len(snaps) != len(names) || len(r.Warnings) > 0 {
			t.Fatalf("%s: %d snapshots, want those of %v; warnings %q", what, len(snaps), names, r.Warnings)
		}
		for _, s := range snaps {
			out := t.TempDir()
			_, err := r.Restore(s, out)
			must(t, err)
			compare(t, out, map[string][]byte{"stream": content[s.Paths[0]]})
		}
	}
	half, cancel := context.WithCancel(ctx)
	err = in(func(v *local.Vault, s *local.Session, sealed *keyring.Sealed) error {
		_, err := rekey.Replace(half, v, s, sealed, rekey.Options{Now: time.Unix(4, 0), Progress: func(e run.Event) {
			if e.Phase == run.Saving {
				cancel()
			}
		}})
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, secret := range []string{testPassphrase, made.Code.String()} {
		reads("half way", secret, "one", "two")
	}
	must(t, in(func(v *local.Vault, s *local.Session, sealed *keyring.Sealed) error {
		_, err := rekey.Replace(ctx, v, s, sealed, rekey.Options{Now: time.Unix(4, 0)})
		return err
	}))
	for _, secret := range []string{testPassphrase, made.Code.String()} {
		reads("with a new key", secret, "one", "two")
	}
	must(t, in(func(v *local.Vault, s *local.Session, sealed *keyring.Sealed) error {
		_, err := rekey.Shred(ctx, v, s, sealed, machines["one"].Machine, false, rekey.Options{Now: time.Unix(5, 0)})
		return err
	}))
	reads("one shredded", testPassphrase, "two")
}
