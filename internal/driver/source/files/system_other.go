//go:build !linux

package files

import (
	"errors"
	"syscall"

	"tripod/internal/core/tripod"
)

func newSystem() system { return portable{} }

func systemKind(err error) tripod.ErrorKind {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return tripod.Exhausted
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return tripod.Conflict
	default:
		return tripod.Unavailable
	}
}
