//go:build !linux

package disk

import (
	"io"
	"io/fs"
	"os"

	"tripod/internal/driver/source"
)

func deviceSize(f *os.File) (int64, error) { return f.Seek(0, io.SeekEnd) }

func identify(fs.FileInfo, *source.DiskInfo) {}

func advise(*os.File) {}

func nextData(_ *os.File, r source.Range) (source.Range, error) { return r, nil }
