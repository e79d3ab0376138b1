package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
)

// app is what all commands of one run share.
type app struct {
	*terminal.Console
	env     Env
	started bool // past the checks of flags and arguments

	vault      string
	bucket     Bucket // as the flags say
	cpuProfile string
	memProfile string

	note    string // what to tell when the run is interrupted
	profile *os.File
}

func newApp(env Env) *app {
	a := &app{Console: &terminal.Console{In: env.In, Out: env.Out, Err: env.Err}, env: env}
	a.route()
	return a
}

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.BoolVar(&a.JSON, "json", false, "print results as JSON; progress and errors too, on standard error")
	f.BoolVarP(&a.Quiet, "quiet", "q", false, "print no progress, only results, warnings and errors")
	f.StringVar(&a.cpuProfile, "cpu-profile", "", "write a CPU profile to this file")
	f.StringVar(&a.memProfile, "mem-profile", "", "write a memory profile to this file")
	for _, name := range []string{"cpu-profile", "mem-profile"} {
		if flag := f.Lookup(name); flag != nil {
			flag.Hidden = true
		}
	}
}

// vaultFlag adds --vault, which the environment may give instead.
func (a *app) vaultFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.vault, "vault", "", "the vault in `DIR`, or in a bucket: s3://HOST/BUCKET/PREFIX (or TRIPOD_VAULT)")
	_ = cmd.MarkFlagDirname("vault") // the flag is there
	a.bucketFlags(cmd)
}

// location is where the vault lies.
func (a *app) location() (string, error) {
	if a.vault != "" {
		return a.vault, nil
	}
	if v := os.Getenv("TRIPOD_VAULT"); v != "" {
		return v, nil
	}
	return "", tripod.Errorf(tripod.Invalid, "no vault given").WithHint("name it: --vault DIR, or TRIPOD_VAULT=DIR in the environment")
}

// start runs before a command, after flags and arguments were found good.
func (a *app) start(cmd *cobra.Command) error {
	if err := emptyFlags(cmd); err != nil {
		return err
	}
	a.started = true
	if a.cpuProfile == "" {
		return nil
	}
	f, err := os.Create(a.cpuProfile)
	if err != nil {
		return terminal.System(err, "CPU profile")
	}
	a.profile = f
	return pprof.StartCPUProfile(f)
}

// emptyFlags refuses flags given as an empty text, which is what is left of a
// variable that is not set.
func emptyFlags(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" && err == nil {
			err = usageOf(cmd, tripod.Errorf(tripod.Invalid, "--%s is empty", f.Name))
		}
	})
	return err
}

func (a *app) stopProfiles() error {
	if a.profile != nil {
		pprof.StopCPUProfile()
		if err := a.profile.Close(); err != nil {
			return terminal.System(err, "CPU profile")
		}
	}
	if a.memProfile == "" {
		return nil
	}
	f, err := os.Create(a.memProfile)
	if err != nil {
		return terminal.System(err, "memory profile")
	}
	err = pprof.Lookup("allocs").WriteTo(f, 0)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return terminal.System(err, "memory profile")
}

// errInterrupted is how a run ends that a signal has ended.
var errInterrupted = errors.New("interrupted")

// interruptible gives a context that the first SIGINT or SIGTERM ends. The
// second ends the program at once.
func interruptible(parent context.Context, a *app) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-signals:
			}
			if n > 0 {
				a.RestoreTerminal()
				os.Exit(exitInterrupted)
			}
			cancel()
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}
