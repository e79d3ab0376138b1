// Package files backs up files and folders of this machine: it walks them in
// tree order with several workers reading ahead, opens them, and reads their
// extended attributes.
//
//	tree, err := files.New(files.Options{Paths: []string{"/home/me", "/etc"}})
//	defer tree.Close()
//	err = tree.Walk(ctx, func(batch []source.Entry) error { ... })
//
// Where to start reading: paths.go turns the protected paths into one small
// tree; walk.go is the ordered parallel walk; list.go reads one directory and
// decides what belongs; pattern.go is the language of exclusion; open.go hands
// out content. What an operating system must provide is the interface in
// system.go: system_linux.go is complete, portable.go does the basics anywhere.
package files

import (
	"context"
	"runtime"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// Options say what to protect and what to leave out.
type Options struct {
	// Paths are the protected files and folders, absolute or relative to the
	// working directory. They may be nested or overlap. A symbolic link is kept
	// as a link. Naming a path beats every reason below to leave it out.
	Paths []string

	Exclude       []string // patterns; the last one that matches decides. See ParsePatterns.
	ExcludeFiles  []string // files with one pattern per line, read before Exclude
	ExcludeCaches bool     // of folders marked by a CACHEDIR.TAG keep the tag alone
	OneFileSystem bool     // do not enter other file systems; their mount points are kept, empty

	// Skip names folders that are never kept, like the vault itself.
	Skip []string

	// Workers read directories ahead of the walk; 0 chooses.
	Workers int

	source.Watcher
}

// maxWorkers that are chosen unasked: a local file system gains nothing from
// more, and they would take cores from sealing.
const maxWorkers = 8

// Tree is the protected part of the file system. It implements source.Tree.
type Tree struct {
	system   system
	wanted   []string // protected paths as the tree names them
	patterns Patterns
	options  Options
	handles  *handles

	// Sizes of the walk, here so that tests can make them small.
	batch int // entries read and given to the caller at once
	ahead int // cost of what workers may read ahead
}

var _ source.Tree = (*Tree)(nil)

// New checks the options and reads the exclude files. It does not look at the
// protected paths yet.
func New(o Options) (*Tree, error) { return newTree(o, newSystem()) }

func newTree(o Options, s system) (*Tree, error) {
	t := &Tree{system: s, options: o, handles: newHandles(s), batch: batchSize, ahead: aheadLimit}
	if len(o.Paths) == 0 {
		return nil, tripod.Errorf(tripod.Invalid, "no path to back up").WithHint("name at least one file or folder")
	}
	for _, p := range o.Paths {
		w, err := absolute(p)
		if err != nil {
			return nil, err
		}
		t.wanted = append(t.wanted, w)
	}
	for _, name := range o.ExcludeFiles {
		p, err := ReadPatterns(name)
		if err != nil {
			return nil, err
		}
		t.patterns = append(t.patterns, p...)
	}
	p, err := ParsePatterns(o.Exclude)
	if err != nil {
		return nil, err
	}
	t.patterns = append(t.patterns, p...)
	if t.options.Workers <= 0 {
		t.options.Workers = min(max(runtime.GOMAXPROCS(0), 2), maxWorkers)
	}
	return t, nil
}

// Walk is New, the tree's Walk and Close in one.
func Walk(ctx context.Context, o Options, fn func(batch []source.Entry) error) error {
	t, err := New(o)
	if err != nil {
		return err
	}
	defer t.Close() // lint:errcheck nothing was opened through it
	return t.Walk(ctx, fn)
}

// Walk implements source.Tree. A protected path that does not exist is told to
// Warn; when none exists, the error is NotFound.
func (t *Tree) Walk(ctx context.Context, fn func(batch []source.Entry) error) error {
	t.handles.forget() // directories may have been replaced since the last walk
	root, err := t.plan()
	if err != nil {
		return err
	}
	return t.walk(ctx, root, fn)
}

func (t *Tree) warn(path string, err error) {
	if t.options.Warn != nil {
		t.options.Warn(path, err)
	}
}

func (t *Tree) note(path, text string) {
	if t.options.Note != nil {
		t.options.Note(path, text)
	}
}
