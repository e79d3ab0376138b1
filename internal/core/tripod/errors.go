package tripod

import (
	"errors"
	"fmt"
)

// ErrorKind classes an error by what its receiver can do about it. The list is
// closed and append-only: kinds cross the wire and map to exit codes and HTTP
// statuses by one table each. A kind is itself an error, so that
// errors.Is(err, tripod.NotFound) asks for it.
type ErrorKind uint8

// The kinds of error.
const (
	Internal    ErrorKind = iota // a defect of this program, or not yet classed
	Invalid                      // the request or its input makes no sense
	NotFound                     // what was named does not exist
	Exists                       // what was to be made is already there
	Conflict                     // someone else's state stands in the way
	Denied                       // a key, a right or a permission is missing
	Corrupt                      // stored bytes are not what was written
	Unavailable                  // out of reach for now; trying again may help
	Exhausted                    // no space, no quota, no memory, no handles
	Fenced                       // this actor was shut out and must start over
)

var errorKindNames = [...]string{
	"internal", "invalid", "not found", "exists", "conflict",
	"denied", "corrupt", "unavailable", "exhausted", "fenced",
}

func (k ErrorKind) Error() string {
	if int(k) < len(errorKindNames) {
		return errorKindNames[k]
	}
	return "unknown"
}

// Error is an error of a kind. Message is a short noun phrase that names the
// thing it happened to; Hint, when there is one, tells what to do next.
type Error struct {
	Kind    ErrorKind
	Message string
	Hint    string
	Cause   error
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause, if any.
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target is this error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(ErrorKind) // lint:error a kind is compared, never wrapped
	return ok && k == e.Kind
}

// Errorf makes an error of a kind; format takes %w as fmt.Errorf does, and the
// message then ends in the cause's text.
func Errorf(kind ErrorKind, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	cause := errors.Unwrap(wrapped)
	if _, several := wrapped.(interface{ Unwrap() []error }); several { // lint:error made one line above
		cause = wrapped
	}
	return &Error{Kind: kind, Message: wrapped.Error(), Cause: cause}
}

// WithHint returns e with advice on what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// KindOf gives the kind of the outermost classed error in err's chain, and
// Internal when there is none.
func KindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[ErrorKind](err); ok {
		return k
	}
	return Internal
}

// HintOf gives the first advice found in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			if e.Hint != "" {
				return e.Hint
			}
			err = e.Cause
			continue
		}
		return ""
	}
	return ""
}
