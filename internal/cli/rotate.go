package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/kit"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
	"tripod/internal/engine/rekey"
	"tripod/internal/vault/local"
)

func newVaultRotate(a *app) *cobra.Command {
	var damaged bool
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Replace the company's key",
		Long: `Makes a new company key and puts it in the place of the one before: what opens
each snapshot is sealed anew, what is stored stays as it is. Passphrases and the
recovery code open the new key too. Machines follow it at their next backup by
themselves.

Do this when someone who knew a passphrase is gone, or a copy of the old keyring
may be in wrong hands. It can be interrupted, and goes on when it is run again.

Who has the old key can sign nothing any more that anyone accepts, and opens
nothing that is backed up from now on. What they have a copy of already, they can
go on reading: no program can take that back.

It refuses while part of the vault's log is damaged, because what cannot be opened
now could not be with the new key either.`,
		Example: `  tripod vault rotate-key --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.rotateKey(cmd.Context(), damaged) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().BoolVar(&damaged, "despite-damage", false, "give up the snapshots whose part of the log is damaged")
	return cmd
}

func (a *app) rotateKey(ctx context.Context, damaged bool) (err error) {
	u, err := a.unseal(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	a.note = "The vault opens as before. Run it again, and it goes on."
	var r *rekey.Report
	err = u.write(ctx, "vault rotate-key", func(s *local.Session) (err error) {
		progress := a.Progress()
		defer a.StopProgress()
		r, err = rekey.Replace(ctx, u.Vault, s, u.sealed, rekey.Options{Now: time.Now(), Damaged: damaged, Progress: progress})
		return err
	})
	if err != nil {
		return err
	}
	print := kit.Fingerprint(keyring.KeyHash(u.sealed.Descriptor))
	if a.JSON {
		return a.Result("vault-rotate-key", map[string]any{
			"company_key": r.Number, "fingerprint": print, "snapshots": r.Snapshots, "regranted": r.Regranted, "grants_removed": r.Removed, "resumed": r.Resumed,
		})
	}
	a.Printf("Company key %d is in force, and opens %s.\n  fingerprint %s\n", r.Number, tripod.Count(r.Snapshots, "snapshot"), print)
	a.Tell("Passphrases and the recovery code stay. Machines follow the new key at their next backup. Delete or renew old copies of this vault: they open with the old key.")
	return nil
}
