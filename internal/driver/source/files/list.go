package files

import (
	"slices"
	"strings"

	"tripod/internal/driver/source"
)

// batchSize is how many entries are read and given to the caller at once. One
// folder of a million files must neither wait for its last one nor stay whole in
// memory.
const batchSize = 1024

// folder says which directory to read and what of it belongs.
type folder struct {
	path    string
	dev     uint64  // its file system
	inode   uint64  // its number there
	fs      uint64  // file system that a walk of one file system stays on
	parent  uint64  // file system of the folder it lies in
	wanted  *wanted // protected paths here and below, nil when there are none
	all     bool    // everything in it belongs, not only what is wanted
	follow  bool    // an ancestor reached through a symbolic link
	checked bool    // dev and inode are known: never read another folder in its place
}

// subfolder is a folder to come. A folder may have a million of them, so it holds no more
// than it must.
type subfolder struct {
	name               string
	dev, inode         uint64
	wanted             *wanted
	all, follow, named bool // named: a protected path itself
}

// batch is a piece of a folder, ready for the caller.
type batch struct {
	entries []source.Entry
	folders []subfolder
	news    []news
}

// news waits in a batch until the walk gets there, so that the caller hears
// everything in order.
type news struct {
	path string
	err  error  // what could not be read, or
	text string // what was left out
}

func (b *batch) warn(what, path string, err error) {
	b.news = append(b.news, news{path: path, err: failure(what, path, err)})
}

func (b *batch) note(path, text string) {
	b.news = append(b.news, news{path: path, text: text})
}

// names lists a folder, sorted, and leaves it open: nil when it cannot be opened.
func (w *walk) names(f *folder, s *scratch, b *batch) ([]listed, directory) {
	d, err := w.enter(f)
	if err != nil {
		b.warn("folder", f.path, err)
		return nil, nil
	}
	if f.all && f.dev != f.parent {
		if kind := d.kernel(); kind != "" {
			b.note(f.path, "content left out: "+kind+" of the kernel, not files; name the path to keep it")
			f.all = false
		}
	}
	if !f.all {
		var names []listed
		if f.wanted != nil {
			for _, name := range f.wanted.names() {
				names = append(names, listed{name: name})
			}
		}
		return names, d
	}
	if err := d.list(s); err != nil {
		b.warn("rest of folder", f.path, err)
	}
	names := s.take()
	slices.SortFunc(names, func(a, b listed) int { return strings.Compare(a.name, b.name) })
	if w.tree.options.ExcludeCaches && isCache(d, f.path, names) {
		names = slices.DeleteFunc(names, func(l listed) bool {
			return l.name != cacheTag && f.wanted.child(l.name) == nil
		})
	}
	return names, d
}

// enter opens a folder and makes sure that it is the one that was listed in its
// parent. Else a user could swap a folder above it for a symbolic link and have a
// backup by root keep, under the user's own path, what the user may not read.
func (w *walk) enter(f *folder) (directory, error) {
	d, err := w.tree.system.opendir(f.path, f.all, f.follow)
	if err != nil || !f.checked {
		return d, err
	}
	var e source.Entry
	err = d.self(&e)
	if err == nil && e.Dev == f.dev && e.Inode == f.inode {
		return d, nil
	}
	d.close()
	if err != nil {
		return nil, err
	}
	// A mount or a rename is no attack: what is there now may be read if the way
	// to it passes no link.
	if d, err = w.tree.system.reopen(f.path); err != nil {
		return nil, errChanged
	}
	if err = d.self(&e); err != nil || (w.tree.options.OneFileSystem && e.Dev != f.fs) {
		d.close()
		return nil, errChanged
	}
	f.dev, f.inode = e.Dev, e.Inode
	return d, nil
}

