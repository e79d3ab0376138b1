package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tripod/internal/driver/durable/crashfs"
	storefs "tripod/internal/driver/store/fs"
	"tripod/internal/engine/catalog"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
	"tripod/test/reader/reader"
)

// crashState is a disk after a power cut.
type crashState struct {
	disk  *crashfs.Disk
	op    crashfs.Op // what came next
	acked int        // snapshots acknowledged before
	made  bool       // so was the vault
	seed  uint64     // of what follows
}

// scenario makes a vault on a simulated disk and backs up each version, while
// before sees every operation.
func (c *company) scenario(ctx context.Context, disk *crashfs.Disk, p places, history []map[string]memFile, done func(n int)) error {
	s := storefs.On(disk, "disk")
	if err := c.create(ctx, s, p); err != nil {
		return err
	}
	done(0)
	for i, files := range history {
		s := storefs.On(disk, "disk") // each is a process of its own
		if _, err := c.backup(ctx, s, p, &memTree{files: files}, i); err != nil {
			return fmt.Errorf("backup %d: %w", i, err)
		}
		done(i + 1)
	}
	return nil
}

// TestCrashStates cuts the power at every operation of a short life of a vault.
func TestCrashStates(t *testing.T) {
	s := seed(t)
	states := size(150, 5000, 1_000_000)
	const perLife = 5000
	began, total := time.Now(), 0
	for life := 0; total < states; life++ {
		total += crashLife(t, s+uint64(life), min(perLife, states-total))
		if t.Failed() {
			return
		}
	}
	took := time.Since(began)
	t.Logf("%d crash states in %v, %.0f a second", total, took.Round(time.Millisecond), float64(total)/took.Seconds())
}

