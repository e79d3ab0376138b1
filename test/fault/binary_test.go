package fault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"tripod/test/reader/reader"
)

// binaryVar names the program under test, to the tests of this process.
const binaryVar = "TRIPOD_FAULT_BINARY"

// TestMain builds the program once. Tests that need it fail when that fails.
func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tripod-fault-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if os.Getenv(binaryVar) == "" {
		name := filepath.Join(dir, "tripod")
		out, err := exec.Command("go", "build", "-o", name, "tripod/cmd/tripod").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "the program does not build: %v\n%s", err, out)
		} else if err := os.Setenv(binaryVar, name); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return m.Run()
}

// machine is a computer with a vault, on which the program runs.
type machine struct {
	t     *testing.T
	dir   string
	vault string
	env   []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Getenv(binaryVar) == "" {
		t.Fatal("the program was not built")
	}
	dir := scratch(t)
	m := &machine{t: t, dir: dir, vault: filepath.Join(dir, "vault")}
	m.env = append(os.Environ(), "TRIPOD_PASSPHRASE="+passphrase, "TRIPOD_VAULT="+m.vault, "HOME="+m.path("home"),
		"TRIPOD_CONFIG_DIR="+m.path("config"), "TRIPOD_CACHE_DIR="+m.path("cache"), "NO_COLOR=1")
	return m
}

func (m *machine) path(parts ...string) string {
	return filepath.Join(append([]string{m.dir}, parts...)...)
}

func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Getenv(binaryVar), args...)
	cmd.Env = m.env
	cmd.Dir = m.dir
	return cmd
}

// result is how a run of the program ended.
type result struct {
	code     int
	out, err string
}

func (r result) String() string { return fmt.Sprintf("exit %d\n%s%s", r.code, r.out, r.err) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// wait waits for the program's end.
func wait(cmd *exec.Cmd) result {
	var out, errOut bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errOut
	}
	if cmd.Process == nil {
		if err := cmd.Start(); err != nil {
			return result{-1, "", err.Error()}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	err := cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	if err != nil && code < 0 {
		errOut.WriteString(err.Error())
	}
	return result{code, out.String(), errOut.String()}
}

func (m *machine) run(args ...string) result { return wait(m.command(args...)) }

// must runs the program, which must succeed.
func (m *machine) must(args ...string) result {
	m.t.Helper()
	r := m.run(args...)
	if r.code != 0 {
		m.t.Fatalf("tripod %v: %v", args, r)
	}
	return r
}

// init makes the vault and returns the recovery code.
func (m *machine) init() (code string) {
	m.t.Helper()
	var made struct {
		Result struct {
			Code string `json:"recovery_code"`
		} `json:"result"`
		Code string `json:"recovery_code"`
	}
	m.decode(m.must("vault", "init", "--yes", "--json"), &made)
	return made.Code + made.Result.Code
}

func (m *machine) decode(r result, into any) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(r.out), into); err != nil {
		m.t.Fatalf("not JSON: %v: %v", err, r)
	}
}

// snapshots lists the ids of all snapshots, oldest first.
func (m *machine) snapshots() (ids []string) {
	m.t.Helper()
	var list struct {
		Snapshots []struct {
			ID string `json:"id"`
		} `json:"snapshots"`
	}
	m.decode(m.must("snapshots", "--json"), &list)
	for _, s := range list.Snapshots {
		ids = append(ids, s.ID)
	}
	return ids
}

// folder makes files: small ones of text and large ones of noise, some bytes in
// all. It is deterministic by r.
func folder(t *testing.T, r *rand.Rand, dir string, small, large, largeSize int) {
	t.Helper()
	for i := range small {
		text := make([]byte, r.IntN(12_000))
		for k := range text {
			text[k] = "etaoin shrdlu\n"[r.IntN(14)]
		}
		write(t, filepath.Join(dir, fmt.Sprintf("d%02d", i%20), fmt.Sprintf("f%04d", i)), text)
	}
	for i := range large {
		write(t, filepath.Join(dir, "large", fmt.Sprint(i)), noise(r, largeSize))
	}
}

func noise(r *rand.Rand, n int) []byte {
	var key [32]byte
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sums is what a folder's files hold, by path below it.
type sums map[string][32]byte

func sumsOf(t *testing.T, dir string) sums {
	t.Helper()
	s := sums{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		s[rel], err = sumOf(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sumOf(name string) (sum [32]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}

// differ tells the first difference.
func (s sums) differ(got sums) error {
	for name, sum := range s {
		switch other, ok := got[name]; {
		case !ok:
			return fmt.Errorf("%s is missing; %d of %d files are there", name, len(got), len(s))
		case other != sum:
			return fmt.Errorf("%s has other bytes", name)
		}
	}
	if len(got) != len(s) {
		return fmt.Errorf("%d files too many", len(got)-len(s))
	}
	return nil
}

// restores restores a snapshot with the program and compares.
func (m *machine) restores(id string, want sums, flags ...string) {
	m.t.Helper()
	to := m.path("restored")
	if err := os.Mkdir(to, 0o700); err != nil { // disks and streams go into a folder, under their names
		m.t.Fatal(err)
	}
	m.must(append([]string{"restore", id, "--to", to}, flags...)...)
	if err := want.differ(sumsOf(m.t, to)); err != nil {
		m.t.Fatalf("snapshot %s: %v", id, err)
	}
	if err := os.RemoveAll(to); err != nil {
		m.t.Fatal(err)
	}
}

// opinion restores a snapshot, counted from the oldest, with the reader that
// shares no code, and compares. root is where in its output the files lie.
func (m *machine) opinion(secret string, n int, root string, want sums) {
	m.t.Helper()
	v, err := reader.Open(m.vault, secret)
	if err != nil {
		m.t.Fatalf("independent reader: %v", err)
	}
	snaps, err := v.Snapshots()
	if err != nil || len(snaps) <= n {
		m.t.Fatalf("independent reader: %d snapshots, %v", len(snaps), err)
	}
	to := m.path("opinion")
	_, err = v.Restore(snaps[n], to)
	if err == nil {
		err = want.differ(sumsOf(m.t, filepath.Join(to, root)))
	}
	if err := errors.Join(err, os.RemoveAll(to)); err != nil {
		m.t.Fatalf("independent reader, snapshot %s: %v", snaps[n].Name(), err)
	}
}

// stored is the size of the vault's files in bytes.
func (m *machine) stored() (total int64) {
	m.t.Helper()
	err := filepath.WalkDir(m.vault, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return total
}
