package expire_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tripod/internal/core/frame"
	"tripod/internal/core/policy"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/expire"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a vault of two machines, of which the first makes a snapshot a day.
type world struct {
	*testing.T
	w       *vaulttest.World
	store   *mem.Store
	s       *local.Session
	m       *vaulttest.Machine
	root    tripod.ID
	last    []byte
	records []*snapshot.Record
	clock   expire.Clock
	up      time.Duration
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T, days int) *world {
	w := vaulttest.NewWorld(7)
	x := &world{T: t, w: w, store: mem.New(), m: w.Machine(1)}
	must(t, local.Create(t.Context(), x.store, w.Encoded, w.Keyring))
	v, err := local.Open(t.Context(), x.store, local.Options{IndexDir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	x.s, err = v.Begin(t.Context(), vault.Holder{Text: "a test"}, nil)
	must(t, err)
	t.Cleanup(func() { must(t, x.s.Close()) })
	must(t, x.s.PutDocument(t.Context(), vault.CertificateName(x.m.ID), x.m.Certificate))
	data := w.Data(1, 100)
	root := w.Node(tripod.Tree, data)
	for _, b := range []vaulttest.Blob{data, root} {
		_, err := x.s.Put(t.Context(), frame.ClassOf(b.Kind), vaulttest.Frames(b))
		must(t, err)
	}
	x.root = root.ID
	for i := range days {
		x.snapshot(start.Add(time.Duration(i-days)*day), nil)
	}
	x.clock = expire.Clock{
		Wall: start, File: filepath.Join(t.TempDir(), "clock"), Boot: func() (string, time.Duration) { return "boot", x.up },
	}
	return x
}

func (x *world) snapshot(at time.Time, change func(*snapshot.Record)) {
	x.Helper()
	x.last = x.m.Record(x.w.Source(1), x.last, x.root, func(r *snapshot.Record) {
		r.Time = at
		if change != nil {
			change(r)
		}
	})
	must(x, x.s.Commit(x.Context(), x.last, x.m.Grants(x.last)))
	r, err := snapshot.ParseRecord(x.last)
	must(x, err)
	x.records = append(x.records, r)
}

// policy makes one as of the clock, as someone does who vouches for it.
func (x *world) policy(p snapshot.Policy) {
	x.Helper()
	p.Time = x.clock.Wall
	must(x, x.s.PutPolicy(x.Context(), x.w.Policy(p)))
	must(x, x.clock.Vouch())
}

func (x *world) look() (*expire.Plan, error) {
	return expire.Look(x.Context(), x.s, x.w.Descriptor, expire.Options{Clock: x.clock})
}

func (x *world) expire() *expire.Plan {
	x.Helper()
	p, err := x.look()
	must(x, err)
	must(x, p.Apply(x.Context(), x.s, x.w.Descriptor))
	return p
}

// live gives the sequences of snapshots that are.
func (x *world) live() string {
	x.Helper()
	var out []string
	for _, r := range x.records {
		gone := false
		must(x, x.s.Documents(x.Context(), vault.ExpiryName(r.Key), func(string, []byte) error { gone = true; return nil }))
		grants := 0
		must(x, x.s.Documents(x.Context(), vault.GrantPrefix+vault.KeyPath(r.Key), func(string, []byte) error { grants++; return nil }))
		if gone != (grants == 0) {
			x.Errorf("%d: expired %v, %d grants", r.Key.Seq, gone, grants)
		}
		if !gone {
			out = append(out, fmt.Sprint(r.Key.Seq))
		}
	}
	return strings.Join(out, " ")
}

func (x *world) wantLive(want string) {
	x.Helper()
	if got := x.live(); got != want {
		x.Errorf("live: %s, want %s", got, want)
	}
}

func (x *world) pass(d time.Duration) { x.clock.Wall, x.up = x.clock.Wall.Add(d), x.up+d }

func TestExpire(t *testing.T) {
	x := newWorld(t, 9)
	if _, err := x.look(); !errors.Is(err, tripod.NotFound) || tripod.HintOf(err) == "" {
		t.Fatalf("without a policy: %v", err)
	}
	x.policy(snapshot.Policy{Number: 1, Daily: 3, Within: 5 * day})
	p := x.expire()
	x.wantLive("5 6 7 8 9")
	if len(p.Rows) != 9 || p.Policy.Number != 1 || !p.Now.Equal(start) || len(p.Refused) != 0 {
		t.Errorf("%+v", p)
	}
	e := x.expiry(4)
	if e.Policy != 1 || e.Newest != 9 || !e.Time.Equal(start) || e.Record != p.Rows[3].Record || e.Reason != "no rule keeps it" {
		t.Errorf("%+v", e)
	}
	x.expire()
	x.wantLive("5 6 7 8 9")
	x.pass(2 * day)
	x.expire()
	x.wantLive("7 8 9")
	x.policy(snapshot.Policy{Number: 2, Last: 1})
	x.expire()
	x.wantLive("9")
	if e := x.expiry(7); e.Policy != 2 {
		t.Errorf("%+v", e)
	}
}

func (x *world) expiry(seq int) *snapshot.Expiry {
	x.Helper()
	var e *snapshot.Expiry
	must(x, x.s.Documents(x.Context(), vault.ExpiryName(x.records[seq-1].Key), func(_ string, content []byte) (err error) {
		e, err = snapshot.ParseExpiry(content, x.w.Descriptor)
		return err
	}))
	return e
}

func TestHoldsStopExpiry(t *testing.T) {
	x := newWorld(t, 3)
	x.policy(snapshot.Policy{Number: 1, Last: 1})
	plan, err := x.look() // from before
	must(t, err)
	h := &snapshot.Hold{Company: x.w.Descriptor.Company, Name: "court", Reason: "case 12", Time: start}
	must(t, x.s.OpenHold(t.Context(), h))
	if err := x.s.OpenHold(t.Context(), h); !errors.Is(err, tripod.Exists) {
		t.Errorf("twice: %v", err)
	}
	if err := plan.Apply(t.Context(), x.s, x.w.Descriptor); !errors.Is(err, tripod.Denied) {
		t.Errorf("a plan from before the hold: %v", err)
	}
	p := x.expire()
	x.wantLive("1 2 3")
	if len(p.Holds) != 1 || p.Rows[0].Because() != "hold court" {
		t.Errorf("%q", p.Rows[0].Because())
	}
	// One that cannot be read holds as well.
	must(t, x.store.Delete(t.Context(), vault.HoldName("court")))
	must(t, x.store.Put(t.Context(), vault.HoldName("damaged"), []byte("x")))
	if p := x.expire(); len(p.Refused) != 1 {
		t.Errorf("%v", p.Refused)
	}
	x.wantLive("1 2 3")
	must(t, x.s.CloseHold(t.Context(), "damaged"))
	if err := x.s.CloseHold(t.Context(), "damaged"); !errors.Is(err, tripod.NotFound) {
		t.Errorf("twice: %v", err)
	}
	x.expire()
	x.wantLive("3")
}

func TestLockedAndFutureAndDamagedSnapshotsStay(t *testing.T) {
	x := newWorld(t, 2)
	x.snapshot(start.Add(-time.Hour), func(r *snapshot.Record) { r.LockUntil = start.Add(day) })
	x.snapshot(start.Add(365*day), nil)
	x.snapshot(start.Add(-time.Minute), nil)
	x.policy(snapshot.Policy{Number: 1, Last: 1})
	x.expire()
	x.wantLive("3 4 5")
	x.pass(2 * day)
	x.expire()
	x.wantLive("4 5")
	for _, e := range []snapshot.Expiry{{Key: x.records[2].Key, Policy: 1}, {Key: x.records[4].Key, Policy: 9}, {Key: x.records[4].Key, Policy: 1}} {
		if x.s.Expire(t.Context(), &e) == nil {
			t.Errorf("taken: %+v", e)
		}
	}
	if err := x.s.DropGrants(t.Context(), x.records[4].Key); !errors.Is(err, tripod.Denied) {
		t.Errorf("the grants of a live snapshot: %v", err)
	}
}

// absent is a session to which roots are missing.
type absent struct {
	*local.Session
	have func(i int) bool
}

func (a absent) Have(_ context.Context, ids []tripod.ID) ([][]tripod.Sum, error) {
	out := make([][]tripod.Sum, len(ids))
	for i := range ids {
		if a.have(i) {
			out[i] = []tripod.Sum{{}}
		}
	}
	return out, nil
}

// The newest snapshot that is whole is the last good one.
func TestADamagedSnapshotIsNoGoodOne(t *testing.T) {
	x := newWorld(t, 4)
	x.policy(snapshot.Policy{Number: 1, Last: 1})
	s := absent{x.s, func(i int) bool { return i < 2 }}
	p, err := expire.Look(t.Context(), s, x.w.Descriptor, expire.Options{Clock: x.clock})
	must(t, err)
	must(t, p.Apply(t.Context(), s, x.w.Descriptor))
	x.wantLive("2 3 4")
}

// Whatever ended a run, the next one finishes it.
func TestAnInterruptedRunIsFinished(t *testing.T) {
	x := newWorld(t, 3)
	x.policy(snapshot.Policy{Number: 1, Last: 1})
	p, err := x.look()
	must(t, err)
	e := snapshot.Expiry{Company: x.w.Descriptor.Company, Key: p.Rows[0].Key, Record: p.Rows[0].Record, Time: start, Policy: 1, Newest: 3}
	must(t, x.store.Put(t.Context(), vault.ExpiryName(e.Key), e.Encode())) // and then it crashed
	x.expire()
	x.wantLive("3")
}

func TestWhatThePolicyCannotBe(t *testing.T) {
	x := newWorld(t, 3)
	put := func(p snapshot.Policy) error { return x.s.PutPolicy(t.Context(), x.w.Policy(p)) }
	x.policy(snapshot.Policy{Number: 1, Last: 2})
	if err := put(snapshot.Policy{Number: 1, Last: 1}); !errors.Is(err, tripod.Conflict) {
		t.Errorf("again: %v", err)
	}
	forged := x.w.Policy(snapshot.Policy{Number: 2, Last: 1})
	forged[len(forged)-1] ^= 1
	if err := x.s.PutPolicy(t.Context(), forged); !errors.Is(err, tripod.Denied) {
		t.Errorf("forged: %v", err)
	}
	x.expire()
	x.wantLive("2 3")
	// A policy that cannot be believed stops all, instead of the one before it
	// being applied, which may keep less.
	must(t, x.store.Put(t.Context(), vault.PolicyName(2), forged))
	if _, err := x.look(); !errors.Is(err, tripod.Denied) || !strings.Contains(err.Error(), "nothing expires") {
		t.Errorf("%v", err)
	}
	must(t, x.store.Delete(t.Context(), vault.PolicyName(2)))
	x.policy(snapshot.Policy{Number: 2, Last: 1})
	x.expire()
	x.wantLive("3")
	must(t, x.store.Delete(t.Context(), vault.PolicyName(2)))
	if _, err := x.look(); !errors.Is(err, tripod.Conflict) || !strings.Contains(err.Error(), "number 2 was applied already") {
		t.Errorf("rolled back: %v", err)
	}
}

// Tags are sealed: who has no key cannot apply a policy that keeps some, and
// keeps everything.
func TestTagsNeedAKey(t *testing.T) {
	x := newWorld(t, 3)
	x.policy(snapshot.Policy{Number: 1, Tags: []string{"tax"}})
	x.expire()
	x.wantLive("1 2 3")
	p, err := expire.Look(t.Context(), x.s, x.w.Descriptor, expire.Options{Clock: x.clock, Tags: func(k snapshot.Key) ([]string, bool) {
		return []string{"tax"}[:min(k.Seq%2, 1)], true
	}})
	must(t, err)
	must(t, p.Apply(t.Context(), x.s, x.w.Descriptor))
	x.wantLive("1 3")
}

func TestRulesOfTheCallerAreOnlyLookedAt(t *testing.T) {
	x := newWorld(t, 3)
	p, err := expire.Look(t.Context(), x.s, x.w.Descriptor, expire.Options{Clock: x.clock, Rules: &policy.Rules{Last: 1}})
	must(t, err)
	if p.Policy != nil || p.Rows[0].Keep() || !p.Rows[2].Keep() {
		t.Errorf("%+v", p)
	}
	if err := p.Apply(t.Context(), x.s, x.w.Descriptor); !errors.Is(err, tripod.Invalid) {
		t.Errorf("%v", err)
	}
	x.wantLive("1 2 3")
}

// What the company gave up itself is no business of retention.
func TestForgottenSnapshotsAreLeftAlone(t *testing.T) {
	x := newWorld(t, 3)
	x.policy(snapshot.Policy{Number: 1, Last: 1})
	name, order := x.w.Forget(x.last)
	must(t, x.s.PutDocument(t.Context(), name, order))
	x.expire()
	x.wantLive("2 3") // the second is the newest that is left
	must(t, x.store.Put(t.Context(), vault.ShredName(x.m.ID), x.w.Shred(x.m.ID)))
	if p := x.expire(); len(p.Rows) != 0 {
		t.Errorf("%+v", p.Rows)
	}
}

func TestSomeoneElsesRecordsDoNotCount(t *testing.T) {
	x := newWorld(t, 3)
	x.policy(snapshot.Policy{Number: 1, Last: 2})
	stranger := vaulttest.NewWorld(8).Machine(1)
	forged := stranger.Record(x.w.Source(1), x.last, x.root, func(r *snapshot.Record) { r.Key.Machine, r.Time = x.m.ID, start })
	r, err := snapshot.ParseRecord(forged)
	must(t, err)
	must(t, x.store.Put(t.Context(), vault.RecordName(r.Key), forged))
	if p := x.expire(); len(p.Refused) != 1 {
		t.Errorf("%v", p.Refused)
	}
	x.wantLive("2 3")
}

func TestTheClockStopsExpiry(t *testing.T) {
	x := newWorld(t, 9)
	x.policy(snapshot.Policy{Number: 1, Within: 30 * day})
	x.clock.Own = x.m.ID
	x.expire()
	x.wantLive("1 2 3 4 5 6 7 8 9")
	x.clock.Wall = start.Add(3650 * day)
	for range 2 { // it is not remembered as if it had been so
		if _, err := x.look(); !errors.Is(err, tripod.Conflict) || !strings.Contains(tripod.HintOf(err), "--clock-is-right") {
			t.Fatalf("ten years ahead: %v", err)
		}
	}
	// After a boot nothing proves the years, nor does a snapshot of the same clock.
	x.clock.Boot = func() (string, time.Duration) { return "another", day }
	x.snapshot(x.clock.Wall, nil)
	p := x.expire()
	if !p.Now.Equal(start) || p.Behind != 3650*day {
		t.Errorf("%s, behind by %s", p.Now, p.Behind)
	}
	x.wantLive("1 2 3 4 5 6 7 8 9 10")
	must(t, os.Remove(x.clock.File))
	x.expire()
	x.wantLive("1 2 3 4 5 6 7 8 9 10")
	x.clock.Right = true
	x.expire()
	x.wantLive("10")
	// The vault remembers the time that was vouched for.
	x.clock.Right, x.clock.Wall = false, start.Add(day)
	must(t, os.Remove(x.clock.File))
	if _, err := x.look(); !errors.Is(err, tripod.Conflict) {
		t.Errorf("back again: %v", err)
	}
	// Unless it was vouched to be wrong.
	x.clock.Right = true
	x.expire()
	x.clock.Right = false
	x.expire()
}

func TestTheClocksOfOtherMachinesProveTime(t *testing.T) {
	x := newWorld(t, 9)
	x.policy(snapshot.Policy{Number: 1, Last: 1})
	must(t, os.Remove(x.clock.File))
	x.snapshot(start.Add(5*day), nil)
	x.clock.Wall = start.Add(6 * day)
	if p := x.expire(); !p.Now.Equal(start.Add(5 * day)) {
		t.Errorf("%s", p.Now)
	}
	x.wantLive("10")
}

func TestDamagedNotesAreAsGoodAsNone(t *testing.T) {
	for _, text := range []string{"", "wall x\n", "wall 2026-03-01T12:00:00Z\n", "a b c\n", "\xff"} {
		x := newWorld(t, 1)
		x.policy(snapshot.Policy{Number: 1, Last: 1})
		must(t, os.WriteFile(x.clock.File, []byte(text), 0o600))
		x.pass(day)
		if p := x.expire(); !p.Now.Equal(start) {
			t.Errorf("%q: %s", text, p.Now)
		}
	}
}

func TestBooted(t *testing.T) {
	boot, up := expire.Booted()
	if boot == "" {
		t.Skip("not proved: the boot clock, this system does not tell")
	}
	again, later := expire.Booted()
	if again != boot || later < up || up <= 0 || strings.ContainsAny(boot, " \n") {
		t.Errorf("%q %s, then %q %s", boot, up, again, later)
	}
}

// Names tell what is a document, and nothing else is.
func TestNames(t *testing.T) {
	k := snapshot.Key{Seq: 3}
	for _, name := range []string{vault.PolicyName(1), vault.PolicyName(123456789), vault.ExpiryName(k), vault.HoldName("a-b")} {
		if !vault.Documented(name) {
			t.Errorf("%s is none", name)
		}
	}
	for _, name := range []string{"policy/1", "policy/00000000", "policy/000000001", "policy/99999999999", "expire/x", "hold/", "hold/a/b", "hold/A"} {
		if vault.Documented(name) {
			t.Errorf("%s is one", name)
		}
	}
	var all []string
	x := newWorld(t, 1)
	x.policy(snapshot.Policy{Number: 1, Last: 1})
	must(t, x.s.OpenHold(t.Context(), &snapshot.Hold{Company: x.w.Descriptor.Company, Name: "h"}))
	must(t, x.s.Documents(t.Context(), "", func(name string, _ []byte) error { all = append(all, name); return nil }))
	if !slices.IsSorted(all) || !slices.Contains(all, "policy/00000001") || !slices.Contains(all, "hold/h") {
		t.Errorf("%q", all)
	}
}
