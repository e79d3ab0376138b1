package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/collect"
	"tripod/internal/vault/expire"
	"tripod/internal/vault/local"
	"tripod/internal/vault/replicate"
	"tripod/internal/vault/vaulttest"
)

const (
	yearBlobs  = 48 // of a machine's data at a time
	yearLeaf   = 12 // of them below one node
	yearChange = 3  // that are other ones each day
)

// TestSimulatedYear lets two zones look after themselves for a year: daily
// backups of many machines, copies to the second zone, expiry and collection in
// both, each on its own, on stores that fail now and then at some operation. What
// is live restores at the end of each month, and the space used stays within a
// tenth of what that needs.
func TestSimulatedYear(t *testing.T) {
	y := &year{T: t, r: rand.New(rand.NewPCG(seed(t), 70)), w: vaulttest.NewWorld(3), byID: map[tripod.ID]vaulttest.Blob{}}
	y.one = y.zone(mem.New())
	must(t, local.Create(t.Context(), y.one.inner, y.w.Encoded, y.w.Keyring))
	y.one.open()
	y.enrol(size(3, 20, 100))
	y.two = y.zone(mem.New())
	must(t, replicate.Create(t.Context(), y.one.v, y.two.inner))
	y.two.open()
	for day := range size(40, 365, 3*365) {
		y.now = time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC).AddDate(0, 0, day)
		for i := range y.machines {
			y.backup(&y.machines[i])
		}
		y.retried("replicate", y.two, y.replicate)
		if day%7 == 6 {
			for _, z := range []*zone{y.one, y.two} {
				y.retried("expire", z, z.expire)
				y.retried("collect", z, z.collect)
				z.space()
			}
		}
		if day%30 == 29 {
			y.one.whole()
			y.two.whole()
		}
	}
	y.one.whole()
	y.two.whole()
	t.Logf("%d snapshots made, %d failures; live in the zones: %d and %d", y.made, y.failures, len(y.one.live()), len(y.two.live()))
}

// year is the company and its zones.
type year struct {
	*testing.T
	r        *rand.Rand
	w        *vaulttest.World
	now      time.Time
	one, two *zone
	machines []yearMachine
	byID     map[tripod.ID]vaulttest.Blob
	next     int
	made     int
	failures int
}

type yearMachine struct {
	*vaulttest.Machine
	data []vaulttest.Blob
	last []byte
}

// zone is a vault in a store that fails now and then.
type zone struct {
	*year
	inner  store.Store
	faults *faulty.Store
	dir    string
	v      *local.Vault
}

func (y *year) zone(s store.Store) *zone {
	z := &zone{year: y, inner: s, dir: y.TempDir()}
	y.Cleanup(func() { must(y.T, z.v.Close()) })
	return z
}

func (z *zone) open() {
	z.faults = faulty.New(z.inner)
	v, err := local.Open(z.Context(), z.faults, local.Options{IndexDir: z.dir})
	must(z.T, err)
	z.v = v
}

// retried does something, now and then first on a store that stops working
// after some operations, which ends the process of the zone.
func (y *year) retried(what string, z *zone, do func() error) {
	y.Helper()
	if y.r.IntN(12) == 0 {
		z.faults.Script(faulty.On(faulty.From(1+y.r.IntN(15)), faulty.Fail(tripod.Unavailable)))
		if do() != nil {
			y.failures++
		}
		must(y.T, z.v.Close())
		z.open()
	}
	if err := do(); err != nil {
		y.Fatalf("%s at %s: %v", what, y.now.Format(time.DateOnly), err)
	}
}

func (z *zone) session(fn func(s *local.Session) error) error {
	s, err := z.v.Begin(z.Context(), vault.Holder{Text: "a simulated year"}, nil)
	if err != nil {
		return err
	}
	return errors.Join(fn(s), s.Close())
}

