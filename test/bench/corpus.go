//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// linuxSource is where Debian's package linux-source-6.1 puts its archive.
const linuxSource = "/usr/src/linux-source-6.1.tar.xz"

// likeLinux is the number of files of a generated tree that stands in for it.
const likeLinux = 78600

// sourceTree measures the five steps on the source tree.
func (b *bench) sourceTree(ctx context.Context) (section, error) {
	if err := needSpace(b.dir, 6); err != nil {
		return section{}, err
	}
	if err := b.needTree(ctx); err != nil {
		return section{}, err
	}
	s, err := b.fiveSteps(ctx, "tree", b.tree)
	if err != nil {
		return section{}, err
	}
	title := fmt.Sprintf("Source tree: %s, %d files, %.2f GB; 1 %% of the files edited; %s",
		b.tree.what, b.tree.files, float64(b.tree.bytes)/1e9, b.repeated())
	return fiveStepSection("tree", title, s, treeGoals()), nil
}

// image measures the five steps on a disk image of the source tree.
func (b *bench) image(ctx context.Context) (section, error) {
	if err := needSpace(b.dir, 8); err != nil {
		return section{}, err
	}
	if err := b.needTree(ctx); err != nil {
		return section{}, err
	}
	c, err := makeImage(ctx, b.tree, filepath.Join(b.dir, "image", "disk.ext4"))
	if err != nil {
		return section{}, err
	}
	defer os.RemoveAll(filepath.Dir(c.path)) // lint:errcheck what stays is only litter
	b.dropTree()
	s, err := b.fiveSteps(ctx, "image", c)
	if err != nil {
		return section{}, err
	}
	title := fmt.Sprintf("Disk image: %s, %.2f GB of data; 1 %% of its 64 KiB blocks overwritten; %s",
		c.what, float64(c.bytes)/1e9, b.repeated())
	return fiveStepSection("image", title, s, imageGoals()), nil
}

// repeated says how often was measured.
func (b *bench) repeated() string {
	if b.runs == 1 {
		return "one run"
	}
	return fmt.Sprintf("median of %d runs", b.runs)
}

// needTree makes the source tree unless it is there already.
func (b *bench) needTree(ctx context.Context) error {
	if b.tree.path != "" {
		return nil
	}
	dir := filepath.Join(b.dir, "source", "tree")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("source tree: %w", err)
	}
	what, err := b.fillTree(ctx, dir)
	if err != nil {
		return fmt.Errorf("source tree: %w", err)
	}
	c := corpus{what: what, path: dir, edit: func(run int) (func() error, error) { return editTree(dir, run) }}
	if c.bytes, c.files, err = footprint(dir); err != nil {
		return fmt.Errorf("source tree: %w", err)
	}
	b.tree = c
	return nil
}

// dropTree gives the memory of the source tree back.
func (b *bench) dropTree() {
	if b.tree.path != "" {
		_ = os.RemoveAll(filepath.Dir(b.tree.path))
	}
	b.tree = corpus{}
}

// fillTree fills dir from the best source there is and says which.
func (b *bench) fillTree(ctx context.Context, dir string) (what string, err error) {
	switch {
	case b.options.tree != "":
		return "copy of " + b.options.tree, command(ctx, "cp", "-a", b.options.tree+"/.", dir)
	case b.generate > 0:
		return "generated", generateTree(ctx, dir, b.generate)
	}
	if _, err := os.Stat(linuxSource); err != nil && os.Geteuid() == 0 {
		say("installing Debian's package linux-source-6.1, the source tree to back up")
		if err := command(ctx, "apt-get", "install", "-y", "--no-install-recommends", "linux-source-6.1"); err != nil {
			say("%v", err)
		}
	}
	if _, err := os.Stat(linuxSource); err != nil {
		say("%s is missing: a generated tree of like shape is used instead", linuxSource)
		return "generated, shaped like the Linux source", generateTree(ctx, dir, likeLinux)
	}
	say("unpacking %s", linuxSource)
	return "Linux 6.1", command(ctx, "tar", "-xf", linuxSource, "-C", dir, "--strip-components=1")
}

