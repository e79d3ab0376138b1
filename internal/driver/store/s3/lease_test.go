package s3_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/s3"
	"tripod/internal/driver/store/s3test"
)

const place = "some/prefix"

// onFake opens a store on the fake, past its own transport.
func onFake(t *testing.T, f http.RoundTripper) *s3.Store {
	t.Helper()
	o := options("fake.example", "bucket", place)
	o.Transport = f
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A writer that cannot renew for three minutes writes no more, and nobody takes
// over before five have passed.
func TestAWriterThatIsCutOffStopsBeforeAnotherBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := s3test.NewFake("bucket")
		var cut atomic.Bool
		broken := &line{f, &cut}
		a, b := onFake(t, broken), onFake(t, f)
		release, err := a.Exclusive(t.Context(), "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // renewed all the time
		if err := a.Put(t.Context(), "one", nil); err != nil {
			t.Fatal(err)
		}

		began := time.Now()
		cut.Store(true)
		took := make(chan time.Duration, 1)
		var holder string
		go func() {
			free, err := b.Exclusive(t.Context(), "b", func(h string) { holder = h })
			if err != nil {
				t.Error(err)
				return
			}
			took <- time.Since(began)
			if err := b.Put(t.Context(), "two", nil); err != nil {
				t.Error(err)
			}
			if err := free(); err != nil {
				t.Error(err)
			}
		}()
		var fenced time.Duration
		for ; fenced == 0 && time.Since(began) < 10*time.Minute; time.Sleep(time.Second) {
			switch err := a.Put(t.Context(), "three", nil); {
			case errors.Is(err, tripod.Fenced):
				fenced = time.Since(began)
			case !errors.Is(err, tripod.Unavailable):
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		after := <-took
		if fenced < 2*time.Minute || fenced > 3*time.Minute+30*time.Second {
			t.Errorf("fenced after %v", fenced)
		}
		// The last renewal was up to 30 s before the cut.
		if after < 5*time.Minute-30*time.Second || after > 6*time.Minute || after < fenced+time.Minute {
			t.Errorf("taken over after %v, fenced after %v", after, fenced)
		}
		if holder != "a" {
			t.Errorf("told to wait for %q", holder)
		}

		cut.Store(false)
		time.Sleep(time.Minute)
		if err := a.Put(t.Context(), "four", nil); !errors.Is(err, tripod.Fenced) || tripod.HintOf(err) == "" {
			t.Errorf("put by the one that was replaced: %v", err)
		}
		if err := a.Delete(t.Context(), "two"); !errors.Is(err, tripod.Fenced) {
			t.Errorf("delete by the one that was replaced: %v", err)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
		if got := strings.Join(f.Keys(), " "); got != place+"/.lock "+place+"/one "+place+"/two" {
			t.Errorf("the bucket holds %s", got)
		}
	})
}

// line is a network that may be cut.
type line struct {
	*s3test.Fake
	cut *atomic.Bool
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.cut.Load() {
		return nil, errors.New("the line is cut")
	}
	return l.Fake.RoundTrip(r)
}

// A short break costs nothing, and neither does a long one in which nobody else
// came.
func TestAWriterThatComesBackInTimeGoesOn(t *testing.T) {
	for _, gap := range []time.Duration{time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var cut atomic.Bool
			s := onFake(t, &line{s3test.NewFake("bucket"), &cut})
			release, err := s.Exclusive(t.Context(), "a", nil)
			if err != nil {
				t.Fatal(err)
			}
			cut.Store(true)
			time.Sleep(gap)
			cut.Store(false)
			if err := s.Put(t.Context(), "after", nil); err != nil {
				t.Errorf("after a gap of %v: %v", gap, err)
			}
			if err := release(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is being written when the lease ends is ended with it.
func TestWhatIsUnderWayEndsWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := s3test.NewFake("bucket")
		s := onFake(t, stuck{f})
		release, err := s.Exclusive(t.Context(), "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		done := make(chan error)
		go func() { done <- s.Put(t.Context(), "stuck", nil) }()
		synctest.Wait()
		f.Set(place+"/.lock", "taken by another")
		if err := <-done; !errors.Is(err, tripod.Fenced) {
			t.Errorf("put: %v", err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it ended after %v", took)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
		if got := f.Get(place + "/.lock"); got != "taken by another" {
			t.Errorf("the other's lease became %q", got)
		}
	})
}

// stuck is a server that never answers a PUT of an object called stuck.
type stuck struct{ *s3test.Fake }

func (s stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/stuck") {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return s.Fake.RoundTrip(r)
}

// A renewal whose answer was lost is known again as one's own.
func TestALostAnswerIsNoLostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := s3test.NewFake("bucket")
		n := 0
		f.Lost = func(r *http.Request) bool {
			if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, ".lock") {
				return false
			}
			n++
			return n > 3 && n%2 == 0 // not while it is taken
		}
		s := onFake(t, f)
		release, err := s.Exclusive(t.Context(), "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			time.Sleep(time.Minute)
			if err := s.Put(t.Context(), "x", nil); err != nil && !errors.Is(err, tripod.Exists) {
				t.Fatal(err)
			}
		}
		if err := release(); err != nil {
			t.Error(err)
		}
		if n < 20 {
			t.Errorf("%d renewals", n)
		}
		// Given back: the next one need not wait.
		began := time.Now()
		f.Lost = nil
		if release, err = onFake(t, f).Exclusive(t.Context(), "b", nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the next one waited %v", took)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}

// What somebody wrote over the lease is left alone like any other's.
func TestALeaseThatCannotBeReadIsSomebodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := s3test.NewFake("bucket")
		f.Set(place+"/.lock", "nonsense")
		s := onFake(t, f)
		began := time.Now()
		release, err := s.Exclusive(t.Context(), "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 5*time.Minute {
			t.Errorf("taken after %v", took)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}

// A real server hands the lease from one process to the next.
func TestLeaseOnARealServer(t *testing.T) {
	g := s3test.Start(t)
	for _, kind := range []string{"plain", "lock"} {
		g.Bucket(t, kind, kind)
		a, b := open(t, options(g.Endpoint, kind, place)), open(t, options(g.Endpoint, kind, place))
		release, err := a.Exclusive(t.Context(), "first", nil)
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan string, 10)
		done := make(chan error)
		go func() {
			free, err := b.Exclusive(context.Background(), "second", func(h string) { told <- h })
			if err == nil {
				err = free()
			}
			done <- err
		}()
		if holder := <-told; holder != "first" {
			t.Errorf("%s: told to wait for %q", kind, holder)
		}
		if err := errors.Join(a.Put(t.Context(), "x", nil), release(), <-done); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := b.Put(t.Context(), "y", nil); err != nil {
			t.Errorf("%s: a store that nobody holds takes no more: %v", kind, err)
		}
	}
}