func (y *year) enrol(machines int) {
	must(y.T, y.one.session(func(s *local.Session) error {
		policy := y.w.Policy(snapshot.Policy{Number: 1, Time: time.Unix(1_700_000_500, 0).UTC(), Daily: 7, Weekly: 4, Monthly: 6})
		if err := s.PutPolicy(y.Context(), policy); err != nil {
			return err
		}
		for n := range machines {
			m := yearMachine{Machine: y.w.Machine(n + 1)}
			for range yearBlobs {
				m.data = append(m.data, y.fresh())
			}
			y.machines = append(y.machines, m)
			if err := s.PutDocument(y.Context(), vault.CertificateName(m.ID), m.Certificate); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (y *year) fresh() vaulttest.Blob {
	y.next++
	return y.w.Data(y.next, 2000+y.r.IntN(6000))
}

// backup makes a machine's snapshot of the day, which shares most of its data
// with the one before.
func (y *year) backup(m *yearMachine) {
	for range yearChange {
		m.data[y.r.IntN(len(m.data))] = y.fresh()
	}
	y.retried("backup", y.one, func() error {
		return y.one.session(func(s *local.Session) error { return y.save(s, m) })
	})
}

func (y *year) save(s *local.Session, m *yearMachine) error {
	var nodes []vaulttest.Blob
	for at := 0; at < len(m.data); at += yearLeaf {
		nodes = append(nodes, y.w.Node(tripod.Tree, m.data[at:at+yearLeaf]...))
	}
	root := y.w.Node(tripod.Tree, nodes...)
	for _, class := range [][]vaulttest.Blob{m.data, nodes, {root}} {
		have, err := s.Have(y.Context(), vaulttest.IDs(class...))
		if err != nil {
			return err
		}
		var missing []vaulttest.Blob
		for i, b := range class {
			y.byID[b.ID] = b
			if len(have[i]) == 0 {
				missing = append(missing, b)
			}
		}
		if len(missing) == 0 {
			continue
		}
		if _, err := s.Put(y.Context(), frame.ClassOf(missing[0].Kind), vaulttest.Frames(missing...)); err != nil {
			return err
		}
	}
	record := m.Record(y.w.Source(1), m.last, root.ID, func(r *snapshot.Record) { r.Time = y.now })
	if err := s.Commit(y.Context(), record, m.Grants(record)); err != nil {
		return err
	}
	m.last = record
	y.made++
	return nil
}

func (y *year) replicate() error {
	return y.two.session(func(s *local.Session) error {
		r, err := replicate.Run(y.Context(), y.one.v, y.two.v, s, replicate.Options{Now: y.now})
		if err == nil && len(r.Problems) > 0 {
			err = fmt.Errorf("problems: %v", r.Problems)
		}
		return err
	})
}

func (z *zone) expire() error {
	return z.session(func(s *local.Session) error {
		plan, err := expire.Look(z.Context(), s, z.v.Descriptor(), expire.Options{Clock: expire.Clock{Wall: z.now, Right: true}})
		if err != nil {
			return err
		}
		return plan.Apply(z.Context(), s, z.v.Descriptor())
	})
}

func (z *zone) collect() error {
	_, err := collect.Run(z.Context(), z.v, collect.Options{TempDir: z.TempDir(), Unused: collect.DefaultUnused})
	return err
}

// live gives the roots of the live snapshots.
func (z *zone) live() (roots []tripod.ID) {
	z.Helper()
	must(z.T, z.v.Live(z.Context(), func(string) bool { return false }, func(_ string, r *snapshot.Record) error {
		roots = append(roots, r.Root)
		return nil
	}))
	return roots
}

// needed gives all that the live snapshots need.
func (z *zone) needed() map[tripod.ID]vaulttest.Blob {
	needed := map[tripod.ID]vaulttest.Blob{}
	todo := z.live()
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, seen := needed[id]; !seen {
			b := z.byID[id]
			needed[id] = b
			todo = append(todo, b.Refs...)
		}
	}
	return needed
}

// space checks what is used against what is needed.
func (z *zone) space() {
	z.Helper()
	var used, need int64
	must(z.T, z.inner.List(z.Context(), vault.PackPrefix, func(i store.Info) error {
		used += i.Size
		return nil
	}))
	for _, b := range z.needed() {
		need += int64(len(b.Frame))
	}
	if used > need+need/10 {
		z.Errorf("%s: %d bytes are used for %d that are needed", z.now.Format(time.DateOnly), used, need)
	}
}

// whole reads all that live snapshots need, as someone would who has just come.
func (z *zone) whole() {
	z.Helper()
	v, err := local.Open(z.Context(), z.inner, local.Options{IndexDir: z.TempDir()})
	must(z.T, err)
	needed := z.needed()
	ids := make([]tripod.ID, 0, len(needed))
	for id := range needed {
		ids = append(ids, id)
	}
	err = v.Get(context.WithoutCancel(z.Context()), ids, func(i int, encoded []byte) error {
		if !bytes.Equal(encoded, needed[ids[i]].Frame) {
			return errors.New("other bytes")
		}
		return nil
	}, nil)
	if err := errors.Join(err, v.Close()); err != nil {
		z.Fatalf("%s: %v", z.now.Format(time.DateOnly), err)
	}
}
