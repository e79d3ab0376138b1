package catalog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/vault"
)

func putPolicy(w *World, p snapshot.Policy) {
	p.Company = w.Keys.ID
	w.Vault.Docs[vault.PolicyName(p.Number)] = p.Encode(w.Keys.Sign)
}

// expire makes an expiry of a snapshot as of now, and removes its grant.
func expire(w *World, r *snapshot.Record, newest uint64, change func(*snapshot.Expiry)) {
	e := snapshot.Expiry{
		Company: w.Keys.ID, Key: r.Key, Record: snapshot.HashOf(w.Vault.Docs[name(r)]), Time: time.Now(), Policy: 1, Newest: newest, Reason: "no rule keeps it",
	}
	if change != nil {
		change(&e)
	}
	w.Vault.Docs[vault.ExpiryName(r.Key)] = e.Encode()
	delete(w.Vault.Docs, grant(w, r))
}

func TestExpiredSnapshotsAreNotLive(t *testing.T) {
	w, rs := world(t)
	putPolicy(w, snapshot.Policy{Number: 1, Last: 1, Time: time.Unix(1_700_000_000, 0)})
	expire(w, rs[0], 3, nil)
	h := snapshot.Hold{Company: w.Keys.ID, Name: "court", Time: time.Now()}
	w.Vault.Docs[vault.HoldName("court")] = h.Encode()
	c := open(t, w)
	if len(c.Snapshots()) != 4 || len(c.Problems()) != 0 || len(c.Forgotten()) != 0 {
		t.Fatalf("%d live, problems %v", len(c.Snapshots()), c.Problems())
	}
	got := c.Expired()
	if len(got) != 1 || got[0].Key != rs[0].Key || len(got[0].ID) != 8 || !strings.HasSuffix(got[0].Because(), "by policy 1: no rule keeps it") {
		t.Fatalf("expired: %+v", got)
	}
	if p := c.Policy(); p == nil || p.Number != 1 {
		t.Errorf("policy: %+v", p)
	}
	if holds := c.Holds(); len(holds) != 1 || holds[0].Name != "court" {
		t.Errorf("holds: %+v", holds)
	}
	if _, err := c.Find(got[0].ID, catalog.Filter{}); !errors.Is(err, tripod.NotFound) || !strings.Contains(err.Error(), "by policy 1") {
		t.Errorf("%v", err)
	}
	// One that is forgotten as well is that alone.
	n, order := catalog.Order(w.Keys, got[0], time.Now())
	w.Vault.Docs[n] = order
	c = open(t, w)
	if len(c.Expired()) != 0 || len(c.Forgotten()) != 1 || len(c.Problems()) != 0 {
		t.Errorf("%d expired, %d forgotten, problems %v", len(c.Expired()), len(c.Forgotten()), c.Problems())
	}
}

// What expired against the policy is not live, and told.
func TestBreachesOfThePolicyAreTold(t *testing.T) {
	for _, x := range []struct {
		name  string
		spoil func(w *World, rs []*snapshot.Record)
		left  int
		text  string
	}{
		{"the newest", func(w *World, rs []*snapshot.Record) { expire(w, rs[3], 3, nil) }, 4, "policy 1 keeps it"},
		{"no such policy", func(w *World, rs []*snapshot.Record) {
			expire(w, rs[0], 3, func(e *snapshot.Expiry) { e.Policy = 2 })
		}, 4, "by policy 2, which the vault does not show"},
		{"another record", func(w *World, rs []*snapshot.Record) {
			expire(w, rs[0], 3, func(e *snapshot.Expiry) { e.Record[0] ^= 1 })
		}, 4, "as another record than the one stored"},
		{"a damaged expiry", func(w *World, rs []*snapshot.Record) {
			expire(w, rs[0], 3, nil)
			w.Vault.Docs[vault.ExpiryName(rs[0].Key)][30] ^= 1
		}, 4, "why cannot be read"},
		{"a moved expiry", func(w *World, rs []*snapshot.Record) {
			expire(w, rs[0], 3, nil)
			w.Vault.Docs[vault.ExpiryName(rs[2].Key)] = w.Vault.Docs[vault.ExpiryName(rs[0].Key)]
			delete(w.Vault.Docs, vault.ExpiryName(rs[0].Key))
			w.Vault.Docs[grant(w, rs[0])] = w.Vault.Docs[grant(w, rs[1])]
			delete(w.Vault.Docs, name(rs[0])) // this one is about the third
		}, 3, "lies under another name"},
		{"a hidden policy", func(w *World, _ []*snapshot.Record) {
			putPolicy(w, snapshot.Policy{Number: 3, Last: 1, Time: time.Now()})
		}, 5, "policy 2 is missing, though number 3 is there"},
		{"a forged policy", func(w *World, _ []*snapshot.Record) {
			p := snapshot.Policy{Company: w.Keys.ID, Number: 2}
			w.Vault.Docs[vault.PolicyName(2)] = p.Encode(w.Machine.Sign)
		}, 5, "not signed by this company"},
		{"a damaged hold", func(w *World, _ []*snapshot.Record) { w.Vault.Docs[vault.HoldName("x")] = []byte("x") }, 5, "malformed"},
	} {
		w, rs := world(t)
		putPolicy(w, snapshot.Policy{Number: 1, Last: 1, Time: time.Unix(1_700_000_000, 0)})
		x.spoil(w, rs)
		c := open(t, w)
		var texts []string
		for _, p := range c.Problems() {
			texts = append(texts, p.Err.Error())
		}
		if len(c.Snapshots()) != x.left || !strings.Contains(strings.Join(texts, "\n"), x.text) {
			t.Errorf("%s: %d live, problems %q", x.name, len(c.Snapshots()), texts)
		}
	}
}
