package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

// pending is a snapshot whose blobs are in segments, durable or in memory.
type pending struct {
	key    snapshot.Key
	record []byte
	grants [][]byte
	needs  []int32 // segments
}

// lock locks an object until the run's date, once.
func (a *archiving) lock(ctx context.Context, object string) error {
	if a.Until.IsZero() || a.locked[object] {
		return nil
	}
	if err := a.dst.Store().Lock(ctx, object, a.Until); err != nil {
		return fmt.Errorf("lock %s: %w", object, err)
	}
	a.locked[object] = true
	return nil
}

// company brings what belongs to no snapshot: it opens and checks the snapshots.
func (a *archiving) company(ctx context.Context) error {
	if err := a.sameKey(ctx); err != nil {
		return err
	}
	for _, prefix := range []string{vault.SuccessionPrefix, vault.KeyringPrefix, vault.CertificatePrefix, vault.PolicyPrefix, vault.ShredPrefix} {
		if err := a.documents(ctx, prefix); err != nil {
			return err
		}
	}
	// Without these nobody opens what is locked: they stay as long as the last of it.
	until := a.Until
	err := a.dst.Names(ctx, vault.ManifestPrefix, func(name string, _ int64) error {
		if _, last, ok := vault.ParseManifestName(name); ok && last.After(until) {
			until = last
		}
		return nil
	})
	if err != nil || !until.After(a.Now) {
		return err
	}
	if err := Probe(ctx, a.dst.Store(), until); err != nil {
		return err
	}
	return LockCompany(ctx, a.dst, func(object string) error { return a.dst.Store().Lock(ctx, object, until) })
}

// LockCompany calls lock with the documents that every snapshot of an archive needs.
func LockCompany(ctx context.Context, dst vault.Source, lock func(object string) error) error {
	for _, prefix := range []string{
		vault.ArchiveName, vault.CopyName, vault.DescriptorName, vault.SuccessionPrefix, vault.KeyringPrefix, vault.CertificatePrefix, vault.PolicyPrefix,
	} {
		if err := dst.Names(ctx, prefix, func(name string, _ int64) error { return lock(name) }); err != nil {
			return err
		}
	}
	return nil
}

// sameKey returns Conflict when the company's key was replaced and the archive has
// snapshots that the vault has not any more: nobody made grants of them to the new
// key, and the keyring that comes with it does not open the old ones.
func (a *archiving) sameKey(ctx context.Context) error {
	newest := ""
	err := a.src.Names(ctx, vault.SuccessionPrefix, func(name string, _ int64) error {
		newest = name
		return nil
	})
	if err != nil || newest == "" || newest == vault.SuccessionName(a.dst.Descriptor().Number()) {
		return err
	}
	content, err := a.src.Document(ctx, vault.DescriptorName)
	if err != nil {
		return err
	}
	d, err := snapshot.ParseDescriptor(content)
	for n := uint32(2); err == nil && n <= numberOf(newest); n++ {
		if content, err = a.src.Document(ctx, vault.SuccessionName(n)); err == nil {
			d, err = d.Succeed(content)
		}
	}
	if err != nil {
		return err
	}
	regranted := map[string]bool{}
	for _, s := range []vault.Source{a.src, a.dst} {
		err := s.Names(ctx, vault.GrantPrefix, func(name string, _ int64) error {
			regranted[name] = true
			return nil
		})
		if err != nil {
			return err
		}
	}
	return a.dst.Live(ctx, func(string) bool { return false }, func(_ string, r *snapshot.Record) error {
		if a.shredded[r.Key.Machine] || regranted[vault.GrantName(r.Key, snapshot.HashOf(d.Box))] {
			return nil
		}
		return tripod.Errorf(tripod.Conflict, "the company's key was replaced, and snapshot %d of machine %.8s in the archive opens with the one before alone", r.Key.Seq, r.Key.Machine).
			WithHint("begin another archive in another place; this one stays as it is, and opens with the passphrase or recovery code of its time")
	})
}

func numberOf(succession string) uint32 {
	n, _ := vault.ParseSuccessionName(succession)
	return n
}

// documents takes what the archive lacks of a kind. The session checks it.
func (a *archiving) documents(ctx context.Context, prefix string) error {
	there := map[string]bool{}
	newest := ""
	err := a.dst.Names(ctx, prefix, func(name string, _ int64) error {
		there[name], newest = true, name
		return nil
	})
	var missing []string
	if err == nil {
		err = a.src.Names(ctx, prefix, func(name string, _ int64) error {
			if !there[name] && (prefix != vault.KeyringPrefix || name > newest) {
				missing = append(missing, name)
			}
			return nil
		})
	}
	for _, name := range missing {
		if err == nil {
			err = a.problem(name, a.document(ctx, name))
		}
	}
	return err
}

