package collect

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"tripod/internal/core/tripod"
	"tripod/internal/vault/index"
)

// entryFile keeps index entries in the order in which they come.
type entryFile struct {
	file *os.File
	w    *bufio.Writer
}

const entryLen = 32 + 32 + 4 + 4 + 4 + 1 + 1

func newEntryFile(dir string) (*entryFile, error) {
	f, err := os.Create(filepath.Join(dir, "doomed"))
	if err != nil {
		return nil, err
	}
	return &entryFile{f, bufio.NewWriterSize(f, 256<<10)}, nil
}

func (f *entryFile) close() error { return f.file.Close() }

func (f *entryFile) add(e *index.Entry) error {
	var b [entryLen]byte
	copy(b[:], e.ID[:])
	copy(b[32:], e.Sum[:])
	binary.BigEndian.PutUint32(b[64:], e.Pack)
	binary.BigEndian.PutUint32(b[68:], e.Offset)
	binary.BigEndian.PutUint32(b[72:], e.Len)
	b[76] = byte(e.Kind)
	if e.Suspect {
		b[77] = 1
	}
	_, err := f.w.Write(b[:])
	return err
}

// each calls fn for the entries. Their state but for damage is not kept.
func (f *entryFile) each(fn func(e *index.Entry) error) error {
	if err := f.w.Flush(); err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f.file, 0, 1<<62), 256<<10)
	var b [entryLen]byte
	var e index.Entry
	for {
		_, err := io.ReadFull(r, b[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e = index.Entry{
			ID: tripod.ID(b[:32]), Sum: tripod.Sum(b[32:64]), Pack: binary.BigEndian.Uint32(b[64:]),
			Offset: binary.BigEndian.Uint32(b[68:]), Len: binary.BigEndian.Uint32(b[72:]), Kind: tripod.BlobKind(b[76]), Suspect: b[77] != 0,
		}
		if err := fn(&e); err != nil {
			return err
		}
	}
}
