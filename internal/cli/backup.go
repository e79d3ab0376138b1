package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/engine/backup"
	"tripod/internal/engine/keyring"
)

type backupFlags struct {
	exclude       []string
	excludeFiles  []string
	includeCaches bool
	oneFileSystem bool
	tags          []string
	dryRun        bool
	compression   string
	disk          string
	blockSize     string
	stdinName     string
	stdinCommand  bool
}

func newBackup(a *app) *cobra.Command {
	f := new(backupFlags)
	cmd := &cobra.Command{
		Use:   "backup PATH...",
		Short: "Back up files, a disk or a stream",
		Long: `Backs up files and folders, a disk image or block device (--disk), or what is
piped in (--stdin-name), as one snapshot. Only what is new or has changed since
the last backup is read and stored.

With --stdin-command the arguments are a command, and what it prints is backed up.
When it fails there is no snapshot, which a pipe cannot promise.

A machine that is enrolled needs no passphrase. Another one is enrolled by its
first backup, which asks for it.

Patterns of --exclude: "*.o" is a name at any depth, "build/" a folder, "/var/tmp"
a whole path, "src/**/test" any number of folders between; "!keep.o" keeps what an
earlier pattern excludes. Folders marked as caches (CACHEDIR.TAG) are left out
unless --include-caches is given; so are the vault itself and Tripod's own cache.

Files that cannot be read are named; the rest is backed up, and the exit code is 3.
Symbolic links are backed up as links and not followed, also where PATH is one.`,
		Example: `  tripod backup --vault /mnt/disk/vault ~/documents ~/pictures
  tripod backup --vault /mnt/disk/vault --exclude '*.tmp' --exclude node_modules/ /srv
  tripod backup --vault /mnt/disk/vault --disk /dev/vg0/data
  pg_dumpall | tripod backup --vault /mnt/disk/vault --stdin-name postgres.sql
  tripod backup --vault /mnt/disk/vault --stdin-name shop.sql --stdin-command -- mysqldump shop`,
		Args: func(cmd *cobra.Command, args []string) error { return f.check(cmd, args) },
		RunE: func(cmd *cobra.Command, args []string) error { return a.backup(cmd.Context(), f, args) },
	}
	a.vaultFlag(cmd)
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.exclude, "exclude", "e", nil, "leave out what matches `PATTERN` (repeatable)")
	flags.StringArrayVar(&f.excludeFiles, "exclude-file", nil, "read patterns from `FILE`, one per line (repeatable)")
	flags.BoolVar(&f.includeCaches, "include-caches", false, "back up folders marked by CACHEDIR.TAG too")
	flags.BoolVarP(&f.oneFileSystem, "one-file-system", "x", false, "do not enter other file systems")
	flags.StringArrayVar(&f.tags, "tag", nil, "mark the snapshot with `WORD` (repeatable)")
	flags.BoolVarP(&f.dryRun, "dry-run", "n", false, "tell what would be read and store nothing")
	flags.StringVar(&f.compression, "compression", "auto", "compress `HOW`: fast; small, which takes two thirds longer and saves some 11 %; auto: small for disks, else fast")
	flags.StringVar(&f.disk, "disk", "", "back up the disk image or block device `FILE`")
	flags.StringVar(&f.blockSize, "block-size", "", "map a disk in blocks of `SIZE`, 64K to 4M (default 1M)")
	flags.StringVar(&f.stdinName, "stdin-name", "", "back up standard input under `NAME`")
	flags.BoolVar(&f.stdinCommand, "stdin-command", false, "run the arguments as a command and back up what it prints, if it succeeds")
	_ = cmd.MarkFlagFilename("exclude-file") // the flags are there
	_ = cmd.MarkFlagFilename("disk")
	_ = cmd.RegisterFlagCompletionFunc("compression", cobra.FixedCompletions([]string{"auto", "fast", "small"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("block-size", cobra.FixedCompletions(strings.Fields("64K 128K 256K 512K 1M 2M 4M"), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// check looks at what fits together before anything is opened.
func (f *backupFlags) check(cmd *cobra.Command, args []string) error {
	bad := func(format string, v ...any) error { return usageOf(cmd, tripod.Errorf(tripod.Invalid, format, v...)) }
	other := f.disk != "" || f.stdinName != ""
	switch {
	case f.disk != "" && f.stdinName != "":
		return bad("--disk and --stdin-name exclude each other: back up one at a time")
	case other && len(args) > 0 && !f.stdinCommand:
		return bad("--disk and --stdin-name take no paths: back up %q in a run of its own", args[0])
	case !other && len(args) == 0:
		return bad("nothing to back up: name files or folders, or give --disk or --stdin-name")
	case other && (len(f.exclude) > 0 || len(f.excludeFiles) > 0 || f.oneFileSystem || f.includeCaches):
		return bad("--exclude, --exclude-file, --include-caches and --one-file-system are for files and folders")
	case f.blockSize != "" && f.disk == "":
		return bad("--block-size is for --disk")
	}
	err := f.checkStream(args)
	if err == nil {
		err = f.checkValues()
	}
	if err != nil {
		return usageOf(cmd, err)
	}
	return nil
}

// checkStream looks at the flags of streams.
func (f *backupFlags) checkStream(args []string) error {
	switch {
	case f.stdinCommand && (f.stdinName == "" || len(args) == 0):
		return tripod.Errorf(tripod.Invalid, "--stdin-command needs --stdin-name and a command: --stdin-name NAME --stdin-command -- COMMAND")
	case f.stdinName == "":
		return nil
	case f.dryRun:
		return tripod.Errorf(tripod.Invalid, "--dry-run is not for streams, which can be read only once")
	}
	return source.CheckStreamName(f.stdinName)
}

// checkValues looks at each flag by itself.
func (f *backupFlags) checkValues() error {
	if _, ok := levels()[f.compression]; !ok {
		return tripod.Errorf(tripod.Invalid, "--compression %q: must be auto, fast or small", f.compression)
	}
	for _, t := range f.tags {
		if t == "" || strings.ContainsFunc(t, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			return tripod.Errorf(tripod.Invalid, "--tag %q: must be a word, without spaces and commas", t)
		}
	}
	_, err := blockSize(f.blockSize)
	return err
}

// blockSize reads a size such as 256K: a power of two from 64 KiB to 4 MiB.
func blockSize(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, _ := terminal.ParseSize(text)
	if n < 64<<10 || n > 4<<20 || n&(n-1) != 0 {
		return 0, tripod.Errorf(tripod.Invalid, "--block-size %q: must be 64K, 128K, 256K, 512K, 1M, 2M or 4M", text)
	}
	return int(n), nil
}

func (a *app) backup(ctx context.Context, f *backupFlags, paths []string) (err error) {
	if !f.dryRun {
		a.note = "what was stored is kept, and the next backup goes on from there"
	}
	if f.stdinName != "" && !f.stdinCommand && terminal.IsTerminal(a.In) {
		return tripod.Errorf(tripod.Invalid, "--stdin-name: nothing is piped in").
			WithHint("for example: pg_dumpall | tripod backup --stdin-name postgres.sql")
	}
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	keys, err := o.machineOrEnrol(ctx)
	if err != nil {
		return err
	}
	before, err := o.watch(ctx, keys.Machine.String()+"/")
	if err != nil {
		return err
	}
	o.tell(before, func(c keyring.Chain) string { return fmt.Sprintf("this machine (source %.8s)", c.Source) })
	session, err := o.begin(ctx, "backup", keys.Machine)
	if err != nil {
		return err
	}
	report, err := o.backUp(ctx, f, paths, backup.Options{
		Keys: keys, Vault: session, CacheDir: filepath.Join(o.cache, "sources"), Host: hostname(), Tags: f.tags,
		Program: "tripod " + a.env.Version, Now: time.Now(), DryRun: f.dryRun, Warnings: new(backup.Warnings),
		Seen: func(s tripod.SourceID) (uint64, snapshot.Hash) {
			h := before.Seen(keyring.Chain{Machine: keys.Machine, Source: s})
			return h.Seq, h.Hash
		},
	})
	a.StopProgress()
	if err := errors.Join(err, session.Close()); err != nil {
		return full(err)
	}
	if !f.dryRun {
		if err := o.remember(ctx, report.Key.Machine.String()+"/"+report.Key.Source.String()+"/"); err != nil {
			return err
		}
	}
	return a.printBackup(f, report)
}

// backUp opens the source that the flags name and runs the engine on it.
func (o *opened) backUp(ctx context.Context, f *backupFlags, paths []string, b backup.Options) (*backup.Report, error) {
	a := o.app
	b.Level = levels()[f.compression]
	b.Progress = a.Progress()
	switch {
	case f.disk != "":
		b.Block, _ = blockSize(f.blockSize) // checked with the flags
		b.Paths = []string{absolute(f.disk)}
		disk, err := a.env.Disk(f.disk)
		if err != nil {
			return nil, err
		}
		report, err := backup.Disk(ctx, disk, b)
		return report, errors.Join(err, disk.Close())
	case f.stdinName != "":
		b.Paths = []string{f.stdinName}
		stream, err := a.env.Stream(ctx, f.stdinName, a.In, paths)
		if err != nil {
			return nil, err
		}
		report, err := backup.Stream(ctx, stream, b)
		return report, errors.Join(err, stream.Close())
	}
	for _, p := range paths {
		b.Paths = append(b.Paths, absolute(p))
		if within(absolute(p), absolute(o.location)) {
			return nil, tripod.Errorf(tripod.Invalid, "%s is the vault or in it, which is never backed up", p).
				WithHint("tripod replicate makes a second copy of a vault")
		}
	}
	o.warnOfLinks(b.Paths)
	distinct, roots := source.Roots(b.Paths)
	for _, p := range b.Paths {
		if !slices.Contains(roots, p) {
			a.Tell("%s lies in another path given here and is backed up with it", p)
		}
	}
	tree, err := a.env.Files(FilesOptions{
		Paths: distinct, Exclude: f.exclude, ExcludeFiles: f.excludeFiles, ExcludeCaches: !f.includeCaches, OneFileSystem: f.oneFileSystem,
		Skip: []string{absolute(o.location), o.cache}, Watcher: b.Warnings.Watcher(),
	})
	if err != nil {
		return nil, err
	}
	report, err := backup.Files(ctx, tree, b)
	return report, errors.Join(err, tree.Close())
}

// full says of a backup that found no more space what frees some.
func full(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return tripod.Errorf(tripod.Exhausted, "%w", err).
		WithHint("%s; what this backup has stored so far is kept for the next, and tripod collect frees it", tripod.HintOf(err))
}

// warnOfLinks tells of paths that are symbolic links: who names one mostly means
// what it points to.
func (o *opened) warnOfLinks(paths []string) {
	for _, p := range paths {
		info, err := os.Lstat(p)
		if err != nil || info.Mode()&os.ModeSymlink == 0 {
			continue // what is wrong with it the backup tells
		}
		warning := tripod.Errorf(tripod.Invalid, "is a symbolic link, and only the link was saved")
		if target, err := filepath.EvalSymlinks(p); err == nil {
			o.app.Warn(p, warning.WithHint("back up what it points to: %s", target))
		} else {
			o.app.Warn(p, warning.WithHint("it points to nothing"))
		}
	}
}

// within reports whether an absolute path is dir or below it.
func within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator)))
	return ok && (rest == "" || os.IsPathSeparator(rest[0]))
}

func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

type backupResult struct {
	Snapshot  string  `json:"snapshot,omitempty"`
	Hash      string  `json:"record_hash,omitempty"`
	DryRun    bool    `json:"dry_run,omitempty"`
	Machine   string  `json:"machine"`
	Source    string  `json:"source"`
	Sequence  uint64  `json:"sequence,omitempty"`
	Files     int64   `json:"files"`
	Folders   int64   `json:"folders"`
	New       int64   `json:"new"`
	Changed   int64   `json:"changed"`
	Unchanged int64   `json:"unchanged"`
	Bytes     int64   `json:"bytes"`
	Read      int64   `json:"read_bytes"`
	Stored    int64   `json:"stored_bytes"`
	Warnings  int     `json:"warnings"`
	Seconds   float64 `json:"seconds"`
}

func (a *app) printBackup(f *backupFlags, r *backup.Report) error {
	if a.JSON {
		return a.Result("backup", backupResult{
			r.ID, r.Hash, f.dryRun, r.Key.Machine.String(), r.Key.Source.String(), r.Key.Seq, r.Files, r.Dirs, r.New, r.Changed, r.Same,
			r.Bytes, r.Read, r.Stored, a.Warnings(), r.Took.Seconds(),
		})
	}
	what, details := terminal.Size(r.Bytes), ""
	if f.disk == "" && f.stdinName == "" {
		what = tripod.Count(r.Files, "file") + ", " + what
		details = fmt.Sprintf("files and folders: %s new, %s changed, %s unchanged; ", tripod.Number(r.New), tripod.Number(r.Changed), tripod.Number(r.Same))
	}
	if f.dryRun {
		a.Printf("Would back up %s. Nothing was stored.\n  %sto read %s\n", what, details, terminal.Size(r.Read))
	} else {
		a.Printf("Snapshot %s: %s in %s\n", r.ID, what, terminal.Duration(r.Took))
		a.Printf("  %sread %s, stored %s\n", details, terminal.Size(r.Read), terminal.Size(r.Stored))
	}
	if n := a.Warnings(); n > 0 {
		a.Tell("Done with %s, see above.", tripod.Count(n, "warning"))
	}
	return nil
}

// levels are the values of --compression.
func levels() map[string]seal.Level {
	return map[string]seal.Level{"auto": seal.Auto, "fast": seal.Fast, "small": seal.Small}
}
