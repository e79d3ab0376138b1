// Package mem is the store in a map: for tests, and as the shortest adapter to
// read before writing another one. It keeps the contract to the letter, and is
// as strict as the strictest adapter: like fs it returns Conflict for a name
// that would be an object and a folder at once.
package mem

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
)

// Store is a store.Store and store.Exclusive in memory.
type Store struct {
	mu      sync.RWMutex
	objects map[string]object
	folders map[string]int // number of objects below each folder

	writer sync.Mutex    // guards held and holder
	held   chan struct{} // closed when the holder releases; nil when free
	holder string
}

type object struct {
	data   []byte // never changed in place
	locked time.Time
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Exclusive = (*Store)(nil)
)

// New returns an empty store.
func New() *Store {
	return &Store{objects: map[string]object{}, folders: map[string]int{}}
}

// Clone returns a store with the same objects and nobody holding it. Later
// changes of one do not show in the other.
func (s *Store) Clone() *Store {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &Store{objects: maps.Clone(s.objects), folders: maps.Clone(s.folders)}
}

func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckName(name)
}

// foldersOf yields the folders above name.
func foldersOf(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := range len(name) {
			if name[i] == '/' && !yield(name[:i]) {
				return
			}
		}
	}
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[name]; ok {
		return tripod.Errorf(tripod.Exists, "put %s: the name is taken", name)
	}
	clash := s.folders[name] > 0
	for folder := range foldersOf(name) {
		_, ok := s.objects[folder]
		clash = clash || ok
	}
	if clash {
		return tripod.Errorf(tripod.Conflict, "put %s: a name cannot be an object and a folder at once", name)
	}
	s.set(name, object{data: slices.Clone(data)})
	return nil
}

func (s *Store) set(name string, o object) {
	if _, ok := s.objects[name]; !ok {
		for folder := range foldersOf(name) {
			s.folders[folder]++
		}
	}
	s.objects[name] = o
}

func (s *Store) remove(name string) {
	delete(s.objects, name)
	for folder := range foldersOf(name) {
		s.folders[folder]--
	}
}

func (s *Store) find(op, name string) (object, error) {
	o, ok := s.objects[name]
	if !ok {
		return o, tripod.Errorf(tripod.NotFound, "%s %s: no such object", op, name)
	}
	return o, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, tripod.Errorf(tripod.Invalid, "get %s: offset %d is negative", name, off)
	}
	s.mu.RLock()
	o, err := s.find("get", name)
	s.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	n := 0
	if off < int64(len(o.data)) {
		n = copy(p, o.data[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, name string) (store.Info, error) {
	if err := check(ctx, name); err != nil {
		return store.Info{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, err := s.find("head", name)
	if err != nil {
		return store.Info{}, err
	}
	return store.Info{Name: name, Size: int64(len(o.data))}, nil
}

// List implements store.Store. It lists the objects there were when it began.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	var infos []store.Info
	for name, o := range s.objects {
		if strings.HasPrefix(name, prefix) {
			infos = append(infos, store.Info{Name: name, Size: int64(len(o.data))})
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(infos, func(a, b store.Info) int { return strings.Compare(a.Name, b.Name) })
	for _, info := range infos {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find("delete", name)
	if err != nil {
		return err
	}
	if time.Now().Before(o.locked) {
		return tripod.Errorf(tripod.Denied, "delete %s: locked until %s", name, o.locked.UTC().Format(time.RFC3339))
	}
	s.remove(name)
	return nil
}

// Lock implements store.Store.
func (s *Store) Lock(ctx context.Context, name string, until time.Time) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find("lock", name)
	if err == nil && until.After(o.locked) {
		o.locked = until
		s.objects[name] = o
	}
	return err
}

// Capabilities implements store.Store. Memory is not durable.
func (s *Store) Capabilities() store.Capabilities { return store.Capabilities{Lock: true} }

// Exclusive implements store.Exclusive among the callers in this process.
func (s *Store) Exclusive(ctx context.Context, holder string, waiting func(string)) (func() error, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		free, other := s.take(holder)
		if free == nil {
			return sync.OnceValue(s.release), nil
		}
		if waiting != nil {
			waiting(other)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-free:
		}
	}
}

// take makes holder the writer, or returns who is and what tells of the release.
func (s *Store) take(holder string) (free <-chan struct{}, other string) {
	s.writer.Lock()
	defer s.writer.Unlock()
	if s.held != nil {
		return s.held, s.holder
	}
	s.held, s.holder = make(chan struct{}), holder
	return nil, ""
}

func (s *Store) release() error {
	s.writer.Lock()
	defer s.writer.Unlock()
	close(s.held)
	s.held = nil
	return nil
}

// Damage replaces an object's bytes by what change makes of a copy of them, or
// removes the object when change returns nil, whatever the contract says. It is
// for tests that let a disk fail; package faulty has ready-made changes.
func (s *Store) Damage(name string, change func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find("damage", name)
	if err != nil {
		return err
	}
	if o.data = change(slices.Clone(o.data)); o.data == nil {
		s.remove(name)
		return nil
	}
	s.set(name, o)
	return nil
}
