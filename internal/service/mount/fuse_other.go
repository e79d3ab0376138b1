//go:build !linux && !darwin

package mount

import (
	"context"
	"runtime"

	"tripod/internal/core/tripod"
)

// Serve would mount the snapshots; this system has no FUSE.
func Serve(context.Context, Options) error {
	return tripod.Errorf(tripod.Invalid, "mount: not possible on %s", runtime.GOOS).
		WithHint("tripod ls, find, cat and restore reach everything too")
}
