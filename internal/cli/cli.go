// Package cli is the command line: one file per command, each of which parses,
// calls an engine and prints. What the commands need of the outside world, the
// stores and the sources, is handed to Main by cmd/tripod.
//
// Where to start reading: backup.go is a typical command. app.go holds what all
// of them share; open.go opens vaults and keys; exit.go is the table of exit
// codes. How things look is in packages below: terminal prints, asks and draws,
// listing shows what a vault holds, verdict what verify found.
//
// Results go to standard output, everything else to standard error. Every command
// takes --json.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
	"tripod/internal/driver/store"
)

// Env is what cmd/tripod hands to the commands.
type Env struct {
	Version string
	In      *os.File
	Out     *os.File
	Err     *os.File

	// Store opens the store at a location; with create it is made when missing.
	Store func(ctx context.Context, location string, create bool) (Store, error)
	// CheckStore puts a store through every promise of the contract, in a folder
	// of its own, and cleans up. The error says what was not kept.
	CheckStore func(ctx context.Context, location string, tell func(StoreCheck)) error
	// Bucket and CheckBucket do so for a place in a bucket.
	Bucket      func(ctx context.Context, b *Bucket, create bool) (Store, error)
	CheckBucket func(ctx context.Context, b *Bucket, tell func(StoreCheck)) error
	// Limit gives a store that moves at most so many bytes a second each way.
	Limit func(s store.Store, bytesPerSecond int64) store.Store

	// Files opens files and folders for backup.
	Files func(FilesOptions) (source.Tree, error)
	// Disk opens a disk image or a block device for backup.
	Disk func(path string) (source.Disk, error)
	// Stream makes a stream of what is piped in or, when one is given, of what a
	// command prints.
	Stream func(ctx context.Context, name string, in *os.File, command []string) (source.Stream, error)

	// Docs writes the reference and the man pages of all commands into a folder.
	Docs func(root *cobra.Command, dir string) error
}

// Store is a store that is closed after use.
type Store interface {
	store.Store
	io.Closer
}

// StoreCheck tells how a store kept one promise.
type StoreCheck struct {
	Name    string // the promise, as a sentence
	OK      bool
	Skipped bool // the store does not claim it
	Trusted bool // it does, and nobody can try it from here
	Note    bool // Name is no promise but something to know
	Took    time.Duration
	Err     error
}

// FilesOptions say which files are backed up.
type FilesOptions struct {
	Paths         []string
	Exclude       []string
	ExcludeFiles  []string
	ExcludeCaches bool
	OneFileSystem bool
	Skip          []string // folders that are never kept, like the vault itself
	source.Watcher
}

// Main runs the command that args name, without the program's own name, and
// returns the exit code.
func Main(env Env, args []string) int {
	a := newApp(env)
	cobra.EnableCommandSorting = false // in the order of a user's day
	ctx, stop := interruptible(context.Background(), a)
	defer stop()
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.StopProgress()
	if profileErr := a.stopProfiles(); err == nil {
		err = profileErr
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	if err != nil && !a.started {
		err = usage(err)
	}
	return a.finish(err)
}

// Commands is the tree of all commands, for those who document it.
func Commands(env Env) *cobra.Command { return newRoot(newApp(env)) }

func newRoot(a *app) *cobra.Command {
	version := false
	root := &cobra.Command{
		Use:   "tripod",
		Short: "Back up, recover, keep going",
		Long: `Tripod backs up files, disks and streams into a vault, and gets them back.

Everything is de-duplicated, compressed and encrypted on this machine; whoever
keeps the vault cannot read it.`,
		Example: `  tripod vault init --vault /mnt/disk/vault
  tripod backup --vault /mnt/disk/vault ~/documents
  tripod restore --vault /mnt/disk/vault latest --to ~/restored`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return a.version()
			}
			return cmd.Help()
		},
		DisableAutoGenTag: true, DisableFlagsInUseLine: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.start(cmd) },
	}
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.Flags().BoolVar(&version, "version", false, "print the version")
	root.SetFlagErrorFunc(wrongFlag)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp())
	root.SetUsageTemplate(usageTemplate)
	a.globalFlags(root)
	groups := []*cobra.Group{
		{ID: groupDaily, Title: "Every day:"},
		{ID: groupVault, Title: "Vaults and keys:"},
		{ID: groupOther, Title: "More:"},
	}
	root.AddGroup(groups...)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupDaily, newBackup(a), newSnapshots(a), newLs(a), newFind(a), newDiff(a), newCat(a), newRestore(a), newMount(a), newVerify(a), newForget(a), newExpire(a), newCollect(a))
	add(groupVault, newVault(a), newReplicate(a), newArchive(a), newScrub(a), newRecovery(a), newStore(a))
	add(groupOther, newVersion(a), newCompletion(), newExitCodes(a), newDocs(a))
	return root
}

const (
	groupDaily = "daily"
	groupVault = "vault"
	groupOther = "other"
)

// usageTemplate is cobra's, with examples first and without repetition.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) .IsAvailableCommand)}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" tells more about a command.{{end}}
`

// group is a command that only holds others.
func group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: unknownCommand, RunE: showHelp}
	c.AddCommand(commands...)
	return c
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// newHelp is hidden: --help is what the manual tells of.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Hidden: true, GroupID: groupOther,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, unknown, err := cmd.Root().Find(args)
			if err == nil {
				err = unknownCommand(c, unknown)
			}
			if err != nil {
				return err
			}
			return c.Help()
		},
	}
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	e := tripod.Errorf(tripod.Invalid, "unknown command %q", args[0])
	cmd.SuggestionsMinimumDistance = 2
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		return e.WithHint("did you mean: %s %s", cmd.CommandPath(), strings.Join(similar, ", "))
	}
	return e.WithHint("%s --help lists the commands", cmd.CommandPath())
}

// usage makes what cobra says about flags and arguments an error of ours.
func usage(err error) error {
	if _, ok := errors.AsType[*tripod.Error](err); ok {
		return err
	}
	return tripod.Errorf(tripod.Invalid, "%w", err)
}

func usageOf(cmd *cobra.Command, err error) error {
	return tripod.Errorf(tripod.Invalid, "%w", err).WithHint("%s --help shows the flags", cmd.CommandPath())
}

// wrongFlag says what a flag takes, where package pflag tells of strconv.
func wrongFlag(cmd *cobra.Command, err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		takes := "a number"
		if bad.GetFlag().Value.Type() == "bool" {
			takes = "true or false"
		}
		err = tripod.Errorf(tripod.Invalid, "--%s %q: must be %s", bad.GetFlag().Name, bad.GetValue(), takes)
	}
	return usageOf(cmd, err)
}

// arguments checks the number of arguments; most < 0 means any number. want
// names them for the message.
func arguments(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageOf(cmd, tripod.Errorf(tripod.Invalid, "missing argument: give %s", want))
		case most == 0 && len(args) > 0:
			return usageOf(cmd, tripod.Errorf(tripod.Invalid, "unexpected argument %q", args[0]))
		case most >= 0 && len(args) > most:
			return usageOf(cmd, tripod.Errorf(tripod.Invalid, "unexpected argument %q: give %s", args[most], want))
		}
		return nil
	}
}
