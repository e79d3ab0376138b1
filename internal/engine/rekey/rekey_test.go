package rekey

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

const passphrase = "correct horse battery staple"

func cheap() seal.Argon { return seal.Argon{Time: 1, Memory: 64, Threads: 1} }

func noon() time.Time { return time.Unix(1_800_000_000, 0) }

// world is a company with a vault in memory, two machines and some snapshots.
type world struct {
	t        *testing.T
	s        *mem.Store
	made     *keyring.Made
	machines []*seal.MachineKeys
	prev     map[tripod.MachineID]snapshot.Hash
	seq      map[tripod.MachineID]uint64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	made, err := keyring.New(passphrase, noon(), cheap())
	must(t, err)
	w := &world{t: t, s: mem.New(), made: made, prev: map[tripod.MachineID]snapshot.Hash{}, seq: map[tripod.MachineID]uint64{}}
	must(t, local.Create(t.Context(), w.s, made.Descriptor, made.Keyring))
	for range 2 {
		m, err := made.Company.NewMachine()
		must(t, err)
		w.machines = append(w.machines, m)
		w.in(w.s, func(v *local.Vault, s *local.Session) error {
			return keyring.Endorse(t.Context(), s, v.Descriptor(), made.Company, m, noon())
		})
		w.backUp(w.s, m, time.Time{})
		w.backUp(w.s, m, time.Time{})
	}
	return w
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// in does something in a session with the vault, which must go well.
func (w *world) in(at store.Store, do func(v *local.Vault, s *local.Session) error) {
	w.t.Helper()
	must(w.t, w.try(w.t.Context(), at, do))
}

func (w *world) try(ctx context.Context, at store.Store, do func(v *local.Vault, s *local.Session) error) error {
	v, err := local.Open(ctx, at, local.Options{IndexDir: w.t.TempDir()})
	if err != nil {
		return err
	}
	s, err := v.Begin(ctx, vault.Holder{Text: "test"}, nil)
	if err == nil {
		err = errors.Join(do(v, s), s.Close())
	}
	return errors.Join(err, v.Close())
}

// backUp commits a snapshot of a machine.
func (w *world) backUp(at store.Store, m *seal.MachineKeys, lock time.Time) {
	w.t.Helper()
	w.in(at, func(v *local.Vault, s *local.Session) error {
		sealer := m.Sealer(seal.Fast)
		root := sealer.Ref(tripod.List, nil, fmt.Appendf(nil, "list %d", w.seq[m.Machine]))
		plain := fmt.Appendf(nil, "list %d", w.seq[m.Machine])
		if _, err := s.Put(w.t.Context(), frame.NodeClass, [][]byte{sealer.Seal(nil, tripod.List, &root, nil, plain)}); err != nil {
			return err
		}
		w.seq[m.Machine]++
		key := snapshot.Key{Machine: m.Machine, Source: tripod.SourceID{1}, Seq: w.seq[m.Machine]}
		l := snapshot.Label{Host: "host"}
		r := snapshot.Record{
			Company: m.Company.ID, Key: key, Incarnation: 1, Prev: w.prev[m.Machine], Type: tripod.Stream, Root: root.ID(), Time: noon().Add(time.Duration(key.Seq)),
			LockUntil: lock, Label: seal.SealLabel(&root, l.Marshal()),
		}
		grant, err := catalog.Grant(m, key, &root)
		if err != nil {
			return err
		}
		record := r.Sign(m.Sign)
		w.prev[m.Machine] = snapshot.HashOf(record)
		return s.Commit(w.t.Context(), record, [][]byte{grant})
	})
}

// unlock opens the keyring in a store.
func unlock(ctx context.Context, r keyring.Documents) (*keyring.Sealed, error) {
	sealed, err := keyring.Load(ctx, r)
	if err == nil {
		_, err = sealed.OpenPassphrase(passphrase)
	}
	return sealed, err
}

func (w *world) replace(ctx context.Context, at store.Store, o Options) (report *Report, err error) {
	o.Now = noon()
	err = w.try(ctx, at, func(v *local.Vault, s *local.Session) error {
		sealed, err := unlock(ctx, s)
		if err == nil {
			report, err = Replace(ctx, v, s, sealed, o)
		}
		return err
	})
	return report, err
}

// snapshots opens the vault as people do, and counts what they could restore.
func (w *world) snapshots(at store.Store) (int, *keyring.Sealed, error) {
	v, err := local.Open(w.t.Context(), at, local.Options{IndexDir: w.t.TempDir()})
	if err != nil {
		return 0, nil, err
	}
	defer v.Close()
	sealed, err := unlock(w.t.Context(), v)
	if err != nil {
		return 0, nil, err
	}
	c, err := catalog.Open(w.t.Context(), v, sealed.Unlocked.Keys)
	if err != nil {
		return 0, nil, err
	}
	if p := c.Problems(); len(p) > 0 {
		return 0, nil, fmt.Errorf("%s: %w", p[0].Document, p[0].Err)
	}
	return len(c.Snapshots()), sealed, nil
}

// old counts what is left of the keys of before.
func (w *world) old(at store.Store, d *snapshot.Descriptor) (grants int) {
	w.t.Helper()
	must(w.t, at.List(w.t.Context(), vault.GrantPrefix, func(i store.Info) error {
		for _, f := range d.Former() {
			h := snapshot.HashOf(f.Box)
			if strings.HasSuffix(i.Name, fmt.Sprintf("/%x", h[:8])) {
				grants++
			}
		}
		return nil
	}))
	return grants
}

func TestANewKeyOpensAllThatTheOldOneDid(t *testing.T) {
	w := newWorld(t)
	before := w.s.Clone()
	report, err := w.replace(t.Context(), w.s, Options{})
	must(t, err)
	if report.Number != 2 || report.Snapshots != 4 || report.Regranted != 4 || report.Removed != 4 || report.Resumed {
		t.Errorf("%+v", report)
	}
	n, sealed, err := w.snapshots(w.s)
	must(t, err)
	if n != 4 || len(sealed.Unlocked.Keys.Others) > 0 || w.old(w.s, sealed.Descriptor) > 0 || sealed.Unlocked.Keys.Sign.Equal(w.made.Company.Sign) {
		t.Errorf("%d snapshots, %d other keys, %d old grants", n, len(sealed.Unlocked.Keys.Others), w.old(w.s, sealed.Descriptor))
	}
	// The recovery code opens the new key too.
	again, err := keyring.Load(t.Context(), w.open(w.s))
	must(t, err)
	if _, err := again.OpenCode(w.made.Code); err != nil || !again.Unlocked.Keys.Sign.Equal(sealed.Unlocked.Keys.Sign) {
		t.Error(err)
	}
	// Machines follow, and go on.
	m := w.machines[0]
	pinned := m.Company
	if changed, err := keyring.Follow(sealed.Descriptor, &m.Company); err != nil || !changed || keyring.Pinned(sealed.Descriptor, &m.Company) != nil {
		t.Errorf("follow: %v, %v", changed, err)
	}
	if changed, err := keyring.Follow(sealed.Descriptor, &m.Company); err != nil || changed {
		t.Errorf("follow twice: %v, %v", changed, err)
	}
	w.backUp(w.s, m, time.Time{})
	if n, _, err := w.snapshots(w.s); n != 5 || err != nil {
		t.Errorf("%d snapshots, %v", n, err)
	}
	// A vault rolled back to the old key is refused by who has seen the new one.
	old := w.open(before).Descriptor()
	if _, err := keyring.Follow(old, &m.Company); !errors.Is(err, tripod.Corrupt) {
		t.Errorf("rolled back: %v", err)
	}
	if changed, err := keyring.Follow(old, &pinned); err != nil || changed {
		t.Errorf("as it was: %v", err)
	}
	report, err = w.replace(t.Context(), w.s, Options{})
	if err != nil || report.Number != 3 || report.Regranted != 5 {
		t.Errorf("once more: %+v, %v", report, err)
	}
	if n, _, err := w.snapshots(w.s); n != 5 || err != nil {
		t.Errorf("%d snapshots, %v", n, err)
	}
}

func (w *world) open(at store.Store) *local.Vault {
	w.t.Helper()
	v, err := local.Open(w.t.Context(), at, local.Options{IndexDir: w.t.TempDir()})
	must(w.t, err)
	w.t.Cleanup(func() { _ = v.Close() })
	return v
}

// Who had the old key can sign nothing any more that counts.
func TestAnOldKeySignsNothingNew(t *testing.T) {
	w := newWorld(t)
	stale := w.open(w.s)
	old := w.made.Company
	_, err := w.replace(t.Context(), w.s, Options{})
	must(t, err)
	if _, err := stale.Begin(t.Context(), vault.Holder{}, nil); !errors.Is(err, tripod.Conflict) || tripod.HintOf(err) == "" {
		t.Errorf("a writer from before: %v", err)
	}
	w.in(w.s, func(v *local.Vault, s *local.Session) error {
		stranger, err := old.NewMachine()
		if err != nil {
			return err
		}
		first := w.machines[0].Machine
		o := snapshot.Shred{Company: old.ID, Machine: first}
		for what, err := range map[string]error{
			"a machine": keyring.Endorse(t.Context(), s, w.describe(old), old, stranger, noon()),
			"an order":  s.PutDocument(t.Context(), vault.ShredName(first), o.Encode(old.Sign)),
		} {
			if !errors.Is(err, tripod.Denied) {
				t.Errorf("%s: %v", what, err)
			}
		}
		return nil
	})
	// Nor does what is laid into the store past the vault.
	o := snapshot.Shred{Company: old.ID, Machine: w.machines[0].Machine, Time: time.Unix(1, 0)}
	must(t, w.s.Put(t.Context(), vault.ShredName(o.Machine), o.Encode(old.Sign)))
	v := w.open(w.s)
	sealed, err := unlock(t.Context(), v)
	must(t, err)
	c, err := catalog.Open(t.Context(), v, sealed.Unlocked.Keys)
	if err != nil || len(c.Snapshots()) != 4 || len(c.Problems()) != 1 || !errors.Is(c.Problems()[0].Err, tripod.Denied) {
		t.Errorf("%v, %v", c, err)
	}
}

// describe is the descriptor as it was under the first key.
func (w *world) describe(k *seal.CompanyKeys) *snapshot.Descriptor {
	public, err := k.Public()
	must(w.t, err)
	return &snapshot.Descriptor{Company: k.ID, Vault: w.made.Vault, Box: public.Box, Sign: public.Sign}
}

// What cannot be opened now could never be: a new key waits until it is mended, or
// given up.
func TestDamageIsMendedBeforeTheKeyChanges(t *testing.T) {
	w := newWorld(t)
	name := vault.GrantName(snapshot.Key{Machine: w.machines[0].Machine, Source: tripod.SourceID{1}, Seq: 1}, snapshot.HashOf(w.machines[0].Company.Box))
	must(t, w.s.Damage(name, faulty.FlipBit(1)))
	calls := faulty.New(w.s)
	if _, err := w.replace(t.Context(), calls, Options{}); !errors.Is(err, tripod.Corrupt) || !strings.Contains(tripod.HintOf(err), "--despite-damage") {
		t.Errorf("got %v", err)
	}
	if n := calls.CountOf(faulty.Put) + calls.CountOf(faulty.Delete); n > 0 {
		t.Errorf("%d changes", n)
	}
	report, err := w.replace(t.Context(), w.s, Options{Damaged: true})
	if err != nil || report.Snapshots != 3 {
		t.Errorf("%+v, %v", report, err)
	}
}

// ends is what ends a run at one call of the store.
func ends() map[string]func(n int) faulty.Rule {
	return map[string]func(n int) faulty.Rule{
		"fails":       func(n int) faulty.Rule { return faulty.FailNth(n, tripod.Unavailable) },
		"dies":        func(n int) faulty.Rule { return faulty.On(faulty.From(n), faulty.Fail(tripod.Unavailable)) },
		"answer lost": func(n int) faulty.Rule { return faulty.On(faulty.Nth(n), faulty.LoseAnswer(tripod.Unavailable)) },
	}
}

// everywhere ends a run at each of its calls; after each the vault opens, and a
// second run does the rest.
func everywhere(t *testing.T, w *world, do func(ctx context.Context, at store.Store) error, judge func(s *mem.Store, done bool) error) {
	step := 4
	switch {
	case testing.Short():
		step = 9
	case os.Getenv("TRIPOD_LONG") == "1":
		step = 1
	}
	runs := 0
	for how, rule := range ends() {
		for n := 1; ; n += step {
			s := w.s.Clone()
			f := faulty.New(s)
			f.Script(rule(n))
			err := do(t.Context(), f)
			past := f.Count() < n
			if err == nil && how == "dies" && !past {
				t.Fatalf("%s at %d: and no error", how, n)
			}
			if err := judge(s, err == nil); err != nil {
				t.Fatalf("%s at call %d (%v): %v", how, n, err, err)
			}
			if err := do(t.Context(), s); err != nil {
				t.Fatalf("%s at call %d: the second run: %v", how, n, err)
			}
			if err := judge(s, true); err != nil {
				t.Fatalf("%s at call %d, after the second run: %v", how, n, err)
			}
			runs++
			if past {
				break
			}
		}
	}
	t.Logf("%d runs", runs)
}

func TestReplaceIsNeverHalfDone(t *testing.T) {
	w := newWorld(t)
	do := func(ctx context.Context, at store.Store) error {
		_, err := w.replace(ctx, at, Options{})
		return err
	}
	everywhere(t, w, do, func(s *mem.Store, done bool) error {
		n, sealed, err := w.snapshots(s)
		if err != nil {
			return err
		}
		if n != 4 {
			return fmt.Errorf("%d snapshots open", n)
		}
		if left := w.old(s, sealed.Descriptor); done && (left > 0 || len(sealed.Unlocked.Keys.Others) > 0 || sealed.Descriptor.Number() < 2 || sealed.Number < 3) {
			return fmt.Errorf("done, with %d old grants and %d other keys", left, len(sealed.Unlocked.Keys.Others))
		}
		// Machines can always go on, by the one key or the other.
		m := *w.machines[1]
		_, err = keyring.Follow(sealed.Descriptor, &m.Company)
		return err
	})
}

func TestReplaceIsCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.replace(ctx, w.s, Options{Progress: func(e run.Event) {
		if e.Phase == run.Saving {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	report, err := w.replace(t.Context(), w.s, Options{})
	if err != nil || !report.Resumed || report.Number != 2 {
		t.Errorf("%+v, %v", report, err)
	}
}

func (w *world) shred(ctx context.Context, at store.Store, locked bool) (done *Shredded, err error) {
	err = w.try(ctx, at, func(v *local.Vault, s *local.Session) error {
		sealed, err := unlock(ctx, s)
		if err == nil {
			done, err = Shred(ctx, v, s, sealed, w.machines[0].Machine, locked, Options{Now: noon()})
		}
		return err
	})
	return done, err
}

// After a machine is shredded nothing that the company holds opens its snapshots,
// not even with a copy of their grants.
func TestWhatIsShreddedOpensForNobody(t *testing.T) {
	w := newWorld(t)
	w.backUp(w.s, w.machines[0], noon().Add(time.Hour))
	before := w.s.Clone()
	if _, err := w.shred(t.Context(), w.s, false); !errors.Is(err, tripod.Denied) || !strings.Contains(tripod.HintOf(err), "--even-locked") {
		t.Fatalf("locked: %v", err)
	}
	must(t, w.s.Put(t.Context(), vault.HoldName("case"), (&snapshot.Hold{Company: w.made.Company.ID, Name: "case", Time: noon()}).Encode()))
	if _, err := w.shred(t.Context(), w.s, true); !errors.Is(err, tripod.Denied) || !strings.Contains(err.Error(), "case") {
		t.Fatalf("held: %v", err)
	}
	must(t, w.s.Delete(t.Context(), vault.HoldName("case")))
	done, err := w.shred(t.Context(), w.s, true)
	must(t, err)
	if done.Forgotten != 2 || done.Locked != 1 || !done.Until.Equal(noon().Add(time.Hour)) || done.Number != 2 || done.Snapshots != 2 {
		t.Errorf("%+v", done)
	}
	must(t, w.gone(w.s))
	// Lay the grants back in that someone has kept, and forget the order.
	must(t, w.s.Delete(t.Context(), vault.ShredName(w.machines[0].Machine)))
	must(t, before.List(t.Context(), vault.GrantPrefix, func(i store.Info) error {
		p := make([]byte, i.Size)
		_, _ = before.Get(t.Context(), i.Name, p, 0)
		if err := w.s.Put(t.Context(), i.Name, p); err != nil && !errors.Is(err, tripod.Exists) {
			return err
		}
		return nil
	}))
	v := w.open(w.s)
	sealed, err := unlock(t.Context(), v)
	must(t, err)
	c, err := catalog.Open(t.Context(), v, sealed.Unlocked.Keys)
	must(t, err)
	for _, s := range c.Snapshots() {
		if s.Key.Machine == w.machines[0].Machine {
			t.Error("a kept copy of its grant opens a shredded snapshot")
		}
	}
	// The machine itself is out.
	m := w.machines[0]
	_, err = keyring.Follow(sealed.Descriptor, &m.Company)
	must(t, err)
}

// gone returns an error when anything is left to open the first machine with, or
// the others lost anything.
func (w *world) gone(s *mem.Store) error {
	n, sealed, err := w.snapshots(s)
	if err != nil {
		return err
	}
	key, _ := w.machines[1].Sign.Public().(ed25519.PublicKey)
	if frame.MachineIDOf(key) != w.machines[1].Machine || n != 2 || len(sealed.Unlocked.Keys.Others) > 0 {
		return fmt.Errorf("%d snapshots, %d other keys", n, len(sealed.Unlocked.Keys.Others))
	}
	grants := 0
	err = s.List(w.t.Context(), vault.GrantPrefix+w.machines[0].Machine.String(), func(store.Info) error {
		grants++
		return nil
	})
	if err == nil && grants > 0 {
		err = fmt.Errorf("%d grants are left", grants)
	}
	return err
}

func TestShredIsNeverHalfDone(t *testing.T) {
	w := newWorld(t)
	do := func(ctx context.Context, at store.Store) error {
		_, err := w.shred(ctx, at, false)
		return err
	}
	everywhere(t, w, do, func(s *mem.Store, done bool) error {
		if done {
			return w.gone(s)
		}
		n, _, err := w.snapshots(s)
		if err == nil && n != 2 && n != 3 && n != 4 {
			err = fmt.Errorf("%d snapshots open", n)
		}
		return err
	})
}

func TestAShreddedMachineMayNotBackUp(t *testing.T) {
	w := newWorld(t)
	_, err := w.shred(t.Context(), w.s, false)
	must(t, err)
	err = w.try(t.Context(), w.s, func(_ *local.Vault, s *local.Session) error {
		r := snapshot.Record{Company: w.made.Company.ID, Key: snapshot.Key{Machine: w.machines[0].Machine, Source: tripod.SourceID{1}, Seq: 3}, Type: tripod.Stream, Prev: w.prev[w.machines[0].Machine]}
		return s.Commit(t.Context(), r.Sign(w.machines[0].Sign), nil)
	})
	if !errors.Is(err, tripod.Denied) || !strings.Contains(err.Error(), "shredded") || tripod.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if _, err := w.shred(t.Context(), w.s, false); err != nil {
		t.Errorf("twice: %v", err)
	}
	w.machines[0] = &seal.MachineKeys{Machine: tripod.MachineID{9}}
	if _, err := w.shred(t.Context(), w.s, false); !errors.Is(err, tripod.NotFound) {
		t.Errorf("a machine that is none: %v", err)
	}
}
