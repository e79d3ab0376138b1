package stream_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/source/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStream(t *testing.T) {
	s, err := stream.New(t.Context(), "dump.sql", iotest.OneByteReader(strings.NewReader("content")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s)
	if err != nil || string(got) != "content" || s.Name() != "dump.sql" {
		t.Errorf("%q, %v", got, err)
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // io.EOF itself
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", " ", ".", "..", "/", "a/b", `a\b`, "a\x00", "a\nb", "a\x1b[2J", "a\x7f", "a\xff", "\u202ea", strings.Repeat("a", 256)} {
		if _, err := stream.New(t.Context(), name, strings.NewReader("")); !errors.Is(err, tripod.Invalid) {
			t.Errorf("New(%q): %v", name, err)
		}
		if _, err := stream.Command(t.Context(), name, "true"); !errors.Is(err, tripod.Invalid) {
			t.Errorf("Command(%q): %v", name, err)
		}
	}
	for _, name := range []string{"dump.sql", ".hidden", "...", "two words", "Übersicht.csv", strings.Repeat("a", 255)} {
		if _, err := stream.New(t.Context(), name, strings.NewReader("")); err != nil {
			t.Errorf("New(%q): %v", name, err)
		}
	}
}

func TestBrokenReader(t *testing.T) {
	broken := errors.New("broken")
	s, err := stream.New(t.Context(), "x", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); string(got) != "half" || !errors.Is(err, broken) || !errors.Is(err, tripod.Unavailable) {
		t.Errorf("%q, %v", got, err)
	}
}

// A read that waits ends with the context, and the end that a cancelled writer
// causes is none.
func TestCancel(t *testing.T) {
	file, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	memory, _ := io.Pipe()
	for name, r := range map[string]io.Reader{"pipe with a deadline": file, "pipe to close": memory} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			s, err := stream.New(ctx, "x", r)
			if err != nil {
				t.Fatal(err)
			}
			why := errors.New("why")
			go cancel(why)
			if _, err := io.ReadAll(s); !errors.Is(err, why) {
				t.Errorf("read: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := stream.New(ctx, "x", readFunc(func([]byte) (int, error) {
		cancel()
		return 0, io.EOF
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("an end by cancelling: %v", err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestClosedEarly(t *testing.T) {
	s, err := stream.New(t.Context(), "x", strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, tripod.Invalid) {
		t.Errorf("read behind close: %v", err)
	}
}

func command(t *testing.T, ctx context.Context, script string) source.Stream {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("not proved: streams of commands, needs sh")
	}
	s, err := stream.Command(ctx, "x", "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestCommand(t *testing.T) {
	if got, err := io.ReadAll(command(t, t.Context(), "echo content")); err != nil || string(got) != "content\n" {
		t.Errorf("%q, %v", got, err)
	}
	// What it printed before it failed is not the whole.
	got, err := io.ReadAll(command(t, t.Context(), "echo half; echo no such table >&2; exit 3"))
	if string(got) != "half\n" || !errors.Is(err, tripod.Internal) || !strings.Contains(err.Error(), "exit status 3: no such table") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := stream.Command(t.Context(), "x", "/no/such/command"); !errors.Is(err, tripod.Invalid) {
		t.Errorf("no such command: %v", err)
	}
	if _, err := stream.Command(t.Context(), "x"); !errors.Is(err, tripod.Invalid) {
		t.Errorf("no command: %v", err)
	}
}

// What the command printed is whole when it ended well, whatever its children do.
func TestCommandLeavesAChild(t *testing.T) {
	child, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("not proved: children that outlive a command, needs sleep")
	}
	s, err := stream.ImpatientCommand(t.Context(), "x", "sh", "-c", "echo content; "+child+" 10 >/dev/null &")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "content\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCommandCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := command(t, ctx, "echo begun; exec cat /dev/zero")
	p := make([]byte, 6)
	if _, err := io.ReadFull(s, p); err != nil || string(p) != "begun\n" {
		t.Fatalf("%q, %v", p, err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, s); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// Closed while it still prints.
	if err := command(t, t.Context(), "exec cat /dev/zero").Close(); err != nil {
		t.Error(err)
	}
}

// A long complaint is cut at its beginning.
func TestCommandComplaint(t *testing.T) {
	_, err := io.ReadAll(command(t, t.Context(), "yes noise | head -c 100000 >&2; echo the end >&2; exit 1"))
	if err == nil || len(err.Error()) > 2000 || !strings.HasSuffix(err.Error(), "the end") {
		t.Errorf("%.100v", err)
	}
}

// A command learns no passphrase, and that it fails is no outage of the vault.
func TestACommandSeesNoSecrets(t *testing.T) {
	for _, name := range []string{"TRIPOD_PASSPHRASE", "TRIPOD_NEW_PASSPHRASE", "TRIPOD_RECOVERY_CODE_FILE", "TRIPOD_S3_SECRET_KEY", "Tripod_Passphrase", "OTHER"} {
		t.Setenv(name, "told")
	}
	s, err := stream.Command(t.Context(), "x", "env")
	if err != nil {
		t.Skip("not proved: what a command sees, no env: ", err)
	}
	defer s.Close()
	got, err := io.ReadAll(s)
	if err != nil || strings.Contains(strings.ToUpper(string(got)), "TRIPOD_") || !strings.Contains(string(got), "OTHER=told") {
		t.Errorf("%v: %s", err, got)
	}
}
