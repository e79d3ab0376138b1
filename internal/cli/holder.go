package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault/local"
)

func newHolder(a *app) *cobra.Command {
	return group("holder", "List, add and remove those who can open the vault",
		"  tripod vault holder add --vault /mnt/disk/vault ann", newHolderList(a), newHolderAdd(a), newHolderRemove(a))
}

func newHolderList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List who can open the vault",
		Long:    "Lists who can open the vault: each passphrase by the name of its holder, and the recovery code.\nNobody sees these names without the passphrase.",
		Example: `  tripod vault holder list --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.holders(cmd.Context()) },
	}
	a.vaultFlag(cmd)
	return cmd
}

func newHolderAdd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Give one more person a passphrase",
		Long: `Gives one more person a passphrase of their own, which opens the vault like the
first one. Its holder can be removed later without a change for the others.

Your own passphrase comes from TRIPOD_PASSPHRASE (_FILE, _COMMAND) or is asked
for; the new one from TRIPOD_NEW_PASSPHRASE (_FILE, _COMMAND), is asked for, or
is made.`,
		Example: `  tripod vault holder add --vault /mnt/disk/vault ann`,
		Args:    arguments(1, 1, "the name of the new holder"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.addHolder(cmd.Context(), args[0]) },
	}
	a.vaultFlag(cmd)
	return cmd
}

func newHolderRemove(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a person's passphrase away",
		Long: `Takes a holder's passphrase away: it opens this vault no more. The last one stays.

Who was removed, and has kept a copy of the vault or of its keyring from before,
can open that copy with the passphrase of then, and with the keys in it also what
is backed up later, if they get hold of that. To end this, replace the company's
key as well: tripod vault rotate-key.`,
		Example: `  tripod vault holder remove --vault /mnt/disk/vault ann
  tripod vault rotate-key --vault /mnt/disk/vault`,
		Args: arguments(1, 1, "the name of the holder"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.removeHolder(cmd.Context(), args[0]) },
	}
	a.vaultFlag(cmd)
	return cmd
}

type holderResult struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // passphrase or recovery code
	Since string `json:"since"`
	Used  bool   `json:"used_now"`
}

// unsealed is a vault whose keyring was opened, to be changed.
type unsealed struct {
	*opened
	sealed *keyring.Sealed
}

// unseal opens a vault and its keyring with the passphrase.
func (a *app) unseal(ctx context.Context) (*unsealed, error) {
	o, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := keyring.Load(ctx, o)
	if err == nil {
		_, err = a.unlock(ctx, sealed, a.byPassphrase())
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return &unsealed{o, sealed}, nil
}

// write does something in a session, and remembers what it has put.
func (u *unsealed) write(ctx context.Context, what string, do func(s *local.Session) error) error {
	session, err := u.begin(ctx, what, tripod.MachineID{})
	if err != nil {
		return err
	}
	if err := errors.Join(do(session), session.Close()); err != nil {
		return err
	}
	u.descriptor = u.sealed.Descriptor
	return u.remember(ctx, "")
}

// change stores the next keyring.
func (u *unsealed) change(ctx context.Context, what string, change func(k *seal.Unlocked) error) error {
	return u.write(ctx, what, func(s *local.Session) error { return u.sealed.Change(ctx, s, change) })
}

func (a *app) holders(ctx context.Context) (err error) {
	u, err := a.unseal(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	all := []holderResult{}
	rows := [][]string{{"HOLDER", "OPENS WITH", "SINCE"}}
	for _, h := range u.sealed.Unlocked.Holders() {
		all = append(all, holderResult{h.Name, h.Type.String(), h.Added.UTC().Format(time.RFC3339), h.Name == u.sealed.Unlocked.By.Name})
		rows = append(rows, []string{terminal.Printable(h.Name), h.Type.String(), terminal.When(h.Added)})
	}
	if a.JSON {
		return a.Result("vault-holders", map[string]any{"holders": all})
	}
	a.Table(rows)
	return nil
}

func (a *app) addHolder(ctx context.Context, name string) (err error) {
	u, err := a.unseal(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	passphrase, made, err := a.newPassphrase(ctx, newPassphraseVar)
	if err != nil {
		return err
	}
	err = u.change(ctx, "vault holder add", func(k *seal.Unlocked) error {
		return k.AddPassphrase(name, passphrase, seal.DefaultArgon(), time.Now())
	})
	if err != nil {
		return err
	}
	if a.JSON {
		r := map[string]any{"holder": name}
		if made {
			r["passphrase"] = passphrase
		}
		return a.Result("vault-holder-add", r)
	}
	if made {
		a.Printf("Passphrase of %s, made and shown this once:\n\n    %s\n\n", terminal.Printable(name), passphrase)
	}
	a.Tell("%s can open the vault now.", terminal.Printable(name))
	return nil
}

func (a *app) removeHolder(ctx context.Context, name string) (err error) {
	u, err := a.unseal(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	if err := u.change(ctx, "vault holder remove", func(k *seal.Unlocked) error { return k.Remove(name) }); err != nil {
		return err
	}
	if a.JSON {
		return a.Result("vault-holder-remove", map[string]any{"holder": name})
	}
	a.Tell("%s's passphrase opens this vault no more. It still opens a copy of the vault from before, and its keys: end that by tripod vault rotate-key.", terminal.Printable(name))
	return nil
}