func (a *archiving) document(ctx context.Context, name string) error {
	content, err := a.src.Document(ctx, name)
	if err != nil {
		return unusable(fmt.Errorf("%s: %w", name, err))
	}
	switch {
	case strings.HasPrefix(name, vault.KeyringPrefix):
		err = a.session.AcceptKeyring(ctx, name, content)
	case strings.HasPrefix(name, vault.PolicyPrefix):
		err = a.session.PutPolicy(ctx, content)
	default:
		err = a.session.PutDocument(ctx, name, content)
	}
	if errors.Is(err, tripod.Exists) {
		return nil
	}
	return unusable(err)
}

// grants gives a snapshot's grants, those that can be read.
func (a *archiving) grants(ctx context.Context, k snapshot.Key) (grants [][]byte, err error) {
	var names []string
	err = a.src.Names(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(name string, _ int64) error {
		names = append(names, name)
		return nil
	})
	for _, name := range names {
		if err != nil {
			break
		}
		content, bad := a.src.Document(ctx, name)
		if bad == nil {
			grants = append(grants, content)
			continue
		}
		err = a.problem(name, unusable(fmt.Errorf("%s: %w", name, bad)))
	}
	return grants, err
}

// takeGone takes the bare record of a snapshot that the vault has given up. done
// is false when what says so is not good.
func (a *archiving) takeGone(ctx context.Context, k snapshot.Key, record []byte, name string) (done bool, err error) {
	content, err := a.src.Document(ctx, name)
	if err == nil {
		err = a.session.AcceptGone(ctx, record, name, content)
	}
	if err != nil {
		if _, left := errors.AsType[*leftOut](unusable(err)); left {
			return false, nil
		}
		return false, err
	}
	for _, object := range []string{name, vault.RecordName(k)} {
		if err := a.lock(ctx, object); err != nil {
			return false, err
		}
	}
	a.report.Gone++
	a.event.Files++
	return true, nil
}

// finish makes the snapshots exist whose blobs are in segments.
func (a *archiving) finish(ctx context.Context) error {
	if len(a.waiting) > 0 {
		if err := a.flush(ctx, &a.nodes); err != nil {
			return err
		}
		if err := a.flush(ctx, &a.data); err != nil {
			return err
		}
	}
	for i := range a.waiting {
		p := &a.waiting[i]
		if err := a.problem(vault.RecordName(p.key), a.exist(ctx, p)); err != nil {
			return err
		}
	}
	a.waiting, a.filled = a.waiting[:0], false
	return nil
}

// exist locks all that a snapshot needs, then puts its manifest and its record.
func (a *archiving) exist(ctx context.Context, p *pending) error {
	m := snapshot.Manifest{Company: a.dst.Descriptor().Company, Key: p.key, Record: snapshot.HashOf(p.record), Time: a.Now, Until: a.Until}
	if len(p.needs) > snapshot.MostSegments {
		return &leftOut{tripod.Errorf(tripod.Invalid, "snapshot %d of machine %.8s needs %d segments, at most %d fit", p.key.Seq, p.key.Machine, len(p.needs), snapshot.MostSegments)}
	}
	for _, n := range p.needs {
		m.Segments = append(m.Segments, a.names[n])
		object := vault.PackName(a.names[n])
		if a.old[n] && !a.locked[object] && !a.Until.IsZero() {
			a.report.Extended++
		}
		if err := a.lock(ctx, object); err != nil {
			return err
		}
	}
	slices.SortFunc(m.Segments, func(x, y tripod.PackID) int { return bytes.Compare(x[:], y[:]) })
	m.Segments = slices.Compact(m.Segments) // the same bytes may have been put twice
	if err := putManifest(ctx, a.dst, &m); err != nil {
		return err
	}
	if err := a.lock(ctx, vault.ManifestName(p.key, m.Until)); err != nil {
		return err
	}
	if err := a.session.Accept(ctx, p.record, p.grants); err != nil {
		return unusable(err)
	}
	if err := a.lockSnapshot(ctx, p.key); err != nil {
		return err
	}
	a.report.Snapshots++
	a.event.Files++
	a.tell(false)
	return nil
}

