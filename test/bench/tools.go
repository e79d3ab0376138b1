//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A tool is a backup program as command lines. The first word, the binary, is
// left out. In every word these are replaced:
//
//	{vault} {cache} {home} {tmp}   private places of this tool
//	{source} {parent}              what is backed up, and the directory it is in
//	{to} {toparent}                where it is restored to: a directory, or a file in {toparent}
//	{name}                         the name of a stream
type tool struct {
	name, binary string
	env          []string
	version      []string
	setup        [][]string // makes a fresh vault; not measured
	tree         []string   // back up the directory {source}
	image        []string   // back up the disk image {source}
	stream       []string   // back up standard input
	restoreTree  []string
	restoreImage []string
	beforeCheck  [][]string // not measured
	check        []string   // reads and decrypts everything in the vault
	noDirTimes   bool       // gives restored directories the time of their newest file
}

// toolNamed returns a tool without its binary.
func toolNamed(name string) (tool, bool) {
	switch name {
	case "tripod":
		return tripod(), true
	case "restic":
		return restic(), true
	case "kopia":
		return kopia(), true
	}
	return tool{}, false
}

// tripod finds its passphrase in the environment, its state below XDG_*_HOME,
// which every tool gets.
func tripod() tool {
	return tool{
		name:         "tripod",
		env:          []string{"TRIPOD_PASSPHRASE=correct horse battery staple bench"},
		version:      words("version"),
		setup:        [][]string{words("vault init --vault {vault}")},
		tree:         words("backup --vault {vault} {source}"),
		image:        words("backup --vault {vault} --disk {source}"),
		stream:       words("backup --vault {vault} --stdin-name {name}"),
		restoreTree:  words("restore --vault {vault} latest --to {to}"),
		restoreImage: words("restore --vault {vault} latest --to {to}"),
		check:        words("verify --vault {vault}"),
	}
}

// restic runs with its defaults; sparse restore for the image, which is faster
// and what the others do, too.
func restic() tool {
	return tool{
		name:         "restic",
		env:          []string{"RESTIC_PASSWORD=bench", "RESTIC_REPOSITORY={vault}", "RESTIC_CACHE_DIR={cache}"},
		version:      words("version"),
		setup:        [][]string{words("init")},
		tree:         words("backup --compression auto {source}"),
		image:        words("backup --compression auto {source}"),
		stream:       words("backup --compression auto --stdin --stdin-filename {name}"),
		restoreTree:  words("restore latest:{source} --target {to}"),
		restoreImage: words("restore latest:{parent} --sparse --target {toparent}"),
		check:        words("check --read-data"),
	}
}

// kopia runs with its fastest zstd (it compresses nothing by default), without
// log files and without maintenance between the steps. Before a check its
// content cache is dropped: the restore has just filled it, and the check would
// read that instead of the vault. It gets the directory that holds nothing but
// the image: a snapshot of a single file is read again even when unchanged.
func kopia() tool {
	return tool{
		name: "kopia",
		env: []string{
			"KOPIA_PASSWORD=bench", "KOPIA_CONFIG_PATH={home}/kopia.config", "KOPIA_CACHE_DIRECTORY={cache}",
			"KOPIA_LOG_DIR={home}/log", "KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_USE_KEYRING=false",
			"KOPIA_PERSIST_CREDENTIALS_ON_CONNECT=false",
		},
		version: words("--version"),
		setup: [][]string{
			words("repository create filesystem --path {vault}"),
			words("policy set --global --compression=zstd-fastest"),
			words("maintenance set --enable-quick=false --enable-full=false"),
		},
		tree:         words("snapshot create --no-progress --disable-file-logging {source}"),
		image:        words("snapshot create --no-progress --disable-file-logging {parent}"),
		stream:       words("snapshot create --no-progress --disable-file-logging --stdin-file {name} {source}"),
		restoreTree:  words("snapshot restore --no-progress --disable-file-logging {source} {to} --snapshot-time=latest"),
		restoreImage: words("snapshot restore --no-progress --disable-file-logging --write-sparse-files {parent} {toparent} --snapshot-time=latest"),
		beforeCheck:  [][]string{words("cache clear")},
		check:        words("snapshot verify --no-progress --disable-file-logging --verify-files-percent=100"),
		noDirTimes:   true,
	}
}

func words(line string) []string { return strings.Fields(line) }

// A place is the private world of one tool: all it reads and writes but the
// source.
type place struct {
	tool   tool
	dir    string
	source string // what is backed up
}

// vault is the directory of the vault, made by the tool itself.
func (p place) vault() string { return filepath.Join(p.dir, "vault") }

// target is where the tool restores to: a directory named like the source's, or
// a file.
func (p place) target() string { return filepath.Join(p.dir, "restored", filepath.Base(p.source)) }

// expand replaces the words in braces.
func (p place) expand(text string) string {
	return strings.NewReplacer(
		"{vault}", p.vault(),
		"{cache}", filepath.Join(p.dir, "cache"),
		"{home}", filepath.Join(p.dir, "home"),
		"{tmp}", filepath.Join(p.dir, "tmp"),
		"{source}", p.source,
		"{parent}", filepath.Dir(p.source),
		"{toparent}", filepath.Dir(p.target()),
		"{to}", p.target(),
		"{name}", "stream.dump",
	).Replace(text)
}

// command returns the full command line of one of the tool's.
func (p place) command(args []string) []string {
	argv := []string{p.tool.binary}
	for _, a := range args {
		argv = append(argv, p.expand(a))
	}
	return argv
}

// env is the whole environment of the tool.
func (p place) env() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "HOME={home}", "TMPDIR={tmp}",
		"XDG_CONFIG_HOME={home}/.config", "XDG_DATA_HOME={home}/.local/share",
		"XDG_STATE_HOME={home}/.local/state", "XDG_CACHE_HOME={cache}",
	}
	env = append(env, p.tool.env...)
	for i := range env {
		env[i] = p.expand(env[i])
	}
	return env
}

// fresh empties the place and makes a new vault in it.
func (p place) fresh(ctx context.Context) error {
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("empty the place of %s: %w", p.tool.name, err)
	}
	for _, d := range []string{"cache", "home", "tmp"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o700); err != nil {
			return fmt.Errorf("place of %s: %w", p.tool.name, err)
		}
	}
	if err := p.prepare(ctx, p.tool.setup); err != nil {
		return err
	}
	if _, err := os.Stat(p.vault()); err != nil {
		return fmt.Errorf("%s succeeded but made no vault: %w", strings.Join(p.command(p.tool.setup[0]), " "), err)
	}
	return nil
}

// prepare runs commands whose cost does not count.
func (p place) prepare(ctx context.Context, commands [][]string) error {
	for _, c := range commands {
		if _, err := measure(ctx, p.env(), p.command(c), nil); err != nil {
			return err
		}
	}
	return nil
}
