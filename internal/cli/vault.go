package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/kit"
	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault/local"
)

func newVault(a *app) *cobra.Command {
	return group("vault", "Make a vault, look at it, change its passphrase",
		"  tripod vault init --vault /mnt/disk/vault", newVaultInit(a), newVaultInfo(a), newVaultPassphrase(a), newHolder(a), newRecoveryCode(a), newVaultKit(a),
		newVaultRotate(a), newVaultShred(a), newVaultPolicy(a), newVaultHold(a),
		newVaultAccept(a), newRepair(a), newRebuildIndex(a))
}

func newVaultInit(a *app) *cobra.Command {
	var yes bool
	var page string
	cmd := &cobra.Command{
		Use:   "init --vault DIR",
		Short: "Make a vault and its keys",
		Long: `Makes a vault in an empty or new directory, and the keys for it.

The passphrase opens the vault for reading. It comes from TRIPOD_PASSPHRASE_FILE,
TRIPOD_PASSPHRASE_COMMAND or TRIPOD_PASSPHRASE, is asked for on a terminal, or is
made: eight random words, shown once.

The recovery code opens the vault when the passphrase is lost. It is shown once:
print it and keep it away from the vault. On a terminal, typing its end confirms
that you have it.

This machine is enrolled: it can back up without a passphrase from now on.`,
		Example: `  tripod vault init --vault /mnt/disk/vault
  TRIPOD_PASSPHRASE_FILE=~/.vault-passphrase tripod vault init --vault /mnt/disk/vault --yes`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.vaultInit(cmd.Context(), yes, page) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask to confirm the recovery code")
	cmd.Flags().StringVar(&page, "kit", "", "also make the recovery kit as a page to print, with the code on it, in `FILE`")
	return cmd
}

type initResult struct {
	Vault      string `json:"vault"`
	VaultID    string `json:"vault_id"`
	Company    string `json:"company"`
	Machine    string `json:"machine"`
	Created    string `json:"created"`
	Code       string `json:"recovery_code"`
	Confirmed  bool   `json:"recovery_code_confirmed"`
	Passphrase string `json:"passphrase,omitempty"` // only when it was made
}

func (a *app) vaultInit(ctx context.Context, yes bool, page string) error {
	location, err := a.location()
	if err != nil {
		return err
	}
	if err := a.vacant(ctx, location); err != nil {
		return err
	}
	passphrase, made, err := a.newPassphrase(ctx, passphraseVar)
	if err != nil {
		return err
	}
	now := time.Now()
	keys, err := keyring.New(passphrase, now, seal.DefaultArgon())
	if err != nil {
		return err
	}
	machine, err := keys.Company.NewMachine()
	if err != nil {
		return err
	}
	r := initResult{
		Vault: absolute(location), VaultID: hex.EncodeToString(keys.Vault[:]), Company: keys.Company.ID.String(), Machine: machine.Machine.String(),
		Created: now.UTC().Format(time.RFC3339), Code: keys.Code.String(),
	}
	if made {
		r.Passphrase = passphrase
	}
	// The kit comes first: whatever ends this early leaves no vault behind that
	// nobody can open.
	if err := a.giveKit(&r, now); err != nil {
		return err
	}
	a.note = "no vault was made, and the recovery kit above is void"
	if page != "" {
		d, err := snapshot.ParseDescriptor(keys.Descriptor)
		if err != nil {
			return err
		}
		k := kitOf(location, d, now)
		k.Code, k.Passphrase = r.Code, r.Passphrase
		if err := writeKit(page, k); err != nil {
			return void(err)
		}
	}
	if terminal.IsTerminal(a.In) && a.Interactive() && !a.JSON && !yes {
		if err := a.ConfirmCode(ctx, r.Code); err != nil {
			return void(err)
		}
		r.Confirmed = true
	}
	if err := a.createVault(ctx, location, keys, machine); err != nil {
		return err
	}
	if !r.Confirmed && !a.JSON {
		a.Tell("The recovery code was not confirmed: make sure that you have it before you close this window.")
	}
	a.Tell("Made the vault %s. This machine can back up to it now:\n  tripod backup --vault %s PATH", r.Vault, terminal.Quoted(location))
	return nil
}

// vacant refuses a place where a vault or anything else is.
func (a *app) vacant(ctx context.Context, location string) error {
	if inBucket(location) {
		return a.vacantBucket(ctx, location)
	}
	entries, err := os.ReadDir(location)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return terminal.System(err, "read directory")
	}
	foreign := ""
	for _, e := range entries {
		if name := e.Name(); !slices.Contains([]string{"lost+found", ".incoming", ".lock"}, name) {
			foreign = name
			break
		}
	}
	if foreign == "" {
		return nil
	}
	store, err := a.env.Store(ctx, location, false)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer store.Close()
	if _, err := local.Describe(ctx, store); err == nil {
		return errVaultExists(location)
	}
	return tripod.Errorf(tripod.Exists, "%s is not empty: it holds %s", location, terminal.Printable(foreign)).
		WithHint("give a new or an empty directory")
}

