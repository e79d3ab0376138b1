// Package local is a vault over a store, in this process. It takes in sealed
// frames and signed documents, checks all that can be checked without a key,
// and gives them back.
//
// A vault in a store is these objects, none of which ever changes:
//
//	vault                                 the descriptor: whose it is; made last by Create
//	keyring/00000001                      the company's sealed keys
//	machine/MACHINE                       a machine's certificate
//	grant/MACHINE/SOURCE/SEQ/RECIPIENT    what opens a snapshot's root for one recipient
//	record/MACHINE/SOURCE/SEQ             a snapshot's record: it exists when this does
//	forget/MACHINE/SOURCE/SEQ             the company's order to forget it
//	pack/ab/ab...                         frames and their table of contents
//
// Where in which pack a blob lies is in an index beside the vault (package
// index), derived, of which each machine that uses a vault has its own. A Vault
// reads; a Session writes too. A store admits the sessions of one process at a
// time; package collect works beside them.
package local

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/index"
)

// Options say how a vault is opened.
type Options struct {
	// IndexDir is a directory of this machine in which indexes may be kept. It
	// is made when missing, and may be deleted at any time.
	IndexDir string
	// Progress hears of a look at many packs. Calls are serialized.
	Progress run.Progress
}

// Vault is an open vault. Its methods may be called concurrently.
type Vault struct {
	store      store.Store
	descriptor *snapshot.Descriptor                // as it was opened
	company    atomic.Pointer[snapshot.Descriptor] // with the keys in force
	opts       Options

	mu      sync.Mutex   // guards the next two; held while the index follows the store
	idx     *index.Index // nil until first needed
	damaged map[tripod.PackID]error

	bufs    sync.Pool // of *[]byte, for Get
	outages outages

	suspects suspects

	writers writers

	spareMu sync.Mutex
	spare   []*batch      // memory of Puts that ended; the last one used is used first
	putting chan struct{} // holds a token for each Put under way, which bounds their memory
}

var (
	_ vault.Reader = (*Vault)(nil)
	_ vault.Writer = (*Session)(nil)
	_ vault.Admin  = (*Session)(nil)
)

// Damage tells of a pack that cannot be read as it should.
type Damage struct {
	Pack tripod.PackID
	Err  error
}

// Create makes a vault of an empty store, given a signed descriptor and a
// sealed keyring. It returns Exists where there is a vault, and Conflict where
// there is something else.
func Create(ctx context.Context, s store.Store, descriptor, keyring []byte) error {
	if _, err := snapshot.ParseDescriptor(descriptor); err != nil {
		return tripod.Errorf(tripod.Invalid, "make a vault: %w", err)
	}
	if len(keyring) == 0 || len(keyring) > snapshot.MaxDocument {
		return tripod.Errorf(tripod.Invalid, "make a vault: a keyring of %d bytes", len(keyring))
	}
	first := vault.KeyringName(1)
	leftover, err := checkEmpty(ctx, s, first)
	if err != nil {
		return err
	}
	if leftover {
		// An earlier Create ended between keyring and descriptor. What that
		// keyring opens was never used.
		if err := s.Delete(ctx, first); err != nil {
			return err
		}
	}
	if err := s.Put(ctx, first, keyring); err != nil {
		return err
	}
	// The descriptor makes the vault: whoever sees it finds the keyring.
	return s.Put(ctx, vault.DescriptorName, descriptor)
}

// checkEmpty returns an error unless there is nothing in the store, or only the
// keyring of a Create that did not end.
func checkEmpty(ctx context.Context, s store.Store, first string) (leftover bool, err error) {
	_, err = s.Head(ctx, vault.DescriptorName)
	if err == nil {
		return false, tripod.Errorf(tripod.Exists, "there is a vault already").
			WithHint("use it as it is, or choose another place for the new one")
	}
	if !errors.Is(err, tripod.NotFound) {
		return false, err
	}
	err = s.List(ctx, "", func(i store.Info) error {
		if i.Name == first {
			leftover = true
			return nil
		}
		return tripod.Errorf(tripod.Conflict, "the place is not empty and no vault: it holds %s", i.Name).
			WithHint("choose an empty place; if a vault was here, its object %q is missing: get it from another copy", vault.DescriptorName)
	})
	return leftover, err
}

