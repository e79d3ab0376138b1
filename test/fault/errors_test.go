package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/durable/crashfs"
	storefs "tripod/internal/driver/store/fs"
	"tripod/internal/engine/restore"
)

// errnos are what a disk's calls fail with.
func errnos() []error { return []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EMFILE} }

// hooked fails the nth operation, from 0, or all from it on.
type hooked struct {
	mu      sync.Mutex
	n, seen int
	for_    error
	forever bool
	last    crashfs.Op // that failed
}

func (h *hooked) before(op crashfs.Op) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen++
	if h.for_ != nil && (h.seen == h.n+1 || (h.forever && h.seen > h.n)) {
		h.last = op
		return h.for_
	}
	return nil
}

// TestEveryCallOfTheDiskFails makes every call of the vault's disk fail in one
// backup, one making of a vault and one restore.
func TestEveryCallOfTheDiskFails(t *testing.T) {
	s := seed(t)
	seeds := size(1, 1, 100)
	runs := 0
	for i := range seeds {
		w := newErrorWorld(t, s+uint64(i))
		t.Run(fmt.Sprint("backup", i), func(t *testing.T) { runs += w.each(t, w.backupFails) })
		t.Run(fmt.Sprint("create", i), func(t *testing.T) { runs += w.each(t, w.createFails) })
		t.Run(fmt.Sprint("restore", i), func(t *testing.T) { runs += w.each(t, w.restoreFails) })
	}
	t.Logf("%d runs, each with one call failing or all from one on", runs)
}

// errorWorld is a vault with one snapshot on a simulated disk, and what a judge
// of crash states needs.
type errorWorld struct {
	judge
	disk *crashfs.Disk
	seed uint64
}