// putManifest stores a manifest. Where another one has the name, which a run left
// that was killed before the record, it gets the name of a second later.
func putManifest(ctx context.Context, dst *local.Vault, m *snapshot.Manifest) error {
	const attempts = 60
	encoded := m.Encode()
	for n := 0; ; n++ {
		name := vault.ManifestName(m.Key, m.Until)
		err := dst.Store().Put(ctx, name, encoded)
		if !errors.Is(err, tripod.Exists) || n == attempts {
			return err
		}
		there, err := dst.Document(ctx, name)
		if err == nil && sameNeeds(there, m, dst.Descriptor()) {
			return nil
		}
		if err != nil && !errors.Is(err, tripod.Corrupt) {
			return err
		}
		if m.Until.IsZero() { // nothing keeps that one
			if err := dst.Store().Delete(ctx, name); err != nil {
				return err
			}
			continue
		}
		m.Until = m.Until.Add(time.Second)
		encoded = m.Encode()
	}
}

// sameNeeds reports whether a manifest says what another one says, but for when.
func sameNeeds(encoded []byte, m *snapshot.Manifest, d *snapshot.Descriptor) bool {
	there, err := snapshot.ParseManifest(encoded, d)
	return err == nil && there.Key == m.Key && there.Record == m.Record && there.Until.Equal(m.Until) && slices.Equal(there.Segments, m.Segments)
}

// lockSnapshot locks a snapshot's record and grants.
func (a *archiving) lockSnapshot(ctx context.Context, k snapshot.Key) error {
	err := a.dst.Names(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(name string, _ int64) error { return a.lock(ctx, name) })
	if err == nil {
		err = a.lock(ctx, vault.RecordName(k))
	}
	return err
}

// resume ends what an earlier run may have left at the end of each chain: objects
// that are there and not locked. It also takes grants that were made since.
func (a *archiving) resume(ctx context.Context, chains []chain) error {
	for i := range chains {
		c := &chains[i]
		if c.newest == 0 {
			continue
		}
		if err := a.lockNewest(ctx, c.key(c.newest)); err != nil {
			return err
		}
	}
	return a.regranted(ctx)
}

func (a *archiving) lockNewest(ctx context.Context, k snapshot.Key) error {
	manifest, until, err := newestManifest(ctx, a.dst, k)
	if err != nil {
		return err
	}
	var objects []string
	if manifest == "" { // its bare record
		until = a.Until
		objects = []string{vault.ExpiryName(k), vault.OrderName(k)}
	} else {
		objects = []string{manifest}
	}
	if !until.After(a.Now) {
		return nil
	}
	err = a.dst.Names(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(name string, _ int64) error {
		objects = append(objects, name)
		return nil
	})
	for _, name := range append(objects, vault.RecordName(k)) {
		if err == nil {
			err = a.dst.Store().Lock(ctx, name, until)
		}
		if manifest == "" && errors.Is(err, tripod.NotFound) {
			err = nil
		}
	}
	return err
}

// newestManifest gives the name and the date of the manifest of a snapshot that
// counts; "" when there is none.
func newestManifest(ctx context.Context, dst vault.Source, k snapshot.Key) (newest string, until time.Time, err error) {
	err = dst.Names(ctx, vault.ManifestPrefix+vault.KeyPath(k)+"/", func(name string, _ int64) error {
		newest = name // the last in order
		_, until, _ = vault.ParseManifestName(name)
		return nil
	})
	return newest, until, err
}

// regranted takes the grants that were made of archived snapshots since, to
// further holders and to a new company key.
func (a *archiving) regranted(ctx context.Context) error {
	there := map[string]bool{}
	archived := map[snapshot.Key]bool{} // has a manifest; a run that was killed may have left it without the record
	for _, prefix := range []string{vault.GrantPrefix, vault.ManifestPrefix, vault.RecordPrefix} {
		err := a.dst.Names(ctx, prefix, func(name string, _ int64) error {
			if k, _, ok := vault.ParseManifestName(name); ok {
				archived[k] = true
			}
			there[name] = true
			return nil
		})
		if err != nil {
			return err
		}
	}
	var missing []string
	err := a.src.Names(ctx, vault.GrantPrefix, func(name string, _ int64) error {
		k, ok := keyOfGrant(name)
		if ok && !there[name] && archived[k] && there[vault.RecordName(k)] && !a.shredded[k.Machine] {
			missing = append(missing, name)
		}
		return nil
	})
	for _, name := range missing {
		if err != nil {
			break
		}
		k, _ := keyOfGrant(name)
		_, until, failed := newestManifest(ctx, a.dst, k)
		if failed == nil {
			failed = a.document(ctx, name)
		}
		if failed == nil && until.After(a.Now) {
			failed = a.dst.Store().Lock(ctx, name, until)
		}
		err = a.problem(name, failed)
	}
	return err
}

func keyOfGrant(name string) (snapshot.Key, bool) {
	rest := strings.TrimPrefix(name, vault.GrantPrefix)
	return vault.ParseKeyPath(rest[:max(strings.LastIndexByte(rest, '/'), 0)])
}
