//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A sample is what one process cost.
type sample struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"` // user and system
	Peak    int64   `json:"peak_bytes"`  // largest resident size
	Added   int64   `json:"added_bytes"` // growth of the vault
	Objects int     `json:"objects"`     // files in the vault afterwards
}

// launcherArg as the first argument makes this program the launcher.
const launcherArg = "launch-and-measure"

// launch runs a command, writes its cost as JSON to descriptor 3 and returns
// its exit code. It is a process of its own because Linux counts the resident
// size of a process's parent at the time of the fork as the process's own: the
// launcher is small, a parent that has compared a million files is not.
func launch(argv []string) int {
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	syscall.CloseOnExec(3)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	err := cmd.Run()
	s := sample{Seconds: time.Since(start).Seconds()}
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	s.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.Peak = ru.Maxrss * 1024
	}
	if err := json.NewEncoder(os.NewFile(3, "result")).Encode(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	return cmd.ProcessState.ExitCode()
}

// measure runs a command with the environment env and, when not nil, stdin. The
// error of a command that failed holds its command line and the end of what it
// printed.
func measure(ctx context.Context, env, argv []string, stdin io.Reader) (sample, error) {
	var s sample
	self, err := os.Executable()
	if err != nil {
		return s, fmt.Errorf("find launcher: %w", err)
	}
	out, err := os.CreateTemp("", "tripod-bench-output-")
	if err != nil {
		return s, fmt.Errorf("output file: %w", err)
	}
	defer out.Close()
	if err := os.Remove(out.Name()); err != nil { // it lives while it is open
		return s, fmt.Errorf("output file: %w", err)
	}
	result, w, err := os.Pipe()
	if err != nil {
		return s, fmt.Errorf("result pipe: %w", err)
	}
	defer result.Close()

	cmd := exec.CommandContext(ctx, self, append([]string{launcherArg}, argv...)...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, stdin, out, out
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return s, fmt.Errorf("start launcher: %w", err)
	}
	decodeErr := json.NewDecoder(result).Decode(&s)
	if err := errors.Join(cmd.Wait(), ctx.Err()); err != nil {
		return s, fmt.Errorf("%s: %w%s", strings.Join(argv, " "), err, tail(out))
	}
	if decodeErr != nil {
		return s, fmt.Errorf("%s: read its cost: %w", strings.Join(argv, " "), decodeErr)
	}
	return s, nil
}

// tail returns the last lines of a command's output, indented.
func tail(f *os.File) string {
	const most = 800
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return ""
	}
	buf := make([]byte, min(info.Size(), most))
	n, _ := f.ReadAt(buf, info.Size()-int64(len(buf)))
	text := strings.TrimSpace(string(buf[:n]))
	return "\n      " + strings.ReplaceAll(text, "\n", "\n      ")
}

// footprint returns the bytes and the number of the files below dir.
func footprint(dir string) (size int64, files int, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		files++
		return nil
	})
	return size, files, err
}

// median returns, figure by figure, the median of the samples. Of an even
// number it takes the lower middle, so that every figure was really measured.
func median(all []sample) sample {
	if len(all) == 0 {
		return sample{}
	}
	return sample{
		Seconds: middle(all, func(s sample) float64 { return s.Seconds }),
		CPU:     middle(all, func(s sample) float64 { return s.CPU }),
		Peak:    middle(all, func(s sample) int64 { return s.Peak }),
		Added:   middle(all, func(s sample) int64 { return s.Added }),
		Objects: middle(all, func(s sample) int { return s.Objects }),
	}
}

func middle[T int | int64 | float64](all []sample, figure func(sample) T) T {
	v := make([]T, len(all))
	for i, s := range all {
		v[i] = figure(s)
	}
	slices.Sort(v)
	return v[(len(v)-1)/2]
}

// needSpace fails when dir has less than the given gigabytes free.
func needSpace(dir string, gigabytes int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < gigabytes<<30 {
		return fmt.Errorf("%s has %.1f GB free, about %d are needed: choose another place with -dir",
			dir, float64(free)/1e9, gigabytes)
	}
	return nil
}
