//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// startup measures the bare command: 20 times, the median.
func (b *bench) startup(ctx context.Context) (section, error) {
	const times = 20
	const step = "start"
	s := newSeries(b.tools, step)
	for _, p := range b.places(corpus{path: b.dir}) {
		err := b.try(ctx, s, "startup", step, p.tool.name, func() error {
			for range times {
				m, err := measure(ctx, p.env(), p.command(p.tool.version), nil)
				if err != nil {
					return err
				}
				key := step + "/" + p.tool.name
				s.samples[key] = append(s.samples[key], m)
			}
			return nil
		})
		if err != nil {
			return section{}, err
		}
	}
	sec := newSection("startup", fmt.Sprintf("Start of the command (version), median of %d", times), s)
	if m, ok := s.of(step, "tripod"); ok {
		sec.Verdicts = append(sec.Verdicts, below("start, ms", m.Seconds*1000, 30))
	}
	return sec, nil
}

// absolute returns the places of a section whose goals need no peer: Tripod's,
// unless it is not measured or all was asked for.
func (b *bench) absolute(c corpus) []place {
	places := b.places(c)
	for i, p := range places {
		if p.tool.name == "tripod" && !b.all {
			return places[i : i+1]
		}
	}
	return places
}

// million measures a million files of 100 bytes, once.
func (b *bench) million(ctx context.Context) (section, error) {
	if err := needSpace(b.dir, 7); err != nil {
		return section{}, err
	}
	b.dropTree()
	dir := filepath.Join(b.dir, "source", "million")
	defer os.RemoveAll(dir) // lint:errcheck what stays is only litter
	say("million: making 1,000 directories of 1,000 files of 100 bytes")
	if err := manyFiles(ctx, dir, 1000, 1000); err != nil {
		return section{}, fmt.Errorf("make a million files: %w", err)
	}
	s := newSeries(b.tools, full, unchanged)
	places := b.absolute(corpus{path: dir})
	defer os.RemoveAll(filepath.Join(b.dir, "places")) // lint:errcheck what stays is only litter
	for _, step := range s.steps {
		for _, p := range places {
			do := func() (sample, error) {
				if step == full {
					if err := p.fresh(ctx); err != nil {
						return sample{}, err
					}
				}
				return p.backup(ctx, p.tool.tree, nil)
			}
			if err := b.attempt(ctx, s, "million", step, p.tool.name, do); err != nil {
				return section{}, err
			}
		}
	}
	sec := newSection("million", "A million files: 1,000 directories of 1,000 files of 100 bytes; one run", s)
	first, ok := s.of(full, "tripod")
	again, okAgain := s.of(unchanged, "tripod")
	if ok && okAgain {
		sec.Verdicts = []verdict{
			below("unchanged, seconds", again.Seconds, 5),
			below("peak memory, MB", float64(max(first.Peak, again.Peak))/1e6, 300),
			below("objects in the vault", float64(again.Objects), 300),
		}
	}
	return sec, nil
}

// manyFiles makes directories of files of 100 bytes each, all different.
func manyFiles(ctx context.Context, dir string, dirs, files int) error {
	r := random(-2)
	for d := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		sub := filepath.Join(dir, fmt.Sprintf("d%04d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for f := range files {
			body := fmt.Appendf(nil, "%04d/%04d %-89s\n", d, f, text(r, 40))
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%04d", f)), body, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// flat measures memory while a short and a long stream are backed up.
func (b *bench) flat(ctx context.Context) (section, error) {
	if err := needSpace(b.dir, 6); err != nil {
		return section{}, err
	}
	b.dropTree()
	const short, long = "1 GB", "20 GB"
	s := newSeries(b.tools, short, long)
	defer os.RemoveAll(filepath.Join(b.dir, "places")) // lint:errcheck what stays is only litter
	for i, size := range []int64{1e9, 20e9} {
		for _, p := range b.absolute(corpus{path: b.dir}) {
			do := func() (sample, error) {
				defer os.RemoveAll(p.dir) // lint:errcheck what stays is only litter
				if err := p.fresh(ctx); err != nil {
					return sample{}, err
				}
				return p.backup(ctx, p.tool.stream, newStream(size))
			}
			if err := b.attempt(ctx, s, "flat", s.steps[i], p.tool.name, do); err != nil {
				return section{}, err
			}
		}
	}
	sec := newSection("flat", "Memory while a stream comes through standard input; one run", s)
	one, ok := s.of(short, "tripod")
	twenty, okLong := s.of(long, "tripod")
	if ok && okLong {
		sec.Verdicts = []verdict{
			below("peak memory at 20 GB, MB", float64(twenty.Peak)/1e6, 150),
			below("peak at 20 GB / peak at 1 GB", float64(twenty.Peak)/float64(one.Peak), 1.25),
		}
	}
	return sec, nil
}

// A stream is generated data: no two blocks are equal, so that nothing
// de-duplicates away, and it compresses to about a tenth, so that 20 GB of it
// fit a vault in memory. Each block of 4 KiB is 256 random bytes and a stretch
// of one fixed text at a random place.
type stream struct {
	noise *rand.ChaCha8
	text  []byte
	block []byte
	rest  []byte // of block, not yet read
	left  int64
}

const streamBlock = 4096

// newStream returns a stream of the given size, the same every time.
func newStream(size int64) io.Reader {
	s := &stream{noise: rand.NewChaCha8([32]byte{7}), left: size, block: make([]byte, streamBlock)}
	s.text = text(random(-3), 16*streamBlock)
	return s
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && s.left > 0 {
		if len(s.rest) == 0 {
			_, _ = s.noise.Read(s.block[:256])
			at := int(binary.LittleEndian.Uint16(s.block)) % (len(s.text) - streamBlock)
			copy(s.block[256:], s.text[at:])
			s.rest = s.block[:min(streamBlock, s.left)]
		}
		c := copy(p[n:], s.rest)
		n, s.rest, s.left = n+c, s.rest[c:], s.left-int64(c)
	}
	return n, nil
}
