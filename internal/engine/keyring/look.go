package keyring

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// View is what a vault shows now, beside what a machine remembers of it.
type View struct {
	Losses []Loss

	now      *Memory
	rolled   map[Chain]bool // chains that show less than before
	reringed bool           // the keyring is an older one, or another
}

// Loss is something that the vault has shown and does not any more.
type Loss struct {
	Chain Chain // whose snapshots; zero when it is the keyring
	// text tells of it, with the name of the chain's machine and source.
	text func(who string) string
}

// Err words the loss. who names a chain for people.
func (l *Loss) Err(who func(Chain) string) error {
	name := ""
	if !l.OfKeyring() {
		name = who(l.Chain)
	}
	return tripod.Errorf(tripod.Corrupt, "%s", l.text(name)).
		WithHint("the vault was rolled back, or hides something: ask whoever keeps it, and look into other copies; if this is a copy that is behind: tripod replicate; " +
			"if you put an older copy in its place yourself: tripod vault accept-rollback")
}

// OfKeyring tells that it is the keyring, which is worth knowing before a
// passphrase turns out to be wrong.
func (l *Loss) OfKeyring() bool { return l.Chain == Chain{} }

// Look compares what a vault shows with what was seen of it before. Of snapshots
// it looks at those whose vault.KeyPath begins with scope: all, a machine's, or a
// source's. It needs no key but the company's public ones, in d.
func (m *Memory) Look(ctx context.Context, r Documents, d *snapshot.Descriptor, scope string) (*View, error) {
	v := &View{now: NewMemory(), rolled: map[Chain]bool{}}
	replaced, err := v.records(ctx, r, scope, m.Heads)
	if err != nil {
		return nil, err
	}
	err = r.Documents(ctx, vault.OrderPrefix+scope, func(name string, content []byte) error {
		if o, err := snapshot.ParseOrder(content, d); err == nil && vault.OrderName(o.Key) == name {
			c := Chain{o.Key.Machine, o.Key.Source}
			v.now.Forgotten[c] = v.now.Forgotten[c].add(o.Key.Seq)
		}
		return nil // the catalog tells of those that are not valid
	})
	if err != nil {
		return nil, err
	}
	unreadable, err := v.keyring(ctx, r, d.Company)
	if err != nil {
		return nil, err
	}
	if !unreadable { // which whoever opens it is told
		v.compareKeyring(&m.Keyring)
	}
	v.compare(m, replaced, scope)
	return v, nil
}

// records looks at the log, and reports chains whose record was exchanged for
// another one since it was seen.
func (v *View) records(ctx context.Context, r Documents, scope string, seen map[Chain]Head) (replaced map[Chain]bool, err error) {
	replaced = map[Chain]bool{}
	err = r.Documents(ctx, vault.RecordPrefix+scope, func(name string, content []byte) error {
		key, ok := vault.ParseKeyPath(strings.TrimPrefix(name, vault.RecordPrefix))
		if !ok {
			return nil
		}
		c := Chain{key.Machine, key.Source}
		record, err := snapshot.ParseRecord(content)
		if err != nil || record.Key != key {
			// It is there, if damaged, which the catalog tells of: nothing is hidden.
			if h := v.now.Heads[c]; key.Seq > h.Seq {
				v.now.Heads[c] = Head{Seq: key.Seq}
			}
			return nil
		}
		hash := snapshot.HashOf(content)
		if key.Seq >= v.now.Heads[c].Seq {
			v.now.Heads[c] = Head{key.Seq, hash, record.Time.UTC().Truncate(time.Second)}
		}
		if s, ok := seen[c]; ok && s.Seq == key.Seq && s.Hash != hash {
			replaced[c] = true
		}
		return nil
	})
	return replaced, err
}

