//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// findRestored returns where below target a tool has put the tree: there
// itself, below the tree's name, or below its whole path.
func findRestored(target, source string) string {
	for _, dir := range []string{filepath.Join(target, source), filepath.Join(target, filepath.Base(source))} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return target
}

// compareTrees checks that got holds exactly what want holds: names, types,
// modes, modification times (those of directories only with dirTimes), link
// targets and contents. The two directories themselves may differ, got was
// there before. The error names the first difference.
func compareTrees(want, got string, dirTimes bool) error {
	count := 0
	err := filepath.WalkDir(want, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if count++; count == 1 {
			return nil
		}
		rel, err := filepath.Rel(want, path)
		if err != nil {
			return err
		}
		if err := compareEntry(path, filepath.Join(got, rel), dirTimes); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	found := 0
	err = filepath.WalkDir(got, func(_ string, _ os.DirEntry, err error) error {
		found++
		return err
	})
	if err == nil && found != count {
		err = fmt.Errorf("%d entries instead of %d", found, count)
	}
	return err
}

// compareEntry compares one file, link or directory without what is below it.
func compareEntry(want, got string, dirTimes bool) error {
	a, err := os.Lstat(want)
	if err != nil {
		return err
	}
	b, err := os.Lstat(got)
	if err != nil {
		return err
	}
	if a.Mode() != b.Mode() {
		return fmt.Errorf("mode %v instead of %v", b.Mode(), a.Mode())
	}
	if !a.ModTime().Equal(b.ModTime()) && (dirTimes || !a.IsDir()) {
		return fmt.Errorf("time %v instead of %v", b.ModTime(), a.ModTime())
	}
	switch {
	case a.Mode().IsRegular():
		return compareFiles(want, got)
	case a.Mode()&os.ModeSymlink != 0:
		x, err := os.Readlink(want)
		if err != nil {
			return err
		}
		y, err := os.Readlink(got)
		if err != nil {
			return err
		}
		if x != y {
			return fmt.Errorf("link to %q instead of %q", y, x)
		}
	}
	return nil
}

// compareFiles compares the contents of two files.
func compareFiles(want, got string) error {
	a, err := os.Open(want)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		return err
	}
	defer b.Close()
	infoA, err := a.Stat()
	if err != nil {
		return err
	}
	infoB, err := b.Stat()
	if err != nil {
		return err
	}
	size := infoA.Size()
	if size != infoB.Size() {
		return fmt.Errorf("%d bytes instead of %d", infoB.Size(), size)
	}
	x, y := make([]byte, min(size, 256<<10)), make([]byte, min(size, 256<<10))
	for at := int64(0); at < size; at += int64(len(x)) {
		n := min(size-at, int64(len(x)))
		if _, err := io.ReadFull(a, x[:n]); err != nil {
			return err
		}
		if _, err := io.ReadFull(b, y[:n]); err != nil {
			return err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return fmt.Errorf("contents differ after byte %d", at)
		}
	}
	return nil
}
