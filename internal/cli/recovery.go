package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
)

func newRecovery(a *app) *cobra.Command {
	return group("recovery", "Open a vault with its recovery code", "  tripod recovery open --vault /mnt/disk/vault", newRecoveryOpen(a))
}

func newRecoveryOpen(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Open a vault with its recovery code and set a new passphrase",
		Long: `Opens a vault with nothing but the recovery code from its kit: sets a new
passphrase and enrols this machine. Everything in the vault is then at hand
again: tripod snapshots, tripod restore.

The code is asked for on a terminal, or comes from TRIPOD_RECOVERY_CODE_FILE,
TRIPOD_RECOVERY_CODE_COMMAND or TRIPOD_RECOVERY_CODE. The new passphrase comes
from TRIPOD_NEW_PASSPHRASE (_FILE, _COMMAND), is asked for, or is made.`,
		Example: `  tripod recovery open --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.recoveryOpen(cmd.Context()) },
	}
	a.vaultFlag(cmd)
	return cmd
}

func (a *app) recoveryOpen(ctx context.Context) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	sealed, err := keyring.Load(ctx, o)
	if err != nil {
		return err
	}
	company, code, err := a.unlockByCode(ctx, sealed)
	if err != nil {
		return err
	}
	return o.changePassphrase(ctx, sealed, seal.RecoverySlot, string(code[:]), company)
}

func (a *app) unlockByCode(ctx context.Context, sealed *keyring.Sealed) (*seal.CompanyKeys, seal.RecoveryCode, error) {
	open := func(text string) (*seal.CompanyKeys, seal.RecoveryCode, error) {
		code, err := seal.ParseRecoveryCode(text)
		if err != nil {
			return nil, code, &signInError{err}
		}
		keys, err := sealed.OpenCode(code)
		if err == nil && sealed.Damage != nil {
			a.Warn("", sealed.Damage)
		}
		return keys, code, signIn(err)
	}
	text, found, err := a.Secret(ctx, recoveryVar)
	if err != nil {
		return nil, seal.RecoveryCode{}, signIn(err)
	}
	if found {
		return open(text)
	}
	if !a.Interactive() {
		return nil, seal.RecoveryCode{}, signIn(tripod.Errorf(tripod.Denied, "this needs the vault's recovery code").
			WithHint("set TRIPOD_RECOVERY_CODE_FILE, or run it on a terminal"))
	}
	for attempt := 1; ; attempt++ {
		text, err := a.Ask(ctx, "Recovery code: ")
		if err != nil {
			return nil, seal.RecoveryCode{}, err
		}
		keys, code, err := open(text)
		if err == nil || attempt == passphraseAttempts {
			return keys, code, err
		}
		a.Say("%s\n  %s", terminal.OneLine(err), tripod.HintOf(err))
	}
}