func newErrorWorld(t *testing.T, seed uint64) *errorWorld {
	c, dir := newCompany(t), scratch(t)
	w := &errorWorld{judge{c, versions(rand.New(rand.NewPCG(seed, 1)), 3, 40_000), nil, filepath.Join(dir, "judge")}, crashfs.New(), seed}
	p := places{filepath.Join(dir, "index"), filepath.Join(dir, "cache")}
	err := c.scenario(t.Context(), w.disk, p, w.history[:1], func(int) { w.caches = append(w.caches, readFolder(t, p.cache)) })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// each calls one with every call failing in every way, until it is past the
// last call.
func (w *errorWorld) each(t *testing.T, one func(ctx context.Context, h *hooked) error) (runs int) {
	// The quick subset fails every seventh call.
	step := size(7, 1, 1)
	for _, errno := range errnos() {
		for _, forever := range []bool{false, true} {
			for n := 0; ; n += step {
				h := &hooked{n: n, for_: errno, forever: forever}
				if err := one(t.Context(), h); err != nil {
					t.Fatalf("TRIPOD_SEED=%d: %v at call %d, %s of %s, forever %v: %v", w.seed, errno, n, h.last.Verb, h.last.Name, forever, err)
				}
				runs++
				if h.seen <= n {
					break
				}
			}
		}
	}
	return runs
}

// clean returns an error unless err is nil or of a kind that tells people what
// happened.
func clean(err error) error {
	if err != nil && tripod.KindOf(err) == tripod.Internal {
		return fmt.Errorf("not a clean error: %w", err)
	}
	return nil
}

func (w *errorWorld) backupFails(ctx context.Context, h *hooked) error {
	r := rand.New(rand.NewPCG(w.seed, uint64(h.n)))
	p, err := w.places(r)
	if err != nil {
		return err
	}
	disk := w.disk.Crash(r) // everything is synced: a copy
	disk.SetHook(h.before)
	_, err = w.backup(ctx, storefs.On(disk, "disk"), p, &memTree{files: w.history[1]}, 1)
	disk.SetHook(nil)
	disk.Kill()
	acked := 1
	if err == nil {
		acked = 2
	}
	if err := clean(err); err != nil {
		return err
	}
	// What it left is judged with the power cut on top.
	state := crashState{disk: disk.Crash(r), acked: acked, made: true, seed: r.Uint64()}
	return w.judge.judge(ctx, state)
}

func (w *errorWorld) createFails(ctx context.Context, h *hooked) error {
	r := rand.New(rand.NewPCG(w.seed, uint64(h.n)))
	p, err := w.places(r)
	if err != nil {
		return err
	}
	disk := crashfs.New()
	disk.SetHook(h.before)
	err = w.create(ctx, storefs.On(disk, "disk"), p)
	disk.SetHook(nil)
	disk.Kill()
	if err := clean(err); err != nil {
		return err
	}
	return w.judge.judge(ctx, crashState{disk: disk.Crash(r), made: err == nil, seed: r.Uint64()})
}

func (w *errorWorld) restoreFails(ctx context.Context, h *hooked) (err error) {
	p := places{index: filepath.Join(w.dir, "index")}
	to, err := os.MkdirTemp(w.dir, "restored-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	try := func(disk *crashfs.Disk, o restore.Overwrite) error {
		return w.look(ctx, storefs.On(disk, "disk"), p, func(l looked) error {
			snaps := l.cat.Snapshots()
			if len(snaps) == 0 {
				return tripod.Errorf(tripod.NotFound, "no snapshot") // its documents could not be read, as problems tell
			}
			_, err := restore.Files(ctx, l.v, snaps[0], restore.Options{To: to, Overwrite: o})
			return err
		})
	}
	disk := w.disk.Crash(rand.New(rand.NewPCG(w.seed, 1)))
	disk.SetHook(h.before)
	err = try(disk, restore.Never)
	disk.SetHook(nil)
	switch {
	case err == nil:
		return compareFiles(to, w.history[0])
	case clean(err) != nil:
		return clean(err)
	}
	if err := onlyRight(to, w.history[0]); err != nil {
		return err
	}
	if err := try(disk, restore.Changed); err != nil {
		return fmt.Errorf("second restore: %w", err)
	}
	return compareFiles(to, w.history[0])
}

// onlyRight returns an error when a restored file has its name and other bytes
// than it should.
func onlyRight(dir string, want map[string]memFile) error {
	there := map[string]memFile{}
	for path, f := range want {
		if _, err := os.Lstat(filepath.Join(dir, strings.TrimPrefix(path, protected+"/"))); err == nil {
			there[path] = f
		}
	}
	if err := compareFiles(dir, there); err != nil {
		return fmt.Errorf("after a failure: %w", err)
	}
	return nil
}

// faultyCalls are the calls of a source that fail, and how.
func faultyCalls() map[string][]tripod.ErrorKind {
	return map[string][]tripod.ErrorKind{
		"walk":       {tripod.Denied, tripod.NotFound, tripod.Unavailable},
		"open":       {tripod.NotFound, tripod.Conflict, tripod.Denied, tripod.Exhausted, tripod.Unavailable},
		"read":       {tripod.Unavailable, tripod.NotFound},
		"stat":       {tripod.Unavailable, tripod.NotFound},
		"attributes": {tripod.NotFound, tripod.Denied, tripod.Unavailable},
		"ranges":     {tripod.Unavailable},
		"close":      {tripod.Unavailable},
	}
}

// TestEveryCallOfTheSourceFails makes every call of what is backed up fail, file
// by file, in a first and in a second backup.
func TestEveryCallOfTheSourceFails(t *testing.T) {
	s := seed(t)
	w := newErrorWorld(t, s)
	runs := 0
	for verb, kinds := range faultyCalls() {
		for _, kind := range kinds {
			for path := range w.history[1] {
				if err := w.sourceFails(t.Context(), verb, path, kind); err != nil {
					t.Errorf("TRIPOD_SEED=%d: %s of %s fails, %v: %v", s, verb, path, kind, err)
				}
				runs++
			}
		}
	}
	t.Logf("%d runs", runs)
}

func (w *errorWorld) sourceFails(ctx context.Context, verb, path string, kind tripod.ErrorKind) error {
	disk := w.disk.Crash(rand.New(rand.NewPCG(w.seed, 1)))
	p, err := w.places(rand.New(rand.NewPCG(w.seed, uint64(len(path)))))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	asked, named := false, false
	in := &memTree{files: w.history[1], ask: func(v, at string) error {
		if v != verb || at != path {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		asked = true
		return tripod.Errorf(kind, "%s %s: injected", v, at)
	}, told: func(e run.Event) {
		mu.Lock()
		defer mu.Unlock()
		named = named || (e.Warning != nil && strings.Contains(e.Item+" "+e.Warning.Error(), path))
	}}
	report, err := w.backup(ctx, storefs.On(disk, "disk"), p, in, 1)
	if err != nil {
		return errors.Join(clean(err), w.judge.judge(ctx, crashState{disk: disk, acked: 1, made: true, seed: w.seed}))
	}
	rest := map[string]memFile{}
	for at, f := range w.history[1] {
		if at != path {
			rest[at] = f
		}
	}
	if err := w.latest(ctx, disk, p, rest, map[string]memFile{path: w.history[1][path]}, report.Skipped > 0 && named); err != nil {
		return err
	}
	if asked && !named && verb != "close" {
		// Then it must not have mattered, which latest has seen.
		if err := w.latest(ctx, disk, p, w.history[1], nil, false); err != nil {
			return fmt.Errorf("not warned of: %w", err)
		}
	}
	// The next run has no trouble, and finds what the first one missed.
	if _, err := w.backup(ctx, storefs.On(disk, "disk"), p, &memTree{files: w.history[1]}, 2); err != nil {
		return fmt.Errorf("next backup: %w", err)
	}
	if err := w.latest(ctx, disk, p, w.history[1], nil, false); err != nil {
		return fmt.Errorf("next backup: %w", err)
	}
	return nil
}

// latest restores the newest snapshot and compares: all of want must be there,
// and nothing else but perhaps files of maybe, whole, or any other way when they
// were warned of.
func (w *errorWorld) latest(ctx context.Context, disk *crashfs.Disk, p places, want, maybe map[string]memFile, warned bool) (err error) {
	to, err := os.MkdirTemp(w.dir, "latest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	err = w.look(ctx, storefs.On(disk, "disk"), p, func(l looked) error {
		snaps := l.cat.Snapshots()
		_, err := restore.Files(ctx, l.v, snaps[len(snaps)-1], restore.Options{To: to})
		return errors.Join(err, l.perfect(ctx))
	})
	if err != nil {
		return err
	}
	all := map[string]memFile{}
	for path, f := range want {
		all[path] = f
	}
	for path, f := range maybe {
		name := filepath.Join(to, strings.TrimPrefix(path, protected+"/"))
		if _, err := os.Lstat(name); err != nil {
			if !warned {
				return fmt.Errorf("%s: is missing, and nobody was told", path)
			}
			continue
		}
		if warned {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		all[path] = f
	}
	return compareFiles(to, all)
}
