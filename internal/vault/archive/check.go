package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"tripod/internal/core/run"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
	"tripod/internal/vault/local"
)

// DefaultTries is how many segments Check tries to change, beside all documents.
const DefaultTries = 16

// CheckOptions say what is checked.
type CheckOptions struct {
	Now      time.Time
	Tries    int     // segments to try to overwrite and delete
	Sample   float64 // part of the segments to read again; 1 is all
	Progress run.Progress
}

// CheckReport tells what Check found.
type CheckReport struct {
	Snapshots int
	Segments  int
	Unlocked  int // snapshots that are not locked any more, or never were
	Tried     int // objects that could neither be overwritten nor deleted
	Findings  []Problem
	First     time.Time // when the first lock of a snapshot ends; zero for none
	Last      time.Time // when the last one does
}

// checking is one run of Check.
type checking struct {
	CheckOptions
	v      *local.Vault
	report *CheckReport

	manifests map[snapshot.Key]*snapshot.Manifest // that count
	users     map[tripod.PackID][]snapshot.Key
	until     map[tripod.PackID]time.Time
	broken    bool
}

// Check reads an archive again and tries its locks, without a key. Everything that
// is wrong is in the report; the error tells what ended the check. What it could
// delete it has put back.
func Check(ctx context.Context, v *local.Vault, o CheckOptions) (*CheckReport, error) {
	c := &checking{
		CheckOptions: o, v: v, report: new(CheckReport), manifests: map[snapshot.Key]*snapshot.Manifest{},
		users: map[tripod.PackID][]snapshot.Key{}, until: map[tripod.PackID]time.Time{},
	}
	is, err := Is(ctx, v)
	if err == nil && !is {
		err = tripod.Errorf(tripod.Invalid, "this is a vault and no archive").WithHint("tripod verify checks a vault")
	}
	for _, step := range []func(context.Context) error{c.readManifests, c.snapshots, c.segments, c.locks} {
		if err == nil {
			err = step(ctx)
		}
	}
	return c.report, err
}

func (c *checking) find(document string, err error) {
	c.report.Findings = append(c.report.Findings, Problem{document, err})
}

// readManifests finds what each snapshot needs.
func (c *checking) readManifests(ctx context.Context) error {
	err := c.v.Documents(ctx, vault.ManifestPrefix, func(name string, content []byte) error {
		m, err := snapshot.ParseManifest(content, c.v.Descriptor())
		if err == nil && vault.ManifestName(m.Key, m.Until) != name {
			err = tripod.Errorf(tripod.Corrupt, "is the manifest of another snapshot")
		}
		if err != nil {
			c.find(name, fmt.Errorf("%s: %w", name, err))
			return nil
		}
		c.manifests[m.Key] = m // the last in order counts
		return nil
	})
	for k, m := range c.manifests {
		for _, s := range m.Segments {
			c.users[s] = append(c.users[s], k)
			if m.Until.After(c.until[s]) {
				c.until[s] = m.Until
			}
		}
	}
	return err
}

