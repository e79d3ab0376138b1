package fault

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestUnreadableFilesAreNamed backs up, as a user who is not root, a folder with
// files that this user may not read.
func TestUnreadableFilesAreNamed(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("not proved: files that may not be read are named: needs root and setpriv")
	}
	m := newMachine(t)
	dir := m.path("source")
	folder(t, rand.New(rand.NewPCG(1, 40)), dir, 60, 1, 1<<20)
	want := sumsOf(t, dir)
	must(t, filepath.WalkDir(m.dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(name, 65534, 65534)
	}))
	closed := []string{filepath.Join("d03", "f0003"), filepath.Join("large", "0")}
	for _, name := range closed {
		must(t, os.Chown(filepath.Join(dir, name), 0, 0))
		must(t, os.Chmod(filepath.Join(dir, name), 0o600))
		delete(want, name)
	}
	must(t, os.Chown(filepath.Join(dir, "d07"), 0, 0))
	must(t, os.Chmod(filepath.Join(dir, "d07"), 0o700))
	for name := range want {
		if strings.HasPrefix(name, "d07/") {
			delete(want, name)
		}
	}
	as := func(args ...string) result {
		cmd := m.command(args...)
		cmd.Args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", m.program()}, args...)
		cmd.Path = setpriv
		return wait(cmd)
	}
	if r := as("vault", "init", "--yes"); r.code != 0 {
		t.Fatal(r)
	}
	r := as("backup", dir)
	if r.code != 3 {
		t.Fatalf("want exit 3: %v", r)
	}
	for _, name := range append(closed, "d07") {
		if !strings.Contains(r.err, name) {
			t.Errorf("%s is not named in:\n%s", name, r.err)
		}
	}
	m.restores("latest", want)
}

// program gives a copy of the program that other users may run.
func (m *machine) program() string {
	m.t.Helper()
	name := m.path("tripod")
	if _, err := os.Stat(name); err == nil {
		return name
	}
	content, err := os.ReadFile(os.Getenv(binaryVar))
	if err != nil {
		m.t.Fatal(err)
	}
	must(m.t, os.WriteFile(name, content, 0o755))
	must(m.t, os.Chmod(m.dir, 0o755))
	return name
}

// TestFilesChangeDuringBackup appends to, rewrites, makes and removes files
// while they are backed up. The backup ends well or with warnings; what did not
// change is kept as it is, what did is named or kept in a state it really had.
func TestFilesChangeDuringBackup(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 41))
	m := newMachine(t)
	m.init()
	dir := m.path("source")
	folder(t, r, dir, 400, 6, 5<<20)
	still := sumsOf(t, dir)
	busy := m.path("source", "busy")
	must(t, os.MkdirAll(busy, 0o755))
	warned := 0
	for range size(2, 5, 100) {
		var stop atomic.Bool
		var writer sync.WaitGroup
		writer.Go(func() { disturb(busy, r, &stop) })
		res := m.run("backup", dir)
		stop.Store(true)
		writer.Wait()
		if res.code != 0 && res.code != 3 {
			t.Fatalf("TRIPOD_SEED=%d: %v", s, res)
		}
		if res.code == 3 {
			warned++
			if !strings.Contains(res.err, "busy") {
				t.Errorf("a warning, and no file of busy is named: %s", res.err)
			}
		}
		m.must("verify")
		to := m.path("changed")
		if back := m.run("restore", "latest", "--to", to); back.code != res.code && (back.code != 0 || res.code != 3) {
			t.Fatalf("TRIPOD_SEED=%d: backed up with exit %d, restore: %v", s, res.code, back)
		}
		got := sumsOf(t, to)
		for name := range got {
			if !strings.HasPrefix(name, "busy/") {
				continue
			}
			whole(t, filepath.Join(to, name), strings.Contains(res.err, filepath.Base(name)))
			delete(got, name)
		}
		if err := still.differ(got); err != nil {
			t.Errorf("TRIPOD_SEED=%d: %v", s, err)
		}
		must(t, os.RemoveAll(to))
	}
	t.Logf("%d backups ended with warnings", warned)
}

// disturb keeps changing files: those named r are exchanged for a new version as
// a whole, those named a only grow, and v come and go.
func disturb(dir string, r *rand.Rand, stop *atomic.Bool) {
	for n := 0; !stop.Load(); n++ {
		name := filepath.Join(dir, string("rav"[n%3])+string(rune('0'+r.IntN(10))))
		version := bytes.Repeat([]byte{byte('a' + r.IntN(26))}, 1000+r.IntN(100_000))
		switch n % 3 {
		case 0:
			tmp := filepath.Join(filepath.Dir(dir), "..", "tmp")
			if os.WriteFile(tmp, version, 0o644) == nil {
				_ = os.Rename(tmp, name) // the next round does it again
			}
		case 1:
			f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err == nil {
				_, _ = f.Write(bytes.Repeat([]byte("x"), 777)) // short or not: only x
				_ = f.Close()                                  // nothing is lost that matters
			}
		default:
			if os.WriteFile(name, version[:1000], 0o644) == nil {
				_ = os.Remove(name) // it is made again
			}
		}
	}
}

// whole checks that a file holds one version, as exchanged and growing files
// always do: all bytes are the same.
func whole(t *testing.T, name string, warned bool) {
	t.Helper()
	content, err := os.ReadFile(name)
	must(t, err)
	if !warned && len(content) > 0 && bytes.Count(content, content[:1]) != len(content) {
		t.Errorf("%s holds a state that it never had, and nobody was warned", name)
	}
}
