package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/driver/store/retry"
	"tripod/internal/driver/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storetest.Run(t, func(*testing.T) store.Store { return retry.New(mem.New(), retry.Options{}) })
	})
}

// The contract holds when every third operation loses its answer, and when every
// third read fails. (After a Put or Delete that failed undone, an object like
// ours, or none, is taken for our doing: nobody can tell.)
func TestContractOverAStoreThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		third := func(c faulty.Call) bool { return c.N%3 == 0 }
		read := func(c faulty.Call) bool { return c.Verb != faulty.Put && c.Verb != faulty.Delete }
		for _, rule := range []faulty.Rule{
			faulty.On(third, faulty.LoseAnswer(tripod.Unavailable)),
			faulty.On(faulty.All(third, read), faulty.Fail(tripod.Unavailable)),
		} {
			f := faulty.New(mem.New(), rule)
			storetest.Run(t, func(*testing.T) store.Store { return retry.New(f, retry.Options{Attempts: 50}) })
			if f.Count() < 100 {
				t.Errorf("only %d operations", f.Count())
			}
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := faulty.New(mem.New(), faulty.On(faulty.From(1), faulty.Fail(tripod.Unavailable)))
		s := retry.New(f, retry.Options{Attempts: 6, First: time.Second, Max: 4 * time.Second})
		start := time.Now()
		if _, err := s.Head(t.Context(), "a"); !errors.Is(err, tripod.Unavailable) {
			t.Errorf("%v", err)
		}
		if f.Count() != 6 {
			t.Errorf("%d attempts", f.Count())
		}
		// 1, 2, 4, 4 and 4 seconds, each cut to between half and all of it.
		if took := time.Since(start); took < 7500*time.Millisecond || took > 15*time.Second {
			t.Errorf("waited %v", took)
		}
	})
}

func TestOtherErrorsAreAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, kind := range []tripod.ErrorKind{tripod.Denied, tripod.Exhausted, tripod.Invalid, tripod.Corrupt, tripod.NotFound} {
			f := faulty.New(mem.New(), faulty.FailNth(1, kind))
			if err := retry.New(f, retry.Options{}).Put(t.Context(), "a", nil); !errors.Is(err, kind) || f.Count() != 1 {
				t.Errorf("%v: %v after %d attempts", kind, err, f.Count())
			}
		}
	})
}

func TestCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f := faulty.New(mem.New(), faulty.On(faulty.From(1), faulty.Fail(tripod.Unavailable)))
		s := retry.New(f, retry.Options{Attempts: 1000, First: time.Hour, Max: time.Hour})
		start := time.Now()
		if err := s.Delete(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("ended after %v", took)
		}
	})
}

// A Put whose answer was lost is recognised by the object's bytes.
func TestPutWhoseAnswerWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		for _, data := range []string{"", "content"} {
			f := faulty.New(mem.New(), faulty.On(faulty.Nth(1), faulty.LoseAnswer(tripod.Unavailable)))
			if err := retry.New(f, retry.Options{}).Put(ctx, "a", []byte(data)); err != nil {
				t.Errorf("ours: %v", err)
			}
		}
		for _, other := range []string{"", "conten", "content2", "Content"} {
			inner := mem.New()
			if err := inner.Put(ctx, "a", []byte(other)); err != nil {
				t.Fatal(err)
			}
			f := faulty.New(inner, faulty.FailNth(1, tripod.Unavailable))
			if err := retry.New(f, retry.Options{}).Put(ctx, "a", []byte("content")); !errors.Is(err, tripod.Exists) {
				t.Errorf("someone else's %q: %v", other, err)
			}
		}
		// Without an earlier failure an equal object is somebody else's.
		inner := mem.New()
		s := retry.New(inner, retry.Options{})
		if err := errors.Join(s.Put(ctx, "a", nil)); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(ctx, "a", nil); !errors.Is(err, tripod.Exists) {
			t.Errorf("second put: %v", err)
		}
	})
}

// brokenList is a store whose lists break off after a few objects.
type brokenList struct {
	store.Store
	after int
}

func (b *brokenList) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	n := 0
	return b.Store.List(ctx, prefix, func(i store.Info) error {
		if n++; n > b.after {
			b.after++
			return tripod.Errorf(tripod.Unavailable, "broke off")
		}
		return fn(i)
	})
}

func TestListGoesOnWhereItBrokeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		for i := range 6 {
			if err := inner.Put(t.Context(), fmt.Sprint(i), nil); err != nil {
				t.Fatal(err)
			}
		}
		got := ""
		err := retry.New(&brokenList{inner, 1}, retry.Options{}).List(t.Context(), "", func(i store.Info) error {
			got += i.Name
			return nil
		})
		if err != nil || got != "012345" {
			t.Errorf("listed %q, %v", got, err)
		}
	})
}
