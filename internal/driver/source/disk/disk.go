// Package disk reads a block device or a disk image by offset. Open one, ask
// Info for its size, and NextData for the ranges of an image that hold data.
package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// Disk is an open device or image. It implements source.Disk.
type Disk struct {
	file *os.File
	info source.DiskInfo
}

var _ source.Disk = (*Disk)(nil)

// Open opens the block device or image file at path, through symbolic links:
// the stable names of devices are such. Errors: NotFound, Denied, Invalid for
// what is no disk, Unavailable.
func Open(path string) (*Disk, error) {
	// Before opening: that of a FIFO would wait for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, failure(path, err)
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, failure(path, err)
	}
	d := &Disk{file: f}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	d.info.Path = path
	if d.info, err = d.Stat(); err == nil && d.info.Size == 0 {
		err = tripod.Errorf(tripod.Invalid, "%s is empty", path).WithHint("a drive without a medium looks like this, too")
	}
	if err != nil {
		_ = f.Close() // it was only read
		return nil, err
	}
	advise(f)
	return d, nil
}

// check tells what else people name by mistake.
func check(path string, info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return tripod.Errorf(tripod.Invalid, "%s is a folder, not a disk", path).
			WithHint("back up folders as files; for the disk it lies on, name the device")
	case isDevice(info), mode.IsRegular():
		return nil
	default:
		return tripod.Errorf(tripod.Invalid, "%s is neither a block device nor an image file", path)
	}
}

func isDevice(info fs.FileInfo) bool {
	return info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
}

// Info implements source.Disk.
func (d *Disk) Info() source.DiskInfo { return d.info }

// Stat implements source.Disk.
func (d *Disk) Stat() (source.DiskInfo, error) {
	now := source.DiskInfo{Path: d.info.Path}
	info, err := d.file.Stat()
	if err != nil {
		return now, failure(now.Path, err)
	}
	if err := check(now.Path, info); err != nil {
		return now, err // replaced between looking and opening
	}
	identify(info, &now)
	now.Device = isDevice(info)
	if !now.Device {
		now.Size = info.Size()
		now.MTime = source.Time{Sec: info.ModTime().Unix(), Nsec: int64(info.ModTime().Nanosecond())}
		return now, nil
	}
	now.CTime = source.Time{} // that of its node, which says nothing
	if now.Size, err = deviceSize(d.file); err != nil {
		return now, failure("size of "+now.Path, err)
	}
	return now, nil
}

// ReadAt implements io.ReaderAt. A read of a bad sector fails as a whole; the
// caller may try its parts.
func (d *Disk) ReadAt(p []byte, offset int64) (int, error) {
	n, err := d.file.ReadAt(p, offset)
	if err != nil && err != io.EOF { //nolint:errorlint // as io.ReaderAt says
		err = failure(d.info.Path, err)
	}
	return n, err
}

// NextData implements source.Sparse. A device is one range: it does not tell.
func (d *Disk) NextData(offset int64) (source.Range, error) {
	if offset >= d.info.Size {
		return source.Range{}, io.EOF
	}
	r := source.Range{Offset: offset, Length: d.info.Size - offset}
	if d.info.Device {
		return r, nil
	}
	return nextData(d.file, r)
}

// Close implements io.Closer.
func (d *Disk) Close() error {
	if err := d.file.Close(); err != nil {
		return failure(d.info.Path, err)
	}
	return nil
}

func failure(what string, err error) error {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err // it would repeat the path
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return tripod.Errorf(tripod.NotFound, "disk %s: %w", what, err)
	case errors.Is(err, fs.ErrPermission):
		return tripod.Errorf(tripod.Denied, "disk %s: %w", what, err).
			WithHint("reading a disk takes the rights of root, or of the group that owns the device")
	case errors.Is(err, fs.ErrClosed):
		return tripod.Errorf(tripod.Invalid, "disk %s: %w", what, err)
	default:
		return tripod.Errorf(tripod.Unavailable, "disk %s: %w", what, err)
	}
}
