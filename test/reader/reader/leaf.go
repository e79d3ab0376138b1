package reader

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxText  = 1 << 16
	maxParts = 1<<17 + 1<<12 + 1<<14 + 1<<16
)

// The types of entry.
const (
	regular     = 1
	folder      = 2
	symlink     = 3
	charDevice  = 6
	blockDevice = 7
)

// entry is one thing in a file tree.
type entry struct {
	parent, name string
	kind         byte
	mode         uint32
	uid, gid     uint32
	sec          int64
	nsec         uint32
	size         int64
	link         string
	group        uint64
	ranges       []extent // nil for a file without holes
	sparse       bool
	inline       []byte
	pieces       []piece
	list         *ref
}

func (e *entry) path() string {
	if e.parent == "" {
		return e.name
	}
	return e.parent + "/" + e.name
}

// stored is how many bytes of content are kept.
func (e *entry) stored() int64 {
	if !e.sparse {
		return e.size
	}
	var n int64
	for _, r := range e.ranges {
		n += r.length
	}
	return n
}

type extent struct{ offset, length int64 }

type piece struct {
	ref    *ref
	offset int64
	length int64
}

// leaf is the state of reading a leaf's columns.
type leaf struct {
	owners                                     [][2]uint32
	blobs                                      []child
	ends                                       []int64
	blob                                       int64
	text, parts                                int
	names, modes, times, sizes, contents, rest *fields
}

func parseLeaf(f *fields) ([]entry, []child, error) {
	n := f.upTo(1 << 14)
	var l leaf
	for range f.upTo(1 << 14) {
		l.owners = append(l.owners, [2]uint32{uint32(f.upTo(1<<32 - 1)), uint32(f.upTo(1<<32 - 1))})
		f.text(maxText)
		f.text(maxText)
		if f.bad {
			break
		}
	}
	l.blobs = f.children(maxRefs)
	l.ends = make([]int64, len(l.blobs))
	columns := []**fields{&l.names, &l.modes, &l.times, &l.sizes, &l.contents, &l.rest}
	for _, c := range columns {
		*c = f.column()
	}
	if err := f.done("tree leaf"); err != nil {
		return nil, nil, err
	}
	var entries []entry
	var last entry
	for i := range n {
		e, err := l.entry(&last, i == 0)
		for _, c := range columns {
			if c := *c; c.bad {
				err = errors.New("tree leaf: malformed")
			}
		}
		if err != nil {
			return nil, nil, err
		}
		entries, last = append(entries, e), e
	}
	for _, c := range columns {
		if err := (*c).done("tree leaf"); err != nil {
			return nil, nil, err
		}
	}
	return entries, l.blobs, nil
}

func (l *leaf) entry(last *entry, first bool) (e entry, err error) {
	e.parent = last.parent
	if shared := l.names.uvarint(); shared > 0 {
		e.parent, err = l.joined(last.parent, shared-1)
	} else if first {
		err = errors.New("tree leaf: first entry has no parent")
	}
	if err != nil {
		return e, err
	}
	if e.name, err = l.joined(last.name, l.names.uvarint()); err != nil {
		return e, err
	}
	e.kind = l.modes.byte()
	flags := l.modes.byte()
	e.mode = uint32(l.modes.upTo(0o7777))
	owner := l.modes.uvarint()
	if owner >= uint64(len(l.owners)) || e.kind < regular || e.kind > blockDevice {
		return e, errors.New("tree leaf: impossible metadata")
	}
	e.uid, e.gid = l.owners[owner][0], l.owners[owner][1]
	e.sec = last.sec + l.times.varint()
	nsec := int64(last.nsec) + l.times.varint()
	if nsec < 0 || nsec > 999_999_999 {
		return e, errors.New("tree leaf: impossible time")
	}
	e.nsec = uint32(nsec)
	if e.kind == regular {
		e.size = int64(l.sizes.upTo(1<<62 - 1))
	}
	if err := l.others(&e, flags); err != nil {
		return e, err
	}
	if e.kind == regular {
		if err := l.content(&e); err != nil {
			return e, err
		}
	}
	return e, checkPath(&e)
}

// joined reads a suffix and joins it to the first shared bytes of last.
func (l *leaf) joined(last string, shared uint64) (string, error) {
	suffix := l.names.text(maxText)
	if shared > uint64(len(last)) || shared+uint64(len(suffix)) > maxText {
		return "", errors.New("tree leaf: impossible name")
	}
	if l.text += int(shared) + len(suffix); l.text > 16<<20 {
		return "", errors.New("tree leaf: too many names")
	}
	return last[:shared] + suffix, nil
}

