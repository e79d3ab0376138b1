package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/term"

	"tripod/internal/core/tripod"
)

// tty is where people are asked: not standard input, which may carry a stream,
// nor standard error, which may go to a file.
type tty struct {
	in, out *os.File
}

// terminal opens the terminal that the command was started from. It is nil when
// nobody is there: none of the standard streams that could show it is one.
func (a *app) terminal() *tty {
	if !isTerminal(a.env.In) && !isTerminal(a.env.Err) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tty == nil && runtime.GOOS != "windows" {
		if f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
			a.tty = &tty{f, f}
		}
	}
	if a.tty == nil && isTerminal(a.env.In) && isTerminal(a.env.Err) {
		a.tty = &tty{a.env.In, a.env.Err}
	}
	return a.tty
}

// interactive reports whether there is someone to ask.
func (a *app) interactive() bool { return a.terminal() != nil }

// say prints to the terminal.
func (t *tty) say(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

// askSecret asks for a line that is not shown.
func (a *app) askSecret(ctx context.Context, question string) (string, error) {
	t := a.terminal()
	fd := int(t.in.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", tripod.Errorf(tripod.Internal, "terminal: %w", err)
	}
	show := func() { _ = term.Restore(fd, state) } // the terminal is gone
	a.mu.Lock()
	a.showTyping = show
	a.mu.Unlock()
	fmt.Fprint(t.out, question)
	text, err := await(ctx, func() (string, error) {
		p, err := term.ReadPassword(fd)
		return string(p), err
	})
	if ctx.Err() != nil {
		show() // the reader above is still waiting, with echo off
	}
	t.say("")
	return text, err
}

// restoreTerminal shows what is typed again.
func (a *app) restoreTerminal() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.showTyping != nil {
		a.showTyping()
	}
}

// ask asks for a line.
func (a *app) ask(ctx context.Context, question string) (string, error) {
	t := a.terminal()
	fmt.Fprint(t.out, question)
	text, err := await(ctx, func() (string, error) { return readLine(t.in) })
	if ctx.Err() != nil {
		t.say("")
	}
	return strings.TrimSpace(text), err
}

// readLine reads a line and nothing behind it.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		if n > 0 && b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[:n]...)
		if errors.Is(err, io.EOF) && len(line) > 0 {
			return string(line), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// await reads from the terminal, which cannot be interrupted, in a goroutine
// that is left behind when the context ends: the program ends then too.
func await(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case got := <-answers:
		if errors.Is(got.err, io.EOF) {
			return "", tripod.Errorf(tripod.Invalid, "no answer: end of input")
		}
		return got.text, got.err
	}
}

// confirm asks for a word to be typed; without a terminal --yes must be given.
func (a *app) confirm(ctx context.Context, yes bool, question, word string) error {
	if yes {
		return nil
	}
	if !a.interactive() {
		return tripod.Errorf(tripod.Invalid, "not confirmed").WithHint("there is no terminal to ask on: give --yes")
	}
	got, err := a.ask(ctx, question)
	if err != nil {
		return err
	}
	if !strings.EqualFold(got, word) {
		return tripod.Errorf(tripod.Invalid, "not confirmed: nothing was changed")
	}
	return nil
}

// The environment variables that give the passphrase, in order of preference.
// NEW stands in front of the last word for the new one when it changes.
const (
	passphraseVar        = "TRIPOD_PASSPHRASE"
	newPassphraseVar     = "TRIPOD_NEW_PASSPHRASE"
	recoveryVar          = "TRIPOD_RECOVERY_CODE"
	suffixFile           = "_FILE"
	suffixCommand        = "_COMMAND"
	maxSecret            = 64 << 10
	passphraseAttempts   = 3
	howToGivePassphrases = "set TRIPOD_PASSPHRASE_FILE, TRIPOD_PASSPHRASE_COMMAND or TRIPOD_PASSPHRASE, or run it on a terminal"
)

// secret takes a secret from the environment variable name, from the file that
// name_FILE names, or from the output of the command in name_COMMAND. found is
// false when none is set.
func (a *app) secret(ctx context.Context, name string) (text string, found bool, err error) {
	if text := os.Getenv(name); text != "" {
		return text, true, nil
	}
	if file := os.Getenv(name + suffixFile); file != "" {
		text, err := a.secretFile(name+suffixFile, file)
		return text, true, err
	}
	command := os.Getenv(name + suffixCommand)
	if command == "" {
		return "", false, nil
	}
	shell := []string{"/bin/sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C"}
	}
	c := exec.CommandContext(ctx, shell[0], shell[1], command)
	c.Stdin, c.Stderr = a.env.In, a.env.Err
	out, err := c.Output()
	if err != nil {
		return "", true, tripod.Errorf(tripod.Denied, "%s%s failed: %w", name, suffixCommand, err)
	}
	text = firstLine(out)
	if text == "" {
		return "", true, tripod.Errorf(tripod.Denied, "%s%s printed nothing", name, suffixCommand)
	}
	return text, true, nil
}

func (a *app) secretFile(variable, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, system(err, "open"))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		a.warn("", tripod.Errorf(tripod.Denied, "%s can be read by other users of this machine", name).
			WithHint("chmod 600 %s", name))
	}
	content, err := io.ReadAll(io.LimitReader(bufio.NewReader(f), maxSecret))
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, system(err, "read"))
	}
	text := firstLine(content)
	if text == "" {
		return "", tripod.Errorf(tripod.Denied, "%s: %s is empty", variable, name)
	}
	return text, nil
}

func firstLine(content []byte) string {
	line, _, _ := strings.Cut(string(content), "\n")
	return strings.TrimSuffix(line, "\r")
}
