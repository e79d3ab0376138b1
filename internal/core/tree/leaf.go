package tree

import (
	"encoding/binary"
	"slices"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// A leaf is encoded by columns, which compress far better than rows: first
// the tables that entries refer to (owners, blobs), then one column each for
// names, types and modes, times, sizes, content, and the rare rest. Numbers
// are varints; a number that can be foretold is stored as the difference from
// its forecast, which is mostly zero.
const (
	leafVersion  = 1
	maxEntries   = 1 << 14
	maxText      = 1 << 16 // of a path, link target or xattr name, bytes
	maxXattr     = 1 << 20 // of an xattr value, bytes
	maxXattrs    = 1 << 14 // of an entry
	maxXattrSum  = 4 << 20 // of an entry's xattrs, bytes
	maxPieces    = 1 << 12 // of an entry
	maxRanges    = 1 << 16 // of an entry
	maxNodeBytes = 8 << 20
	maxLeafText  = 16 << 20 // of all names and parents of a leaf, decoded, bytes
	// maxParts bounds the pieces, xattrs and ranges of a leaf together: few
	// bytes of each decode to many.
	maxParts = leafMaxParts + maxPieces + maxXattrs + maxRanges
)

const (
	hasLink = 1 << iota
	hasDevice
	hasGroup
	hasXattrs
	hasRanges
	isTorn
)

// Columns of a leaf.
const (
	colNames = iota
	colModes
	colTimes
	colSizes
	colContent
	colRest
	numColumns
)

// Content forms.
const (
	formInline = 0
	formList   = 1
	formPieces = 2 // plus the number of pieces less one
)

// leafWriter gathers entries and encodes them as one leaf.
type leafWriter struct {
	owners  map[Owner]int
	tables  []byte // encoded owners
	blobs   map[seal.Ref]int
	refs    []seal.Ref
	kinds   []tripod.BlobKind
	ends    []uint32 // where the last piece of each blob ended
	cols    [numColumns][]byte
	n       int
	text    int // bytes of names and new parents, before prefixes are shared
	parts   int // pieces, xattrs and ranges
	last    Entry
	lastRef int
}

func (w *leafWriter) reset() {
	if w.owners == nil {
		w.owners, w.blobs = map[Owner]int{}, map[seal.Ref]int{}
	}
	clear(w.owners)
	clear(w.blobs)
	w.tables, w.refs, w.kinds, w.ends = w.tables[:0], w.refs[:0], w.kinds[:0], w.ends[:0]
	for i := range w.cols {
		w.cols[i] = w.cols[i][:0]
	}
	w.n, w.text, w.parts, w.last, w.lastRef = 0, 0, 0, Entry{}, 0
}

func (w *leafWriter) size() int {
	n := len(w.refs)*seal.RefLen + len(w.tables)
	for i := range w.cols {
		n += len(w.cols[i])
	}
	return n
}

func (w *leafWriter) add(e *Entry) {
	c := &w.cols[colNames]
	if e.Parent == w.last.Parent && w.n > 0 {
		*c = binary.AppendUvarint(*c, 0)
	} else {
		shared := sharedPrefix(w.last.Parent, e.Parent)
		*c = binary.AppendUvarint(*c, uint64(shared)+1)
		*c = appendText(*c, e.Parent[shared:])
		w.text += len(e.Parent)
	}
	w.text += len(e.Name)
	shared := sharedPrefix(w.last.Name, e.Name)
	*c = binary.AppendUvarint(*c, uint64(shared))
	*c = appendText(*c, e.Name[shared:])

	owner, known := w.owners[e.Owner]
	if !known {
		owner = len(w.owners)
		w.owners[e.Owner] = owner
		w.tables = binary.AppendUvarint(w.tables, uint64(e.Owner.UID))
		w.tables = binary.AppendUvarint(w.tables, uint64(e.Owner.GID))
		w.tables = appendText(w.tables, e.Owner.User)
		w.tables = appendText(w.tables, e.Owner.Group)
	}
	c = &w.cols[colModes]
	*c = append(*c, byte(e.Type), e.restFlags())
	*c = binary.AppendUvarint(*c, uint64(e.Mode))
	*c = binary.AppendUvarint(*c, uint64(owner))

	c = &w.cols[colTimes]
	*c = binary.AppendVarint(*c, e.Sec-w.last.Sec)
	*c = binary.AppendVarint(*c, int64(e.Nsec)-int64(w.last.Nsec))

	if e.Type == Regular {
		w.cols[colSizes] = binary.AppendUvarint(w.cols[colSizes], uint64(e.Size))
		w.addContent(e)
	}
	w.addRest(e)
	w.parts += len(e.Content.Pieces) + len(e.Xattrs) + len(e.Ranges)
	w.last.Parent, w.last.Name, w.last.Sec, w.last.Nsec = e.Parent, e.Name, e.Sec, e.Nsec
	w.n++
}

func (e *Entry) restFlags() (f byte) {
	set := func(on bool, bit byte) {
		if on {
			f |= bit
		}
	}
	set(e.Type == Symlink, hasLink)
	set(e.Type == CharDevice || e.Type == BlockDevice, hasDevice)
	set(e.Group != 0, hasGroup)
	set(len(e.Xattrs) > 0, hasXattrs)
	set(e.Ranges != nil, hasRanges)
	set(e.Torn, isTorn)
	return f
}

func (w *leafWriter) addRest(e *Entry) {
	c := &w.cols[colRest]
	if e.Type == Symlink {
		*c = appendText(*c, e.Link)
	}
	if e.Type == CharDevice || e.Type == BlockDevice {
		*c = binary.AppendUvarint(*c, uint64(e.Major))
		*c = binary.AppendUvarint(*c, uint64(e.Minor))
	}
	if e.Group != 0 {
		*c = binary.AppendUvarint(*c, e.Group)
	}
	if len(e.Xattrs) > 0 {
		*c = binary.AppendUvarint(*c, uint64(len(e.Xattrs)))
		for _, x := range e.Xattrs {
			*c = appendText(*c, x.Name)
			*c = appendText(*c, x.Value)
		}
	}
	if e.Ranges != nil {
		*c = binary.AppendUvarint(*c, uint64(len(e.Ranges)))
		var at int64
		for _, r := range e.Ranges {
			*c = binary.AppendUvarint(*c, uint64(r.Offset-at))
			*c = binary.AppendUvarint(*c, uint64(r.Length))
			at = r.Offset + r.Length
		}
	}
}

func (w *leafWriter) addContent(e *Entry) {
	c := &w.cols[colContent]
	switch {
	case e.Content.List != nil:
		*c = binary.AppendUvarint(*c, formList)
		*c = binary.AppendUvarint(*c, uint64(w.blob(e.Content.List, tripod.List)))
	case len(e.Content.Pieces) > 0:
		*c = binary.AppendUvarint(*c, formPieces+uint64(len(e.Content.Pieces)-1))
		left := e.Stored()
		for i := range e.Content.Pieces {
			p := &e.Content.Pieces[i]
			blob := w.blob(&p.Ref, tripod.Data)
			*c = binary.AppendVarint(*c, int64(blob-w.lastRef))
			*c = binary.AppendVarint(*c, int64(p.Offset)-int64(w.ends[blob]))
			*c = binary.AppendVarint(*c, int64(p.Length)-left)
			left -= int64(p.Length)
			w.lastRef, w.ends[blob] = blob, p.Offset+p.Length
		}
	default:
		*c = binary.AppendUvarint(*c, formInline)
		*c = append(*c, e.Content.Inline...) // as long as Stored says
	}
}

func (w *leafWriter) blob(r *seal.Ref, kind tripod.BlobKind) int {
	i, known := w.blobs[*r]
	if !known {
		i = len(w.refs)
		w.blobs[*r] = i
		w.refs, w.kinds, w.ends = append(w.refs, *r), append(w.kinds, kind), append(w.ends, 0)
	}
	return i
}

// encode appends the leaf's plaintext to dst.
func (w *leafWriter) encode(dst []byte) []byte {
	dst = append(dst, leafVersion, 0) // level 0
	dst = binary.AppendUvarint(dst, uint64(w.n))
	dst = binary.AppendUvarint(dst, uint64(len(w.owners)))
	dst = append(dst, w.tables...)
	dst = appendRefs(dst, w.refs, w.kinds)
	for i := range w.cols {
		dst = binary.AppendUvarint(dst, uint64(len(w.cols[i])))
		dst = append(dst, w.cols[i]...)
	}
	return dst
}

func appendRefs(dst []byte, refs []seal.Ref, kinds []tripod.BlobKind) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(refs)))
	for _, k := range kinds {
		dst = append(dst, byte(k))
	}
	for i := range refs {
		dst = seal.AppendRef(dst, &refs[i])
	}
	return dst
}