// read fills b with the entries for names, all of one folder.
func (w *walk) read(f *folder, d directory, names []listed, s *scratch, b *batch) {
	var parents []string
	if w.byPath && f.all {
		parents = strings.Split(f.path, "/")
		if f.path == "" {
			parents = nil
		}
	}
	room := carve(s, len(names))
	for _, l := range names {
		want := f.wanted.child(l.name)
		explicit := want != nil || !f.all
		// Only rules look at names; no rule, no cost.
		rules := !explicit && len(w.tree.patterns) > 0
		if rules && l.kind != 0 && w.tree.patterns.excluded(parents, l.name, l.kind == source.Directory) {
			continue
		}
		room = room[:len(room)+1]
		e := &room[len(room)-1]
		e.Parent, e.Name = f.path, l.name
		// An ancestor may be a symbolic link to a folder; a protected path is
		// kept as the link it is.
		follow := want != nil && !want.all && !f.all
		if err := d.stat(l.name, follow, e); err != nil {
			*e = source.Entry{}
			room = room[:len(room)-1]
			b.warn("entry", source.Join(f.path, l.name), err)
			continue
		}
		if (rules && l.kind == 0 && w.tree.patterns.excluded(parents, l.name, e.Type == source.Directory)) ||
			(e.Type == source.Directory && !w.descend(f, e, want, parents, b)) {
			*e = source.Entry{}
			room = room[:len(room)-1]
		}
	}
	b.entries = room
	s.room = s.room[len(room):]
}

// carve gives an empty slice with room for n entries. Most folders are small:
// one allocation serves many of them.
func carve(s *scratch, n int) []source.Entry {
	if len(s.room) < n {
		s.room = make([]source.Entry, max(n, batchSize/4))
	}
	return s.room[:0:n]
}

// descend notes that the folder e is to be read, if it is; it reports false when
// e itself does not belong.
func (w *walk) descend(f *folder, e *source.Entry, want *wanted, parents []string, b *batch) bool {
	if len(w.skip) > 0 && w.skipped(e) {
		b.note(e.Path(), "left out: backups do not contain their own vault")
		return false
	}
	next := subfolder{
		name: e.Name, dev: e.Dev, inode: e.Inode, wanted: want,
		all: f.all, follow: !f.all && want != nil && !want.all,
	}
	switch {
	case want != nil && want.all:
		next.all, next.named = true, true
	case want != nil && f.all:
		// On the way to a protected path: it may itself be excluded or lie
		// on another file system, and then only leads there.
		next.all = !w.elsewhere(f, e) && !w.tree.patterns.excluded(parents, e.Name, true)
	case f.all && w.elsewhere(f, e):
		return true
	}
	if want != nil && len(want.below) == 0 {
		next.wanted = nil
	}
	b.folders = append(b.folders, next)
	return true
}

func (w *walk) elsewhere(f *folder, e *source.Entry) bool {
	return w.tree.options.OneFileSystem && e.Dev != f.fs
}

func (w *walk) skipped(e *source.Entry) bool {
	path := e.Path()
	for i := range w.skip {
		s := &w.skip[i]
		if s.Name == path || (s.Inode != 0 && s.Inode == e.Inode && s.Dev == e.Dev) {
			return true
		}
	}
	return false
}

// The mark of a folder that can be made again, https://bford.info/cachedir/.
const (
	cacheTag       = "CACHEDIR.TAG"
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

func isCache(d directory, path string, names []listed) bool {
	_, found := slices.BinarySearchFunc(names, cacheTag, func(l listed, name string) int {
		return strings.Compare(l.name, name)
	})
	if !found {
		return false
	}
	e := source.Entry{Parent: path, Name: cacheTag}
	if err := d.stat(cacheTag, false, &e); err != nil || e.Type != source.Regular {
		return false
	}
	f, err := d.open(&e)
	if err != nil {
		return false
	}
	defer f.Close() // lint:errcheck it was only read
	begin := make([]byte, len(cacheSignature))
	n, _ := f.ReadAt(begin, 0) // lint:errcheck what could be read decides
	return string(begin[:n]) == cacheSignature
}
