package terminal

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
func (c *Console) terminal() *tty {
	if !IsTerminal(c.In) && !IsTerminal(c.Err) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tty == nil && runtime.GOOS != "windows" {
		if f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
			c.tty = &tty{f, f}
		}
	}
	if c.tty == nil && IsTerminal(c.In) && IsTerminal(c.Err) {
		c.tty = &tty{c.In, c.Err}
	}
	return c.tty
}

// Interactive reports whether there is someone to ask.
func (c *Console) Interactive() bool { return c.terminal() != nil }

// say prints to the terminal.
func (t *tty) say(format string, args ...any) {
	printable(args)
	fmt.Fprintf(t.out, format+"\n", args...)
}

// Say prints a line to the terminal.
func (c *Console) Say(format string, args ...any) { c.terminal().say(format, args...) }

// AskSecret asks for a line that is not shown.
func (c *Console) AskSecret(ctx context.Context, question string) (string, error) {
	t := c.terminal()
	fd := int(t.in.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", tripod.Errorf(tripod.Internal, "terminal: %w", err)
	}
	show := func() { _ = term.Restore(fd, state) } // the terminal is gone
	c.mu.Lock()
	c.showTyping = show
	c.mu.Unlock()
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

// AskNewPassphrase asks for a passphrase that is to become valid, twice, until
// check lets it pass. Nothing typed means that one is to be made.
func (c *Console) AskNewPassphrase(ctx context.Context, check func(string) error) (string, error) {
	for {
		text, err := c.AskSecret(ctx, "New passphrase (leave empty to have a strong one made): ")
		if err != nil || text == "" {
			return "", err
		}
		if err := check(text); err != nil {
			c.Say("%s\n  %s", err, tripod.HintOf(err))
			continue
		}
		again, err := c.AskSecret(ctx, "The same again: ")
		if err != nil {
			return "", err
		}
		if again == text {
			return text, nil
		}
		c.Say("The two differ, try again.")
	}
}

// RestoreTerminal shows what is typed again.
func (c *Console) RestoreTerminal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.showTyping != nil {
		c.showTyping()
	}
}

// Ask asks for a line.
func (c *Console) Ask(ctx context.Context, question string) (string, error) {
	t := c.terminal()
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

// Confirm asks for a word to be typed; without a terminal --yes must be given.
func (c *Console) Confirm(ctx context.Context, yes bool, question, word string) error {
	if yes {
		return nil
	}
	if !c.Interactive() {
		return tripod.Errorf(tripod.Invalid, "not confirmed").WithHint("there is no terminal to ask on: give --yes")
	}
	got, err := c.Ask(ctx, question)
	if err != nil {
		return err
	}
	if !strings.EqualFold(got, word) {
		return tripod.Errorf(tripod.Invalid, "not confirmed: nothing was changed")
	}
	return nil
}

// What is added to the name of a variable that gives a secret by other means.
const (
	suffixFile    = "_FILE"
	suffixCommand = "_COMMAND"
	maxSecret     = 64 << 10
)

// Given reports whether Secret finds one.
func Given(name string) bool {
	return os.Getenv(name) != "" || os.Getenv(name+suffixFile) != "" || os.Getenv(name+suffixCommand) != ""
}

// Secret takes a secret from the environment variable name, from the file that
// name_FILE names, or from the output of the command in name_COMMAND. found is
// false when none is set.
func (c *Console) Secret(ctx context.Context, name string) (text string, found bool, err error) {
	if text := os.Getenv(name); text != "" {
		return text, true, nil
	}
	if file := os.Getenv(name + suffixFile); file != "" {
		text, err := c.secretFile(name+suffixFile, file)
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
	program := exec.CommandContext(ctx, shell[0], shell[1], command)
	program.Stdin, program.Stderr = c.In, c.Err
	out, err := program.Output()
	if err != nil {
		return "", true, tripod.Errorf(tripod.Denied, "%s%s failed: %w", name, suffixCommand, err)
	}
	text = firstLine(out)
	if text == "" {
		return "", true, tripod.Errorf(tripod.Denied, "%s%s printed nothing", name, suffixCommand)
	}
	return text, true, nil
}

func (c *Console) secretFile(variable, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, System(err, "open"))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		c.Warn("", tripod.Errorf(tripod.Denied, "%s can be read by other users of this machine", name).
			WithHint("chmod 600 %s", name))
	}
	content, err := io.ReadAll(io.LimitReader(bufio.NewReader(f), maxSecret))
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, System(err, "read"))
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
