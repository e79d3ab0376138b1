package reader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// Report says what Restore did.
type Report struct {
	Files, Folders, Others int
	Bytes                  int64
	Skipped                []string // what was not restored, and why
}

// restorer is one Restore under way.
type restorer struct {
	v       *Vault
	root    *os.Root
	report  Report
	groups  map[uint64]string // first path of each hard-linked file
	folders []entry
}

// Restore writes a snapshot into an existing or new folder: the files of a
// file tree below it; a disk as the file disk; a stream as the file stream.
func (v *Vault) Restore(s Snapshot, dir string) (*Report, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	r := &restorer{v: v, root: root, groups: map[uint64]string{}}
	switch s.Kind {
	case "files":
		err = errors.Join(v.walkTree(&s.root, -1, nil, new(entry), r.entry), r.finishFolders())
	case "disk":
		err = r.disk(&s.root)
	default:
		err = r.create("stream", func(f *os.File) error {
			_, err := v.walkList(&s.root, -1, func(b []byte) error {
				_, err := f.Write(b)
				r.report.Bytes += int64(len(b))
				return err
			})
			return err
		})
	}
	return &r.report, err
}

func (r *restorer) disk(root *ref) error {
	return r.create("disk", func(f *os.File) error {
		g, err := r.v.walkDisk(root, -1, 0, nil, func(at int64, block []byte) error {
			r.report.Bytes += int64(len(block))
			_, err := f.WriteAt(block, at)
			return err
		})
		if err != nil {
			return err
		}
		return f.Truncate(g.size)
	})
}

func (r *restorer) create(name string, fill func(*os.File) error) error {
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	r.report.Files++
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r *restorer) entry(e *entry) error {
	p := e.path()
	if p == "" {
		p = "."
	}
	local := filepath.FromSlash(p)
	if err := r.root.MkdirAll(filepath.FromSlash(path.Dir(p)), 0o700); err != nil {
		return err
	}
	if first, known := r.groups[e.group]; known && e.group != 0 {
		r.report.Others++
		return r.root.Link(first, local)
	}
	if e.group != 0 {
		r.groups[e.group] = local
	}
	switch e.kind {
	case folder:
		r.report.Folders++
		if err := r.root.Mkdir(local, 0o700); p != "." && err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		r.folders = append(r.folders, *e)
		return nil
	case symlink:
		r.report.Others++
		if err := r.root.Symlink(e.link, local); err != nil {
			return err
		}
		return r.own(e, local)
	case regular:
		if err := r.create(local, func(f *os.File) error { return r.fill(f, e) }); err != nil {
			return err
		}
		return r.finish(e, local)
	}
	delete(r.groups, e.group)
	r.report.Skipped = append(r.report.Skipped, p+": a device, pipe or socket")
	return nil
}

// fill writes a file's content to where its ranges say.
func (r *restorer) fill(f *os.File, e *entry) error {
	ranges := e.ranges
	if !e.sparse {
		ranges = []extent{{0, e.size}}
	}
	left := e.stored()
	write := func(b []byte) error {
		if int64(len(b)) > left {
			return errors.New("content is longer than the file")
		}
		left -= int64(len(b))
		r.report.Bytes += int64(len(b))
		for len(b) > 0 {
			n := min(int64(len(b)), ranges[0].length)
			if _, err := f.WriteAt(b[:n], ranges[0].offset); err != nil {
				return err
			}
			b = b[n:]
			if ranges[0].offset, ranges[0].length = ranges[0].offset+n, ranges[0].length-n; ranges[0].length == 0 {
				ranges = ranges[1:]
			}
		}
		return nil
	}
	if err := r.content(e, write); err != nil {
		return err
	}
	if left != 0 {
		return errors.New("content is shorter than the file")
	}
	return f.Truncate(e.size)
}

func (r *restorer) content(e *entry, write func([]byte) error) error {
	if e.list != nil {
		_, err := r.v.walkList(e.list, -1, write)
		return err
	}
	for _, p := range e.pieces {
		plain, err := r.v.data(p.ref)
		if err != nil {
			return err
		}
		if p.offset+p.length > int64(len(plain)) {
			return errors.New("a piece reaches beyond its blob")
		}
		if err := write(plain[p.offset : p.offset+p.length]); err != nil {
			return err
		}
	}
	return write(e.inline)
}

// finish sets owner, mode and time, in this order: a change of owner takes
// setuid away.
func (r *restorer) finish(e *entry, local string) error {
	if err := r.own(e, local); err != nil {
		return err
	}
	if err := r.root.Chmod(local, fileMode(e.mode)); err != nil {
		return err
	}
	t := time.Unix(e.sec, int64(e.nsec))
	return r.root.Chtimes(local, t, t)
}

func (r *restorer) own(e *entry, local string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return r.root.Lchown(local, int(e.uid), int(e.gid))
}

// finishFolders sets what filling a folder would change, inner ones first.
func (r *restorer) finishFolders() error {
	for i := len(r.folders) - 1; i >= 0; i-- {
		e := &r.folders[i]
		local := filepath.FromSlash(e.path())
		if local == "" {
			local = "."
		}
		if err := r.finish(e, local); err != nil {
			return err
		}
	}
	return nil
}

func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, bit := range []struct {
		unix uint32
		mode fs.FileMode
	}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}} {
		if mode&bit.unix != 0 {
			m |= bit.mode
		}
	}
	return m
}
