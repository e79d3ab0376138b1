package catalog

import (
	"context"
	"path"
	"slices"
	"strings"

	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
)

// TreePath is the name in a file tree of an absolute path as people write it:
// /home/me is home/me, C:\Users is C/Users, \\server\share is UNC/server/share.
func TreePath(p string) string {
	switch {
	case strings.HasPrefix(p, `\\`):
		p = "UNC/" + strings.ReplaceAll(p[2:], `\`, "/")
	case drive(p):
		p = strings.ToUpper(p[:1]) + "/" + strings.ReplaceAll(p[2:], `\`, "/")
	}
	return strings.TrimPrefix(path.Clean("/"+p), "/")
}

func drive(p string) bool {
	return len(p) >= 2 && p[1] == ':' && (p[0]|0x20 >= 'a' && p[0]|0x20 <= 'z') && (len(p) == 2 || p[2] == '\\' || p[2] == '/')
}

func absolute(p string) bool {
	return strings.HasPrefix(p, "/") || strings.HasPrefix(p, `\\`) || drive(p)
}

func protects(protected, p string) bool { return tree.Below(TreePath(p), TreePath(protected)) }

// Base is the one protected path of a snapshot of files, as its tree names it;
// ok is false when there are several.
func (s *Snapshot) Base() (base string, ok bool) {
	if s.Label == nil || len(s.Label.Paths) != 1 {
		return "", false
	}
	return TreePath(s.Label.Paths[0]), true
}

// Locate finds what p names in a snapshot of files: an absolute path, or one
// relative to the only protected path. An empty p is that path, or the root of
// the tree when there are several. Nothing there gives NotFound.
func Locate(ctx context.Context, b *blobs.Reader, s *Snapshot, p string) (*tree.Entry, error) {
	if s.Record.Type != tripod.Files {
		return nil, tripod.Errorf(tripod.Invalid, "snapshot %s: is of a %s and holds no files", s.ID, s.Record.Type)
	}
	base, single := s.Base()
	var tries []string
	switch {
	case p == "" && single:
		tries = []string{base}
	case p == "":
		tries = []string{""}
	case absolute(p) || !single:
		tries = []string{TreePath(p)}
	default:
		tries = []string{TreePath(base + "/" + p), TreePath(p)}
	}
	for _, t := range slices.Compact(tries) {
		e, err := b.Find(ctx, s.Root, t)
		if err != nil || e != nil {
			return e, err
		}
		if t == "" { // above all protected paths there is always a folder
			return &tree.Entry{Type: tree.Dir, Mode: 0o755}, nil
		}
	}
	_, name := tree.SplitPath(TreePath(p))
	if _, own := tree.SplitPath(base); single && p == own { // a protected file by its name, as ls shows it
		e, err := b.Find(ctx, s.Root, base)
		if err != nil || e != nil && e.Type != tree.Dir {
			return e, err
		}
	}
	return nil, tripod.Errorf(tripod.NotFound, "path %s: is not in snapshot %s", p, s.ID).
		WithHint("tripod find %s looks for it in all snapshots", name)
}
