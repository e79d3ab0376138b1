package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault"
	"tripod/internal/vault/archive"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
)

// opened is a vault that a command works on.
type opened struct {
	*local.Vault
	app        *app
	location   string
	store      Store
	descriptor *snapshot.Descriptor
	config     string   // this machine's configuration
	cache      string   // of this vault
	place      [16]byte // tells this copy of the vault from others
}

// open opens the vault that the flags name.
func (a *app) open(ctx context.Context) (*opened, error) {
	location, err := a.location()
	if err != nil {
		return nil, err
	}
	return a.openAt(ctx, location, 0)
}

// openAt opens the vault at a location. No more than rate bytes a second are read
// from it and written to it; 0 means no limit.
func (a *app) openAt(ctx context.Context, location string, rate int64) (_ *opened, err error) {
	o := &opened{app: a, location: location}
	if o.config, err = configDir(); err != nil {
		return nil, err
	}
	caches, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if o.store, err = a.env.Store(ctx, location, false); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if err := o.openIn(ctx, caches, rate); err != nil {
		_ = o.store.Close() // the error that counts is the one before
		return nil, err
	}
	return o, nil
}

func (o *opened) openIn(ctx context.Context, caches string, rate int64) (err error) {
	o.descriptor, err = local.Describe(ctx, o.store)
	if errors.Is(err, tripod.NotFound) {
		return tripod.Errorf(tripod.NotFound, "%s is not a vault", o.location).
			WithHint("check the path, or make a vault there: tripod vault init --vault %s", terminal.Quoted(o.location))
	}
	if err != nil {
		return fmt.Errorf("vault %s: %w", o.location, err)
	}
	if o.place, err = replicate.Place(ctx, o.store, o.descriptor); err != nil {
		return fmt.Errorf("vault %s: %w", o.location, err)
	}
	o.cache = cacheOf(caches, o.place)
	progress := o.app.Progress()
	defer o.app.StopProgress()
	var within store.Store = o.store
	if rate > 0 {
		within = o.app.env.Limit(within, rate)
	}
	o.Vault, err = local.Open(ctx, within, local.Options{IndexDir: o.cache, Progress: progress})
	if err != nil {
		return fmt.Errorf("vault %s: %w", o.location, err)
	}
	return nil
}

// Close gives everything back.
func (o *opened) Close() error {
	return errors.Join(o.Vault.Close(), o.store.Close())
}

// begin waits for its turn to write.
func (o *opened) begin(ctx context.Context, what string, m tripod.MachineID) (*local.Session, error) {
	if err := o.writable(ctx); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("tripod %s on %s (process %d, since %s)", what, hostname(), os.Getpid(), terminal.When(time.Now()))
	return o.Begin(ctx, vault.Holder{Machine: m, Text: text}, func(holder string) {
		o.app.Tell("waiting for another writer: %s", holder)
	})
}

// unlock opens the company's keys with the passphrase, or with the recovery code
// where that alone is given.
func (o *opened) unlock(ctx context.Context) (*seal.CompanyKeys, error) {
	sealed, err := keyring.Load(ctx, o)
	if err != nil {
		return nil, err
	}
	w := o.app.byPassphrase()
	if !terminal.Given(passphraseVar) && terminal.Given(recoveryVar) {
		w = o.app.byCode()
	}
	return o.app.unlock(ctx, sealed, w)
}

// readOnly reports whether the vault is where nothing can be written, as on a copy
// that is mounted so.
func (o *opened) readOnly(ctx context.Context) (bool, error) {
	session, err := o.begin(ctx, "recovery", tripod.MachineID{})
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, session.Close()
}

// way is one of the ways into a keyring.
type way struct {
	slot     seal.SlotType
	name     string // for messages
	hint     string // how to give it
	variable string // of the environment that gives it
	question string
	ask      func(ctx context.Context, question string) (string, error)
	open     func(s *keyring.Sealed, text string) (*seal.CompanyKeys, error)
}

func (a *app) byPassphrase() way {
	return way{
		seal.PassphraseSlot, "passphrase", howToGivePassphrases, passphraseVar,
		"Passphrase: ", a.AskSecret,
		func(s *keyring.Sealed, text string) (*seal.CompanyKeys, error) {
			keys, err := s.OpenPassphrase(text)
			return keys, signIn(err)
		},
	}
}