// Describe reads whose vault lies in a store. It returns NotFound when there is
// none, Invalid when a newer program made it, and Corrupt when the descriptor is
// damaged, or missing from a vault.
func Describe(ctx context.Context, s store.Store) (*snapshot.Descriptor, error) {
	raw, err := readWhole(ctx, s, vault.DescriptorName, -1)
	if errors.Is(err, tripod.NotFound) {
		return nil, undescribed(ctx, s)
	}
	var d *snapshot.Descriptor
	if err == nil {
		d, err = snapshot.ParseDescriptor(raw)
	}
	if errors.Is(err, tripod.Corrupt) {
		return nil, tripod.Errorf(tripod.Corrupt, "%w", err).
			WithHint(hintDescriptor)
	}
	if err != nil {
		return nil, err
	}
	return succeed(ctx, s, d)
}

// hintDescriptor helps where nothing else can: the descriptor is signed, and no
// other object holds what it says.
const hintDescriptor = "put the file \"vault\" back from another copy of this vault; everything else may be whole, and is left as it is"

// undescribed says what a store without a descriptor is: no vault, unless there
// is what only a vault holds. What a Create left that did not end is no vault.
func undescribed(ctx context.Context, s store.Store) error {
	missing := tripod.Errorf(tripod.Corrupt, "its object %q is missing, which says whose vault it is; snapshots and data are there", vault.DescriptorName).
		WithHint(hintDescriptor)
	for _, prefix := range []string{vault.CertificatePrefix, vault.RecordPrefix, vault.PackPrefix} {
		first := ""
		some := tripod.Errorf(tripod.Exists, "some")
		err := s.List(ctx, prefix, func(i store.Info) error {
			first = i.Name
			return some
		})
		if err != nil && !errors.Is(err, some) {
			return err
		}
		if _, pack := vault.ParsePackName(first); pack || vault.Documented(first) {
			return missing
		}
	}
	return tripod.Errorf(tripod.NotFound, "there is no vault here").
		WithHint("check the place; an empty one becomes a vault by: tripod vault init")
}

// Open opens the vault in a store: see Describe for its errors. The index is
// opened when it is first needed.
func Open(ctx context.Context, s store.Store, opts Options) (*Vault, error) {
	d, err := Describe(ctx, s)
	if err != nil {
		return nil, err
	}
	v := &Vault{store: s, descriptor: d, opts: opts, damaged: map[tripod.PackID]error{}, putting: make(chan struct{}, maxBatches)}
	v.writers.turn, v.writers.open = make(chan struct{}, 1), map[*Session]struct{}{}
	v.writers.ended = make(chan struct{})
	v.company.Store(d)
	return v, nil
}

// Descriptor tells whose vault this is.
func (v *Vault) Descriptor() *snapshot.Descriptor { return v.company.Load() }

// Close gives back what Open took. Nothing may use the vault any more.
func (v *Vault) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.idx == nil {
		return nil
	}
	err := v.idx.Close()
	v.idx = nil
	return err
}

// index gives the index, as new as the vault was when it was first asked for.
func (v *Vault) index(ctx context.Context) (*index.Index, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.idx != nil {
		return v.idx, nil
	}
	return v.idx, v.follow(ctx)
}

// Sync makes the index follow what others have changed in the vault.
func (v *Vault) Sync(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.follow(ctx)
}

// Damaged tells of the packs that were found unreadable as yet, in no order.
// Which blobs are damaged inside readable packs is for CheckPacks to find.
func (v *Vault) Damaged() []Damage {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]Damage, 0, len(v.damaged))
	for pack, err := range v.damaged {
		all = append(all, Damage{pack, err})
	}
	return all
}

// readFull reads exactly len(p) bytes at off.
func readFull(ctx context.Context, s store.Store, name string, p []byte, off int64) error {
	n, err := s.Get(ctx, name, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return tripod.Errorf(tripod.Corrupt, "%s: ends too early", name)
	}
	return err
}

// readWhole reads a document. size is what List told, or -1.
func readWhole(ctx context.Context, s store.Store, name string, size int64) ([]byte, error) {
	if size < 0 {
		info, err := s.Head(ctx, name)
		if err != nil {
			return nil, err
		}
		size = info.Size
	}
	if size > snapshot.MaxDocument {
		return nil, tripod.Errorf(tripod.Corrupt, "%s: %d bytes are too long for a document", name, size)
	}
	p := make([]byte, size)
	return p, readFull(ctx, s, name, p, 0)
}
