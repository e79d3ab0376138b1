package fault

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holder starts a backup of a stream that goes on until its input is closed,
// and waits until it has the vault.
func (m *machine) holder() (cmd *exec.Cmd, stdin io.WriteCloser, stderr *bytes.Buffer) {
	m.t.Helper()
	cmd, stderr = m.command("backup", "--stdin-name", "endless"), new(bytes.Buffer)
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cmd.Process.Kill() }) // when the test has not ended it
	mine := fmt.Appendf(nil, "process %d,", cmd.Process.Pid)
	m.until("the first writer holds the vault", func() bool {
		content, _ := os.ReadFile(filepath.Join(m.vault, ".lock"))
		return bytes.Contains(content, mine)
	})
	return cmd, stdin, stderr
}

// until polls for a condition.
func (m *machine) until(what string, condition func() bool) {
	m.t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			m.t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// waiting starts a second backup and returns when it says for whom it waits.
func (m *machine) waiting(dir string, pid int) (cmd *exec.Cmd, rest func() string) {
	m.t.Helper()
	cmd = m.command("backup", dir)
	r, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cmd.Process.Kill() }) // when the test has not ended it
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, "waiting for another writer") {
			if !strings.Contains(line, fmt.Sprintf("process %d,", pid)) {
				m.t.Errorf("it waits, but does not say for whom: %s", line)
			}
			break
		}
		if err != nil {
			m.t.Fatalf("the second writer ended without waiting: %s%v", line, err)
		}
	}
	return cmd, func() string {
		text, _ := io.ReadAll(lines)
		return string(text)
	}
}

// ended waits for a started program and checks its exit code.
func (m *machine) ended(cmd *exec.Cmd, want int, text func() string) {
	m.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer timer.Stop()
	said := text()
	_ = cmd.Wait() // the exit code tells
	if got := cmd.ProcessState.ExitCode(); got != want {
		m.t.Fatalf("%v: exit %d, want %d: %s%s", cmd.Args[1:], got, want, said, text())
	}
}

// TestSecondWriterWaits starts a second backup while a first one goes on.
func TestSecondWriterWaits(t *testing.T) {
	for _, how := range []string{"ends", "is killed", "is interrupted"} {
		t.Run("the first "+how, func(t *testing.T) {
			m := newMachine(t)
			m.init()
			dir := m.path("small")
			folder(t, rand.New(rand.NewPCG(1, 1)), dir, 20, 0, 0)
			first, stdin, stderr := m.holder()
			if _, err := stdin.Write(noise(rand.New(rand.NewPCG(1, 2)), 1<<20)); err != nil {
				t.Fatal(err)
			}
			second, rest := m.waiting(dir, first.Process.Pid)
			want, snaps := 0, 2
			switch how {
			case "is killed":
				want, snaps = -1, 1
				must(t, first.Process.Kill())
			case "is interrupted":
				want, snaps = 130, 1
				must(t, first.Process.Signal(os.Interrupt))
				must(t, stdin.Close())
			default:
				must(t, stdin.Close())
			}
			freed := time.Now()
			m.ended(second, 0, rest)
			if took := time.Since(freed); how == "is killed" && took > 30*time.Second {
				t.Errorf("the second writer went on after %v", took)
			}
			m.ended(first, want, stderr.String)
			if ids := m.snapshots(); len(ids) != snaps {
				t.Errorf("snapshots %v, want %d", ids, snaps)
			}
			m.must("verify")
			m.restores("latest", sumsOf(t, dir), "--path", dir)
		})
	}
}

// TestInterrupted ends backups and restores by signals at random moments.
func TestInterrupted(t *testing.T) {
	s := seed(t)
	m, r := newMachine(t), rand.New(rand.NewPCG(s, 20))
	m.init()
	dir := m.path("source")
	folder(t, r, dir, 300, 8, 5<<20)
	began := time.Now()
	m.must("backup", m.path("source"))
	took := time.Since(began)
	interrupted, count := 0, size(2, 8, 200)
	for n := 0; interrupted < count; n++ {
		if n > 20*count {
			t.Fatalf("only %d of %d runs could be interrupted", interrupted, n)
		}
		sig := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}[n%2]
		for i := range 4 {
			write(t, filepath.Join(dir, "large", fmt.Sprint(i)), noise(r, 5<<20))
		}
		want := sumsOf(t, dir)
		before := len(m.snapshots())
		res := m.signalled(sig, time.Duration(r.Int64N(int64(took))), "backup", dir)
		if res.code == 0 {
			continue
		}
		if res.code < 0 {
			continue // it came before the program listens
		}
		interrupted++
		if res.code != 130 || !strings.Contains(res.err, "interrupted") || !strings.Contains(res.err, "goes on") {
			t.Fatalf("TRIPOD_SEED=%d, %v: %v", s, sig, res)
		}
		if ids := m.snapshots(); len(ids) != before {
			t.Fatalf("an interrupted backup made a snapshot: %v", ids)
		}
		m.must("verify")
		m.must("backup", dir)
		m.restores("latest", want)
	}
	t.Logf("%d runs interrupted", interrupted)
}

// signalled runs the program and sends it a signal after d.
func (m *machine) signalled(sig syscall.Signal, d time.Duration, args ...string) result {
	m.t.Helper()
	cmd := m.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	timer := time.AfterFunc(d, func() { _ = cmd.Process.Signal(sig) }) // it may have ended
	defer timer.Stop()
	_ = cmd.Wait() // the exit code tells
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}