func (a *app) byCode() way {
	return way{
		seal.RecoverySlot, "recovery code", "set TRIPOD_RECOVERY_CODE_FILE, or run it on a terminal", recoveryVar,
		"Recovery code: ", a.Ask,
		func(s *keyring.Sealed, text string) (*seal.CompanyKeys, error) {
			code, err := seal.ParseRecoveryCode(text)
			if err != nil {
				return nil, &signInError{err}
			}
			keys, err := s.OpenCode(code)
			return keys, signIn(err)
		},
	}
}

// unlock opens the company's keys with what the environment gives or someone
// types.
func (a *app) unlock(ctx context.Context, sealed *keyring.Sealed, w way) (keys *seal.CompanyKeys, err error) {
	defer func() {
		if err == nil && sealed.Damage != nil {
			a.Warn("", sealed.Damage)
		}
		if err == nil && len(keys.Others) > 0 {
			a.Tell("Replacing the company's key has begun and not ended: run tripod vault rotate-key again.")
		}
	}()
	text, found, err := a.Secret(ctx, w.variable)
	switch {
	case err != nil:
		return nil, signIn(err)
	case found:
		return w.open(sealed, text)
	case !a.Interactive():
		return nil, signIn(tripod.Errorf(tripod.Denied, "this needs the vault's %s", w.name).WithHint("%s", w.hint))
	}
	for attempt := 1; ; attempt++ {
		text, err := w.ask(ctx, w.question)
		if err != nil {
			return nil, err
		}
		keys, err = w.open(sealed, text)
		if _, wrong := errors.AsType[*signInError](err); !wrong || attempt == attempts {
			return keys, err
		}
		a.Say("%s\n  %s", err, tripod.HintOf(err))
	}
}

// newPassphrase takes a passphrase that is to become valid, from variable or
// from the terminal. Where nobody gives one it makes one: made is true then.
func (a *app) newPassphrase(ctx context.Context, variable string) (text string, made bool, err error) {
	text, found, err := a.Secret(ctx, variable)
	if err != nil {
		return "", false, signIn(err)
	}
	if found {
		return text, false, keyring.StrongEnough(text)
	}
	if a.Interactive() && !a.JSON {
		text, err = a.AskNewPassphrase(ctx, keyring.StrongEnough)
		if text != "" || err != nil {
			return text, false, err
		}
	}
	text, err = seal.NewPassphrase()
	return text, true, err
}

// The environment variables that give secrets; with _FILE or _COMMAND behind
// them, by a file or a command.
const (
	passphraseVar        = "TRIPOD_PASSPHRASE"
	newPassphraseVar     = "TRIPOD_NEW_PASSPHRASE"
	recoveryVar          = "TRIPOD_RECOVERY_CODE"
	attempts             = 3 // to type one of them
	howToGivePassphrases = "set TRIPOD_PASSPHRASE_FILE, TRIPOD_PASSPHRASE_COMMAND or TRIPOD_PASSPHRASE, or run it on a terminal"
)

// machine gives this machine's write keys, as far as they are good for the
// vault: with NotFound the machine has to be enrolled first.
func (o *opened) machine(ctx context.Context) (*seal.MachineKeys, error) {
	m, exposed, err := keyring.LoadMachine(o.config, o.descriptor.Company)
	if err != nil {
		return nil, err
	}
	if exposed {
		name := keyring.MachineFile(o.config, o.descriptor.Company)
		o.app.Warn("", tripod.Errorf(tripod.Denied, "the keys of this machine can be read by other users: %s", name).
			WithHint("chmod 600 %s", name))
	}
	changed, err := keyring.Follow(o.descriptor, &m.Company)
	if err != nil {
		return nil, err
	}
	if changed {
		if err := keyring.SaveMachine(o.config, m); err != nil {
			return nil, err
		}
		o.app.Tell("The company's key was replaced by company key %d: this machine follows it.", o.descriptor.Number())
	}
	if err := o.Shredded(ctx, m.Machine); err != nil {
		return nil, err
	}
	known, err := keyring.Endorsed(ctx, o, o.descriptor, m)
	if err == nil && !known {
		err = tripod.Errorf(tripod.NotFound, "the vault does not know this machine")
	}
	return m, err
}