func errVaultExists(location string) error {
	return tripod.Errorf(tripod.Exists, "there is a vault in %s already", location).
		WithHint("use it as it is, or give another directory")
}

func (a *app) createVault(ctx context.Context, location string, keys *keyring.Made, machine *seal.MachineKeys) error {
	store, err := a.env.Store(ctx, location, true)
	if err != nil {
		return void(fmt.Errorf("vault: %w", err))
	}
	err = local.Create(ctx, store, keys.Descriptor, keys.Keyring)
	made := err == nil
	if err != nil {
		// What was written just before the error may be there all the same.
		d, lookErr := local.Describe(context.WithoutCancel(ctx), store)
		made = lookErr == nil && d.Vault == keys.Vault
	}
	err = errors.Join(err, store.Close())
	if made {
		a.note = "the vault was made, and its recovery kit is the one above"
	}
	switch {
	case made && err != nil:
		return fmt.Errorf("the vault %s was made, and its recovery kit is the one above: %w", location, err)
	case errors.Is(err, tripod.Exists):
		return void(errVaultExists(location))
	case err != nil:
		return void(fmt.Errorf("vault %s: %w", location, err))
	}
	if err := a.enrolFirst(ctx, location, keys, machine); err != nil {
		return fmt.Errorf("the vault was made, and its recovery kit is the one above; this machine is not enrolled: %w", err)
	}
	return nil
}

// void says of an error that the kit that was shown is of no use.
func void(err error) error {
	return fmt.Errorf("no vault was made, the recovery kit above is void: %w", err)
}

func (a *app) enrolFirst(ctx context.Context, location string, keys *keyring.Made, machine *seal.MachineKeys) error {
	a.vault = location
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	session, err := o.begin(ctx, "vault init", tripod.MachineID{})
	if err != nil {
		return errors.Join(err, o.Close())
	}
	err = keyring.SaveMachine(o.config, machine)
	if err == nil {
		err = keyring.Endorse(ctx, session, o.descriptor, keys.Company, machine, time.Now())
	}
	if err == nil {
		err = keys.Spare(ctx, session)
	}
	return errors.Join(err, session.Close(), o.Close())
}

// giveKit prints the kit, and returns an error unless it has gone out. As JSON
// it is the whole result: the exit code tells whether the vault was made.
func (a *app) giveKit(r *initResult, now time.Time) error {
	if a.JSON {
		if err := a.Result("vault-init", r); err != nil {
			return err
		}
	} else {
		a.PrintKit(&terminal.Kit{Vault: r.Vault, Company: r.Company, Made: now, Code: r.Code, Passphrase: r.Passphrase})
	}
	_ = a.Out.Sync() // pipes and terminals cannot
	return a.Failed()
}

// absolute is the path as it reads from anywhere.
func absolute(location string) string {
	if inBucket(location) {
		return location
	}
	if abs, err := filepath.Abs(location); err == nil {
		return abs
	}
	return location
}

func newVaultInfo(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "info",
		Short:   "Show what a vault holds",
		Long:    "Shows whose a vault is and how much it holds. This needs no passphrase, so it shows no names.",
		Example: `  tripod vault info --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.vaultInfo(cmd.Context()) },
	}
	a.vaultFlag(cmd)
	return cmd
}

type infoResult struct {
	Vault     string `json:"vault"`
	VaultID   string `json:"vault_id"`
	Company   string `json:"company"`
	Created   string `json:"created"`
	Format    int    `json:"format"`
	Snapshots int64  `json:"snapshots"`
	Forgotten int64  `json:"forgotten"`
	Expired   int64  `json:"expired"`
	Machines  int    `json:"machines"`
	Blobs     int64  `json:"blobs"`
	Packs     int64  `json:"packs"`
	Stored    int64  `json:"stored_bytes"`
	Enrolled  bool   `json:"this_machine_enrolled"`
	Key       uint32 `json:"company_key"` // how many there were, with this one
	Print     string `json:"company_key_fingerprint"`
	Tested    string `json:"recovery_code_tested,omitempty"` // when, on this machine
}

func (a *app) vaultInfo(ctx context.Context) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	stats, err := o.Stats(ctx)
	if err != nil {
		return err
	}
	machines, err := keyring.Machines(ctx, o)
	if err != nil {
		return err
	}
	_, machineErr := o.machine(ctx)
	d := o.descriptor
	r := infoResult{
		absolute(o.location), hex.EncodeToString(d.Vault[:]), d.Company.String(), d.Created.UTC().Format(time.RFC3339), snapshot.Version,
		stats.Records - stats.Forgotten - stats.Expired, stats.Forgotten, stats.Expired, machines, stats.Blobs, stats.Packs, stats.PackBytes, machineErr == nil,
		d.Number(), kit.Fingerprint(keyring.KeyHash(d)), "",
	}
	tested, at := o.tested(ctx)
	if !at.IsZero() {
		r.Tested = at.UTC().Format(time.RFC3339)
	}
	if a.JSON {
		return a.Result("vault-info", r)
	}
	enrolled := "yes: it can back up without the passphrase"
	switch {
	case errors.Is(machineErr, tripod.Denied):
		enrolled = "no: it was shredded"
	case !r.Enrolled:
		enrolled = "no: its first backup asks for the passphrase"
	}
	a.Table([][]string{
		{"Vault", terminal.Printable(r.Vault)},
		{"Vault id", r.VaultID},
		{"Company", r.Company},
		{"Made", terminal.When(d.Created)},
		{"Snapshots", fmt.Sprintf("%s (and %s forgotten, %s expired)", tripod.Number(r.Snapshots), tripod.Number(r.Forgotten), tripod.Number(r.Expired))},
		{"Machines", tripod.Number(r.Machines)},
		{"Stored", fmt.Sprintf("%s in %s of %s", terminal.Size(r.Stored), tripod.Count(r.Blobs, "blob"), tripod.Count(r.Packs, "pack"))},
		{"This machine enrolled", enrolled},
		{"Company key", fmt.Sprintf("number %d, fingerprint %s", r.Key, r.Print)},
		{"Recovery code tested", tested},
	})
	return nil
}

func newVaultPassphrase(a *app) *cobra.Command {
	var holder string
	cmd := &cobra.Command{
		Use:   "passphrase",
		Short: "Change the passphrase",
		Long: `Changes the vault's passphrase. The recovery code stays as it is, and so does
what is stored; machines go on backing up.

The old passphrase comes from TRIPOD_PASSPHRASE (_FILE, _COMMAND) or is asked
for; the new one from TRIPOD_NEW_PASSPHRASE (_FILE, _COMMAND), is asked for, or
is made. It is the one of the holder who gave the old one, or of another with
--holder: see tripod vault holder.

Whoever has a copy of the vault from before, and the old passphrase, can still
open that copy; what is backed up after tripod vault rotate-key, they cannot.`,
		Example: `  tripod vault passphrase --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changePassphrase(cmd.Context(), a.byPassphrase(), holder)
		},
	}
	a.vaultFlag(cmd)
	cmd.Flags().StringVar(&holder, "holder", "", "whose passphrase to change `NAME`")
	return cmd
}

type passphraseResult struct {
	Vault      string `json:"vault"`
	Passphrase string `json:"passphrase,omitempty"` // only when it was made
	Machine    string `json:"machine,omitempty"`    // when it was enrolled as well
}

// changePassphrase sets a new passphrase with what opens the keyring. Who has
// only the recovery code starts over on this machine, which is enrolled then.
func (a *app) changePassphrase(ctx context.Context, w way, holder string) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	sealed, err := keyring.Load(ctx, o)
	if err != nil {
		return err
	}
	company, err := a.unlock(ctx, sealed, w)
	if err != nil {
		return err
	}
	if w.slot == seal.RecoverySlot {
		if readOnly, err := o.readOnly(ctx); readOnly || err != nil {
			return a.openedReadOnly(o, err)
		}
	}
	passphrase, made, err := a.newPassphrase(ctx, newPassphraseVar)
	if err != nil {
		return err
	}
	session, err := o.begin(ctx, "vault passphrase", tripod.MachineID{})
	if err != nil {
		return err
	}
	r := passphraseResult{Vault: absolute(o.location)}
	err = sealed.ChangePassphrase(ctx, session, holder, passphrase, seal.DefaultArgon())
	if err == nil && w.slot == seal.RecoverySlot {
		var m *seal.MachineKeys
		if m, err = o.enrol(ctx, session, company); err == nil {
			r.Machine = m.Machine.String()
		}
	}
	if err := errors.Join(err, session.Close()); err != nil {
		return err
	}
	if made {
		r.Passphrase = passphrase
	}
	if a.JSON {
		return errors.Join(a.Result("vault-passphrase", r), o.remember(ctx, ""))
	}
	if made {
		a.Printf("New passphrase, made for you and shown this once:\n\n    %s\n\n", passphrase)
	}
	a.Tell("The passphrase is changed. The recovery code still opens the vault.")
	if r.Machine != "" {
		a.Tell("This machine is enrolled: it can back up without the passphrase.")
	}
	return o.remember(ctx, "")
}

func newVaultAccept(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "accept-rollback",
		Short: "Take a vault for good that shows less than before",
		Long: `Makes this machine take the vault as it is now for all that there ever was, and
stop warning of snapshots, orders to forget or a keyring that it has seen before.

Do this after you put an older copy of the vault in its place yourself. Without
such a reason the vault hides something: ask whoever keeps it.

It lists what is missing and asks; without a terminal --yes must be given. Nothing
in the vault changes, and every other machine goes on remembering what it has seen.`,
		Example: `  tripod vault accept-rollback --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.acceptRollback(cmd.Context(), yes) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) acceptRollback(ctx context.Context, yes bool) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	u, err := o.openLog(ctx)
	if err != nil {
		return err
	}
	accepted := []string{}
	for i := range u.seen.Losses {
		accepted = append(accepted, terminal.OneLine(u.seen.Losses[i].Err(u.who)))
	}
	if len(accepted) > 0 {
		for _, text := range accepted {
			a.Tell("%s", text)
		}
		if err := a.Confirm(ctx, yes, `Type "accept" to go on from what the vault shows now: `, "accept"); err != nil {
			return err
		}
		if err := u.seen.Accept(); err != nil {
			return err
		}
	}
	if a.JSON {
		return a.Result("vault-accept-rollback", map[string]any{"accepted": accepted})
	}
	if len(accepted) == 0 {
		a.Printf("The vault shows all that this machine has seen of it: there is nothing to accept.\n")
		return nil
	}
	a.Printf("Accepted: this machine goes on from what the vault shows now.\n")
	return nil
}
