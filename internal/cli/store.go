package cli

import (
	"context"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
)

func newStore(a *app) *cobra.Command {
	check := &cobra.Command{
		Use:   "check PLACE",
		Short: "Test whether a directory or a bucket keeps what a vault needs",
		Long: `Puts a directory, or the disk or share mounted there, or a bucket of an S3 server
through everything that a vault asks of its store: that objects appear whole, are
never overwritten, can be read in parts, are found again, and keep a second writer
out. The test works in a folder of its own and removes it: PLACE stays as it is,
also when a vault is there. PLACE must exist.

In a bucket with Object Lock it tries locks as well, waits a few seconds for their
end, and removes what was locked. Where the bucket locks new objects by itself,
what the test wrote stays until then. The access key comes from
TRIPOD_S3_ACCESS_KEY and TRIPOD_S3_SECRET_KEY, with _FILE or _COMMAND behind the
names by a file or a command.`,
		Example: `  tripod store check /mnt/disk
  tripod store check s3://s3.example.com/backups/vault`,
		Args: arguments(1, 1, "one directory or bucket"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.storeCheck(cmd.Context(), args[0]) },
	}
	a.bucketFlags(check)
	return group("store", "Test a place for vaults", "  tripod store check /mnt/disk", check)
}

type jsonStoreCheck struct {
	Name    string  `json:"promise"`
	State   string  `json:"state"` // kept, broken, not claimed, not tried
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

func (a *app) storeCheck(ctx context.Context, location string) error {
	var checks []jsonStoreCheck
	notes := []string{}
	kept := 0
	err := a.env.CheckStore(ctx, location, func(c StoreCheck) {
		if c.Note {
			notes = append(notes, c.Name)
			if !a.JSON {
				a.Printf("%-12s %s\n", "note", c.Name)
			}
			return
		}
		j := jsonStoreCheck{Name: c.Name, State: "kept", Seconds: c.Took.Seconds()}
		switch {
		case c.Skipped:
			j.State = "not claimed"
		case c.Trusted:
			j.State = "not tried"
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
		if jsonErr := a.Result("store-check", map[string]any{"store": absolute(location), "good": err == nil, "checks": checks, "notes": notes}); jsonErr != nil {
			return jsonErr
		}
	}
	if err == nil && !a.JSON {
		a.Printf("%s keeps all %s that a vault needs.\n", absolute(location), tripod.Count(kept, "promise"))
	}
	return err
}
