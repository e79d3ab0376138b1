//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The steps of tree and image, in their order.
const (
	full      = "full"
	unchanged = "unchanged"
	edited    = "edited"
	restore   = "restore"
	check     = "check"
)

// A series collects the samples of one section.
type series struct {
	steps   []string
	tools   []string
	samples map[string][]sample // by step and tool
	failed  map[string]bool     // tools that are out
}

func newSeries(tools []tool, steps ...string) *series {
	s := &series{steps: steps, samples: map[string][]sample{}, failed: map[string]bool{}}
	for _, t := range tools {
		s.tools = append(s.tools, t.name)
	}
	return s
}

// of returns the median of what was measured of a step of a tool; false when
// that is nothing.
func (s *series) of(step, tool string) (sample, bool) {
	all := s.samples[step+"/"+tool]
	return median(all), len(all) > 0
}

// attempt runs one step of one tool, unless the tool is out already, and keeps
// and tells the sample.
func (b *bench) attempt(ctx context.Context, s *series, section, step, name string, do func() (sample, error)) error {
	return b.try(ctx, s, section, step, name, func() error {
		m, err := do()
		if err != nil {
			return err
		}
		s.samples[step+"/"+name] = append(s.samples[step+"/"+name], m)
		say("  %-9s %-7s %8.2f s %8.2f CPU s %6d MB peak %9.1f MB added",
			step, name, m.Seconds, m.CPU, m.Peak/1e6, float64(m.Added)/1e6)
		return nil
	})
}

// try does something for a tool, unless the tool is out already. A failure is
// told and takes the tool out of the section; only an interrupt is an error.
func (b *bench) try(ctx context.Context, s *series, section, what, name string, do func() error) error {
	if s.failed[name] {
		return nil
	}
	err := do()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.failed[name] = true
		text := fmt.Sprintf("%s, %s, %s: %v", section, what, name, err)
		b.failures = append(b.failures, text)
		say("  FAILED %s", text)
	}
	return nil
}

// corpus is what a section backs up.
type corpus struct {
	what  string // as printed
	path  string // a directory, or a disk image
	image bool
	files int
	bytes int64
	edit  func(run int) (undo func() error, err error) // changes 1 %
}

// fiveSteps measures all tools on a corpus, run by run and step by step.
func (b *bench) fiveSteps(ctx context.Context, name string, c corpus) (*series, error) {
	s := newSeries(b.tools, full, unchanged, edited, restore, check)
	for run := range b.runs {
		say("%s: run %d of %d", name, run+1, b.runs)
		if err := b.oneRun(ctx, s, name, c, run); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// oneRun takes every tool once through the five steps, from a fresh vault, and
// leaves the corpus as it was.
func (b *bench) oneRun(ctx context.Context, s *series, name string, c corpus, run int) (err error) {
	places := b.places(c)
	defer os.RemoveAll(filepath.Join(b.dir, "places")) // lint:errcheck what stays is only litter
	for _, p := range places {
		if err := b.try(ctx, s, name, "set-up", p.tool.name, func() error { return p.fresh(ctx) }); err != nil {
			return err
		}
	}
	for _, step := range s.steps {
		if step == edited {
			undo, err := c.edit(run)
			if err != nil {
				return fmt.Errorf("edit: %w", err)
			}
			defer func() {
				if e := undo(); e != nil && err == nil {
					err = fmt.Errorf("undo the edits: %w", e)
				}
			}()
		}
		for _, p := range places {
			do := func() (sample, error) { return p.step(ctx, step, c) }
			if err := b.attempt(ctx, s, name, step, p.tool.name, do); err != nil {
				return err
			}
		}
	}
	return nil
}

// places returns one place for each tool.
func (b *bench) places(c corpus) []place {
	var places []place
	for _, t := range b.tools {
		places = append(places, place{tool: t, dir: filepath.Join(b.dir, "places", t.name), source: c.path})
	}
	return places
}

// step measures one of the five steps.
func (p place) step(ctx context.Context, step string, c corpus) (sample, error) {
	switch step {
	case restore:
		return p.restore(ctx, c)
	case check:
		if err := p.prepare(ctx, p.tool.beforeCheck); err != nil {
			return sample{}, err
		}
		return measure(ctx, p.env(), p.command(p.tool.check), nil)
	}
	args := p.tool.tree
	if c.image {
		args = p.tool.image
	}
	return p.backup(ctx, args, nil)
}

// backup measures a backup and what it adds to the vault. The growth of the
// first one counts from nothing: with it, added is the size of the vault.
func (p place) backup(ctx context.Context, args []string, stdin io.Reader) (sample, error) {
	before, _, err := footprint(p.vault())
	if err != nil {
		return sample{}, fmt.Errorf("size of the vault: %w", err)
	}
	s, err := measure(ctx, p.env(), p.command(args), stdin)
	if err != nil {
		return s, err
	}
	after, files, err := footprint(p.vault())
	if err != nil {
		return s, fmt.Errorf("size of the vault: %w", err)
	}
	s.Added, s.Objects = after-before, files
	return s, nil
}

// restore measures a restore to an empty directory, compares the result with
// the source outside the measured time, and removes it.
func (p place) restore(ctx context.Context, c corpus) (sample, error) {
	parent := filepath.Dir(p.target())
	defer os.RemoveAll(parent) // lint:errcheck what stays is only litter
	args, empty := p.tool.restoreImage, parent
	if !c.image {
		args, empty = p.tool.restoreTree, p.target()
	}
	if err := os.MkdirAll(empty, 0o700); err != nil {
		return sample{}, fmt.Errorf("target: %w", err)
	}
	s, err := measure(ctx, p.env(), p.command(args), nil)
	if err != nil {
		return s, err
	}
	if c.image {
		err = compareFiles(c.path, p.target())
	} else {
		err = compareTrees(c.path, findRestored(p.target(), c.path), !p.tool.noDirTimes)
	}
	if err != nil {
		return s, fmt.Errorf("the restore is not equal to its source: %w", err)
	}
	return s, nil
}
