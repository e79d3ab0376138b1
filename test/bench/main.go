//go:build linux

// Command bench measures Tripod beside restic and kopia on one machine, in one
// run, and says which of Tripod's goals are reached.
//
//	go run ./test/bench                       everything but the 20 GB stream
//	go run ./test/bench -all                  with it, and with the peers in all sections
//	go run ./test/bench -only tree -runs 1    one section, once
//	go run ./test/bench -tools restic,kopia   the peers alone
//
// Sections: startup (the bare command), tree (a source tree of some 78,600
// files), image (an ext4 image of that tree), million (a million tiny files),
// collect (ten million blobs, half of which nothing needs) and flat (memory while
// 1 GB and 20 GB come through standard input). The goals of the last three are
// absolute: they measure Tripod alone unless -all asks for
// the peers' minutes, too.
//
// All is read from and written to a fresh directory in memory (/dev/shm), which
// is removed at the end, so that disks and their caches have no say. Every tool
// compresses with zstd and encrypts, keeps its cache, configuration and
// temporary files in that directory, and starts each run with a fresh vault.
// The tools take turns step by step, so that a machine that grows slower is
// slower for all; what is printed is the median of the runs. Preparing, editing
// and comparing happen outside the measured time.
//
// A process is measured by a small launcher (measure.go). Seconds are wall
// time, CPU is user and system time, peak is the largest resident size, added
// is the growth of the vault's directory in bytes of its files.
//
// A reading order: tools.go (what is run), steps.go (in which order), corpus.go
// and edit.go (on what), report.go (goals and tables).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == launcherArg {
		os.Exit(launch(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(2)
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	sections []string // of sectionNames
	tools    []string // of tripod, restic, kopia
	runs     int      // repetitions of tree and image
	tree     string   // copied and used as the source tree; empty for the Linux source
	generate int      // files of a generated source tree; 0 for the Linux source
	dir      string   // where the private directory is made
	tripod   string   // a ready binary; empty to build one
	json     string   // file that also gets the report
	blobs    int      // of the section collect
	all      bool     // peers in the sections with absolute goals, too
}

// sectionNames returns all sections in the order in which they run.
func sectionNames() []string {
	return []string{"startup", "tree", "image", "million", "collect", "flat"}
}

// parse reads the command line. The error says what is wrong with it.
func parse(args []string) (options, error) {
	var o options
	var only, tools string
	var million, flat bool
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&only, "only", "", "sections to run, separated by commas: "+strings.Join(sectionNames(), ", "))
	f.StringVar(&tools, "tools", "tripod,restic,kopia", "tools to measure, separated by commas")
	f.BoolVar(&million, "million", true, "run the section million")
	f.BoolVar(&flat, "flat", false, "run the section flat, too")
	f.BoolVar(&o.all, "all", false, "run all sections, with the peers in million and flat, too")
	f.IntVar(&o.runs, "runs", 3, "how often tree and image are measured; the median is printed")
	f.StringVar(&o.tree, "tree", "", "copy this `directory` as the source tree instead of the Linux 6.1 source")
	f.IntVar(&o.generate, "generate", 0, "generate a source tree of `n` files instead of the Linux 6.1 source")
	f.IntVar(&o.blobs, "blobs", 10_000_000, "make so many `blobs` in the section collect")
	f.StringVar(&o.dir, "dir", "/dev/shm", "where the private `directory` is made, removed at the end")
	f.StringVar(&o.tripod, "tripod", "", "measure this `binary` instead of building ./cmd/tripod")
	f.StringVar(&o.json, "json", "", "write the report to this `file`, too")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	o.tools = strings.Split(tools, ",")
	o.sections = choose(only, million, flat, o.all)
	for _, s := range o.sections {
		if !slices.Contains(sectionNames(), s) {
			return o, fmt.Errorf("-only: no section %q; there are %s", s, strings.Join(sectionNames(), ", "))
		}
	}
	if o.runs < 1 {
		return o, errors.New("-runs: at least 1")
	}
	if o.tree != "" && o.generate > 0 {
		return o, errors.New("-tree and -generate exclude each other")
	}
	return o, nil
}

// choose turns the section flags into the list of sections.
func choose(only string, million, flat, all bool) []string {
	if only != "" {
		return strings.Split(only, ",")
	}
	if all {
		return sectionNames()
	}
	s := []string{"startup", "tree", "image"}
	if million {
		s = append(s, "million", "collect")
	}
	if flat {
		s = append(s, "flat")
	}
	return s
}

// run prepares the private directory and the tools, runs the sections and
// prints the report. A tool that failed is left out of what followed its
// failure and makes the run fail at the end.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "tripod-bench-")
	if err != nil {
		return fmt.Errorf("private directory: %w (choose another place with -dir)", err)
	}
	defer func() {
		if e := os.RemoveAll(dir); e != nil && err == nil {
			err = fmt.Errorf("clean up: %w", e)
		}
	}()
	b := &bench{options: o, dir: dir}
	if b.tools, err = findTools(ctx, o, dir); err != nil {
		return err
	}
	b.report.begin(ctx, b)
	for _, name := range sectionNames() {
		if !slices.Contains(o.sections, name) {
			continue
		}
		sec, err := b.section(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		sec.print(os.Stdout)
		b.report.Sections = append(b.report.Sections, sec)
	}
	if o.json != "" {
		if err := b.report.write(o.json); err != nil {
			return err
		}
	}
	if len(b.failures) > 0 {
		return fmt.Errorf("not all was measured:\n  %s", strings.Join(b.failures, "\n  "))
	}
	return nil
}

// bench is one run of this program.
type bench struct {
	options
	dir      string // private, removed at the end
	tools    []tool
	tree     corpus // the source tree; empty until it was needed
	report   report
	failures []string
}

// section runs one section by name.
func (b *bench) section(ctx context.Context, name string) (section, error) {
	switch name {
	case "startup":
		return b.startup(ctx)
	case "tree":
		return b.sourceTree(ctx)
	case "image":
		return b.image(ctx)
	case "million":
		return b.million(ctx)
	case "collect":
		return b.collection(ctx)
	default:
		return b.flat(ctx)
	}
}

// say tells on standard error what is going on.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// findTools returns the wanted tools that are there, Tripod first built if need
// be. A missing peer is told and left out.
func findTools(ctx context.Context, o options, dir string) ([]tool, error) {
	var found []tool
	for _, name := range o.tools {
		t, ok := toolNamed(name)
		if !ok {
			return nil, fmt.Errorf("-tools: %q is not one of tripod, restic, kopia", name)
		}
		if name == "tripod" {
			binary, err := tripodBinary(ctx, o.tripod, dir)
			if err != nil {
				return nil, err
			}
			t.binary = binary
		} else if path, err := exec.LookPath(name); err == nil {
			t.binary = path
		} else {
			say("%s is not on the PATH: measured without it", name)
			continue
		}
		found = append(found, t)
	}
	if len(found) == 0 {
		return nil, errors.New("no tool to measure")
	}
	return found, nil
}

// tripodBinary returns the given binary as an absolute path, or builds one.
func tripodBinary(ctx context.Context, given, dir string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	say("building ./cmd/tripod")
	binary := filepath.Join(dir, "bin", "tripod")
	// The profile is the one "make build" uses.
	profile, err := filepath.Abs(filepath.Join("cmd", "tripod", "release.pgo"))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-pgo="+profile, "-o", binary, "tripod/cmd/tripod")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tripod (or name a binary with -tripod): %w\n%s", err, out)
	}
	return binary, nil
}
