package cli

import (
	"github.com/spf13/cobra"

	"tripod/internal/core/tripod"
)

func newRecovery(a *app) *cobra.Command {
	return group("recovery", "Open a vault with its recovery code, or try it", "  tripod recovery open --vault /mnt/disk/vault", newRecoveryOpen(a), newRecoveryTest(a))
}

func newRecoveryOpen(a *app) *cobra.Command {
	var holder string
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Open a vault with its recovery code and set a new passphrase",
		Long: `Opens a vault with nothing but the recovery code from its kit: sets a new
passphrase and enrols this machine. Everything in the vault is then at hand
again: tripod snapshots, tripod restore.

The code is asked for on a terminal, or comes from TRIPOD_RECOVERY_CODE_FILE,
TRIPOD_RECOVERY_CODE_COMMAND or TRIPOD_RECOVERY_CODE. The new passphrase comes
from TRIPOD_NEW_PASSPHRASE (_FILE, _COMMAND), is asked for, or is made.

A vault or copy that cannot be written to is opened as it is: nothing changes, and
the commands that read it take the code from those same variables.`,
		Example: `  tripod recovery open --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changePassphrase(cmd.Context(), a.byCode(), holder)
		},
	}
	a.vaultFlag(cmd)
	cmd.Flags().StringVar(&holder, "holder", "", "whose passphrase to set, where there are several `NAME`")
	return cmd
}

// openedReadOnly tells how to go on with a vault that the code opens and that
// cannot be written to.
func (a *app) openedReadOnly(o *opened, err error) error {
	if err != nil {
		return err
	}
	a.Warn("", tripod.Errorf(tripod.Denied, "the recovery code opens the vault, which cannot be written to here: no new passphrase was set").
		WithHint("to read it, keep TRIPOD_RECOVERY_CODE_FILE set: tripod snapshots, tripod restore"))
	if a.JSON {
		return a.Result("vault-passphrase", passphraseResult{Vault: absolute(o.location)})
	}
	return nil
}
