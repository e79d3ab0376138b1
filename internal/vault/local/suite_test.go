package local_test

import (
	"testing"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/fs"
	"tripod/internal/driver/store/mem"
	"tripod/internal/driver/store/retry"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

func TestConformance(t *testing.T) {
	stores := map[string]func(t *testing.T) store.Store{
		"mem": func(*testing.T) store.Store { return mem.New() },
		"fs":  newFS,
		"retry over faulty": func(*testing.T) store.Store {
			flaky := faulty.New(mem.New(),
				faulty.On(func(c faulty.Call) bool { return c.N%5 == 0 }, faulty.Fail(tripod.Unavailable)),
				faulty.On(func(c faulty.Call) bool { return c.N%7 == 0 }, faulty.LoseAnswer(tripod.Unavailable)))
			return retry.New(flaky, retry.Options{First: time.Nanosecond, Max: time.Nanosecond})
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
