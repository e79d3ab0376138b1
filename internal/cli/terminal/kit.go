package terminal

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Kit is what a person prints and keeps to get a vault back.
type Kit struct {
	Vault      string // where it lies
	Company    string
	Made       time.Time
	Code       string // recovery code
	Passphrase string // when it was made for the person; else empty
}

// PrintKit prints a recovery kit.
func (c *Console) PrintKit(k *Kit) {
	c.Printf(`
RECOVERY KIT OF A TRIPOD VAULT

  Vault     %s
  Company   %s
  Made      %s

  Recovery code

      %s

  This code opens the vault without its passphrase. It is shown this once.
  Print this page or write it down, and keep it where fire, theft or a broken
  machine do not reach it, away from the vault.

  To use it, on any machine that can reach the vault or a copy of it:

      tripod recovery open --vault %s

`, Printable(k.Vault), k.Company, When(k.Made), k.Code, Quoted(k.Vault))
	if k.Passphrase != "" {
		c.Printf("  Passphrase, made for you and shown this once:\n\n      %s\n\n", k.Passphrase)
	}
}

// ConfirmCode asks for the end of a recovery code until it is right, so that it
// has been written down.
func (c *Console) ConfirmCode(ctx context.Context, code string) error {
	groups := strings.Split(code, "-")
	want := strings.Join(groups[len(groups)-2:], "")
	for {
		got, err := c.Ask(ctx, "When you have it, type the last two groups of the recovery code: ")
		if err != nil {
			return fmt.Errorf("recovery code not confirmed: %w", err)
		}
		if strings.EqualFold(strings.NewReplacer("-", "", " ", "").Replace(got), want) {
			return nil
		}
		c.Say("That is not the end of the code.")
	}
}