func checkPath(e *entry) error {
	if e.parent == "" && e.name == "" && e.kind == folder {
		return nil // the root
	}
	for part := range strings.SplitSeq(e.path(), "/") {
		if part == "" || part == "." || part == ".." || strings.Contains(part, "\x00") {
			return fmt.Errorf("tree leaf: impossible path %q", e.path())
		}
	}
	if strings.Contains(e.name, "/") {
		return fmt.Errorf("tree leaf: impossible name %q", e.name)
	}
	return nil
}

func (l *leaf) spend(n uint64) error {
	if l.parts += int(n); l.parts > maxParts {
		return errors.New("tree leaf: too many pieces, attributes or ranges")
	}
	return nil
}

// others reads what the flags announce.
func (l *leaf) others(e *entry, flags byte) error {
	device := e.kind == charDevice || e.kind == blockDevice
	if (flags&1 != 0) != (e.kind == symlink) || (flags&2 != 0) != device || flags > 63 {
		return errors.New("tree leaf: impossible flags")
	}
	if flags&1 != 0 {
		e.link = l.rest.text(maxText)
	}
	if flags&2 != 0 {
		l.rest.upTo(1<<32 - 1)
		l.rest.upTo(1<<32 - 1)
	}
	if flags&4 != 0 {
		if e.group = l.rest.uvarint(); e.group == 0 {
			return errors.New("tree leaf: impossible link group")
		}
	}
	if flags&8 != 0 {
		if err := l.attributes(); err != nil {
			return err
		}
	}
	if flags&16 != 0 {
		return l.holes(e)
	}
	return nil
}

func (l *leaf) attributes() error {
	n := l.rest.upTo(1 << 14)
	if n == 0 {
		return errors.New("tree leaf: attributes announced and missing")
	}
	last := ""
	for i := range n {
		name := l.rest.text(maxText)
		l.rest.text(1 << 20)
		if i > 0 && name <= last {
			return errors.New("tree leaf: attributes out of order")
		}
		last = name
	}
	return l.spend(n)
}

func (l *leaf) holes(e *entry) error {
	e.sparse = true
	n := l.rest.upTo(maxText)
	if err := l.spend(n); err != nil {
		return err
	}
	var at int64
	for range n {
		gap, length := int64(l.rest.upTo(1<<62-1)), int64(l.rest.upTo(1<<62-1))
		if gap > e.size-at || length < 1 || length > e.size-at-gap {
			return errors.New("tree leaf: a sparse range empty or beyond its file")
		}
		e.ranges = append(e.ranges, extent{at + gap, length})
		at += gap + length
	}
	return nil
}

func (l *leaf) content(e *entry) error {
	stored := e.stored()
	switch form := l.contents.uvarint(); {
	case form == 0:
		if stored > 8<<20 {
			return errors.New("tree leaf: impossible inline content")
		}
		e.inline = l.contents.take(uint64(stored))
	case form == 1:
		i := l.contents.uvarint()
		if i >= uint64(len(l.blobs)) || l.blobs[i].kind != listBlob {
			return errors.New("tree leaf: list out of range")
		}
		e.list = &l.blobs[i].ref
	case form-2 < 1<<12:
		return l.piecewise(e, form-1, stored)
	default:
		return errors.New("tree leaf: impossible content")
	}
	return nil
}

func (l *leaf) piecewise(e *entry, n uint64, left int64) error {
	if err := l.spend(n); err != nil {
		return err
	}
	for range n {
		blob := l.blob + l.contents.varint()
		if blob < 0 || blob >= int64(len(l.blobs)) || l.blobs[blob].kind != dataBlob {
			return errors.New("tree leaf: blob out of range")
		}
		offset := l.ends[blob] + l.contents.varint()
		length := left + l.contents.varint()
		if offset < 0 || offset > maxPlain || length < 1 || length > left || offset+length > maxPlain {
			return errors.New("tree leaf: piece out of range")
		}
		e.pieces = append(e.pieces, piece{&l.blobs[blob].ref, offset, length})
		left -= length
		l.blob, l.ends[blob] = blob, offset+length
	}
	if left != 0 {
		return errors.New("tree leaf: pieces are not the whole file")
	}
	return nil
}
