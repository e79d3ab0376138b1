// Package faulty is a store that fails on demand: at the operation a test's
// script names, in the way it names. It wraps any store:
//
//	f := faulty.New(mem.New(), faulty.FailNth(3, tripod.Unavailable))
//	f := faulty.New(inner, faulty.On(faulty.Names("pack/*"), faulty.Tear(tripod.Unavailable)))
//
// A test that fails at every operation runs once without a script, asks Count,
// and runs again with FailNth for each number. At counts operations of one verb.
// damage.go has the faults of objects at rest. Nothing here is random but by a
// seed the test gives.
package faulty

import (
	"context"
	"errors"
	"path"
	"sync"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Verb is a method of the contract.
type Verb string

// The verbs that are counted.
const (
	Put    Verb = "put"
	Get    Verb = "get"
	Head   Verb = "head"
	List   Verb = "list"
	Delete Verb = "delete"
	Lock   Verb = "lock"
)

// Call is one operation as the script sees it.
type Call struct {
	Verb Verb
	Name string // of the object; of List the prefix
	N    int    // this operation's number among all, from 1
	Of   int    // its number among those of its verb, from 1
}

// When chooses operations.
type When func(Call) bool

// Nth chooses the nth operation of all, counted from 1.
func Nth(n int) When { return func(c Call) bool { return c.N == n } }

// From chooses all operations from the nth on: a store that died.
func From(n int) When { return func(c Call) bool { return c.N >= n } }

// At chooses the nth operation of a verb, counted from 1.
func At(v Verb, n int) When { return func(c Call) bool { return c.Verb == v && c.Of == n } }

// Every chooses all operations of a verb.
func Every(v Verb) When { return func(c Call) bool { return c.Verb == v } }

// Names chooses the operations on names that match a pattern of path.Match.
func Names(pattern string) When {
	return func(c Call) bool {
		ok, err := path.Match(pattern, c.Name)
		return ok && err == nil
	}
}

// All chooses what all of the conditions choose.
func All(conditions ...When) When {
	return func(c Call) bool {
		for _, when := range conditions {
			if !when(c) {
				return false
			}
		}
		return true
	}
}

// Rule is one line of a script: when, and what then. Of the rules that choose
// an operation the first counts.
type Rule struct {
	When When
	Do   Fault
}

// On makes a rule.
func On(when When, do Fault) Rule { return Rule{when, do} }

// FailNth fails the nth operation, which then does nothing.
func FailNth(n int, kind tripod.ErrorKind) Rule { return On(Nth(n), Fail(kind)) }

// Fault is what happens to an operation.
type Fault struct {
	before error                           // returned in place of the operation
	after  error                           // returned once the operation is done
	delay  func(ctx context.Context) error // runs first
	put    func([]byte) []byte             // what a Put stores; nil for nothing
	crash  bool                            // a Put's object is lost by Crash
	got    func([]byte)                    // changes what Get has read
	short  int                             // a Get reads that many bytes at most, if set
	from   string                          // the object that is read in place of the one asked for, if set
	stale  bool                            // a Get or Head finds what the name had before its deletion
}

func failure(kind tripod.ErrorKind) error { return tripod.Errorf(kind, "injected failure") }

// Fail returns an error of the kind and does nothing.
func Fail(kind tripod.ErrorKind) Fault { return Fault{before: failure(kind)} }

// LoseAnswer does the operation and returns an error of the kind all the same.
func LoseAnswer(kind tripod.ErrorKind) Fault { return Fault{after: failure(kind)} }

// Delay calls hook first, and fails with its error if it returns one.
func Delay(hook func(ctx context.Context) error) Fault { return Fault{delay: hook} }

// Tear stores half of what is put and returns an error of the kind: what the
// contract forbids, and stores do.
func Tear(kind tripod.ErrorKind) Fault { return Fault{put: half, after: failure(kind)} }

// TearSilently stores half of what is put and returns success.
func TearSilently() Fault { return Fault{put: half} }

func half(b []byte) []byte { return append([]byte{}, b[:len(b)/2]...) }

// Lose returns success and stores nothing.
func Lose() Fault { return Fault{put: func([]byte) []byte { return nil }} }

// LoseAtCrash stores what is put until Crash: a disk that lies about its cache.
func LoseAtCrash() Fault { return Fault{crash: true} }

// CorruptGet changes what Get has read; the object stays as it is. The ready
// changes of this package do, such as FlipBit(seed).
func CorruptGet(change Change) Fault {
	return Fault{got: func(p []byte) { copy(p, change(append([]byte{}, p...))) }}
}

// ShortGet makes objects look as if they ended after n bytes, n at least 1.
func ShortGet(n int) Fault { return Fault{short: n} }

// SwapGet reads the object other in place of the one asked for.
func SwapGet(other string) Fault { return Fault{from: other} }

// StaleGet makes Get and Head answer with what the name held before its last
// Delete, if this decorator saw it: a cache gone stale, a rolled-back mirror.
func StaleGet() Fault { return Fault{stale: true} }

// Store is a store.Store around another one.
type Store struct {
	inner store.Store

	mu       sync.Mutex
	rules    []Rule
	calls    int
	perVerb  map[Verb]int
	volatile map[string]bool   // objects that Crash loses
	deleted  map[string][]byte // what names held before their last Delete
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Exclusive = (*Store)(nil)
)

// New returns inner with a script; without rules it only counts.
func New(inner store.Store, rules ...Rule) *Store {
	return &Store{inner: inner, rules: rules, perVerb: map[Verb]int{}, volatile: map[string]bool{}, deleted: map[string][]byte{}}
}

// Script replaces the script, and starts counting anew.
func (s *Store) Script(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules, s.calls, s.perVerb = rules, 0, map[Verb]int{}
}

// Count is the number of operations so far.
func (s *Store) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// CountOf is the number of operations of a verb so far.
func (s *Store) CountOf(v Verb) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.perVerb[v]
}