func (v *View) compare(m *Memory, replaced map[Chain]bool, scope string) {
	within := func(c Chain) bool {
		return strings.HasPrefix(c.Machine.String()+"/"+c.Source.String()+"/", scope)
	}
	for _, c := range sortedChains(m.Heads) {
		s, n := m.Heads[c], v.now.Heads[c]
		var text string
		switch made := s.Time.UTC().Format("2006-01-02 15:04 UTC"); {
		case !within(c):
			continue
		case replaced[c]:
			text = fmt.Sprintf("snapshot number %d of %%s is not the one that this machine has seen before, made %s", s.Seq, made)
		case n.Seq == 0:
			text = fmt.Sprintf("the vault shows no snapshot of %%s, but this machine has seen number %d, made %s", s.Seq, made)
		case n.Seq < s.Seq:
			text = fmt.Sprintf("the vault shows snapshots of %%s up to number %d, but this machine has seen number %d, made %s", n.Seq, s.Seq, made)
		default:
			continue
		}
		v.rolled[c] = true
		v.lose(c, text)
	}
	for _, c := range sortedChains(m.Forgotten) {
		now := v.now.Forgotten[c]
		gone := m.Forgotten[c].and(now).Count() - now.Count()
		if gone == 0 || !within(c) {
			continue
		}
		v.lose(c, fmt.Sprintf("%s of %%s, forgotten by an order that this machine has seen, %s in the vault again", tripod.Count(int64(gone), "snapshot"), //nolint:gosec // never as many
			map[bool]string{true: "is", false: "are"}[gone == 1]))
	}
}

func (v *View) lose(c Chain, format string) {
	v.Losses = append(v.Losses, Loss{c, func(who string) string { return strings.Replace(format, "%s", who, 1) }})
}

// keyring looks at the keyrings, and reports whether the newest is unreadable.
func (v *View) keyring(ctx context.Context, r Documents, company tripod.CompanyID) (unreadable bool, err error) {
	k := &v.now.Keyring
	err = r.Documents(ctx, vault.KeyringPrefix, func(name string, content []byte) error {
		n, ok := vault.ParseKeyringName(name)
		if !ok {
			return nil
		}
		ring, err := seal.UnmarshalKeyring(content)
		if unreadable = err != nil || ring.Company != company || !belongs(ring, n); unreadable {
			return nil
		}
		if k.Number > 0 {
			k.Replaced[k.Hash] = true
		}
		k.Number, k.Hash = n, snapshot.HashOf(content)
		return nil
	})
	delete(k.Replaced, k.Hash) // stored twice
	return unreadable, err
}

// compareKeyring tells when a keyring came back that had been replaced, or the
// newest is gone: then passphrases from before a change open the vault again.
func (v *View) compareKeyring(seen *Ring) {
	n := v.now.Keyring
	var text string
	switch {
	case seen.Number == 0 || n.Hash == seen.Hash:
		return
	case n.Number == 0:
		text = "the vault's keyring is missing, and without one no passphrase opens it"
	case seen.Replaced[n.Hash] || n.Number < seen.Number:
		text = fmt.Sprintf("the vault's keyring is an older one than this machine has seen: number %d came after it, and a passphrase from before may open the vault again", seen.Number)
	case n.Number == seen.Number:
		text = fmt.Sprintf("the vault's keyring number %d is not the one that this machine has seen", n.Number)
	default:
		return
	}
	v.reringed = true
	v.Losses = append(v.Losses, Loss{text: func(string) string { return text }})
}

// Merge remembers what is new in a view, and reports whether anything was. What
// was lost is remembered as it was, until it is back or accepted: else it would
// be told once, or not at all when the vault has grown since.
func (m *Memory) Merge(v *View) (changed bool) {
	for c, head := range v.now.Heads {
		// A head without a hash is damaged, and was not seen as it should be.
		if old, ok := m.Heads[c]; !v.rolled[c] && head.Hash != (snapshot.Hash{}) && (!ok || head.Seq > old.Seq) {
			m.Heads[c] = head
			changed = true
		}
	}
	for c, now := range v.now.Forgotten {
		old := m.Forgotten[c]
		if all := old.and(now); all.Count() > old.Count() {
			m.Forgotten[c] = all
			changed = true
		}
	}
	if v.reringed || v.now.Keyring.Number < m.Keyring.Number {
		return changed
	}
	k, n := &m.Keyring, v.now.Keyring
	if k.Number > 0 && k.Hash != n.Hash {
		n.Replaced[k.Hash] = true
	}
	for h := range n.Replaced {
		changed = changed || !k.Replaced[h]
		k.Replaced[h] = true
	}
	changed = changed || k.Number != n.Number || k.Hash != n.Hash
	k.Number, k.Hash = n.Number, n.Hash
	return changed
}

// Accept makes a view all that is remembered: the owner knows why there is less
// than there was. A newest record that is damaged is remembered as it was before.
func (m *Memory) Accept(v *View) {
	for c, h := range v.now.Heads {
		if h.Hash != (snapshot.Hash{}) {
			continue
		}
		if old, ok := m.Heads[c]; ok && old.Seq <= h.Seq {
			v.now.Heads[c] = old
			continue
		}
		delete(v.now.Heads, c)
	}
	*m = *v.now
}
