package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// file is what is compared of a file.
type file struct {
	mode fs.FileMode
	size int64
	time time.Time
	sum  [32]byte
}

// files are all regular files of a folder, by path below it.
type files map[string]file

func (f files) bytes() (total int64) {
	for _, one := range f {
		total += one.size
	}
	return total
}

func (f files) first() string { return slices.Min(slices.Collect(maps.Keys(f))) }

// compare tells the first difference; times and modes only count when asked for.
func (f files) compare(got files, metadata bool) error {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		want := f[name]
		have, ok := got[name]
		switch {
		case !ok:
			return fmt.Errorf("%s is missing", name)
		case have.sum != want.sum:
			return fmt.Errorf("%s differs", name)
		case metadata && (have.mode != want.mode || !have.time.Equal(want.time)):
			return fmt.Errorf("%s: mode %v and time %v, was %v and %v", name, have.mode, have.time, want.mode, want.time)
		}
	}
	if len(got) != len(f) {
		return fmt.Errorf("%d files too many", len(got)-len(f))
	}
	return nil
}

// look reads a folder.
func look(dir string) (files, error) {
	found := files{}
	err := each(dir, func(name string, info fs.FileInfo) error {
		content, err := os.ReadFile(filepath.Join(dir, name))
		found[name] = file{info.Mode(), info.Size(), info.ModTime(), sha256.Sum256(content)}
		return err
	})
	return found, err
}

// each calls fn for every regular file below dir.
func each(dir string, fn func(name string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return fn(name, info)
	})
}

// copyFolder copies the regular files of a folder with modes and times.
func copyFolder(ctx context.Context, from, to string) error {
	return each(from, func(name string, info fs.FileInfo) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, content, info.Mode().Perm()|0o200); err != nil {
			return err
		}
		return os.Chtimes(target, info.ModTime(), info.ModTime())
	})
}

// edit adds a line to one file in a hundred.
func edit(dir string, all files) (edited int, err error) {
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i%100 != 0 {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return edited, err
		}
		_, err = fmt.Fprintf(f, "// edited by the demo at %v\n", time.Now())
		if err := errors.Join(err, f.Close()); err != nil {
			return edited, err
		}
		edited++
	}
	return edited, nil
}

// holding counts the files of a folder that hold the text.
func holding(dir, text string) (n int, err error) {
	err = each(dir, func(name string, _ fs.FileInfo) error {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if bytes.Contains(content, []byte(text)) {
			n++
		}
		return err
	})
	return n, err
}

// diskUse is the size of all files of a folder.
func diskUse(dir string) (total int64, err error) {
	err = each(dir, func(_ string, info fs.FileInfo) error {
		total += info.Size()
		return nil
	})
	return total, err
}
