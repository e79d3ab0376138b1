package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"tripod/internal/core/tripod"
)

// A bucket has no locks that end with a process. So whoever writes keeps
// renewing an object, the lease, by compare-and-swap, and whoever waits may take
// it over when it was left alone for long.
//
// No clock is compared with another one: a waiter counts from when it has itself
// first seen the lease as it still is, a holder from before it sent the renewal
// that was answered. The holder stops well before anybody may take over; the
// time between is for requests that are on their way.
const (
	leaseName     = ".lock" // no object can have this name
	renewEvery    = 30 * time.Second
	renewAgain    = 5 * time.Second // after one that failed
	renewTimeout  = 20 * time.Second
	fenceAfter    = 3 * time.Minute
	takeoverAfter = 5 * time.Minute
	pollFirst     = 250 * time.Millisecond
	pollMax       = 5 * time.Second
	maxLease      = 4 << 10 // bytes
)

// note is what the lease object holds.
type note struct {
	Holder string `json:"holder"` // for those who wait
	Token  string `json:"token"`  // the holder's, at random
	Turn   int    `json:"turn"`   // counts renewals, so that each has another ETag
	Free   bool   `json:"free"`
}

// seen is the lease as it was read.
type seen struct {
	note
	etag string // "" when there is none
}

// lease is held by this process.
type lease struct {
	s *Store

	renewing sync.Mutex // one at a time; guards etag, version and turn
	holder   string
	token    string
	turn     int
	etag     string
	version  string

	mu      sync.Mutex
	renewed time.Time       // when the last renewal that was answered was sent
	lost    error           // somebody else has it
	ctx     context.Context // lint:context the lease's own end, for those who write under it
	end     context.CancelCauseFunc
}

// Exclusive implements store.Exclusive by a lease in the bucket. While it lasts
// a goroutine renews it. When that was impossible for three minutes, Put, Delete
// and Lock return Fenced until it is possible again and nobody has taken over.
func (s *Store) Exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	if err := s.takeTurn(ctx, waiting); err != nil {
		return nil, err
	}
	s.holder.Store(&holder)
	l, err := s.acquire(ctx, printable(holder), waiting)
	if err == nil {
		// Whoever holds a store relies on these.
		if err = s.conditions(ctx, leaseName, l.encode(l.turn+1, false)); err != nil {
			err = errors.Join(err, l.release(ctx))
		}
	}
	if err != nil {
		<-s.turn
		return nil, err
	}
	s.lease.Store(l)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		l.keep(stop)
	}()
	return sync.OnceValue(func() error {
		close(stop)
		<-stopped
		s.lease.Store(nil)
		err := l.release(context.Background())
		<-s.turn
		return err
	}), nil
}

