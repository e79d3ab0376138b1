//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// seed makes every run of this program change the same places.
const seed = 20240229

// random returns the source of chance of one run: the same for all tools.
func random(run int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(run))) }

// A patch is what one file held at an offset before it was edited, with its
// length and times, so that the edit can be undone.
type patch struct {
	path  string
	at    int64
	old   []byte
	size  int64 // of the file
	mtime time.Time
}

// undo puts the old bytes, length and modification time back.
func (p patch) undo() error {
	f, err := os.OpenFile(p.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p.old, p.at)
	if err == nil {
		err = f.Truncate(p.size)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chtimes(p.path, time.Time{}, p.mtime)
	}
	return err
}

// undoAll undoes the patches, the last one first.
func undoAll(patches []patch) func() error {
	return func() error {
		for _, p := range slices.Backward(patches) {
			if err := p.undo(); err != nil {
				return err
			}
		}
		return nil
	}
}

// editTree changes 1 % of the files below root, chosen at random: in each, a
// random stretch of up to 100 bytes is replaced and a line appended.
func editTree(root string, run int) (func() error, error) {
	var files []string
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	r := random(run)
	var patches []patch
	for _, i := range r.Perm(len(files))[:(len(files)+99)/100] {
		p, err := editFile(files[i], r)
		if err != nil {
			return nil, err
		}
		patches = append(patches, p)
	}
	return undoAll(patches), nil
}

// editFile changes one file in place.
func editFile(path string, r *rand.Rand) (patch, error) {
	info, err := os.Stat(path)
	if err != nil {
		return patch{}, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return patch{}, err
	}
	defer f.Close()
	p := patch{path: path, size: info.Size(), mtime: info.ModTime(), old: make([]byte, min(100, info.Size()))}
	p.at = r.Int64N(info.Size() - int64(len(p.old)) + 1)
	if _, err := f.ReadAt(p.old, p.at); err != nil {
		return p, err
	}
	if _, err := f.WriteAt(text(r, len(p.old)), p.at); err != nil {
		return p, err
	}
	line := append(text(r, 60), '\n')
	if _, err := f.WriteAt(line, p.size); err != nil {
		return p, err
	}
	return p, f.Close()
}

// text returns n random letters.
func text(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + r.IntN(26))
	}
	return b
}

// imageBlock is the unit in which an image is edited.
const imageBlock = 64 << 10

// editImage overwrites 1 % of the image's aligned 64 KiB blocks with random
// bytes. It chooses among the blocks that hold data, wholly or in part: a file
// system in use writes where it has data, and holes cost no tool anything.
func editImage(path string, run int) (func() error, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	blocks, err := dataBlocks(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("find the data of %s: %w", path, err)
	}
	var key [32]byte
	key[0], key[1] = byte(run), 1
	noise := rand.NewChaCha8(key)
	r := random(run)
	var patches []patch
	for _, i := range r.Perm(len(blocks))[:(len(blocks)+99)/100] {
		p := patch{path: path, at: blocks[i], size: info.Size(), mtime: info.ModTime()}
		p.old = make([]byte, min(imageBlock, info.Size()-p.at))
		if _, err := f.ReadAt(p.old, p.at); err != nil {
			return nil, err
		}
		fresh := make([]byte, len(p.old))
		_, _ = noise.Read(fresh)
		if _, err := f.WriteAt(fresh, p.at); err != nil {
			return nil, err
		}
		patches = append(patches, p)
	}
	return undoAll(patches), f.Close()
}

// dataBlocks returns the offsets of the blocks that are not wholly in a hole.
func dataBlocks(f *os.File, size int64) ([]int64, error) {
	const seekData, seekHole = 3, 4
	var blocks []int64
	next := int64(0) // first block not yet listed
	for at := int64(0); at < size; {
		start, err := f.Seek(at, seekData)
		if err != nil {
			if isNoData(err) {
				break
			}
			return nil, err
		}
		end, err := f.Seek(start, seekHole)
		if err != nil {
			return nil, err
		}
		for off := max(next, start/imageBlock*imageBlock); off < end; off += imageBlock {
			blocks = append(blocks, off)
			next = off + imageBlock
		}
		at = end
	}
	_, err := f.Seek(0, io.SeekStart)
	return blocks, err
}

// isNoData tells the end of the last data from a failure.
func isNoData(err error) bool {
	e, ok := err.(*os.PathError)
	return ok && e.Err == syscall.ENXIO
}
