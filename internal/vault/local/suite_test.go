package local_test

import (
	"context"
	"errors"
	"testing"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

func TestConformance(t *testing.T) {
	stores := map[string]func(t *testing.T) store.Store{
		"mem": func(*testing.T) store.Store { return mem.New() },
		"fs":  newFS,
		"patience over a flaky store": func(*testing.T) store.Store {
			flaky := faulty.New(mem.New(),
				faulty.On(func(c faulty.Call) bool { return c.N%5 == 0 }, faulty.Fail(tripod.Unavailable)),
				faulty.On(func(c faulty.Call) bool { return c.N%7 == 0 }, faulty.LoseAnswer(tripod.Unavailable)))
			return patient{flaky}
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			vaulttest.Run(t, func(t *testing.T, w *vaulttest.World) vaulttest.Subject {
				s := open(t)
				must(t, local.Create(t.Context(), s, w.Encoded, w.Keyring))
				return subject(t, s)
			})
		})
	}
}

func newFS(t *testing.T) store.Store {
	s, err := fs.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// subject opens a vault for the suite, and closes it with the test.
func subject(t *testing.T, s store.Store) vaulttest.Subject {
	v := open(t, s, t.TempDir())
	session := begin(t, v)
	return vaulttest.Subject{Reader: v, Writer: session, Admin: session}
}

// patient tries again what was out of reach, as package retry does: an attempt
// whose answer was lost may have done its work.
type patient struct{ *faulty.Store }

func again(op func() error) (err error) {
	for range 8 {
		if err = op(); !errors.Is(err, tripod.Unavailable) {
			break
		}
	}
	return err
}

func (p patient) Put(ctx context.Context, name string, data []byte) error {
	tries := 0
	return again(func() error {
		err := p.Store.Put(ctx, name, data)
		if tries++; tries > 1 && errors.Is(err, tripod.Exists) {
			return nil
		}
		return err
	})
}

func (p patient) Get(ctx context.Context, name string, b []byte, off int64) (n int, err error) {
	err = again(func() (err error) {
		n, err = p.Store.Get(ctx, name, b, off)
		return err
	})
	return n, err
}

func (p patient) Head(ctx context.Context, name string) (info store.Info, err error) {
	err = again(func() (err error) {
		info, err = p.Store.Head(ctx, name)
		return err
	})
	return info, err
}

func (p patient) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	var all []store.Info
	err := again(func() error {
		all = nil
		return p.Store.List(ctx, prefix, func(i store.Info) error {
			all = append(all, i)
			return nil
		})
	})
	for _, i := range all {
		if err == nil {
			err = fn(i)
		}
	}
	return err
}

func (p patient) Delete(ctx context.Context, name string) error {
	return again(func() error { return p.Store.Delete(ctx, name) })
}
