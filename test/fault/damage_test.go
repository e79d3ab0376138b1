package fault

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
	"testing"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/keyring"
	"tripod/internal/engine/restore"
	"tripod/internal/engine/verify"
	"tripod/internal/vault"
)

// damageWorld is a good vault in memory, to be damaged in clones.
type damageWorld struct {
	*company
	good    *mem.Store
	history []map[string]memFile
	ids     []string // of the snapshots of history
	objects []string
	seen    *keyring.Memory // what this machine has seen
	dir     string
	named   int // damages of which files were named
}

func newDamageWorld(t *testing.T, seed uint64) *damageWorld {
	t.Helper()
	ctx := t.Context()
	w := &damageWorld{company: newCompany(t), good: mem.New(), history: versions(rand.New(rand.NewPCG(seed, 1)), 4, 200_000), dir: scratch(t)}
	p := places{filepath.Join(w.dir, "index0"), filepath.Join(w.dir, "cache0")}
	if err := w.create(ctx, w.good, p); err != nil {
		t.Fatal(err)
	}
	for i, files := range w.history {
		if _, err := w.backup(ctx, w.good, p, &memTree{files: files}, i); err != nil {
			t.Fatal(err)
		}
	}
	err := w.look(ctx, w.good, p, func(l looked) (err error) {
		for _, s := range l.cat.Snapshots() {
			w.ids = append(w.ids, s.ID)
		}
		w.seen = keyring.NewMemory()
		view, err := w.seen.Look(ctx, l.v, l.v.Descriptor(), "")
		if err == nil {
			w.seen.Merge(view)
		}
		return errors.Join(err, l.perfect(ctx))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = w.good.List(ctx, "", func(i store.Info) error {
		w.objects = append(w.objects, i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// kindOf is the first part of an object's name.
func kindOf(name string) string {
	kind, _, _ := strings.Cut(name, "/")
	return kind
}

// damage changes an object of the kind in some way and tells which. It may
// happen to change nothing.
func (w *damageWorld) damage(s *mem.Store, kind string, r *rand.Rand) (what string, err error) {
	same := slices.DeleteFunc(slices.Clone(w.objects), func(n string) bool { return kindOf(n) != kind })
	name := same[r.IntN(len(same))]
	other := same[r.IntN(len(same))]
	seed := r.Uint64()
	change := func(what string, c faulty.Change) (string, error) {
		return what + " " + name, s.Damage(name, c)
	}
	switch r.IntN(9) {
	case 0, 1:
		return change("bit flipped in", faulty.FlipBit(seed))
	case 2:
		return change("zeros in", faulty.Zero(seed, 1+r.IntN(5000)))
	case 3:
		return change("cut short:", faulty.Truncate(seed))
	case 4:
		return change("removed:", faulty.Remove())
	case 5:
		return change("noise in", func(b []byte) []byte {
			at := r.IntN(len(b) + 1)
			for i := at; i < min(at+200, len(b)); i++ {
				b[i] = byte(r.Uint32())
			}
			return b
		})
	case 6:
		return change("bytes added to", func(b []byte) []byte { return append(b, make([]byte, 1+r.IntN(100))...) })
	case 7:
		return "swapped: " + name + " and " + other, faulty.Swap(s, name, other)
	}
	stale, err := content(s, other)
	if err != nil {
		return "", err
	}
	return "a copy of " + other + " in place of " + name, s.Damage(name, faulty.Replace(stale))
}

func content(s store.Store, name string) ([]byte, error) {
	info, err := s.Head(context.Background(), name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size)
	if len(b) == 0 {
		return b, nil
	}
	_, err = s.Get(context.Background(), name, b, 0)
	return b, err
}

// same reports whether two stores hold the same.
func (w *damageWorld) same(s *mem.Store) bool {
	for _, name := range w.objects {
		a, err := content(w.good, name)
		b, err2 := content(s, name)
		if err != nil || err2 != nil || !bytes.Equal(a, b) {
			return false
		}
	}
	return true
}

// TestDamageIsFound damages vaults at random. Every damage must be found, what
// it costs named, and everything else restored.
func TestDamageIsFound(t *testing.T) {
	s := seed(t)
	count := size(150, 1100, 110_000)
	const perWorld = 2000
	kinds := []string{"pack", "pack", "pack", "record", "grant", "machine", "vault"}
	began := time.Now()
	found, named := 0, 0
	for done := 0; done < count; {
		w := newDamageWorld(t, s+uint64(done))
		for n := range min(perWorld, count-done) {
			r := rand.New(rand.NewPCG(s+uint64(done), uint64(n)))
			damaged := w.good.Clone()
			what, err := w.damage(damaged, kinds[n%len(kinds)], r)
			if err != nil {
				t.Fatal(err)
			}
			if w.same(damaged) {
				continue
			}
			if err := w.judge(t.Context(), damaged, r); err != nil {
				t.Errorf("TRIPOD_SEED=%d, damage %d, %s: %v", s, n, what, err)
			}
			found++
		}
		done += perWorld
		named += w.named
	}
	took := time.Since(began)
	t.Logf("%d damages found, files named in %d, %.0f a second", found, named, float64(found)/took.Seconds())
}

// verdict is what a thorough look at a vault tells.
type verdict struct {
	found     []string // everything wrong
	problems  []string // documents of the log
	lost      map[string]map[string]bool
	followed  map[string]bool // snapshots of which a whole part is lost
	unread    map[string]bool // snapshots with damage other than to a stored checksum
	snapshots []catalog.Snapshot
}

// judge looks at a damaged vault, then restores all that it shows.
func (w *damageWorld) judge(ctx context.Context, s *mem.Store, r *rand.Rand) error {
	p := places{index: filepath.Join(w.dir, "index")}
	if err := os.RemoveAll(p.index); err != nil {
		return err
	}
	if r.IntN(3) == 0 {
		// The machine that made the vault has an index from before.
		if err := os.CopyFS(p.index, os.DirFS(filepath.Join(w.dir, "index0"))); err != nil {
			return err
		}
	}
	return w.judgeWith(ctx, s, p)
}

func (w *damageWorld) judgeWith(ctx context.Context, s *mem.Store, p places) error {
	var v verdict
	err := w.look(ctx, s, p, func(l looked) error {
		if err := w.examine(ctx, l, &v); err != nil {
			return err
		}
		if len(v.found) == 0 {
			return errors.New("nobody noticed")
		}
		return w.everythingElse(ctx, l, &v)
	})
	if refused := tripod.KindOf(err); err != nil && (refused == tripod.Corrupt || refused == tripod.NotFound || refused == tripod.Denied || refused == tripod.Invalid) && len(v.found) == 0 {
		return nil // the vault is not opened at all, and that is told
	}
	return err
}

// examine collects everything that a look at the vault tells. Checking packs
// shows the index where misplaced blobs lie, so what is lost is asked again then.
func (w *damageWorld) examine(ctx context.Context, l looked, v *verdict) error {
	v.snapshots = l.cat.Snapshots()
	if err := w.ask(ctx, l, v); err != nil {
		return err
	}
	for _, d := range l.v.Damaged() {
		v.found = append(v.found, d.Err.Error())
	}
	if err := l.v.CheckPacks(ctx, 1, nil, func(object string, _ tripod.ID, _ error) error {
		v.found = append(v.found, object)
		return nil
	}); err != nil {
		return err
	}
	if err := w.ask(ctx, l, v); err != nil {
		return err
	}
	view, err := w.seen.Look(ctx, l.v, l.v.Descriptor(), "")
	if err != nil {
		return err
	}
	for i := range view.Losses {
		text := view.Losses[i].Err(func(keyring.Chain) string { return "it" }).Error()
		v.found, v.problems = append(v.found, text), append(v.problems, text)
	}
	return nil
}

// ask verifies the vault.
func (w *damageWorld) ask(ctx context.Context, l looked, v *verdict) error {
	v.lost, v.followed, v.unread = map[string]map[string]bool{}, map[string]bool{}, map[string]bool{}
	report, err := verify.Run(ctx, l.v, l.cat, verify.Options{})
	if err != nil && !errors.Is(err, tripod.Corrupt) {
		return fmt.Errorf("verify: %w", err)
	}
	if (err != nil) != (len(report.Files)+len(report.Problems) > 0) {
		return fmt.Errorf("verify says %w with %d files and %d problems", err, len(report.Files), len(report.Problems))
	}
	for _, p := range report.Problems {
		v.found, v.problems = append(v.found, p.Document), append(v.problems, p.Document)
	}
	for _, f := range report.Files {
		v.found = append(v.found, f.Path)
		for _, id := range f.Snapshots {
			if !strings.Contains(f.Err.Error(), "checksum does not match") {
				v.unread[id] = true
			}
			if f.Stretch {
				v.followed[id] = true
			}
			if v.lost[id] == nil {
				v.lost[id] = map[string]bool{}
			}
			v.lost[id][strings.TrimPrefix(f.Path, "/")] = true
		}
	}
	return nil
}

// everythingElse restores each snapshot that is left: what was not named as lost
// must be there, byte for byte, and what was must not.
func (w *damageWorld) everythingElse(ctx context.Context, l looked, v *verdict) error {
	if len(v.snapshots) < len(w.ids) && len(v.problems) == 0 {
		return errors.New("snapshots are missing and no problem is told")
	}
	if len(v.lost) > 0 {
		w.named++
	}
	for i, id := range w.ids {
		at := slices.IndexFunc(v.snapshots, func(s catalog.Snapshot) bool { return s.ID == id })
		if at < 0 {
			continue
		}
		if err := w.rest(ctx, l, v.snapshots[at], w.history[i], v); err != nil {
			return fmt.Errorf("snapshot %d: %w", i+1, err)
		}
	}
	return nil
}

func (w *damageWorld) rest(ctx context.Context, l looked, s catalog.Snapshot, want map[string]memFile, v *verdict) (err error) {
	to, err := os.MkdirTemp(w.dir, "rest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	_, err = restore.Files(ctx, l.v, s, restore.Options{To: to})
	lost := v.lost[s.ID]
	switch {
	case err != nil && !errors.Is(err, tripod.Corrupt):
		return fmt.Errorf("restore: %w", err)
	case err != nil && len(lost) == 0:
		return fmt.Errorf("verify named no file, restore says: %w", err)
	case err == nil && v.unread[s.ID]:
		return fmt.Errorf("verify named %d files, and restore says nothing", len(lost))
	case err == nil:
		// A blob whose stored checksum alone is damaged still opens, and proves
		// itself otherwise: then everything must be back.
		return compareFiles(to, want)
	}
	left := map[string]memFile{}
	for path, f := range want {
		_, err := os.Lstat(filepath.Join(to, strings.TrimPrefix(path, protected+"/")))
		switch {
		case v.followed[s.ID]: // how much of the tree is lost is known to restore alone
			if err == nil {
				left[path] = f
			}
		case !lost[path]:
			left[path] = f
		}
	}
	return compareFiles(to, left)
}

// TestKeyringDamageIsTold damages the keyring: whoever has a passphrase or a
// code must not be told that it is wrong, or must be able to use the other one.
func TestKeyringDamageIsTold(t *testing.T) {
	s := seed(t)
	w := newDamageWorld(t, s)
	told, one, count := 0, 0, size(50, 300, 10_000)
	for n := range count {
		damaged := w.good.Clone()
		what, err := w.damage(damaged, "keyring", rand.New(rand.NewPCG(s, uint64(n))))
		if err != nil {
			t.Fatal(err)
		}
		if w.same(damaged) {
			continue
		}
		byPassphrase, byCode, err := w.unlock(t.Context(), damaged)
		switch {
		case err != nil:
			told++
		case byPassphrase != nil && byCode != nil:
			for _, err := range []error{byPassphrase, byCode} {
				if !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.Denied) {
					t.Errorf("TRIPOD_SEED=%d, damage %d, %s: %v", s, n, what, err)
				}
			}
			told++
		default:
			one++
		}
	}
	t.Logf("%d damages: %d close the vault and are told, %d leave it open to the passphrase, the code or both", count, told, one)
}

// unlock tries both holders on a vault.
func (w *damageWorld) unlock(ctx context.Context, s store.Store) (byPassphrase, byCode, err error) {
	sealed, err := keyring.Load(ctx, documents{s})
	if err != nil {
		if k := tripod.KindOf(err); k != tripod.Corrupt && k != tripod.Invalid {
			return nil, nil, fmt.Errorf("unclear: %w", err)
		}
		return nil, nil, err
	}
	_, byPassphrase = sealed.OpenPassphrase(passphrase)
	_, byCode = sealed.OpenCode(w.made.Code)
	return byPassphrase, byCode, nil
}

// documents reads documents straight from a store.
type documents struct{ s store.Store }

// Documents implements keyring.Documents.
func (d documents) Documents(ctx context.Context, prefix string, fn func(string, []byte) error) error {
	return d.s.List(ctx, prefix, func(i store.Info) error {
		if !vault.Documented(i.Name) {
			return nil
		}
		b, err := content(d.s, i.Name)
		if err != nil {
			return err
		}
		return fn(i.Name, b)
	})
}
