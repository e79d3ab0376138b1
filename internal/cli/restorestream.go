package cli

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/restore"
)

// stdout is the target that stands for standard output.
const stdout = "-"

// restoreStream writes a stream to standard output or to a file. A file has a
// name that ends in .partial until it is whole.
func (u *unlocked) restoreStream(ctx context.Context, s catalog.Snapshot, o restore.Options) (*restore.Report, error) {
	if o.To == stdout {
		if o.DryRun {
			return restore.Stream(ctx, u, s, o, io.Discard)
		}
		return restore.Stream(ctx, u, s, o, u.app.Out)
	}
	target := o.To
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		target = filepath.Join(target, streamName(&s))
	}
	if _, err := os.Lstat(target); err == nil && o.Overwrite == restore.Never {
		return nil, tripod.Errorf(tripod.Exists, "%s is in the way", target).WithHint("--overwrite always replaces it")
	}
	if o.DryRun {
		return &restore.Report{Files: 1, Bytes: s.Label.Bytes}, nil
	}
	partial := target + ".partial"
	file, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, terminal.System(err, "make file")
	}
	report, err := restore.Stream(ctx, u, s, o, file)
	if err == nil {
		err = terminal.System(file.Sync(), "write "+partial)
	}
	if closeErr := file.Close(); err == nil {
		err = terminal.System(closeErr, "write "+partial)
	}
	if err == nil {
		err = terminal.System(os.Rename(partial, target), "rename "+partial)
	}
	if err == nil && report != nil {
		report.Files = 1
	}
	return report, err
}

// streamName is the file name for a stream: what it was called, without folders.
func streamName(s *catalog.Snapshot) string {
	name := ""
	if s.Label != nil && len(s.Label.Paths) == 1 {
		name = path.Base(strings.ReplaceAll(s.Label.Paths[0], `\`, "/"))
	}
	if name == "" || name == "." || name == "/" || name == ".." {
		return "stream"
	}
	return name
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
