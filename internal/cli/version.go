package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  tripod version",
		Args:    arguments(0, 0, ""),
		RunE:    func(*cobra.Command, []string) error { return a.version() },
	}
}

func (a *app) version() error {
	if a.JSON {
		return a.Result("version", map[string]any{
			"version": a.env.Version, "format": snapshot.Version, "go": runtime.Version(), "system": runtime.GOOS + "/" + runtime.GOARCH,
		})
	}
	a.Printf("tripod %s (vault format %d, %s, %s/%s)\n", a.env.Version, snapshot.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// newDocs is hidden: the build uses it.
func newDocs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "docs DIR",
		Short:   "Write the reference (DIR/reference) and the man pages (DIR/man)",
		Example: "  tripod docs docs",
		Hidden:  true,
		Args:    arguments(1, 1, "one directory"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.env.Docs(cmd.Root(), args[0]) },
	}
}

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands in a shell",
		Long: `Prints a script for a shell, which then completes commands, flags and, where the
passphrase is at hand, the ids of snapshots.`,
		Example: `  source <(tripod completion bash)
  tripod completion zsh > "${fpath[1]}/_tripod"
  tripod completion fish > ~/.config/fish/completions/tripod.fish`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      arguments(1, 1, "one of bash, zsh, fish, powershell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, w := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(w)
			}
			return usageOf(cmd, tripod.Errorf(tripod.Invalid, "unknown shell %q: give one of bash, zsh, fish, powershell", args[0]))
		},
	}
}
