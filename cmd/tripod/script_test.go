package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tripod/internal/driver/store/s3test"
)

// The stories of test/script run against this program itself: the test process
// is started again under the name tripod. Beside the commands of testscript
// there are:
//
//	exits N COMMAND...       runs a command that must end with exit code N
//	take NAME REGEXP         sets the variable NAME to the first group in the last output
//	hold COMMAND...          starts a command that writes to $TRIPOD_VAULT, with standard
//	                         input begun and open, and waits until it holds the vault
//	waits COMMAND...         starts one that must wait for the one held
//	release                  ends the held one's input; both must end with exit code 0
//	interrupt                sends the held one SIGINT; it must end with exit code 130
//	mounts COMMAND...        starts a command and waits until it says that it has mounted
//	unmounts [COMMAND...]    runs the command, or sends SIGINT; the mount must end with exit code 0
//	flip FILE OFFSET         changes one byte of a file
//
// TRIPOD_UPDATE=1 writes what cmp compares into the stories.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tripod": main})
}

func TestScript(t *testing.T) {
	var gateway *s3test.Gateway
	if s3test.Installed() {
		gateway = s3test.Start(t)
		gateway.Bucket(t, "backups", "plain")
		gateway.Bucket(t, "locked", "lock")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "test", "script"),
		UpdateScripts:       os.Getenv("TRIPOD_UPDATE") != "",
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			if gateway != nil {
				env.Setenv("S3", gateway.Endpoint)
				env.Setenv("S3DATA", gateway.Data) // buckets are folders in it
				env.Setenv("S3ACCESS", s3test.AccessKey)
				env.Setenv("S3SECRET", s3test.SecretKey)
			}
			return setup(env)
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "take": take, "hold": hold, "waits": waits, "release": release, "interrupt": interrupt,
			"flip": flip, "mounts": mounts, "unmounts": unmounts,
		},
	})
}

// setup gives every story a home and a vault's place of its own, a passphrase,
// and the time zone of the manual.
func setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
	env.Setenv("XDG_CACHE_HOME", filepath.Join(home, ".cache"))
	env.Setenv("TRIPOD_VAULT", filepath.Join(env.WorkDir, "vault"))
	env.Setenv("TRIPOD_PASSPHRASE", "correct horse battery staple")
	env.Setenv("TZ", "UTC")
	env.Setenv("COLUMNS", "100")
	env.Values[held{}] = &running{}
	return nil
}

func condition(name string) (bool, error) {
	switch name {
	case "s3":
		return s3test.Installed(), nil
	case "root":
		return os.Geteuid() == 0, nil
	case "unshare":
		return exec.Command("unshare", "-m", "true").Run() == nil, nil
	case "fuse":
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return false, nil //nolint:nilerr // that is the answer
		}
		f.Close()
		_, err = exec.LookPath("fusermount3")
		return err == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := code(ts.Exec(args[1], args[2:]...))
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func code(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

func take(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: take NAME REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("no group of %s in the output", args[1])
	}
	ts.Setenv(args[0], m[1])
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	name := ts.MkAbs(args[0])
	content, err := os.ReadFile(name)
	ts.Check(err)
	if offset < 0 {
		offset += len(content)
	}
	content[offset] ^= 1
	ts.Check(os.Chmod(name, 0o600))
	ts.Check(os.WriteFile(name, content, 0o600))
}

// held is the key of a story's running commands.
type held struct{}

type running struct {
	first, second *process
}

type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output bytes.Buffer
	stderr io.Reader
}

func start(ts *testscript.TestScript, args []string) *process {
	p := &process{cmd: exec.Command(onPath(ts.Getenv("PATH"), args[0]), args[1:]...)}
	p.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "PATH", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TRIPOD_VAULT", "TRIPOD_PASSPHRASE", "TZ"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	p.cmd.Stdout = &p.output
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	ts.Check(err)
	r, w, err := os.Pipe()
	ts.Check(err)
	p.cmd.Stderr, p.stderr = w, r
	ts.Check(p.cmd.Start())
	w.Close()
	return p
}

// onPath finds a program on the story's own path.
func onPath(path, name string) string {
	for dir := range strings.SplitSeq(path, string(os.PathListSeparator)) {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return name
}

// end waits for the process and logs what it said.
func (p *process) end(ts *testscript.TestScript, want int) {
	rest, _ := io.ReadAll(p.stderr)
	err := p.cmd.Wait()
	ts.Logf("%s%s", p.output.String(), rest)
	if got := code(err); got != want {
		ts.Fatalf("%s ended with %d, want %d: %v", strings.Join(p.cmd.Args, " "), got, want, err)
	}
	if want == 130 && !bytes.Contains(rest, []byte("tripod: interrupted\n")) {
		ts.Fatalf("it did not say that it was interrupted")
	}
}

func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: hold command...")
	}
	p := start(ts, args)
	ts.Value(held{}).(*running).first = p
	_, err := io.WriteString(p.stdin, "begun\n") // an empty stream would be told
	ts.Check(err)
	lock := filepath.Join(ts.Getenv("TRIPOD_VAULT"), ".lock")
	deadline := time.After(time.Minute)
	for {
		content, _ := os.ReadFile(lock)
		if bytes.Contains(content, []byte(fmt.Sprintf("process %d,", p.cmd.Process.Pid))) {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("it did not take the vault within a minute")
		case <-time.After(5 * time.Millisecond): // look again
		}
	}
}

func waits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: waits command...")
	}
	p := start(ts, args)
	p.stdin.Close()
	ts.Value(held{}).(*running).second = p
	p.until(ts, "waiting for another writer")
}

// until reads what a command says up to a line with text.
func (p *process) until(ts *testscript.TestScript, text string) {
	lines := bufio.NewReader(p.stderr)
	p.stderr = lines
	for {
		line, err := lines.ReadString('\n')
		ts.Logf("%s", line)
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			ts.Fatalf("it ended without saying %q", text)
		}
	}
}

func mounts(ts *testscript.TestScript, neg bool, args []string) {
	p := start(ts, args)
	ts.Value(held{}).(*running).first = p
	ts.Defer(func() { _ = p.cmd.Process.Kill() }) // a story that failed halfway
	p.until(ts, "Mounted")
}

func unmounts(ts *testscript.TestScript, neg bool, args []string) {
	p := ts.Value(held{}).(*running).first
	if len(args) > 0 {
		ts.Check(ts.Exec(args[0], args[1:]...))
	} else {
		ts.Check(p.cmd.Process.Signal(syscall.SIGINT))
	}
	p.end(ts, 0)
}

func release(ts *testscript.TestScript, neg bool, args []string) {
	r := ts.Value(held{}).(*running)
	r.first.stdin.Close()
	r.first.end(ts, 0)
	if r.second != nil {
		r.second.end(ts, 0)
	}
}

func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	p := ts.Value(held{}).(*running).first
	ts.Check(p.cmd.Process.Signal(syscall.SIGINT))
	p.end(ts, 130)
}
