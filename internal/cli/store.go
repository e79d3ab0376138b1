package cli

import (
	"context"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
)

func newStore(a *app) *cobra.Command {
	check := &cobra.Command{
		Use:   "check DIR",
		Short: "Test whether a directory keeps what a vault needs",
		Long: `Puts a directory, or the disk or share mounted there, through everything that a
vault asks of its store: that objects appear whole, are never overwritten, can
be read in parts, are found again, and keep a second writer out. The test works
in a folder of its own and removes it: DIR stays as it is, also when a vault is
there. DIR must exist.`,
		Example: `  tripod store check /mnt/disk`,
		Args:    arguments(1, 1, "one directory"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.storeCheck(cmd.Context(), args[0]) },
	}
	return group("store", "Test a place for vaults", "  tripod store check /mnt/disk", check)
}

type jsonStoreCheck struct {
	Name    string  `json:"promise"`
	State   string  `json:"state"` // kept, broken, not claimed
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

func (a *app) storeCheck(ctx context.Context, location string) error {
	var checks []jsonStoreCheck
	kept := 0
	err := a.env.CheckStore(ctx, location, func(c StoreCheck) {
		j := jsonStoreCheck{Name: c.Name, State: "kept", Seconds: c.Took.Seconds()}
		switch {
		case c.Skipped:
			j.State = "not claimed"
		case !c.OK:
			j.State = "broken"
			if c.Err != nil {
				j.Error = terminal.OneLine(c.Err)
			}
		default:
			kept++
		}
		checks = append(checks, j)
		if a.JSON {
			return
		}
		a.Printf("%-12s %s\n", j.State, j.Name)
		if j.Error != "" {
			a.Printf("%-12s %s\n", "", j.Error)
		}
	})
	if a.JSON && len(checks) > 0 {
		if jsonErr := a.Result("store-check", map[string]any{"store": absolute(location), "good": err == nil, "checks": checks}); jsonErr != nil {
			return jsonErr
		}
	}
	if err == nil && !a.JSON {
		a.Printf("%s keeps all %s that a vault needs.\n", absolute(location), tripod.Count(kept, "promise"))
	}
	return err
}
