package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
)

// Exit codes that stand for more than a kind of error.
const (
	exitDone        = 0
	exitWarnings    = 3
	exitSignIn      = 4
	exitInterrupted = 130
)

// exits is the one table of exit codes over the kinds of error, in the order of
// tripod.ErrorKind.
var exits = [...]int{
	tripod.Internal:    1,
	tripod.Invalid:     2,
	tripod.NotFound:    6,
	tripod.Exists:      7,
	tripod.Conflict:    7,
	tripod.Denied:      5,
	tripod.Corrupt:     9,
	tripod.Unavailable: 8,
	tripod.Exhausted:   1,
	tripod.Fenced:      7,
}

// meanings says what each exit code means to a user.
var meanings = []ExitCode{
	{0, "done"},
	{1, "failed"},
	{2, "used wrongly: a flag, an argument or an input makes no sense"},
	{3, "done, with warnings: something was left out or is not as it should be"},
	{4, "sign in: a passphrase or recovery code is missing or wrong"},
	{5, "not allowed: a permission is missing"},
	{6, "not found: a vault, a snapshot, a file"},
	{7, "conflict: something else is already there or in use"},
	{8, "unreachable: a disk or a server does not answer; trying again may help"},
	{9, "damaged: stored bytes are not what was written"},
	{10, "not ready: a target is not met (for monitoring)"},
	{130, "interrupted by a signal"},
}

// ExitCode is how a command can end.
type ExitCode struct {
	Code int    `json:"code"`
	Text string `json:"meaning"`
}

// ExitCodes lists all exit codes with their meaning.
func ExitCodes() []ExitCode { return slices.Clone(meanings) }

// signInError says that a passphrase or recovery code is missing or wrong.
type signInError struct{ err error }

func (e *signInError) Error() string { return e.err.Error() }
func (e *signInError) Unwrap() error { return e.err }

// signIn marks a Denied as a matter of signing in.
func signIn(err error) error {
	if errors.Is(err, tripod.Denied) {
		return &signInError{err}
	}
	return err
}

// exitCode gives the code for how a command ended.
func exitCode(err error, warnings int) int {
	switch {
	case err == nil && warnings > 0:
		return exitWarnings
	case err == nil:
		return exitDone
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	}
	if _, ok := errors.AsType[*signInError](err); ok {
		return exitSignIn
	}
	if k := tripod.KindOf(err); int(k) < len(exits) {
		return exits[k]
	}
	return exits[tripod.Internal]
}

type jsonError struct {
	Type  string        `json:"type"`
	V     int           `json:"v"`
	Error jsonErrorBody `json:"error"`
	Exit  int           `json:"exit"`
}

type jsonErrorBody struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// finish tells how the command ended and returns its exit code.
func (a *app) finish(err error) int {
	if err == nil {
		err = a.Failed()
	}
	code := exitCode(err, a.Warnings())
	if err == nil {
		return code
	}
	kind, message, hint := tripod.KindOf(err).Error(), terminal.OneLine(err), tripod.HintOf(err)
	switch code {
	case exitInterrupted:
		kind, hint = "interrupted", a.note
	case exitSignIn:
		kind = "sign in"
	}
	if a.JSON {
		a.PrintJSON(a.Err, jsonError{"error", 1, jsonErrorBody{kind, message, hint}, code})
		return code
	}
	fmt.Fprintf(a.Err, "tripod: %s\n", message)
	if hint != "" {
		fmt.Fprintf(a.Err, "  %s\n", terminal.Printable(hint))
	}
	return code
}

func newExitCodes(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "exit-codes",
		Short:   "List what the exit codes mean",
		Example: "  tripod exit-codes",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			if a.JSON {
				return a.Result("exit-codes", map[string]any{"codes": meanings})
			}
			for _, m := range meanings {
				a.Printf("%3d  %s\n", m.Code, m.Text)
			}
			return nil
		},
	}
	return cmd
}