// snapshots checks that records and manifests fit, and that no segment is missing.
func (c *checking) snapshots(ctx context.Context) error {
	x, err := c.v.Index(ctx)
	if err != nil {
		return err
	}
	missing := map[tripod.PackID]bool{}
	err = c.v.Live(ctx, func(string) bool { return false }, func(name string, r *snapshot.Record) error {
		c.report.Snapshots++
		m := c.manifests[r.Key]
		if m == nil {
			c.find(name, tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s: has no manifest", r.Key.Seq, r.Key.Machine))
			return nil
		}
		content, err := c.v.Document(ctx, name)
		if err != nil {
			return err
		}
		if snapshot.HashOf(content) != m.Record {
			c.find(name, tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s: its record is not the one that was archived", r.Key.Seq, r.Key.Machine))
		}
		for _, s := range m.Segments {
			if _, ok := x.Named(s); !ok && !missing[s] {
				missing[s] = true
				c.find(vault.PackName(s), tripod.Errorf(tripod.NotFound, "segment %.16s is missing; %s", s, c.needs(s)))
			}
		}
		switch until := m.Until; {
		case !until.After(c.Now):
			c.report.Unlocked++
		default:
			if c.report.First.IsZero() || until.Before(c.report.First) {
				c.report.First = until
			}
			if until.After(c.report.Last) {
				c.report.Last = until
			}
		}
		return nil
	})
	return err
}

// needs names the snapshots that need a segment.
func (c *checking) needs(s tripod.PackID) string {
	const most = 3
	users := c.users[s]
	if len(users) == 0 {
		return "no snapshot needs it"
	}
	slices.SortFunc(users, func(a, b snapshot.Key) int { return strings.Compare(vault.KeyPath(a), vault.KeyPath(b)) })
	var named []string
	for _, k := range users[:min(len(users), most)] {
		named = append(named, fmt.Sprintf("%d of machine %.8s", k.Seq, k.Machine))
	}
	text := "needed by snapshot " + strings.Join(named, ", ")
	if len(users) > most {
		text += fmt.Sprintf(" and %d more", len(users)-most)
	}
	return text
}

// segments reads segments again. What is damaged counts as missing for the next
// run of Run, which archives it again where the vault still has it.
func (c *checking) segments(ctx context.Context) error {
	x, err := c.v.Index(ctx)
	if err != nil {
		return err
	}
	c.report.Segments = len(x.Packs())
	return c.v.CheckPacks(ctx, c.Sample, c.Progress, func(object string, _ tripod.ID, err error) error {
		if s, ok := vault.ParsePackName(object); ok {
			err = fmt.Errorf("%w; %s", err, c.needs(s))
		}
		c.find(object, err)
		return nil
	})
}

// locks tries to overwrite and to delete what should be locked. It ends with the
// first lock that is none.
func (c *checking) locks(ctx context.Context) error {
	last := c.report.Last
	try := func(until time.Time) func(string) error {
		return func(object string) error { return c.try(ctx, object, until) }
	}
	if err := LockCompany(ctx, c.v, try(last)); err != nil {
		return err
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.manifests), func(a, b snapshot.Key) int { return strings.Compare(vault.KeyPath(a), vault.KeyPath(b)) }) {
		m := c.manifests[k]
		objects := []string{vault.ManifestName(k, m.Until), vault.RecordName(k)}
		err := c.v.Names(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(name string, _ int64) error {
			objects = append(objects, name)
			return nil
		})
		for _, object := range objects {
			if err == nil {
				err = c.try(ctx, object, m.Until)
			}
		}
		if err != nil {
			return err
		}
	}
	all := slices.Collect(maps.Keys(c.until))
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, s := range all[:min(len(all), c.Tries)] {
		if err := c.try(ctx, vault.PackName(s), c.until[s]); err != nil {
			return err
		}
	}
	return nil
}

// slack is how long before the end of a lock it is not tried any more: clocks of
// stores differ.
const slack = time.Minute

func (c *checking) try(ctx context.Context, object string, until time.Time) error {
	if c.broken || !until.After(c.Now.Add(slack)) {
		return nil
	}
	content, err := whole(ctx, c.v.Store(), object)
	if errors.Is(err, tripod.NotFound) {
		return nil // told already, or of a run that was killed
	}
	if err == nil {
		err = resists(ctx, c.v.Store(), object, content, until)
	}
	if _, ok := errors.AsType[*broken](err); ok {
		c.broken = true
		c.find(object, err)
		return nil
	}
	if err == nil {
		c.report.Tried++
	}
	return err
}

// Extend locks a snapshot of an archive, and all that it needs, until a later date.
func Extend(ctx context.Context, v *local.Vault, k snapshot.Key, now, until time.Time) (*snapshot.Manifest, error) {
	name, before, err := newestManifest(ctx, v, k)
	if err == nil && name == "" {
		err = tripod.Errorf(tripod.NotFound, "there is no snapshot %d of machine %.8s in this archive", k.Seq, k.Machine)
	}
	if err != nil {
		return nil, err
	}
	if !until.After(before) {
		return nil, tripod.Errorf(tripod.Conflict, "snapshot %d of machine %.8s is locked until %s already", k.Seq, k.Machine, before.Format(time.RFC3339)).
			WithHint("a lock can be extended, never shortened")
	}
	content, err := v.Document(ctx, name)
	var m *snapshot.Manifest
	if err == nil {
		m, err = snapshot.ParseManifest(content, v.Descriptor())
	}
	if err == nil {
		err = Probe(ctx, v.Store(), until)
	}
	if err != nil {
		return nil, err
	}
	lock := func(object string) error { return v.Store().Lock(ctx, object, until) }
	for _, s := range m.Segments {
		if err := lock(vault.PackName(s)); err != nil {
			return nil, err
		}
	}
	err = LockCompany(ctx, v, lock)
	if err == nil {
		err = v.Names(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(name string, _ int64) error { return lock(name) })
	}
	if err == nil {
		err = lock(vault.RecordName(k))
	}
	if err != nil {
		return nil, err
	}
	m.Time, m.Until = now, until
	if err := putManifest(ctx, v, m); err != nil {
		return nil, err
	}
	return m, lock(vault.ManifestName(k, m.Until))
}
