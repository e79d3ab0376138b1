package meter_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/driver/store/meter"
	"tripod/internal/driver/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storetest.Run(t, func(*testing.T) store.Store { return meter.New(mem.New()) })
	})
}

func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		second := faulty.Delay(func(context.Context) error {
			time.Sleep(time.Second) // simulated
			return nil
		})
		s := meter.New(faulty.New(mem.New(), faulty.On(faulty.From(1), second)))
		before := s.Usage()
		if err := errors.Join(s.Put(ctx, "a", make([]byte, 100)), s.Put(ctx, "b", make([]byte, 11))); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(ctx, "a", make([]byte, 50)); !errors.Is(err, tripod.Exists) {
			t.Fatal(err)
		}
		s.Get(ctx, "a", make([]byte, 200), 60)
		s.Get(ctx, "none", make([]byte, 200), 0)
		s.Head(ctx, "a")
		enough := errors.New("enough")
		err := s.List(ctx, "", func(i store.Info) error {
			time.Sleep(time.Hour) // simulated: the caller's time
			if i.Name == "b" {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Errorf("list: %v", err)
		}
		s.Delete(ctx, "b")
		s.Lock(ctx, "a", time.Time{})
		want := meter.Usage{
			Put:    meter.Count{Calls: 3, Errors: 1, Bytes: 111, Took: 3 * time.Second},
			Get:    meter.Count{Calls: 2, Errors: 1, Bytes: 40, Took: 2 * time.Second},
			Head:   meter.Count{Calls: 1, Took: time.Second},
			List:   meter.Count{Calls: 1, Took: time.Second},
			Delete: meter.Count{Calls: 1, Took: time.Second},
			Lock:   meter.Count{Calls: 1, Took: time.Second},
			Listed: 2,
		}
		got := s.Usage()
		if got != want || got.Calls() != 9 {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if got.Sub(before) != want || got.Sub(got) != (meter.Usage{}) {
			t.Error("Sub does not subtract")
		}
	})
}
