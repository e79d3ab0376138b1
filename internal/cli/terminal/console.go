// Package terminal is how a command looks and asks: results on standard output,
// messages and progress on standard error, for people, for logs or as JSON; and
// questions on the terminal, where secrets are typed unseen.
//
// Console holds the streams of one run. output.go prints, progress.go draws
// what a run tells, ask.go asks.
package terminal

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"tripod/internal/driver/durable"
)

// Console is the streams of one run of a command.
type Console struct {
	In    *os.File
	Out   *os.File
	Err   *os.File
	JSON  bool // results, messages and errors as JSON
	Quiet bool // no messages and no progress

	mu       sync.Mutex
	drawer   drawer // of the run under way, or nil
	warnings int
	outErr   error // standard output could not be written

	tty        *tty
	showTyping func() // ends the hiding of what is typed
}

// Warnings counts what Warn told.
func (c *Console) Warnings() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.warnings
}

// Failed tells why results could not be written to standard output, or nil.
func (c *Console) Failed() error { return c.outErr }

// OneLine is an error as one line, also where a joined error has several.
func OneLine(err error) string {
	return Printable(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

// System classes an error of the operating system that no driver has classed.
func System(err error, what string) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return durable.Classify(err, p.Op, p.Path)
	}
	return durable.Classify(err, what, "")
}

// IsTerminal reports whether a file is one.
func IsTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }
