package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tripod/internal/cli/kit"
	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
)

func newVaultKit(a *app) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "kit --to FILE",
		Short: "Make the recovery kit as a page to print",
		Long: `Makes a page for paper with what a person needs to get this vault back on a new
machine: its place, its ids, the fingerprint of the company's key, and the
commands. It is one HTML file that needs no network; print it from a browser.

It needs no passphrase, and holds no secret: the recovery code is shown only when
it is made, so the page has room to write it in. To get a page with the code on
it, make a new one: tripod vault recovery-code --kit FILE.`,
		Example: `  tripod vault kit --vault /mnt/disk/vault --to kit.html`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.vaultKit(cmd.Context(), to) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the `FILE` to make")
	return cmd
}

func (a *app) vaultKit(ctx context.Context, to string) (err error) {
	if to == "" {
		return tripod.Errorf(tripod.Invalid, "no file given for the kit").WithHint("name it: --to kit.html")
	}
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if err := writeKit(to, kitOf(o.location, o.descriptor, time.Now())); err != nil {
		return err
	}
	if a.JSON {
		return a.Result("vault-kit", map[string]any{"file": absolute(to), "recovery_code": false})
	}
	a.Tell("Made %s: print it, write the recovery code into it, and keep it away from the vault.", terminal.Printable(to))
	return nil
}

// kitOf is the kit of a vault, without a code.
func kitOf(location string, d *snapshot.Descriptor, now time.Time) *kit.Kit {
	place := absolute(location)
	return &kit.Kit{
		Place: terminal.Printable(place), Quoted: terminal.Quoted(place), Company: d.Company.String(), Vault: hex.EncodeToString(d.Vault[:]),
		Fingerprint: kit.Fingerprint(keyring.KeyHash(d)), Made: now,
	}
}

// writeKit makes the file of a kit, which may hold secrets, for its owner alone.
func writeKit(name string, k *kit.Kit) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return tripod.Errorf(tripod.Exists, "there is a file %s already", name).WithHint("give another name, or delete it first")
	}
	if err != nil {
		return terminal.System(err, "make the kit")
	}
	_, err = f.Write(k.Page())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(terminal.System(err, "write the kit"), os.Remove(name))
	}
	return nil
}

func newRecoveryCode(a *app) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "recovery-code",
		Short: "Make a new recovery code instead of the old one",
		Long: `Makes a new recovery code and shows it this once; the old one opens this vault no
more. Do this when the printed kit is lost, or someone may have seen it.

With --kit it also makes the page to print, with the code on it. Delete that file
once it is printed.`,
		Example: `  tripod vault recovery-code --vault /mnt/disk/vault --kit kit.html`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.newCode(cmd.Context(), to) },
	}
	a.vaultFlag(cmd)
	cmd.Flags().StringVar(&to, "kit", "", "also make a page to print, with the code on it, in `FILE`")
	return cmd
}

func (a *app) newCode(ctx context.Context, to string) (err error) {
	u, err := a.unseal(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	code, now := seal.NewRecoveryCode(), time.Now()
	// The code is out before it counts, as with a new vault.
	if to != "" {
		page := kitOf(u.location, u.descriptor, now)
		page.Code = code.String()
		if err := writeKit(to, page); err != nil {
			return err
		}
	}
	if a.JSON {
		err = a.Result("vault-recovery-code", map[string]any{"recovery_code": code.String(), "kit": to})
	} else {
		a.PrintKit(&terminal.Kit{Vault: absolute(u.location), Company: u.descriptor.Company.String(), Made: now, Code: code.String()})
		err = a.Failed()
	}
	if err != nil {
		return err
	}
	_ = a.Out.Sync() // pipes and terminals cannot
	err = u.change(ctx, "vault recovery-code", func(k *seal.Unlocked) error { return k.SetCode(code, now) })
	if err != nil {
		return fmt.Errorf("the new code may not count, try it by tripod recovery test: %w", err)
	}
	a.Tell("The new recovery code counts from now on, the old one opens this vault no more. Try it: tripod recovery test")
	return nil
}

func newRecoveryTest(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Try whether the recovery code opens the vault",
		Long: `Tries whether the recovery code from the kit opens the vault, and changes nothing
in it. Do this once a year. This machine remembers when it went well, and tripod
vault info shows it.

The code is asked for on a terminal, or comes from TRIPOD_RECOVERY_CODE_FILE,
TRIPOD_RECOVERY_CODE_COMMAND or TRIPOD_RECOVERY_CODE.`,
		Example: `  tripod recovery test --vault /mnt/disk/vault`,
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.testCode(cmd.Context()) },
	}
	a.vaultFlag(cmd)
	return cmd
}

func (a *app) testCode(ctx context.Context) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	sealed, err := keyring.Load(ctx, o)
	if err != nil {
		return err
	}
	if _, err := a.unlock(ctx, sealed, a.byCode()); err != nil {
		return err
	}
	now := time.Now()
	if err := sealed.Tested(o.config, now); err != nil {
		a.Warn("", err)
	}
	if a.JSON {
		return a.Result("recovery-test", map[string]any{"opens": true, "tested": now.UTC().Format(time.RFC3339)})
	}
	a.Printf("The recovery code opens this vault. Nothing was changed.\n")
	return nil
}

// tested is when the recovery code was last tried on this machine, for vault info.
func (o *opened) tested(ctx context.Context) (text string, at time.Time) {
	sealed, err := keyring.Load(ctx, o)
	if err == nil {
		at, err = sealed.LastTest(o.config)
	}
	switch {
	case err != nil:
		return "not known: " + terminal.OneLine(err), at
	case at.IsZero():
		return "never on this machine: tripod recovery test", at
	}
	return terminal.When(at), at
}