// command runs a program that only prepares something.
func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// makeImage makes an ext4 image of 3 GB (more for a larger tree) that holds the
// tree. Identifiers and times are fixed, so that it is the same every time.
func makeImage(ctx context.Context, tree corpus, path string) (corpus, error) {
	const gib = 1 << 30
	size := max(3*gib, (2*tree.bytes+gib-1)/gib*gib)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return corpus{}, fmt.Errorf("image: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return corpus{}, fmt.Errorf("image: %w", err)
	}
	if err := os.Truncate(path, size); err != nil {
		return corpus{}, fmt.Errorf("image: %w", err)
	}
	say("making an ext4 image")
	cmd := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-N", fmt.Sprint(tree.files*3/2+4096),
		"-U", "6f3f4b6e-0000-4000-8000-000000000001",
		"-E", "root_owner=0:0,hash_seed=6f3f4b6e-0000-4000-8000-000000000002", "-d", tree.path, path)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return corpus{}, fmt.Errorf("make the image (needs e2fsprogs): %w\n%s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		return corpus{}, fmt.Errorf("image: %w", err)
	}
	defer f.Close()
	blocks, err := dataBlocks(f, size)
	return corpus{
		what: fmt.Sprintf("ext4, %d GiB, sparse, holding the source tree (%s)", size/gib, tree.what),
		path: path, image: true, files: 1, bytes: int64(len(blocks)) * imageBlock,
		edit: func(run int) (func() error, error) { return editImage(path, run) },
	}, err
}

// generateTree makes files like those of a large program: 16 to a directory,
// of some 17 KB on average and a few hundred KB at most, text that compresses
// like source code because it repeats words and lines. It is the same every
// time.
func generateTree(ctx context.Context, dir string, files int) error {
	r := random(-1)
	vocabulary := make([]string, 4000)
	for i := range vocabulary {
		vocabulary[i] = string(text(r, 2+r.IntN(10)))
	}
	w := writer{r: r, words: vocabulary, pick: rand.NewZipf(r, 1.3, 4, uint64(len(vocabulary)-1))}
	var sub string
	for i := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i%16 == 0 {
			d := i / 16
			sub = filepath.Join(dir, vocabulary[d/400], vocabulary[100+d/20%20], vocabulary[200+d%20])
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		size := min(400e3, 5500*math.Exp(1.5*r.NormFloat64()))
		name := filepath.Join(sub, fmt.Sprintf("%s_%d.c", vocabulary[r.IntN(1000)], i))
		if err := os.WriteFile(name, w.file(int(size)), 0o644); err != nil {
			return err
		}
		stamp := time.Unix(1700000000-r.Int64N(1e8), r.Int64N(1e9))
		if err := os.Chtimes(name, stamp, stamp); err != nil {
			return err
		}
	}
	return nil
}

// A writer makes text that looks like source code to a compressor.
type writer struct {
	r     *rand.Rand
	words []string
	pick  *rand.Zipf
	lines [][]byte // written before, to be repeated
	buf   []byte
}

// file returns text of the given size, valid until the next call.
func (w *writer) file(size int) []byte {
	w.buf = w.buf[:0]
	for len(w.buf) < size {
		w.buf = append(w.buf, w.line()...)
	}
	return w.buf[:size]
}

// line returns an old line more often than not, or a new one.
func (w *writer) line() []byte {
	const keep = 60 // few, so that even a small file repeats itself
	if len(w.lines) == keep && w.r.IntN(100) < 85 {
		return w.lines[w.r.IntN(keep)]
	}
	line := []byte("\t\t\t"[:w.r.IntN(4)])
	for range 2 + w.r.IntN(7) {
		line = append(line, w.words[w.pick.Uint64()]...)
		line = append(line, " (->;,"[w.r.IntN(6)])
	}
	line = append(line, '\n')
	if len(w.lines) < keep {
		w.lines = append(w.lines, line)
	} else {
		w.lines[w.r.IntN(keep)] = line
	}
	return line
}