func crashLife(t *testing.T, seed uint64, states int) int {
	ctx := t.Context()
	c := newCompany(t)
	dir := scratch(t)
	history := versions(rand.New(rand.NewPCG(seed, 1)), 4, 40_000)
	lived := history[:3] // the last version is for after the crash

	// Once without crashes, to count the operations, and to have every cache
	// that a machine may have when its vault is found crashed: older, of the
	// same age, and newer.
	ops := 0
	disk := crashfs.New()
	var counting sync.Mutex
	disk.SetHook(func(crashfs.Op) error {
		counting.Lock()
		defer counting.Unlock()
		ops++
		return nil
	})
	first := places{filepath.Join(dir, "index"), filepath.Join(dir, "cache")}
	var caches []map[string][]byte
	if err := c.scenario(ctx, disk, first, lived, func(int) { caches = append(caches, readFolder(t, first.cache)) }); err != nil {
		t.Fatal(err)
	}

	todo := make(chan crashState)
	g, gctx := errgroup.WithContext(ctx)
	count := 0
	g.Go(func() error {
		defer close(todo)
		count = c.crash(gctx, seed, states, ops, lived, places{filepath.Join(dir, "index2"), filepath.Join(dir, "cache2")}, todo)
		return nil
	})
	for n := range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			j := judge{c, history, caches, filepath.Join(dir, fmt.Sprint("judge", n))}
			for state := range todo {
				if err := j.judge(gctx, state); err != nil {
					return fmt.Errorf("TRIPOD_SEED=%d: crash before %s of %s with %d snapshots acknowledged: %w", seed, state.op.Verb, state.op.Name, state.acked, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return count
}

// crash lives through the scenario again and takes crash states before every
// operation that may lose something.
func (c *company) crash(ctx context.Context, seed uint64, states, ops int, history []map[string]memFile, p places, to chan<- crashState) (count int) {
	r := rand.New(rand.NewPCG(seed, 2))
	disk := crashfs.New()
	state := crashState{}
	var mu sync.Mutex // of hooks, and with done
	seen := 0
	disk.SetHook(func(op crashfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		seen++
		// As many as bring count in step with the operations seen.
		for count < states*min(seen, ops)/ops {
			next := state
			next.disk, next.op, next.seed = disk.Crash(r), op, r.Uint64()
			select {
			case to <- next:
				count++
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	_ = c.scenario(ctx, disk, p, history, func(n int) { // it fails when the context ends, only
		mu.Lock()
		defer mu.Unlock()
		state.made, state.acked = true, n
	})
	return count
}

// judge looks at crash states, one after another.
type judge struct {
	*company
	history []map[string]memFile
	caches  []map[string][]byte
	dir     string
}

// judge returns an error when something acknowledged is lost, something not
// acknowledged is there by half, or the next backup does not work.
func (j *judge) judge(ctx context.Context, state crashState) error {
	r := rand.New(rand.NewPCG(state.seed, 3))
	p, err := j.places(r)
	if err != nil {
		return err
	}
	s := storefs.On(state.disk, "disk")
	if _, err := local.Describe(ctx, s); err != nil {
		if state.made {
			return err
		}
		if err := local.Create(ctx, s, j.made.Descriptor, j.made.Keyring); err != nil {
			return fmt.Errorf("making the vault again: %w", err)
		}
	} else if r.IntN(50) == 0 {
		if err := j.secondOpinion(state); err != nil {
			return fmt.Errorf("independent reader: %w", err)
		}
	}
	if err := j.goOn(ctx, s, p, state, r); err != nil {
		return err
	}
	if r.IntN(4) > 0 {
		return nil
	}
	return j.look(ctx, storefs.On(state.disk, "disk"), p, func(l looked) error {
		if err := l.perfect(ctx); err != nil {
			return fmt.Errorf("after the next backup: %w", err)
		}
		snaps := l.cat.Snapshots()
		return l.restored(ctx, snaps[len(snaps)-1], j.dir, j.history[len(j.history)-1])
	})
}

// goOn looks at what is in the vault, then backs up into it, without help.
func (j *judge) goOn(ctx context.Context, s *storefs.Store, p places, state crashState, r *rand.Rand) (err error) {
	v, err := local.Open(ctx, s, local.Options{IndexDir: p.index})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := j.whole(ctx, v, state, r); err != nil {
		return err
	}
	w, err := v.Begin(ctx, vault.Holder{Text: "after the crash"}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := j.enrol(ctx, v, w); err != nil {
		return err
	}
	if _, err := j.into(ctx, w, p, &memTree{files: j.history[len(j.history)-1]}, 100); err != nil {
		return fmt.Errorf("backup after the crash: %w", err)
	}
	return nil
}

// whole checks what is in the vault before anyone writes to it.
func (j *judge) whole(ctx context.Context, v *local.Vault, state crashState, r *rand.Rand) error {
	cat, err := catalog.Open(ctx, v, j.made.Company)
	if err != nil {
		return err
	}
	l := looked{v, cat}
	if err := l.perfect(ctx); err != nil {
		return err
	}
	snaps := l.cat.Snapshots()
	if n := len(snaps); n != state.acked && n != state.acked+1 {
		return fmt.Errorf("%d snapshots are there", n)
	}
	for i := range snaps {
		// All have been read by verify; some are written out and compared.
		if r.IntN(4) > 0 {
			continue
		}
		if err := l.restored(ctx, snaps[i], j.dir, j.history[i]); err != nil {
			return fmt.Errorf("snapshot %d: %w", i+1, err)
		}
	}
	return nil
}

// places draws what of its own the machine still has: an index of this vault in
// another state, which lies in the judge's folder and ages there, or none; a
// cache of any age, or none.
func (j *judge) places(r *rand.Rand) (places, error) {
	p := places{index: filepath.Join(j.dir, "index"), cache: filepath.Join(j.dir, "cache")}
	if r.IntN(2) == 0 {
		if err := os.RemoveAll(p.index); err != nil {
			return p, err
		}
	}
	if err := os.RemoveAll(p.cache); err != nil {
		return p, err
	}
	if err := os.MkdirAll(p.cache, 0o700); err != nil {
		return p, err
	}
	for name, content := range j.caches[r.IntN(len(j.caches))] {
		if err := os.WriteFile(filepath.Join(p.cache, name), content, 0o600); err != nil {
			return p, err
		}
	}
	return p, nil
}

// secondOpinion restores everything with the reader that shares no code.
func (j *judge) secondOpinion(state crashState) error {
	dir, err := os.MkdirTemp(j.dir, "opinion-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	vaultDir := filepath.Join(dir, "vault")
	if err := copyOut(state.disk, ".", vaultDir); err != nil {
		return err
	}
	v, err := reader.Open(vaultDir, j.made.Code.String())
	if err != nil {
		return err
	}
	snaps, err := v.Snapshots()
	if err != nil {
		return err
	}
	if len(snaps) < state.acked {
		return fmt.Errorf("sees %d of %d snapshots", len(snaps), state.acked)
	}
	for i, s := range snaps {
		out := filepath.Join(dir, fmt.Sprint("out", i))
		if _, err := v.Restore(s, out); err != nil {
			return err
		}
		if err := compareFiles(filepath.Join(out, protected), j.history[i]); err != nil {
			return fmt.Errorf("snapshot %d: %w", i+1, err)
		}
	}
	return nil
}

// copyOut copies a simulated disk to a real one.
func copyOut(disk *crashfs.Disk, from, to string) error {
	entries, err := disk.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		name, target := path.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.IsDir() {
			if err := copyOut(disk, name, target); err != nil {
				return err
			}
			continue
		}
		f, err := disk.Open(name)
		if err != nil {
			return err
		}
		size, err := f.Size()
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.NewSectionReader(f, 0, size))
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// readFolder reads the files of a folder, which may be missing.
func readFolder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = content
	}
	return files
}
