package fault

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/engine/verify"
)

// TestBackupHeals: verify's advice holds. Whatever is damaged in whichever pack,
// the next backup of the same files after a verify stores it again, with the
// cache of the source and without it.
func TestBackupHeals(t *testing.T) {
	ctx := t.Context()
	c := newCompany(t)
	s, dir := mem.New(), scratch(t)
	p := places{filepath.Join(dir, "index"), filepath.Join(dir, "cache")}
	if err := c.create(ctx, s, p); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed(t), 9))
	files := versions(r, 1, 200_000)[0]
	if _, err := c.backup(ctx, s, p, &memTree{files: files}, 0); err != nil {
		t.Fatal(err)
	}
	for hour := range size(6, 12, 100) {
		packs := packsIn(t, s)
		name := packs[hour%len(packs)]
		if err := s.Damage(name, faulty.FlipBit(r.Uint64())); err != nil {
			t.Fatal(err)
		}
		err := c.look(ctx, s, p, func(l looked) error {
			report, err := verify.Run(ctx, l.v, l.cat, verify.Options{})
			if (err != nil) != (len(report.Blobs) > 0) || err != nil && !errors.Is(err, tripod.Corrupt) {
				t.Errorf("verify: %d blobs, %v", len(report.Blobs), err)
			}
			return l.v.Suspect(ctx, report.Lost())
		})
		if err != nil {
			t.Fatal(err)
		}
		with := p
		if hour%2 == 1 {
			with.cache = ""
		}
		if _, err := c.backup(ctx, s, with, &memTree{files: files}, hour+1); err != nil {
			t.Fatal(err)
		}
		err = c.look(ctx, s, p, func(l looked) error {
			if _, err := verify.Run(ctx, l.v, l.cat, verify.Options{}); err != nil {
				return err
			}
			all := l.cat.Snapshots()
			return errors.Join(l.restored(ctx, all[0], dir, files), l.restored(ctx, all[len(all)-1], dir, files))
		})
		if err != nil {
			t.Fatalf("round %d, a bit of %s: %v", hour, name, err)
		}
	}
}

func packsIn(t *testing.T, s store.Store) (names []string) {
	t.Helper()
	must(t, s.List(t.Context(), "pack/", func(i store.Info) error {
		names = append(names, i.Name)
		return nil
	}))
	return names
}

// TestABadPlaceOnTheDisk: one object that cannot be read is damage like any
// other. verify names what it costs and goes on, restore brings back the rest,
// and the next backup heals it; a disk that is gone is no damage.
func TestABadPlaceOnTheDisk(t *testing.T) {
	ctx := t.Context()
	c := newCompany(t)
	s, dir := faulty.New(mem.New()), scratch(t)
	p := places{filepath.Join(dir, "index"), filepath.Join(dir, "cache")}
	if err := c.create(ctx, s, p); err != nil {
		t.Fatal(err)
	}
	files := versions(rand.New(rand.NewPCG(seed(t), 10)), 1, 200_000)[0]
	if _, err := c.backup(ctx, s, p, &memTree{files: files}, 0); err != nil {
		t.Fatal(err)
	}
	bad := func(name string) faulty.Rule {
		return faulty.On(faulty.All(faulty.Every(faulty.Get), faulty.Names(name)), faulty.Fail(tripod.Unavailable))
	}
	for hour, name := range packsIn(t, s) {
		s.Script(bad(name))
		err := c.look(ctx, s, p, func(l looked) error {
			report, err := verify.Run(ctx, l.v, l.cat, verify.Options{})
			if tripod.KindOf(err) != tripod.Corrupt || len(report.Files) == 0 || len(report.Blobs) == 0 {
				t.Errorf("verify: %d files, %d blobs, %v", len(report.Files), len(report.Blobs), err)
			}
			for _, f := range report.Files {
				if !strings.Contains(f.Err.Error(), "pack "+name[len("pack/00/"):][:16]+": cannot be read") {
					t.Errorf("told of %s: %v", f.Path, f.Err)
				}
			}
			return l.v.Suspect(ctx, report.Lost())
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.backup(ctx, s, p, &memTree{files: files}, hour+1); err != nil {
			t.Fatal(err)
		}
		if err := c.look(ctx, s, p, func(l looked) error {
			_, err := verify.Run(ctx, l.v, l.cat, verify.Options{})
			return err
		}); err != nil {
			t.Fatalf("%s, after a backup: %v", name, err)
		}
		s.Script()
	}
	err := c.look(ctx, s, p, func(l looked) error {
		s.Script(faulty.On(faulty.Every(faulty.Get), faulty.Fail(tripod.Unavailable)))
		report, err := verify.Run(ctx, l.v, l.cat, verify.Options{})
		if tripod.KindOf(err) != tripod.Unavailable || len(report.Blobs) > 0 {
			t.Errorf("the disk is gone: %d blobs, %v", len(report.Blobs), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