func sharedPrefix(a, b string) int {
	n := min(len(a), len(b), maxText)
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// leafReader decodes a leaf's columns.
type leafReader struct {
	owners  []Owner
	refs    []seal.Ref
	kinds   []tripod.BlobKind
	ends    []uint32
	cols    [numColumns]fields
	text    int
	parts   int
	last    Entry
	lastRef int64
	err     error
}

func decodeLeaf(f *fields) ([]Entry, []Child, error) {
	n := f.count(maxEntries)
	var r leafReader
	for range f.count(maxEntries) {
		r.owners = append(r.owners, Owner{UID: f.u32(), GID: f.u32(), User: f.text(maxText), Group: f.text(maxText)})
	}
	children := f.refs()
	r.ends = make([]uint32, len(children))
	for i := range r.cols {
		r.cols[i].b = f.bytes(f.lengthUpTo(maxNodeBytes))
	}
	if err := f.done("tree leaf"); err != nil {
		return nil, nil, err
	}
	for _, c := range children {
		r.refs, r.kinds = append(r.refs, c.Ref), append(r.kinds, c.Kind)
	}
	entries := make([]Entry, n)
	for i := range entries {
		if r.entry(&entries[i], i); r.err != nil {
			return nil, nil, r.err
		}
	}
	for i := range r.cols {
		if err := r.cols[i].done("tree leaf"); err != nil {
			return nil, nil, err
		}
	}
	return entries, children, nil
}

// refs reads a table of blobs with their kinds.
func (f *fields) refs() []Child {
	n := f.count(tripod.MaxRefs)
	kinds, raw := f.bytes(n), f.bytes(n*seal.RefLen)
	if f.bad {
		return nil
	}
	out := make([]Child, n)
	for i := range out {
		out[i] = Child{Ref: seal.RefFrom(raw[i*seal.RefLen:]), Kind: tripod.BlobKind(kinds[i])}
		if !out[i].Kind.Valid() {
			f.fail()
			return nil
		}
	}
	return out
}

func (r *leafReader) corrupt(what string) {
	if r.err == nil {
		r.err = tripod.Errorf(tripod.Corrupt, "tree leaf: %s", what)
	}
}

func (r *leafReader) entry(e *Entry, i int) {
	c := &r.cols[colNames]
	e.Parent = r.last.Parent
	if shared := c.uvarint(); shared > 0 {
		e.Parent = r.joined(r.last.Parent, shared-1, c.text(maxText))
	} else if i == 0 {
		r.corrupt("first entry has no parent")
	}
	e.Name = r.joined(r.last.Name, c.uvarint(), c.text(maxText))

	c = &r.cols[colModes]
	e.Type = FileType(c.byte())
	flags := c.byte()
	e.Mode = c.u32()
	owner := c.uvarint()
	if owner < uint64(len(r.owners)) {
		e.Owner = r.owners[owner]
	} else {
		r.corrupt("owner out of range")
	}
	c = &r.cols[colTimes]
	e.Sec = r.last.Sec + c.varint()
	nsec := int64(r.last.Nsec) + c.varint()
	e.Nsec = uint32(nsec)
	if e.Type == Regular {
		e.Size = r.cols[colSizes].length()
	}
	r.rest(e, flags)
	if r.err == nil && e.Type == Regular {
		r.content(e)
	}
	r.check(e, flags, nsec, i)
	r.last.Parent, r.last.Name, r.last.Sec, r.last.Nsec = e.Parent, e.Name, e.Sec, e.Nsec
}

// spend counts n parts and reports whether the leaf may hold so many.
func (r *leafReader) spend(n int) bool {
	if r.parts += n; r.parts > maxParts {
		r.corrupt("more pieces, attributes or ranges than a leaf may hold")
	}
	return r.err == nil
}

func (r *leafReader) joined(last string, shared uint64, suffix string) string {
	if shared > uint64(len(last)) || shared+uint64(len(suffix)) > maxText {
		r.corrupt("impossible name")
		return ""
	}
	if r.text += int(shared) + len(suffix); r.text > maxLeafText {
		r.corrupt("more names than a leaf may hold")
		return ""
	}
	return last[:shared] + suffix
}

func (r *leafReader) check(e *Entry, flags byte, nsec int64, i int) {
	for k := range r.cols {
		if r.cols[k].bad {
			r.corrupt("malformed")
			return
		}
	}
	if !e.Type.valid() || flags != e.restFlags() || nsec < 0 || nsec > 999_999_999 || e.Mode > 0o7777 {
		r.corrupt("impossible metadata")
	}
	isRoot := e.Parent == "" && e.Name == "" && e.Type == Dir
	if !isRoot && ValidName(e.Name) != nil {
		r.corrupt("impossible name")
	}
	if e.Parent != r.last.Parent && validParent(e.Parent) != nil {
		r.corrupt("impossible path")
	}
	if i > 0 && Compare(r.last.Parent, r.last.Name, e.Parent, e.Name) >= 0 {
		r.corrupt("entries out of order")
	}
}

func (r *leafReader) rest(e *Entry, flags byte) {
	c := &r.cols[colRest]
	e.Torn = flags&isTorn != 0
	if flags&hasLink != 0 {
		e.Link = c.text(maxText)
	}
	if flags&hasDevice != 0 {
		e.Major, e.Minor = c.u32(), c.u32()
	}
	if flags&hasGroup != 0 {
		e.Group = c.uvarint()
	}
	if flags&hasXattrs != 0 {
		n := c.count(maxXattrs)
		if !r.spend(n) {
			return
		}
		e.Xattrs = make([]Xattr, n)
		for i := range e.Xattrs {
			e.Xattrs[i] = Xattr{Name: c.text(maxText), Value: c.text(maxXattr)}
			if i > 0 && e.Xattrs[i-1].Name >= e.Xattrs[i].Name {
				r.corrupt("attributes out of order")
				return
			}
		}
	}
	if flags&hasRanges != 0 {
		n := c.count(maxRanges)
		if !r.spend(n) {
			return
		}
		e.Ranges = make([]Range, 0, n)
		var at int64
		for range n {
			g := Range{Offset: at + c.length()}
			g.Length = c.length()
			at = g.Offset + g.Length
			if at <= g.Offset || at > e.Size {
				r.corrupt("sparse range empty or beyond the file")
				return
			}
			e.Ranges = append(e.Ranges, g)
		}
	}
}

func (r *leafReader) content(e *Entry) {
	c := &r.cols[colContent]
	form := c.uvarint()
	stored := e.Stored()
	switch {
	case form == formInline:
		if stored > maxNodeBytes {
			r.corrupt("impossible inline content")
			return
		}
		e.Content.Inline = c.bytes(int(stored))
	case form == formList:
		i := c.uvarint()
		if i >= uint64(len(r.refs)) || r.kinds[i] != tripod.List {
			r.corrupt("list out of range")
			return
		}
		e.Content.List = &r.refs[i]
	case form-formPieces < maxPieces:
		r.pieces(e, c, int(form-formPieces)+1, stored)
	default:
		r.corrupt("impossible content")
	}
}

func (r *leafReader) pieces(e *Entry, c *fields, n int, left int64) {
	if n > len(c.b) || !r.spend(n) {
		r.corrupt("impossible number of pieces")
		return
	}
	e.Content.Pieces = slices.Grow([]Piece(nil), n)
	for range n {
		blob := r.lastRef + c.varint()
		if blob < 0 || blob >= int64(len(r.refs)) || r.kinds[blob] != tripod.Data {
			r.corrupt("blob out of range")
			return
		}
		offset := int64(r.ends[blob]) + c.varint()
		length := left + c.varint()
		if offset < 0 || length <= 0 || length > left || offset > tripod.MaxPlain || offset+length > tripod.MaxPlain {
			r.corrupt("piece out of range")
			return
		}
		e.Content.Pieces = append(e.Content.Pieces, Piece{Ref: r.refs[blob], Offset: uint32(offset), Length: uint32(length)})
		left -= length
		r.lastRef, r.ends[blob] = blob, uint32(offset+length)
	}
	if left != 0 {
		r.corrupt("pieces are not the whole file")
	}
}
