// Command demo shows Tripod at work on this machine: it protects a copy of the
// Go source tree, changes and destroys it, brings it back and compares.
//
//	make demo
//
// Everything it makes lies in one temporary folder, which it removes.
// main.go tells the story, stage.go runs commands and prints, folder.go copies,
// edits and compares folders.
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
	"regexp"
	"strings"
	"syscall"
	"time"

	"tripod/test/reader/reader"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything in place at the end")
	binary := flag.String("tripod", "bin/tripod", "the `PROGRAM` to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo stopped: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, keep bool) (err error) {
	binary, err = filepath.Abs(binary)
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		return fmt.Errorf("the program is not built, make build does it: %w", err)
	}
	dir, err := os.MkdirTemp("", "tripod-demo-")
	if err != nil {
		return err
	}
	s := newStage(ctx, binary, dir)
	defer func() {
		if keep {
			s.say("Everything is left in %s", dir)
			return
		}
		removeErr := os.RemoveAll(dir)
		err = errors.Join(err, removeErr)
		if removeErr == nil {
			s.say("Removed %s; nothing is left of this demo.", dir)
		}
	}()
	return s.story()
}

// story is what the demo shows, step by step.
func (s *stage) story() error {
	began := time.Now()
	s.title("Tripod: protect a folder, lose it, get it back")
	s.say("Everything happens below %s", s.dir)
	steps := []func() error{s.prepare, s.makeVault, s.protect, s.change, s.blind, s.destroy, s.oneDocument, s.everything, s.verify, s.secondOpinion}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	s.summary(time.Since(began))
	return nil
}

const folder = "project"

func (s *stage) prepare() error {
	s.step("A folder worth protecting: a copy of the Go source code")
	out, err := exec.CommandContext(s.ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	from := filepath.Join(strings.TrimSpace(string(out)), "src")
	began := time.Now()
	if err := copyFolder(s.ctx, from, s.path(folder)); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if s.before, err = look(s.path(folder)); err != nil {
		return err
	}
	s.result("%s files, %s, copied from %s in %s", count(len(s.before)), size(s.before.bytes()), from, took(began))
	return nil
}

func (s *stage) makeVault() error {
	s.step("Make a vault; only this machine can write to it, only its keys can read it")
	out, err := s.tripod("vault", "init", "--vault", "vault", "--yes")
	if err != nil {
		return err
	}
	if s.code = regexp.MustCompile(`([0-9A-Z]{4}-){7}[0-9A-Z]{4}`).FindString(out); s.code == "" {
		return errors.New("vault init printed no recovery code")
	}
	s.result("the vault is ready; the recovery code opens it should the passphrase be lost")
	return nil
}

func (s *stage) protect() error {
	s.step("Protect the folder")
	began := time.Now()
	if _, err := s.tripod("backup", "--vault", "vault", folder); err != nil {
		return err
	}
	s.first = time.Since(began)
	stored, err := diskUse(s.path("vault"))
	if err != nil {
		return err
	}
	s.firstStored = stored
	s.result("%s became %s: compressed, encrypted, whole on disk after %s", size(s.before.bytes()), size(stored), duration(s.first))
	return nil
}

func (s *stage) change() error {
	s.step("Work goes on: one file in a hundred changes, and all is protected again")
	edited, err := edit(s.path(folder), s.before)
	if err != nil {
		return err
	}
	s.result("%s files edited", count(edited))
	began := time.Now()
	if _, err := s.tripod("backup", "--vault", "vault", folder); err != nil {
		return err
	}
	s.second = time.Since(began)
	if s.before, err = look(s.path(folder)); err != nil {
		return err
	}
	stored, err := diskUse(s.path("vault"))
	if err != nil {
		return err
	}
	s.secondStored = stored - s.firstStored
	if _, err := s.tripod("snapshots", "--vault", "vault"); err != nil {
		return err
	}
	s.result("only what changed was read and stored: %s more in %s", size(s.secondStored), duration(s.second))
	return nil
}

// words stands in thousands of the folder's files.
const words = "The Go Authors"

func (s *stage) blind() error {
	s.step("What does someone see who steals the vault?")
	inFolder, err := holding(s.path(folder), words)
	if err != nil {
		return err
	}
	inVault, err := holding(s.path("vault"), words)
	if err != nil {
		return err
	}
	if inVault > 0 || inFolder == 0 {
		return fmt.Errorf("%q stands in %d files of the folder and in %d of the vault", words, inFolder, inVault)
	}
	s.result("%q stands in %s files of the folder, and in none of the vault", words, count(inFolder))
	return nil
}

func (s *stage) destroy() error {
	s.step("Disaster: the folder is destroyed")
	if err := os.RemoveAll(s.path(folder)); err != nil {
		return err
	}
	s.result("%s files are gone", count(len(s.before)))
	return nil
}

func (s *stage) oneDocument() error {
	s.step("One document is needed now")
	document := filepath.Join("fmt", "print.go")
	if _, ok := s.before[document]; !ok {
		document = s.before.first()
	}
	began := time.Now()
	if _, err := s.tripod("restore", "--vault", "vault", "latest:"+document, "--to", "urgent"); err != nil {
		return err
	}
	s.single = time.Since(began)
	got, err := look(s.path("urgent"))
	if err != nil {
		return err
	}
	if want, have := s.before[document], got[filepath.Base(document)]; have != want {
		return fmt.Errorf("%s came back as %v, was %v", document, have, want)
	}
	s.result("%s is back after %s, as it was", document, duration(s.single))
	return nil
}

func (s *stage) everything() error {
	s.step("Then everything else")
	began := time.Now()
	if _, err := s.tripod("restore", "--vault", "vault", "latest", "--to", folder); err != nil {
		return err
	}
	s.whole = time.Since(began)
	got, err := look(s.path(folder))
	if err != nil {
		return err
	}
	if err := s.before.compare(got, true); err != nil {
		return fmt.Errorf("restored folder: %w", err)
	}
	s.result("%s files compared: same names, bytes, permissions and times", count(len(got)))
	return nil
}

func (s *stage) verify() error {
	s.step("Is the vault still good, to the last byte?")
	if _, err := s.tripod("verify", "--vault", "vault"); err != nil {
		return err
	}
	s.result("yes")
	return nil
}

func (s *stage) secondOpinion() error {
	s.step("A second opinion, by a reader that shares no code with Tripod")
	began := time.Now()
	v, err := reader.Open(s.path("vault"), s.code)
	if err != nil {
		return fmt.Errorf("independent reader: %w", err)
	}
	snaps, err := v.Snapshots()
	if err == nil && len(snaps) != 2 {
		err = fmt.Errorf("%d snapshots instead of 2", len(snaps))
	}
	if err == nil {
		_, err = v.Restore(snaps[1], s.path("opinion"))
	}
	if err != nil {
		return fmt.Errorf("independent reader: %w", err)
	}
	got, err := look(filepath.Join(s.path("opinion"), s.path(folder)))
	if err == nil {
		err = s.before.compare(got, false)
	}
	if err != nil {
		return fmt.Errorf("independent reader: %w", err)
	}
	s.result("written from spec/vault.md alone, it opened the vault with the recovery code and")
	s.more("got the same %s files in %s", count(len(got)), took(began))
	return nil
}