// Crash removes what LoseAtCrash marked.
func (s *Store) Crash(ctx context.Context) error {
	s.mu.Lock()
	lost := s.volatile
	s.volatile = map[string]bool{}
	s.mu.Unlock()
	var errs []error
	for name := range lost {
		if err := s.inner.Delete(ctx, name); !errors.Is(err, tripod.NotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// begin counts an operation, finds its fault, and says how it starts.
func (s *Store) begin(ctx context.Context, v Verb, name string) (Fault, error) {
	s.mu.Lock()
	s.calls++
	s.perVerb[v]++
	call := Call{Verb: v, Name: name, N: s.calls, Of: s.perVerb[v]}
	var f Fault
	for _, rule := range s.rules {
		if rule.When(call) {
			f = rule.Do
			break
		}
	}
	s.mu.Unlock()
	if f.delay != nil {
		if err := f.delay(ctx); err != nil {
			return f, err
		}
	}
	return f, f.before
}

// end returns the operation's error, or the fault's when it went well.
func (f Fault) end(err error) error {
	if err == nil {
		return f.after
	}
	return err
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	f, err := s.begin(ctx, Put, name)
	if err != nil {
		return err
	}
	if f.put != nil {
		if data = f.put(data); data == nil {
			return f.after
		}
	}
	err = s.inner.Put(ctx, name, data)
	if err == nil && f.crash {
		s.mu.Lock()
		s.volatile[name] = true
		s.mu.Unlock()
	}
	return f.end(err)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	f, err := s.begin(ctx, Get, name)
	if err != nil {
		return 0, err
	}
	if f.from != "" {
		name = f.from
	}
	var n int
	if old, ok := s.old(name); ok && f.stale {
		n, err = readAt(old, p, off)
	} else {
		n, err = s.inner.Get(ctx, name, p, off)
	}
	if f.short > 0 && off+int64(n) > int64(f.short) {
		n = int(max(0, int64(f.short)-off))
		_, err = readAt(nil, p[n:], 0)
	}
	if f.got != nil {
		f.got(p[:n])
	}
	if f.after != nil && err == nil {
		return 0, f.after
	}
	return n, err
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, name string) (store.Info, error) {
	f, err := s.begin(ctx, Head, name)
	if err != nil {
		return store.Info{}, err
	}
	if old, ok := s.old(name); ok && f.stale {
		return store.Info{Name: name, Size: int64(len(old))}, f.after
	}
	info, err := s.inner.Head(ctx, name)
	return info, f.end(err)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	f, err := s.begin(ctx, List, prefix)
	if err != nil {
		return err
	}
	return f.end(s.inner.List(ctx, prefix, fn))
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	f, err := s.begin(ctx, Delete, name)
	if err != nil {
		return err
	}
	old, readErr := s.read(ctx, name)
	err = s.inner.Delete(ctx, name)
	if err == nil && readErr == nil {
		s.mu.Lock()
		s.deleted[name] = old
		s.mu.Unlock()
	}
	return f.end(err)
}

// Lock implements store.Store.
func (s *Store) Lock(ctx context.Context, name string, until time.Time) error {
	f, err := s.begin(ctx, Lock, name)
	if err != nil {
		return err
	}
	return f.end(s.inner.Lock(ctx, name, until))
}

// Capabilities implements store.Store.
func (s *Store) Capabilities() store.Capabilities { return s.inner.Capabilities() }

// Exclusive implements store.Exclusive where the store inside does, and returns
// Invalid where not. It is not counted.
func (s *Store) Exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	x, ok := s.inner.(store.Exclusive)
	if !ok {
		return nil, tripod.Errorf(tripod.Invalid, "this store cannot keep other writers out")
	}
	return x.Exclusive(ctx, holder, waiting)
}

// old is what name held before its last Delete.
func (s *Store) old(name string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.deleted[name]
	return b, ok
}