// enrol makes this machine one of the company's: it gets keys unless it has
// some, and the vault its certificate. The keys are kept first: a machine whose
// certificate did not arrive is asked for the passphrase again, and no more.
func (o *opened) enrol(ctx context.Context, a vault.Admin, company *seal.CompanyKeys) (*seal.MachineKeys, error) {
	m, _, err := keyring.LoadMachine(o.config, o.descriptor.Company)
	if errors.Is(err, tripod.NotFound) {
		if m, err = company.NewMachine(); err == nil {
			err = keyring.SaveMachine(o.config, m)
		}
	}
	if err != nil {
		return nil, err
	}
	known, err := keyring.Endorsed(ctx, o, o.descriptor, m)
	if err != nil || known {
		return m, err
	}
	return m, keyring.Endorse(ctx, a, o.descriptor, company, m, time.Now())
}

// machineOrEnrol gives the machine's keys; a machine that has none is enrolled
// with the passphrase.
func (o *opened) machineOrEnrol(ctx context.Context) (m *seal.MachineKeys, err error) {
	defer func() {
		if err == nil {
			_ = keyring.KeepCertificate(ctx, o, o.descriptor, o.config, m) // a spare copy: nothing depends on it today
		}
	}()
	if err := keyring.Mixed(ctx, o, o.descriptor); err != nil {
		return nil, err
	}
	if m, err = o.machine(ctx); !errors.Is(err, tripod.NotFound) {
		return m, err
	}
	if m != nil {
		if err := o.putBack(ctx, m); !errors.Is(err, tripod.NotFound) {
			return m, err
		}
	}
	o.app.Tell("This machine has no keys for this vault yet: the passphrase is needed once, to enrol it.")
	company, err := o.unlock(ctx)
	if err != nil {
		return nil, err
	}
	session, err := o.begin(ctx, "enrolment", tripod.MachineID{})
	if err != nil {
		return nil, err
	}
	m, err = o.enrol(ctx, session, company)
	return m, errors.Join(err, session.Close())
}

// putBack heals a vault that has lost the certificate of this machine.
func (o *opened) putBack(ctx context.Context, m *seal.MachineKeys) error {
	session, err := o.begin(ctx, "enrolment", m.Machine)
	if err != nil {
		return err
	}
	err = errors.Join(keyring.PutBack(ctx, session, o.descriptor, o.config, m), session.Close())
	if err == nil {
		o.app.Warn("", tripod.Errorf(tripod.Corrupt, "the vault had lost the certificate of this machine, without which nobody can use its snapshots: it was put back").
			WithHint("something deletes or damages what is in the vault: look at its disk, and verify"))
	}
	return err
}

// watch looks at what the vault shows of the snapshots in scope, beside what this
// machine has seen of them before.
func (o *opened) watch(ctx context.Context, scope string) (*keyring.Watch, error) {
	memory := o.descriptor.Vault
	is, err := archive.Is(ctx, o)
	if err != nil && !is {
		return nil, err
	}
	if is {
		memory = o.place
	}
	return keyring.NewWatch(ctx, o, o.descriptor, keyring.MemoryFile(o.config, memory), scope)
}

// remember keeps what this command has put into the vault, whose losses were told
// before.
func (o *opened) remember(ctx context.Context, scope string) error {
	w, err := o.watch(ctx, scope)
	if err == nil {
		w.Losses = nil
		o.tell(w, nil)
	}
	return err
}

// tell warns of what the vault has lost since this machine saw it last, and
// keeps what it shows now.
func (o *opened) tell(w *keyring.Watch, who func(keyring.Chain) string) {
	if w.Forgot != nil {
		o.app.Warn("", w.Forgot)
	}
	for i := range w.Losses {
		o.app.Warn("", w.Losses[i].Err(who))
	}
	if err := w.Keep(); err != nil {
		o.app.Warn("", err)
	}
}
