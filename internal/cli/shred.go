package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	"tripod/internal/engine/rekey"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

func newVaultShred(a *app) *cobra.Command {
	var mean, locked bool
	cmd := &cobra.Command{
		Use:   "shred MACHINE --yes-i-mean-it",
		Short: "Make all backups of a machine unreadable for good",
		Long: `Makes everything that a machine has ever backed up to this vault unreadable, for
the company too. Use it where data must be erased, and deleting takes too long.

MACHINE is the name of the host, or the beginning of the machine's id.

The order to do so is signed and stays in the vault as the proof. Then what opens
the machine's snapshots is removed, its snapshots are forgotten, and the company's
key is replaced (as by tripod vault rotate-key), so that a kept copy of what opened
them is of no use either. It can be interrupted, and goes on when it is run again.

What is left afterwards, and the command says so:
  - the encrypted data, until it is collected; nobody can open it
  - data that other machines have backed up as well: it is in their snapshots
  - snapshots under a lock, which lie there until it ends, unreadable
  - whole copies of this vault from before, with the passphrase of then
  - what the machine itself has: its files, its cache, its keys

It refuses while the vault is under a hold, or a snapshot of the machine is locked
(unless --even-locked is given).`,
		Example: `  tripod vault shred --vault /mnt/disk/vault old-laptop --yes-i-mean-it`,
		Args:    arguments(1, 1, "the machine"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !mean {
				return tripod.Errorf(tripod.Invalid, "this makes all backups of %s unreadable for ever", args[0]).
					WithHint("if that is what you want: --yes-i-mean-it")
			}
			return a.shred(cmd.Context(), args[0], locked)
		},
	}
	a.vaultFlag(cmd)
	cmd.Flags().BoolVar(&mean, "yes-i-mean-it", false, "really do it")
	cmd.Flags().BoolVar(&locked, "even-locked", false, "also what a lock should keep readable")
	return cmd
}

func (a *app) shred(ctx context.Context, which string, locked bool) (err error) {
	u, err := a.unseal(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	m, err := u.machineNamed(ctx, which)
	if err != nil {
		return err
	}
	// Its host's name is gone with its first snapshots.
	a.note = "Part of it may be unreadable already. Run it again, and it goes on: tripod vault shred " + m.String()
	var r *rekey.Shredded
	err = u.write(ctx, "vault shred", func(s *local.Session) (err error) {
		progress := a.Progress()
		defer a.StopProgress()
		r, err = rekey.Shred(ctx, u.Vault, s, u.sealed, m, locked, rekey.Options{Now: time.Now(), Progress: progress})
		return err
	})
	if err != nil {
		return err
	}
	if a.JSON {
		out := map[string]any{
			"machine": m.String(), "forgotten": r.Forgotten, "locked": r.Locked, "grants_removed": r.Removed, "company_key": r.Number, "snapshots_left": r.Snapshots,
		}
		if r.Locked > 0 {
			out["locked_until"] = r.Until.UTC().Format(time.RFC3339)
		}
		return a.Result("vault-shred", out)
	}
	a.Printf("Shredded machine %s: nothing that the company holds opens its snapshots any more.\n\n", m)
	rows := [][]string{
		{"Forgotten", tripod.Count(r.Forgotten, "snapshot") + ": their data lies there unreadable until it is collected"},
		{"Others", tripod.Count(r.Snapshots, "snapshot") + " of other machines open as before; what they share with this machine is in them"},
		{"Company key", "number " + tripod.Number(int64(r.Number)) + " is in force; passphrases and the recovery code stay"},
		{"Still to do", "delete copies of this vault from before, and the machine's own files, cache and keys"},
	}
	if r.Locked > 0 {
		rows = slices.Insert(rows, 1, []string{"Locked", tripod.Count(r.Locked, "snapshot") + ": unreadable, and there until " + terminal.When(r.Until)})
	}
	a.Table(rows)
	return nil
}

// machineNamed finds a machine by the beginning of its id, or its host's name.
func (u *unsealed) machineNamed(ctx context.Context, which string) (m tripod.MachineID, err error) {
	var found []tripod.MachineID
	add := func(m tripod.MachineID) {
		if !slices.Contains(found, m) {
			found = append(found, m)
		}
	}
	const shortest = 8
	err = u.Documents(ctx, vault.CertificatePrefix, func(name string, _ []byte) error {
		id := strings.TrimPrefix(name, vault.CertificatePrefix)
		if len(which) >= shortest && strings.HasPrefix(id, which) && tripod.ParseHex(m[:], id) {
			add(m)
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	c, err := catalog.Open(ctx, u, u.sealed.Unlocked.Keys)
	if err != nil {
		return m, err
	}
	for _, s := range c.Snapshots() {
		if s.Label != nil && s.Label.Host == which {
			add(s.Key.Machine)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return m, tripod.Errorf(tripod.NotFound, "no machine of this vault is called %s, and no id begins so", terminal.Printable(which)).
			WithHint("look for hosts and ids: tripod snapshots --json; to go on with one that was interrupted, give the machine's id")
	}
	var ids []string
	for _, m := range found {
		ids = append(ids, m.String())
	}
	return m, tripod.Errorf(tripod.Conflict, "%s stands for %d machines: %s", terminal.Printable(which), len(found), strings.Join(ids, ", ")).
		WithHint("give the id of one of them")
}
