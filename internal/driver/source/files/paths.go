package files

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// wanted is a node of the small tree that all protected paths make together.
// Above the protected paths lie their ancestors, which are kept as directories
// with nothing else in them.
type wanted struct {
	all   bool // a protected path: everything below belongs
	below map[string]*wanted
}

func (w *wanted) add(path string) {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue // the root
		}
		next := w.below[name]
		if next == nil {
			next = &wanted{}
			if w.below == nil {
				w.below = make(map[string]*wanted)
			}
			w.below[name] = next
		}
		w = next
	}
	w.all = true
}

// child is nil-safe: most directories of a walk lie below a protected path and
// have no wanted node.
func (w *wanted) child(name string) *wanted {
	if w == nil {
		return nil
	}
	return w.below[name]
}

func (w *wanted) names() []string { return slices.Sorted(maps.Keys(w.below)) }

// plan looks at the protected paths and joins those that exist.
func (t *Tree) plan() (*wanted, error) {
	root := &wanted{}
	var missing []error
	var names []string
	for _, path := range t.wanted {
		path = t.straighten(path)
		var e source.Entry
		if err := t.system.stat(path, false, &e); err != nil {
			missing, names = append(missing, failure("protected path", path, err)), append(names, path)
			continue
		}
		if e.Type == source.Symlink {
			t.note(path, "a symbolic link is kept as a link; to keep what it points to, name that")
		}
		root.add(path)
	}
	if len(missing) < len(t.wanted) {
		for i, err := range missing {
			t.warn(names[i], err)
		}
		return root, nil
	}
	err := missing[0]
	return nil, tripod.Errorf(tripod.KindOf(err), "nothing to back up: %w", errors.Join(missing...)).
		WithHint("check the spelling, and whether the disk it lies on is mounted")
}

// straighten resolves the symbolic links on the way to a path that lies inside
// another protected one. There the links are kept as links, and one name cannot be
// a link and a directory. On other ways they are taken for the directories
// they lead to, so that people find their files under the path they named.
func (t *Tree) straighten(path string) string {
	for _, other := range t.wanted {
		if other == path || (other != "" && !strings.HasPrefix(path, other+"/")) {
			continue
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(systemPath(path)))
		if err != nil {
			return path // its stat will tell
		}
		return treePath(filepath.Join(dir, filepath.Base(systemPath(path))))
	}
	return path
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", tripod.Errorf(tripod.Invalid, "empty path")
	}
	if strings.Contains(path, "\x00") {
		return "", tripod.Errorf(tripod.Invalid, "path %q contains a zero byte", path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", tripod.Errorf(tripod.Unavailable, "working directory: %w", err)
	}
	return treePath(abs), nil
}

// treePath is the name in the tree of an absolute path of this system,
// systemPath the way back.
func treePath(abs string) string {
	if runtime.GOOS == "windows" {
		return windowsTreePath(abs)
	}
	return strings.TrimPrefix(abs, "/")
}

func systemPath(path string) string {
	if runtime.GOOS == "windows" {
		return windowsSystemPath(path)
	}
	return "/" + path
}

// unc marks shares in the tree: "UNC/server/share/folder".
const unc = "UNC"

// windowsTreePath turns C:\Users into C/Users and \\server\share into
// UNC/server/share. Windows forbids names that could be mistaken for it.
func windowsTreePath(abs string) string {
	p := strings.ReplaceAll(abs, `\`, "/")
	if share, ok := strings.CutPrefix(p, "//"); ok {
		return strings.TrimSuffix(unc+"/"+share, "/")
	}
	if len(p) >= 2 && p[1] == ':' {
		p = strings.ToUpper(p[:1]) + p[2:]
	}
	return strings.TrimSuffix(p, "/")
}

// windowsSystemPath gives "" for the levels that exist only in the tree.
func windowsSystemPath(path string) string {
	if share, ok := strings.CutPrefix(path, unc+"/"); ok && strings.Contains(share, "/") {
		return `\\` + strings.ReplaceAll(share, "/", `\`)
	}
	if path == "" || path == unc || strings.HasPrefix(path, unc+"/") {
		return ""
	}
	volume, rest, _ := strings.Cut(path, "/")
	return volume + `:\` + strings.ReplaceAll(rest, "/", `\`)
}

// show prints a path for people: names may hold anything, and a message must
// stay on its line.
func show(path string) string {
	p := systemPath(path)
	if !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(p)
	}
	return p
}

// failure classes an error of the system and says what it happened to.
func failure(what, path string, err error) error {
	if err == nil {
		return nil
	}
	if inner, ok := errors.AsType[*os.PathError](err); ok {
		err = inner.Err // it would repeat the path
	}
	kind := kindOf(err)
	text := what
	if kind == tripod.NotFound && what != "protected path" {
		text += " (vanished meanwhile)"
	}
	e := tripod.Errorf(kind, "%s %s: %w", text, show(path), err)
	if kind == tripod.Denied {
		return e.WithHint("run as a user that may read it, or exclude it")
	}
	return e
}
