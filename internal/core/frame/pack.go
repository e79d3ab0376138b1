package frame

import (
	"encoding/binary"
	"slices"

	"github.com/zeebo/blake3"

	"tripod/internal/core/tripod"
)

// A pack is frames back to back, then a table of contents, then a trailer:
//
//	frame ...
//	row ...          per frame: id 32, sum 32, length 4, kind 1
//	trailer          rows 4, class 1, version 1, zero 2, magic 8
//
// The pack's name is BLAKE3 over rows and trailer. A row holds the frame's
// sum, so the name vouches for every byte.
const (
	rowLen = 69
	// TrailerLen is the length of what every pack ends with, in bytes.
	TrailerLen = 16
	maxRows    = 1 << 18 // the smallest frames of a pack of 32 MiB
)

var packMagic = [8]byte{'t', 'r', 'i', 'p', 'p', 'a', 'c', 'k'}

// TableLen is the length of the table of contents, trailer included, of a pack
// of so many frames, in bytes.
func TableLen(frames int) int { return frames*rowLen + TrailerLen }

// Class keeps node blobs and data blobs in different packs, so that browsing
// touches few of them.
type Class uint8

// The classes of pack.
const (
	DataClass Class = 1
	NodeClass Class = 2
)

// ClassOf tells which packs blobs of a kind go to.
func ClassOf(k tripod.BlobKind) Class {
	if k.Node() {
		return NodeClass
	}
	return DataClass
}

// Row is one frame's place in a pack.
type Row struct {
	ID     tripod.ID
	Sum    tripod.Sum
	Kind   tripod.BlobKind
	Offset int64 // of the frame in the pack, bytes
	Len    int   // of the frame, bytes
}

// TOC is a pack's table of contents.
type TOC struct {
	Class Class
	Rows  []Row
}

// Pack collects frames and becomes a pack. The zero value is empty; Reset
// makes it empty again and keeps its memory.
type Pack struct {
	buf []byte
	toc TOC
}

// Reset empties the pack for a class.
func (p *Pack) Reset(class Class) {
	p.buf = p.buf[:0]
	p.toc = TOC{Class: class, Rows: p.toc.Rows[:0]}
}

// Grow makes room for frames of so many bytes in all, and their table, so that
// the pack's memory is no more than it needs.
func (p *Pack) Grow(frames, bytes int) {
	p.buf = slices.Grow(p.buf, bytes+TableLen(frames))
}

// Add parses, checks and appends one encoded frame, which must be of the
// pack's class and must be nothing but the frame.
func (p *Pack) Add(encoded []byte) error {
	f, rest, err := Parse(encoded)
	if err != nil {
		return err
	}
	if len(rest) != 0 || ClassOf(f.Kind) != p.toc.Class {
		return tripod.Errorf(tripod.Invalid, "blob %.16s: does not belong into this pack", f.ID)
	}
	if len(p.toc.Rows) == maxRows {
		return tripod.Errorf(tripod.Invalid, "pack: full")
	}
	if err := f.Check(); err != nil {
		return err
	}
	p.toc.Rows = append(p.toc.Rows, Row{ID: f.ID, Sum: f.Sum, Kind: f.Kind, Offset: int64(len(p.buf)), Len: len(encoded)})
	p.buf = append(p.buf, encoded...)
	return nil
}

// Len is the length in bytes of the frames added so far.
func (p *Pack) Len() int { return len(p.buf) }

// Empty reports whether no frame was added.
func (p *Pack) Empty() bool { return len(p.toc.Rows) == 0 }

// TOC returns the table of contents so far; valid until the next Reset.
func (p *Pack) TOC() TOC { return p.toc }

// Finish appends table and trailer and returns the pack's name and bytes,
// which stay valid until the next Reset. An empty pack has none: the zero name
// and nil.
func (p *Pack) Finish() (tripod.PackID, []byte) {
	if p.Empty() {
		return tripod.PackID{}, nil
	}
	start := len(p.buf)
	p.buf = appendTOC(p.buf, p.toc)
	return blake3.Sum256(p.buf[start:]), p.buf
}

func appendTOC(dst []byte, toc TOC) []byte {
	for i := range toc.Rows {
		r := &toc.Rows[i]
		dst = append(dst, r.ID[:]...)
		dst = append(dst, r.Sum[:]...)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(r.Len))
		dst = append(dst, byte(r.Kind))
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(toc.Rows)))
	dst = append(dst, byte(toc.Class), Version, 0, 0)
	return append(dst, packMagic[:]...)
}

// TOCLen reads a pack's last TrailerLen bytes and tells how many bytes at the
// pack's end, trailer included, make up its table of contents.
func TOCLen(trailer []byte) (int, error) {
	if len(trailer) != TrailerLen || [8]byte(trailer[8:]) != packMagic {
		return 0, corrupt("pack: no trailer")
	}
	if trailer[5] != Version {
		return 0, otherVersion("pack", trailer[5])
	}
	rows := binary.LittleEndian.Uint32(trailer)
	if rows == 0 || rows > maxRows {
		return 0, corrupt("pack: impossible number of frames")
	}
	return TableLen(int(rows)), nil
}

// ParseTOC reads the table of contents of the pack name, which is packLen
// bytes long and ends in b. It returns Corrupt unless the table is the one the
// name vouches for and accounts for every byte of the pack.
func ParseTOC(name tripod.PackID, packLen int64, b []byte) (TOC, error) {
	var toc TOC
	if len(b) < TrailerLen {
		return toc, truncated("pack")
	}
	n, err := TOCLen(b[len(b)-TrailerLen:])
	if err != nil {
		return toc, err
	}
	if n != len(b) || tripod.PackID(blake3.Sum256(b)) != name {
		return toc, corrupt("pack: table of contents does not match its name")
	}
	trailer := b[n-TrailerLen:]
	toc.Class = Class(trailer[4])
	if trailer[6] != 0 || trailer[7] != 0 {
		return toc, corrupt("pack: unknown flag")
	}
	toc.Rows = make([]Row, 0, n/rowLen)
	var at int64
	for row := b[:n-TrailerLen]; len(row) > 0; row = row[rowLen:] {
		r := Row{ID: tripod.ID(row[:32]), Sum: tripod.Sum(row[32:64]), Kind: tripod.BlobKind(row[68]), Offset: at}
		r.Len = int(binary.LittleEndian.Uint32(row[64:]))
		if !r.Kind.Valid() || ClassOf(r.Kind) != toc.Class || r.Len < fixedLen+NonceLen+sumLen+TagLen {
			return toc, corrupt("pack: impossible row")
		}
		at += int64(r.Len)
		toc.Rows = append(toc.Rows, r)
	}
	if at+int64(n) != packLen {
		return toc, corrupt("pack: table does not account for every byte")
	}
	return toc, nil
}
