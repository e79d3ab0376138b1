package mem_test

import (
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"tripod/internal/driver/store"
	"tripod/internal/driver/store/mem"
	"tripod/internal/driver/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storetest.Run(t, func(*testing.T) store.Store { return mem.New() })
	})
}

func TestCloneStandsAlone(t *testing.T) {
	s := mem.New()
	if err := s.Put(t.Context(), "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	c := s.Clone()
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Head(t.Context(), "a/b"); err != nil {
		t.Errorf("the clone lost it: %v", err)
	}
	if err := s.Put(t.Context(), "a", nil); err != nil {
		t.Errorf("the folder is empty, its name not free: %v", err)
	}
}
