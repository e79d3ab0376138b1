// Package stream backs up what is piped in, or what a command prints: a
// database dump is the usual case. New takes any reader, Command runs a
// command and makes sure that it succeeded.
package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// Stream implements source.Stream. It is for one goroutine.
type Stream struct {
	name   string
	reader io.Reader
	ended  func() error // why the context ended, or nil
	stop   func() bool
	finish func() error // says at the end whether the stream is whole
	close  func() error
	err    error // what Read keeps returning
}

var _ source.Stream = (*Stream)(nil)

// New is the stream of that name read from r, until ctx ends. A reader that
// blocks is woken by a read deadline if it has one, else by closing it if it
// can be closed; closing the stream closes it, too.
func New(ctx context.Context, name string, r io.Reader) (*Stream, error) {
	if err := source.CheckStreamName(name); err != nil {
		return nil, err
	}
	s := &Stream{name: name, reader: r, ended: func() error { return context.Cause(ctx) }}
	s.finish = func() error { return nil }
	s.close = s.finish
	if c, ok := r.(io.Closer); ok {
		s.close = c.Close
	}
	s.stop = context.AfterFunc(ctx, func() {
		if d, ok := r.(interface{ SetReadDeadline(time.Time) error }); ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
			return
		}
		_ = s.close() //nolint:errcheck // Read tells the cause
	})
	return s, nil
}

// maxComplaint is how much of a command's error output goes into an error.
const maxComplaint = 1 << 10

// Command is the stream of that name which the command prints. It ends well only
// when the command does, so that half a dump is never kept as a whole one.
// The command is killed when ctx ends or the stream is closed early. It sees the
// environment without what is Tripod's.
func Command(ctx context.Context, name string, argv ...string) (*Stream, error) {
	return command(ctx, 5*time.Second, name, argv...)
}

// command waits no longer than patience for children that outlive the command and
// keep its output open, as a connection shared by ssh does.
func command(ctx context.Context, patience time.Duration, name string, argv ...string) (*Stream, error) {
	if len(argv) == 0 {
		return nil, tripod.Errorf(tripod.Invalid, "stream %q: no command", name)
	}
	if err := source.CheckStreamName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the user's own command
	cmd.WaitDelay = patience
	cmd.Env = slices.DeleteFunc(os.Environ(), ours)
	complaint := &tail{}
	cmd.Stderr = complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, tripod.Errorf(tripod.Invalid, "command %s: %w", argv[0], err)
	}
	waited := false
	wait := func() error {
		if waited {
			return nil
		}
		waited = true
		err := cmd.Wait()
		cancel()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // which says that the command itself ended well
			return tripod.Errorf(tripod.Internal, "command %s: %w%s", argv[0], err, complaint).
				WithHint("what it printed is not whole and makes no snapshot: mend the command and back up again")
		}
		return nil
	}
	return &Stream{
		name: name, reader: out, finish: wait,
		ended: func() error { return context.Cause(ctx) },
		// Children of the command may keep the pipe open after it was killed.
		stop: context.AfterFunc(ctx, func() { _ = out.Close() }), //nolint:errcheck // Read tells the cause
		close: func() error {
			cancel()
			_ = wait() //nolint:errcheck // killed: of course it failed
			return nil
		},
	}, nil
}

// ours tells that a variable of the environment is Tripod's own. Among them are
// passphrases and keys, which are no business of a command.
func ours(variable string) bool { return strings.HasPrefix(strings.ToUpper(variable), "TRIPOD_") }

// Name implements source.Stream.
func (s *Stream) Name() string { return s.name }

// Read implements io.Reader. Once the context ended it returns the cause, never
// io.EOF: whoever cancels often ends the writer as well, and what it wrote by then is not
// the whole.
func (s *Stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.err = s.ended(); s.err != nil {
		return 0, s.err
	}
	n, err := s.reader.Read(p)
	if err == nil {
		return n, nil
	}
	s.err = s.verdict(err)
	return n, s.err
}

func (s *Stream) verdict(err error) error {
	if cause := s.ended(); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		if err := s.finish(); err != nil {
			return err
		}
		return io.EOF
	}
	return tripod.Errorf(tripod.Unavailable, "stream %s: %w", s.name, err)
}

// Close implements io.Closer.
func (s *Stream) Close() error {
	s.stop()
	if s.err == nil {
		s.err = tripod.Errorf(tripod.Invalid, "stream %s is closed", s.name)
	}
	return s.close()
}

// tail keeps the end of what a command complains.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - maxComplaint; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	if text := bytes.TrimSpace(t.kept); len(text) > 0 {
		return ": " + string(text)
	}
	return ""
}
