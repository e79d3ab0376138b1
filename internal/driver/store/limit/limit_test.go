package limit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/limit"
	"tripod/internal/driver/store/mem"
	"tripod/internal/driver/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, opts := range []limit.Options{{}, {Up: 1 << 20, Down: 1 << 20, Concurrent: 1}} {
			storetest.Run(t, func(*testing.T) store.Store { return limit.New(mem.New(), opts) })
		}
	})
}

func TestBytesPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := limit.New(mem.New(), limit.Options{Up: 1000, Down: 4000})
		start := time.Now()
		for i := range 11 {
			if err := s.Put(ctx, fmt.Sprint(i), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("11 puts of 1000 bytes at 1000 a second took %v", took)
		}
		start = time.Now()
		for i := range 9 {
			// The last bytes asked for are not there, and cost nothing.
			if n, _ := s.Get(ctx, fmt.Sprint(i), make([]byte, 9000), 0); n != 1000 {
				t.Fatalf("got %d", n)
			}
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("9 gets of 1000 bytes at 4000 a second took %v", took)
		}
	})
}

func TestIdleTimeIsNotSavedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limit.New(mem.New(), limit.Options{Up: 1000})
		if err := s.Put(t.Context(), "first", make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // simulated
		start := time.Now()
		for i := range 3 {
			if err := s.Put(t.Context(), fmt.Sprint(i), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("3 puts after an idle hour took %v", took)
		}
	})
}

func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now, most := make(chan int, 1), 0
		now <- 0
		slow := faulty.Delay(func(context.Context) error {
			n := <-now + 1
			most = max(most, n)
			now <- n
			time.Sleep(time.Second) // simulated
			now <- <-now - 1
			return nil
		})
		s := limit.New(faulty.New(mem.New(), faulty.On(faulty.Every(faulty.Put), slow)), limit.Options{Concurrent: 3})
		start := time.Now()
		done := make(chan error)
		for i := range 10 {
			go func() { done <- s.Put(t.Context(), fmt.Sprint(i), nil) }()
		}
		for range 10 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); most != 3 || took != 4*time.Second {
			t.Errorf("at most %d at once, in %v", most, took)
		}
	})
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limit.New(mem.New(), limit.Options{Up: 1})
		if err := s.Put(t.Context(), "a", make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Put(ctx, "b", make([]byte, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		start := time.Now()
		if err := s.Put(t.Context(), "c", nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 999*time.Second {
			t.Errorf("what was cancelled was charged: waited %v", took)
		}
	})
}
