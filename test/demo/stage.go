package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stage is the place of the demo, and what it remembers for the end.
type stage struct {
	ctx    context.Context // lint:context a demo is one call
	binary string
	dir    string
	env    []string
	bold   func(string) string
	steps  int

	before       files // what the folder held when it was lost
	code         string
	first        time.Duration
	second       time.Duration
	single       time.Duration
	whole        time.Duration
	firstStored  int64
	secondStored int64
}

func newStage(ctx context.Context, binary, dir string) *stage {
	s := &stage{ctx: ctx, binary: binary, dir: dir, bold: func(t string) string { return t }}
	if info, err := os.Stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		s.bold = func(t string) string { return "\x1b[1m" + t + "\x1b[0m" }
	}
	// Nothing of this machine's own vaults is seen or changed.
	s.env = append(os.Environ(), "TRIPOD_PASSPHRASE="+rand.Text(), "TRIPOD_CONFIG_DIR="+s.path("config"), "TRIPOD_CACHE_DIR="+s.path("cache"))
	return s
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) title(text string) { fmt.Printf("\n%s\n", s.bold(text)) }

func (s *stage) say(format string, a ...any) { fmt.Printf(format+"\n", a...) }

func (s *stage) step(text string) {
	s.steps++
	fmt.Printf("\n%s\n", s.bold(fmt.Sprintf("%2d. %s", s.steps, text)))
}

// result ends a step with what came of it.
func (s *stage) result(format string, a ...any) { fmt.Printf("    -> "+format+"\n", a...) }

func (s *stage) more(format string, a ...any) { fmt.Printf("       "+format+"\n", a...) }

// tripod runs the program and shows the command and what it prints.
func (s *stage) tripod(args ...string) (out string, err error) {
	fmt.Printf("    $ tripod %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(s.ctx, s.binary, args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	raw, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(raw)) {
		fmt.Println(strings.TrimRight("      "+strings.TrimRight(line, "\n"), " "))
	}
	switch {
	case s.ctx.Err() != nil:
		return "", fmt.Errorf("interrupted: %w", s.ctx.Err())
	case err != nil:
		return "", fmt.Errorf("tripod %s: %w", args[0], err)
	}
	return string(raw), nil
}

func (s *stage) summary(all time.Duration) {
	fmt.Printf("\n%s\n", s.bold("Everything is back."))
	row := func(what, how string) { fmt.Printf("    %-34s %s\n", what, how) }
	row("protected", fmt.Sprintf("%s files, %s", count(len(s.before)), size(s.before.bytes())))
	row("first backup", fmt.Sprintf("%s, stored %s", duration(s.first), size(s.firstStored)))
	row("second backup, 1 % changed", fmt.Sprintf("%s, stored %s more", duration(s.second), size(s.secondStored)))
	row("one document restored", duration(s.single))
	row("everything restored", duration(s.whole))
	row("the whole demo", duration(all))
	fmt.Println()
}

func took(began time.Time) string { return duration(time.Since(began)) }

func duration(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	v, units := float64(n), []string{"B", "KiB", "MiB", "GiB"}
	for v >= unit && len(units) > 1 {
		v, units = v/unit, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}

// count is a number with separators.
func count(n int) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