// takeTurn waits for the others of this process.
func (s *Store) takeTurn(ctx context.Context, waiting func(string)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for told := (*string)(nil); ; {
		select {
		case s.turn <- struct{}{}:
			return nil
		default:
		}
		if h := s.holder.Load(); h != nil && h != told && waiting != nil {
			told = h
			waiting(*h)
		}
		select {
		case s.turn <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// acquire waits until the lease is free or left alone, and takes it.
func (s *Store) acquire(ctx context.Context, holder string, waiting func(string)) (*lease, error) {
	l := &lease{s: s, holder: holder, token: rand.Text()}
	var last seen
	var since time.Time
	told := ""
	for poll, failures := pollFirst, 0; ; poll = min(poll*3/2, pollMax) {
		now := time.Now()
		present, err := s.readLease(ctx)
		if err != nil && (!errors.Is(err, tripod.Unavailable) || last.etag == "" || failures > 20) {
			return nil, err
		}
		if err != nil {
			failures++ // what was observed so far still counts
		} else {
			failures = 0
			if last.etag == "" || present.etag != last.etag {
				last, since = present, now
			}
			if present.etag == "" || present.Free || time.Since(since) >= takeoverAfter {
				taken, err := l.take(ctx, present.etag)
				if err != nil || taken {
					return l, err
				}
				last = seen{}
				continue
			}
			if waiting != nil && told != present.Token+present.Holder {
				told = present.Token + present.Holder
				waiting(printable(present.Holder))
			}
		}
		if err := wait(ctx, poll); err != nil {
			return nil, err
		}
	}
}

// readLease gives the lease as it is. What cannot be read is held by someone
// unknown, and left alone.
func (s *Store) readLease(ctx context.Context) (seen, error) {
	body, info, _, err := s.client.GetObject(ctx, s.bucket, s.key(leaseName), minio.GetObjectOptions{})
	if err != nil {
		if err = s.fail(ctx, err, "get", leaseName); errors.Is(err, tripod.NotFound) {
			return seen{}, nil
		}
		return seen{}, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxLease))
	if err != nil {
		return seen{}, s.fail(ctx, err, "get", leaseName)
	}
	r := seen{etag: info.ETag}
	if json.Unmarshal(text, &r.note) != nil || r.Token == "" {
		r.note = note{Holder: "unknown"}
	}
	return r, nil
}

func (l *lease) encode(turn int, free bool) []byte {
	text, err := json.Marshal(note{Holder: l.holder, Token: l.token, Turn: turn, Free: free})
	if err != nil {
		panic(err) // of texts and numbers
	}
	return text
}

// swap writes the lease if it still is the one of l.etag, and reports whether it
// was. The caller has l.renewing, or is alone.
func (l *lease) swap(ctx context.Context, free bool) (bool, error) {
	var opts minio.PutObjectOptions
	if l.etag == "" {
		opts.SetMatchETagExcept("*")
	} else {
		opts.SetMatchETag(l.etag)
	}
	data := l.encode(l.turn+1, free)
	sent := time.Now()
	info, err := l.s.put(ctx, l.s.key(leaseName), data, opts)
	switch {
	case err == nil:
	case codeOf(err) == minio.PreconditionFailed || codeOf(err) == minio.NoSuchKey:
		// By an earlier attempt of ours, whose answer was lost?
		present, err := l.s.readLease(ctx)
		if err != nil {
			return false, err
		}
		if present.Token != l.token || present.Turn != l.turn+1 || present.Free != free {
			return false, nil
		}
		info.ETag, info.VersionID = present.etag, ""
	default:
		return false, l.s.fail(ctx, err, "put", leaseName)
	}
	if before := l.version; before != "" && before != info.VersionID {
		_ = l.s.removeVersion(ctx, l.s.key(leaseName), before) // costs some bytes when it stays
	}
	l.etag, l.version, l.turn = info.ETag, info.VersionID, l.turn+1
	l.mu.Lock()
	l.renewed = sent
	l.mu.Unlock()
	return true, nil
}

// take makes the lease ours if it still is the one of etag; "" is none.
func (l *lease) take(ctx context.Context, etag string) (bool, error) {
	l.etag = etag
	taken, err := l.swap(ctx, false)
	if taken {
		l.ctx, l.end = context.WithCancelCause(context.Background())
	}
	return taken, err
}

// keep renews the lease until stop.
func (l *lease) keep(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel() // a renewal under way
		case <-ctx.Done():
		}
	}()
	for next := renewEvery; wait(ctx, next) == nil; {
		next = renewEvery
		if err := l.renew(ctx); err != nil {
			next = renewAgain
		}
		if l.isLost() {
			return
		}
	}
}

// renew renews the lease once. It ends what is being written when it cannot.
func (l *lease) renew(ctx context.Context) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	ours, err := l.swap(ctx, false)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil && !l.stale():
		return err
	case err != nil:
		l.end(errFenced(l.s.place, "it could not be renewed for "+fenceAfter.String()))
		return err
	case !ours:
		l.lost = errFenced(l.s.place, "somebody else has taken it")
		l.end(l.lost)
		return l.lost
	case l.ctx.Err() != nil: // nobody took it in the meantime
		l.ctx, l.end = context.WithCancelCause(context.Background())
	}
	return nil
}

// stale reports whether somebody may soon take over. Not every machine's
// monotonic clock goes on while it sleeps, so the other one is asked as well.
func (l *lease) stale() bool {
	now := time.Now()
	return now.Sub(l.renewed) >= fenceAfter || now.Round(0).Sub(l.renewed.Round(0)) >= fenceAfter
}

func (l *lease) isLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost != nil
}

func errFenced(place, why string) error {
	return tripod.Errorf(tripod.Fenced, "%s: lost the right to write: %s", place, why).
		WithHint("run it again: what was stored stays, and the rest is added")
}

// release gives the lease back. One that cannot be given back runs out by itself.
func (l *lease) release(ctx context.Context) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	if l.isLost() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
	defer cancel()
	for wait(ctx, 0) == nil {
		if _, err := l.swap(ctx, true); !errors.Is(err, tripod.Unavailable) {
			break
		}
		_ = wait(ctx, time.Second)
	}
	l.end(errFenced(l.s.place, "it was given back"))
	return nil
}

// writing is what every change of the store runs in: while this process holds
// the store, it ends with the lease.
func (s *Store) writing(ctx context.Context) (context.Context, func(), error) {
	l := s.lease.Load()
	if l == nil {
		return ctx, func() {}, nil
	}
	l.mu.Lock()
	held, lost, stale := l.ctx, l.lost, l.stale()
	l.mu.Unlock()
	if lost == nil && (stale || held.Err() != nil) {
		// After a sleep, or a break of the network, it may still be ours.
		if err := l.renew(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, nil, context.Cause(ctx)
			}
			lost = errFenced(s.place, "it could not be renewed for "+fenceAfter.String())
		}
		l.mu.Lock()
		held = l.ctx
		l.mu.Unlock()
	}
	if lost != nil {
		return nil, nil, lost
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(held, func() { cancel(context.Cause(held)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}, nil
}

// printable makes one short line of what others are to read.
func printable(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
	if len(text) > 300 {
		text = text[:300]
	}
	return string(bytes.ToValidUTF8([]byte(text), []byte("?")))
}
