package catalog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tripod/internal/core/policy"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// retention is what the log says of policies, of what expired, and of holds.
type retention struct {
	policies map[uint32]*snapshot.Policy
	holds    []*snapshot.Hold
	expiries map[snapshot.Key]*snapshot.Expiry // nil for one that cannot be read
}

// Expired gives those that retention let go, oldest first.
func (c *Catalog) Expired() []Snapshot { return slices.Clone(c.expired) }

// Policy gives the company's policy of retention, nil when there is none.
func (c *Catalog) Policy() *snapshot.Policy { return c.retention.newest() }

func (r *retention) newest() (p *snapshot.Policy) {
	for _, other := range r.policies {
		if p == nil || other.Number > p.Number {
			p = other
		}
	}
	return p
}

// Holds gives the holds that are open, by name.
func (c *Catalog) Holds() []*snapshot.Hold { return slices.Clone(c.retention.holds) }

func (o *opening) policy(d document) {
	p, err := snapshot.ParsePolicy(d.content, o.Descriptor)
	if err == nil && d.name != vault.PolicyName(p.Number) {
		err = misplaced("policy")
	}
	if err != nil {
		o.problem(d.name, err)
		return
	}
	o.retention.policies[p.Number] = p
}

func (o *opening) hold(d document) {
	h, err := snapshot.ParseHold(d.content, o.Descriptor)
	if err == nil && d.name != vault.HoldName(h.Name) {
		err = misplaced("hold")
	}
	if err != nil {
		o.problem(d.name, err)
		return
	}
	o.retention.holds = append(o.retention.holds, h)
}

// expiry counts by its name: whoever keeps the vault goes by it, and may have
// collected the snapshot.
func (o *opening) expiry(d document) {
	k, ok := vault.ParseKeyPath(strings.TrimPrefix(d.name, vault.ExpiryPrefix))
	if !ok {
		return
	}
	e, err := snapshot.ParseExpiry(d.content, o.Descriptor)
	if err == nil && e.Key != k {
		err = misplaced("expiry")
	}
	if err != nil {
		e = nil
		o.problem(d.name, tripod.Errorf(tripod.KindOf(err), "snapshot %d of machine %.8s is not used, because it expired, but why cannot be read: %w", k.Seq, k.Machine, err).
			WithHint(hintExpired))
	}
	o.retention.expiries[k] = e
}

const hintExpired = "ask whoever keeps this vault; another copy may still have the snapshot"

// checkRetention tells of expiries that the company's policy did not allow, and
// of policies that are missing.
func (o *opening) checkRetention(now time.Time) {
	of := map[sourceKey]*policy.Log{}
	for i := range o.found {
		s := &o.found[i]
		l := of[sourceOf(s.Key)]
		if l == nil {
			l = &policy.Log{
				Policies: o.retention.policies, Holds: o.retention.holds, Now: now,
				Forgotten: map[uint64]time.Time{}, Expired: map[uint64]time.Time{},
			}
			of[sourceOf(s.Key)] = l
		}
		l.Records = append(l.Records, policy.Snapshot{Key: s.Key, Time: s.Record.Time, LockUntil: s.Record.LockUntil, Sealed: true})
		if order, err := snapshot.ParseOrder(o.orders[s.Key].content, o.Descriptor); err == nil {
			l.Forgotten[s.Key.Seq] = order.Time
		}
		if e := o.retention.expiries[s.Key]; e != nil {
			l.Expired[s.Key.Seq] = e.Time
		}
	}
	for i := range o.found {
		s := &o.found[i]
		e := o.retention.expiries[s.Key]
		if e == nil || o.shredded[s.Key.Machine] {
			continue
		}
		err := of[sourceOf(s.Key)].Check(e)
		if e.Record != s.Hash {
			err = tripod.Errorf(tripod.Denied, "expired as another record than the one stored")
		}
		if err != nil {
			o.problem(vault.ExpiryName(s.Key), tripod.Errorf(tripod.KindOf(err), "snapshot %d of machine %.8s: %w", s.Key.Seq, s.Key.Machine, err).WithHint(hintExpired))
		}
	}
	o.checkPolicies()
}

// checkPolicies tells of numbers without a policy.
func (o *opening) checkPolicies() {
	newest := o.retention.newest()
	if newest == nil {
		return
	}
	for n := uint32(1); n < newest.Number && n < uint32(len(o.retention.policies))+2; n++ { // a number may be anything
		name := vault.PolicyName(n)
		told := slices.ContainsFunc(o.problems, func(p Problem) bool { return p.Document == name })
		if o.retention.policies[n] == nil && !told {
			o.problem(name, tripod.Errorf(tripod.Corrupt, "policy %d is missing, though number %d is there", n, newest.Number).WithHint(hintExpired))
		}
	}
}

// Because says why a snapshot expired, when and by which policy.
func (s *Snapshot) Because() string {
	if s.Expiry == nil {
		return "expired"
	}
	return fmt.Sprintf("expired %s by policy %d: %s", s.Expiry.Time.UTC().Format("2006-01-02 15:04 UTC"), s.Expiry.Policy, s.Expiry.Reason)
}

// sourceKey names one machine's source.
type sourceKey struct {
	machine tripod.MachineID
	source  tripod.SourceID
}

func sourceOf(k snapshot.Key) sourceKey { return sourceKey{k.Machine, k.Source} }
