package fault

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tripod/internal/driver/store/faulty"
)

// TestDamageIsTold damages the vault below the program, and checks what a person
// gets to see: the exit code, the name of what is damaged, a clear last line.
func TestDamageIsTold(t *testing.T) {
	m := newMachine(t)
	m.init()
	dir := m.path("source")
	folder(t, rand.New(rand.NewPCG(1, 70)), dir, 100, 2, 300_000)
	m.must("backup", dir)
	want := sumsOf(t, dir)
	good := m.path("good")
	must(t, os.CopyFS(good, os.DirFS(m.vault)))
	for _, c := range []struct {
		glob, name string
		change     faulty.Change
		code       int
		says       string
	}{
		{"pack/*/*", "a bit of a pack", faulty.FlipBit(7), 9, "damaged"},
		{"pack/*/*", "a pack removed", faulty.Remove(), 9, "missing"},
		{"record/*/*/*", "a bit of a record", faulty.FlipBit(7), 9, "record/"},
		{"record/*/*/*", "the only record removed", faulty.Remove(), 3, "the vault was rolled back, or hides something"},
		{"grant/*/*/*/*", "a grant removed", faulty.Remove(), 9, "grant/"},
		{"machine/*", "a certificate removed", faulty.Remove(), 9, "certificate"},
		{"vault", "a bit of the descriptor", faulty.FlipBit(7), 9, "vault"},
		{"keyring/*", "half a keyring", faulty.Truncate(7), 9, "keyring"},
		{"keyring/*", "no keyring", faulty.Remove(), 9, "keyring is missing"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			must(t, os.RemoveAll(m.vault))
			must(t, os.CopyFS(m.vault, os.DirFS(good)))
			found, err := filepath.Glob(filepath.Join(m.vault, c.glob))
			if err != nil || len(found) == 0 {
				t.Fatalf("no %s: %v", c.glob, err)
			}
			if !strings.HasPrefix(c.glob, "keyring/") { // of which there are spare ones
				found = []string{largest(t, found)}
			}
			for _, path := range found {
				name, err := filepath.Rel(m.vault, path)
				must(t, err)
				must(t, faulty.Dir(m.vault).Damage(filepath.ToSlash(name), c.change))
			}
			r := m.run("verify")
			if r.code != c.code || !strings.Contains(r.out+r.err, c.says) || strings.Contains(r.err, "goroutine ") {
				t.Errorf("want exit %d and %q: %v", c.code, c.says, r)
			}
			// Whatever is restored is right.
			to := m.path("told")
			m.run("restore", "latest", "--to", to)
			for path, sum := range sumsIfThere(t, to) {
				if sum != want[path] {
					t.Errorf("%s was restored with other bytes", path)
				}
			}
			must(t, os.RemoveAll(to))
		})
	}
}

func largest(t *testing.T, names []string) string {
	t.Helper()
	best, size := "", int64(-1)
	for _, name := range names {
		info, err := os.Stat(name)
		must(t, err)
		if info.Size() > size {
			best, size = name, info.Size()
		}
	}
	return best
}

func sumsIfThere(t *testing.T, dir string) sums {
	t.Helper()
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	return sumsOf(t, dir)
}
