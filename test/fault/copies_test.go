package fault

import (
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

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/mem"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
	"tripod/internal/vault/scrub"
	"tripod/test/reader/reader"
)

// copyOf makes a second copy of a vault.
func copyOf(ctx context.Context, t *testing.T, from store.Store) *mem.Store {
	t.Helper()
	to := mem.New()
	must(t, withVault(ctx, from, scratch(t), func(src *local.Vault) error {
		if err := replicate.Create(ctx, src, to); err != nil {
			return err
		}
		return withVault(ctx, to, scratch(t), func(dst *local.Vault) (err error) {
			s, err := dst.Begin(ctx, vault.Holder{Text: "copy"}, nil)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			report, err := replicate.Run(ctx, src, dst, s, replicate.Options{Now: time.Now()})
			return errors.Join(err, report.Err())
		})
	}))
	return to
}

func withVault(ctx context.Context, s store.Store, dir string, fn func(*local.Vault) error) (err error) {
	v, err := local.Open(ctx, s, local.Options{IndexDir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	return fn(v)
}

// described heals what says whose vault it is, in one copy from another. It is no
// error when the other cannot be opened.
func described(ctx context.Context, s, other store.Store, dir string) (healed bool, err error) {
	from, err := local.Open(ctx, other, local.Options{IndexDir: dir})
	if err != nil {
		return false, nil //nolint:nilerr // scrubbing it tells
	}
	healed, err = scrub.Descriptor(ctx, s, from)
	return healed, errors.Join(err, from.Close())
}

// scrubbed heals one copy from another, as tripod scrub does.
func scrubbed(ctx context.Context, s, other store.Store, dir string) (report *scrub.Report, err error) {
	err = withVault(ctx, other, filepath.Join(dir, "other"), func(from *local.Vault) error {
		return withVault(ctx, s, filepath.Join(dir, "own"), func(v *local.Vault) (err error) {
			report, err = scrub.Run(ctx, v, s, scrub.Options{
				Other: from, Now: time.Now(),
				Keyring: func(content []byte) error {
					_, err := seal.UnmarshalKeyring(content)
					return err
				},
				Begin: func(ctx context.Context) (*local.Session, error) {
					return v.Begin(ctx, vault.Holder{Text: "scrub"}, nil)
				},
			})
			return err
		})
	})
	return report, err
}

// TestCopiesHealEachOther damages one of two copies of a vault, or both. Every
// damage must be found. Where the other copy is good, everything must be as before,
// with each snapshot restored byte for byte by the independent reader; where both
// are damaged, what they do not heal in each other must be named.
func TestCopiesHealEachOther(t *testing.T) {
	s := seed(t)
	count := size(60, 1000, 100_000)
	const perWorld = 2000
	kinds := []string{"pack", "pack", "pack", "record", "grant", "machine", "keyring", "vault"}
	healed, named, found := 0, 0, 0
	began := time.Now()
	for done := 0; done < count; done += perWorld {
		w := newDamageWorld(t, s+uint64(done))
		second := copyOf(t.Context(), t, w.good)
		for n := range min(perWorld, count-done) {
			r := rand.New(rand.NewPCG(s+uint64(done), uint64(n)+1_000_000))
			p := pair{w: w, good: [2]*mem.Store{w.good, second}, dir: filepath.Join(w.dir, "pair")}
			must(t, os.RemoveAll(p.dir))
			what, err := p.damage(kinds[n%len(kinds)], r, n%3)
			must(t, err)
			if len(p.damaged) == 0 {
				continue // it changed nothing
			}
			found++
			whole, err := p.judge(t.Context())
			if err != nil {
				t.Errorf("TRIPOD_SEED=%d, damage %d, %s: %v", s, n, what, err)
			}
			if whole {
				healed++
			} else {
				named++
			}
		}
	}
	took := time.Since(began)
	t.Logf("%d damages: all healed in %d, what is lost named in %d, %.0f a second", found, healed, named, float64(found)/took.Seconds())
}

// pair is two copies of a vault, of which some are damaged.
type pair struct {
	w       *damageWorld
	good    [2]*mem.Store
	copies  [2]*mem.Store
	damaged []int  // which
	keyring bool   // of which nobody can tell whether it is right, without opening it
	dir     string // for indexes and folders
}

// damage damages the first copy, the second, or both.
func (p *pair) damage(kind string, r *rand.Rand, which int) (what string, err error) {
	sides := [][]int{{0}, {1}, {0, 1}}[which]
	for i := range p.copies {
		p.copies[i] = p.good[i].Clone()
	}
	p.keyring = kind == "keyring"
	var all []string
	for _, i := range sides {
		d := &damageWorld{good: p.good[i]}
		if d.objects, err = objects(p.good[i]); err != nil {
			return "", err
		}
		text, err := d.damage(p.copies[i], kind, r)
		if err != nil {
			return "", err
		}
		if !d.same(p.copies[i]) {
			p.damaged = append(p.damaged, i)
			all = append(all, fmt.Sprintf("copy %d, %s", i+1, text))
		}
	}
	return strings.Join(all, "; "), nil
}

func objects(s store.Store) (names []string, err error) {
	err = s.List(context.Background(), "", func(i store.Info) error {
		names = append(names, i.Name)
		return nil
	})
	return names, err
}

// judge scrubs both copies and looks at what is left.
func (p *pair) judge(ctx context.Context) (whole bool, err error) {
	var told [2]*scrub.Report
	noticed := false
	refused := func(err error) bool {
		kind := tripod.KindOf(err)
		return len(p.damaged) == 2 && (kind == tripod.Corrupt || kind == tripod.Denied || kind == tripod.NotFound || kind == tripod.Invalid)
	}
	for i := range p.copies {
		healed, err := described(ctx, p.copies[i], p.copies[1-i], filepath.Join(p.dir, "described"))
		if err != nil && !refused(err) {
			return false, fmt.Errorf("descriptor of copy %d: %w", i+1, err)
		}
		noticed = noticed || healed
	}
	for i := range p.copies {
		report, err := scrubbed(ctx, p.copies[i], p.copies[1-i], filepath.Join(p.dir, fmt.Sprint("scrub", i)))
		if err != nil {
			if refused(err) {
				return false, nil // neither can be opened, and that is told
			}
			return false, fmt.Errorf("scrub of copy %d: %w", i+1, err)
		}
		noticed = noticed || len(report.Damaged)+len(report.Lost)+len(report.Problems)+report.HealedDocuments+report.HealedBlobs+report.Copied > 0
		told[i] = report
	}
	if !noticed {
		return false, errors.New("nobody noticed")
	}
	for i := range p.copies {
		err := told[i].Err()
		if err != nil && len(p.damaged) < 2 && !p.keyring {
			return false, fmt.Errorf("copy %d was not healed: %w", i+1, err)
		}
		if err != nil {
			return false, p.rest(ctx, i, told[i])
		}
	}
	for i := range p.copies {
		if err := p.perfect(ctx, i); err != nil {
			return false, fmt.Errorf("copy %d, which is called good: %w", i+1, err)
		}
	}
	return !p.keyring || len(p.damaged) < 2, nil
}

// perfect looks at a copy with the keys, with an index of its own and with the one
// of the scrub, and restores everything by the independent reader.
func (p *pair) perfect(ctx context.Context, i int) error {
	for _, dir := range []string{filepath.Join(p.dir, fmt.Sprint("fresh", i)), filepath.Join(p.dir, fmt.Sprint("scrub", i), "own")} {
		err := p.w.look(ctx, p.copies[i], places{index: dir}, func(l looked) error {
			if n := len(l.cat.Snapshots()); n != len(p.w.history) {
				return fmt.Errorf("%d snapshots of %d", n, len(p.w.history))
			}
			return l.perfect(ctx)
		})
		if err != nil {
			return err
		}
	}
	if p.keyring && len(p.damaged) == 2 {
		return nil // whoever opens the vault is told; see TestKeyringDamageIsTold
	}
	return p.read(ctx, i)
}

// rest restores what was not named as lost.
func (p *pair) rest(ctx context.Context, i int, told *scrub.Report) error {
	lost := map[uint64]bool{}
	for _, l := range told.Lost {
		lost[l.Key.Seq] = true
	}
	for _, problem := range told.Problems {
		if problem.Key.Seq == 0 {
			return nil // certificates and keyrings: nothing can be restored without
		}
		for seq := problem.Key.Seq; seq > 0 && seq <= uint64(len(p.w.history)); seq++ {
			lost[seq] = true // the chain may end where it is broken
		}
	}
	return p.w.look(ctx, p.copies[i], places{index: filepath.Join(p.dir, fmt.Sprint("rest", i))}, func(l looked) error {
		for n, files := range p.w.history {
			seq := uint64(n + 1)
			if lost[seq] {
				continue
			}
			all := l.cat.Snapshots()
			at := slices.IndexFunc(all, func(s catalog.Snapshot) bool { return s.Key.Seq == seq })
			if at < 0 {
				return fmt.Errorf("snapshot %d is not there, and was not named", seq)
			}
			if err := l.restored(ctx, all[at], p.dir, files); err != nil {
				return fmt.Errorf("snapshot %d: %w", seq, err)
			}
		}
		return nil
	})
}

// read restores every snapshot with the independent reader.
func (p *pair) read(ctx context.Context, i int) (err error) {
	dir := filepath.Join(p.dir, fmt.Sprint("files", i))
	err = p.copies[i].List(ctx, "", func(o store.Info) error {
		b, err := content(p.copies[i], o.Name)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, filepath.FromSlash(o.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		return os.WriteFile(name, b, 0o600)
	})
	if err != nil {
		return err
	}
	v, err := reader.Open(dir, passphrase)
	if err != nil {
		return fmt.Errorf("reader: %w", err)
	}
	all, err := v.Snapshots()
	if err != nil {
		return fmt.Errorf("reader: %w", err)
	}
	for n, files := range p.w.history {
		seq := uint64(n + 1)
		at := slices.IndexFunc(all, func(s reader.Snapshot) bool { return s.Seq == seq })
		if at < 0 {
			return fmt.Errorf("reader: snapshot %d is not there", seq)
		}
		to := filepath.Join(dir, fmt.Sprint("restored", seq))
		if _, err := v.Restore(all[at], to); err != nil {
			return fmt.Errorf("reader: snapshot %d: %w", seq, err)
		}
		if err := compareFiles(filepath.Join(to, protected), files); err != nil {
			return fmt.Errorf("reader: snapshot %d: %w", seq, err)
		}
	}
	return nil
}
