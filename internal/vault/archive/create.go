package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
	"tripod/internal/vault/replicate"
)

// probeFor is how long the object stays locked that locks are tried on, if nothing
// is ever archived.
const probeFor = time.Hour

// Create makes an empty archive of a vault in an empty store, after having tried
// its locks unless until is the zero time. What an earlier Create left that did
// not end is no hindrance. It returns Exists when something else is there, and
// Conflict when the store keeps no locks.
func Create(ctx context.Context, src vault.Source, to store.Store, now, until time.Time) error {
	documents, d, err := opening(ctx, src)
	if err != nil {
		return err
	}
	if err := vacant(ctx, to); err != nil {
		return err
	}
	if !until.IsZero() && !to.Capabilities().Lock {
		return errNoLocks
	}
	marker := snapshot.Archive{Company: d.Company, Vault: d.Vault, Created: now}
	if err := to.Put(ctx, vault.ArchiveName, marker.Encode()); err != nil && !errors.Is(err, tripod.Exists) {
		return err
	}
	there, err := whole(ctx, to, vault.ArchiveName)
	if err == nil {
		_, err = snapshot.ParseArchive(there, d)
	}
	if err == nil && !until.IsZero() {
		err = Probe(ctx, to, earlier(until, now.Add(probeFor)))
	}
	if err != nil {
		return err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	documents = append([]document{{vault.CopyName, id[:]}}, documents...)
	for _, doc := range documents {
		if err := to.Put(ctx, doc.name, doc.content); err != nil && !errors.Is(err, tripod.Exists) {
			return err
		}
	}
	return nil
}

var errNoLocks = tripod.Errorf(tripod.Conflict, "the archive's store cannot lock objects, so nothing would keep anybody from deleting what is archived").
	WithHint("give a bucket with Object Lock, or a folder on ext4, xfs or btrfs as root; or accept it with --no-lock")

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

type document struct {
	name    string
	content []byte
}

// opening gives the documents that make a vault; the descriptor is the last.
func opening(ctx context.Context, src vault.Source) (documents []document, d *snapshot.Descriptor, err error) {
	read := func(name string) (content []byte) {
		if err == nil {
			if content, err = src.Document(ctx, name); err == nil {
				documents = append(documents, document{name, content})
			}
		}
		return content
	}
	var names []string
	for _, prefix := range []string{vault.KeyringPrefix, vault.SuccessionPrefix} {
		if err == nil {
			err = src.Names(ctx, prefix, func(name string, _ int64) error {
				names = append(names, name)
				return nil
			})
		}
		if err == nil && len(names) == 0 {
			err = tripod.Errorf(tripod.Corrupt, "the vault has no keyring").WithHint("nobody could open the archive: heal the vault first")
		}
	}
	for _, name := range names {
		read(name)
	}
	content := read(vault.DescriptorName)
	if err == nil {
		d, err = snapshot.ParseDescriptor(content)
	}
	return documents, d, err
}

// vacant returns an error unless a store is empty, or has only what a Create left.
func vacant(ctx context.Context, to store.Store) error {
	return to.List(ctx, "", func(i store.Info) error {
		_, keyring := vault.ParseKeyringName(i.Name)
		_, succession := vault.ParseSuccessionName(i.Name)
		if keyring || succession || i.Name == vault.CopyName || i.Name == vault.ArchiveName {
			return nil
		}
		return tripod.Errorf(tripod.Exists, "the place for the archive is not empty: it holds %s", i.Name).
			WithHint("give a new or an empty place")
	})
}

// whole reads an object.
func whole(ctx context.Context, s store.Store, name string) ([]byte, error) {
	info, err := s.Head(ctx, name)
	if err != nil {
		return nil, err
	}
	p := make([]byte, info.Size)
	n, err := s.Get(ctx, name, p, 0)
	if n < len(p) {
		return nil, tripod.Errorf(tripod.Corrupt, "%s: ends too early: %w", name, err)
	}
	return p, nil
}

// Is reports whether a vault is an archive.
func Is(ctx context.Context, v vault.Source) (bool, error) {
	_, err := v.Document(ctx, vault.ArchiveName)
	if errors.Is(err, tripod.NotFound) {
		return false, nil
	}
	return err == nil || errors.Is(err, tripod.Corrupt), err
}

// Same returns an error unless dst is an archive of the vault src.
func Same(ctx context.Context, src, dst vault.Source) error {
	if err := replicate.Same(ctx, src, dst); err != nil {
		return err
	}
	is, err := Is(ctx, dst)
	if err == nil && !is {
		err = tripod.Errorf(tripod.Conflict, "the place for the archive holds a vault that is no archive").
			WithHint("give a new or an empty place")
	}
	if err != nil {
		return err
	}
	if is, err = Is(ctx, src); err == nil && is {
		err = tripod.Errorf(tripod.Conflict, "what should be archived is an archive itself")
	}
	return err
}

// Probe tries whether the store of an archive keeps its locks, on the object that
// says that it is one, and leaves that locked.
func Probe(ctx context.Context, s store.Store, until time.Time) error {
	if !s.Capabilities().Lock {
		return errNoLocks
	}
	content, err := whole(ctx, s, vault.ArchiveName)
	if err == nil {
		err = s.Lock(ctx, vault.ArchiveName, until)
	}
	if err == nil {
		err = resists(ctx, s, vault.ArchiveName, content, until)
	}
	return err
}

// broken says that a lock did not keep its promise.
type broken struct{ err error }

func (b *broken) Error() string { return b.err.Error() }
func (b *broken) Unwrap() error { return b.err }

// resists tries to overwrite and to delete an object that is locked. When it could,
// it puts the object back, and returns an error of type broken.
func resists(ctx context.Context, s store.Store, name string, content []byte, until time.Time) error {
	err := s.Put(ctx, name, []byte("overwritten"))
	if err != nil && !errors.Is(err, tripod.Exists) && !errors.Is(err, tripod.Denied) {
		return err
	}
	there, err := whole(ctx, s, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, content) {
		return &broken{tripod.Errorf(tripod.Conflict, "%s could be overwritten although it is locked", name).WithHint("%s", hintBroken)}
	}
	err = s.Delete(ctx, name)
	if errors.Is(err, tripod.Denied) {
		return nil
	}
	if err != nil {
		return err
	}
	// Nobody shall lose anything by this.
	whatever := context.WithoutCancel(ctx)
	err = s.Put(whatever, name, content)
	if err == nil {
		err = s.Lock(whatever, name, until)
	}
	if err != nil {
		return &broken{fmt.Errorf("%s could be deleted although it is locked, and could not be put back: %w", name, err)}
	}
	return &broken{tripod.Errorf(tripod.Conflict, "%s could be deleted although it is locked; it was put back", name).WithHint("%s", hintBroken)}
}

const hintBroken = "the store does not keep its locks: take one that does; what is archived here is not protected from whoever can write to it"
