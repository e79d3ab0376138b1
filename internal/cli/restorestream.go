package cli

import (
	"context"
	"io"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/restore"
)

// stdout is the target that stands for standard output.
const stdout = "-"

// target is where to restore to, for the engine.
func (f *restoreFlags) target() string {
	if f.to == stdout {
		return f.to
	}
	return absolute(f.to)
}

// restoreStream writes a stream to standard output or to a file.
func (u *unlocked) restoreStream(ctx context.Context, s catalog.Snapshot, o restore.Options) (*restore.Report, error) {
	switch {
	case o.To != stdout:
		return restore.StreamTo(ctx, u, s, o)
	case o.DryRun:
		return restore.Stream(ctx, u, s, o, io.Discard)
	}
	return restore.Stream(ctx, u, s, o, u.app.Out)
}

// checkTarget refuses standard output for what is no stream.
func (f *restoreFlags) checkTarget(s *catalog.Snapshot, a *app) error {
	switch {
	case f.to != stdout:
		return nil
	case s.Record.Type != tripod.Stream:
		return tripod.Errorf(tripod.Invalid, "--to -: only a stream goes to standard output").
			WithHint("for one file: tripod cat %s:PATH", s.ID)
	case a.JSON:
		return tripod.Errorf(tripod.Invalid, "--to - and --json both want standard output")
	case terminal.IsTerminal(a.Out):
		return tripod.Errorf(tripod.Invalid, "--to -: standard output is a terminal").WithHint("send it to a file or a program: ... --to - | psql")
	}
	return nil
}
