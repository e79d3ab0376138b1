package replicate

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// Chain is how one source of one machine stands in two copies of a vault.
type Chain struct {
	Machine tripod.MachineID
	Source  tripod.SourceID

	Behind   int       // snapshots that the source has and the copy has not
	Newest   uint64    // number of the source's newest snapshot; 0 for none
	Time     time.Time // when it was made, by the machine's clock
	CopyHas  uint64    // number of the copy's newest snapshot; 0 for none
	CopyTime time.Time

	missing []uint64 // numbers of those behind
	extra   []uint64 // the first few that the copy has and the source has not
	extras  int
	differ  []uint64 // that both have, of different lengths
}

// Lag is by how much the newest snapshot in the copy is older than the source's.
// It is negative when the copy has newer ones.
func (c *Chain) Lag() time.Duration {
	if c.CopyHas == 0 || c.Newest == 0 {
		return 0
	}
	return c.Time.Sub(c.CopyTime)
}

func (c *Chain) key(seq uint64) snapshot.Key {
	return snapshot.Key{Machine: c.Machine, Source: c.Source, Seq: seq}
}

// named is a document's name and size.
type named struct {
	name string
	size int64
}

// names lists documents one by one. What ends it early is in failed.
func names(ctx context.Context, s vault.Source, prefix string, failed *error) iter.Seq[named] {
	return func(yield func(named) bool) {
		stop := tripod.Errorf(tripod.Exists, "enough")
		err := s.Names(ctx, prefix, func(name string, size int64) error {
			if !yield(named{name, size}) {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			*failed = err
		}
	}
}

// both goes through the documents of two copies in the order of names. It calls
// fn with what each has of a name; the name of what is not there is empty.
func both(ctx context.Context, src, dst vault.Source, prefix string, fn func(theirs, ours named) error) error {
	var failed [2]error
	nextA, stopA := iter.Pull(names(ctx, src, prefix, &failed[0]))
	defer stopA()
	nextB, stopB := iter.Pull(names(ctx, dst, prefix, &failed[1]))
	defer stopB()
	a, okA := nextA()
	b, okB := nextB()
	for okA || okB {
		// A list that broke off must not make the other look longer.
		if err := errors.Join(failed[0], failed[1]); err != nil {
			return err
		}
		order := cmp.Compare(a.name, b.name)
		switch {
		case !okB:
			order = -1
		case !okA:
			order = 1
		}
		var theirs, ours named
		if order <= 0 {
			theirs = a
			a, okA = nextA()
		}
		if order >= 0 {
			ours = b
			b, okB = nextB()
		}
		if err := fn(theirs, ours); err != nil {
			return err
		}
	}
	return errors.Join(failed[0], failed[1])
}

// Compare tells how each chain of records stands in the copy. It reads the names
// of all records and the newest record of each chain.
func Compare(ctx context.Context, src, dst vault.Source) ([]Chain, error) {
	const mostExtra = 8
	var chains []Chain
	err := both(ctx, src, dst, vault.RecordPrefix, func(theirs, ours named) error {
		name := cmp.Or(theirs.name, ours.name)
		k, ok := vault.ParseKeyPath(strings.TrimPrefix(name, vault.RecordPrefix))
		if !ok {
			return nil
		}
		n := len(chains)
		if n == 0 || chains[n-1].Machine != k.Machine || chains[n-1].Source != k.Source {
			chains = append(chains, Chain{Machine: k.Machine, Source: k.Source})
			n++
		}
		c := &chains[n-1]
		if theirs.name != "" {
			c.Newest = k.Seq
		}
		if ours.name != "" {
			c.CopyHas = k.Seq
		}
		switch {
		case ours.name == "":
			c.Behind++
			c.missing = append(c.missing, k.Seq)
		case theirs.name == "":
			if c.extras++; len(c.extra) < mostExtra {
				c.extra = append(c.extra, k.Seq)
			}
		case theirs.size != ours.size:
			c.differ = append(c.differ, k.Seq)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range chains {
		c := &chains[i]
		if c.Time, err = timeOf(ctx, src, c.key(c.Newest)); err == nil {
			c.CopyTime, err = timeOf(ctx, dst, c.key(c.CopyHas))
		}
		if err != nil {
			return nil, err
		}
	}
	return chains, nil
}

// timeOf is when a snapshot was made, zero where that cannot be told.
func timeOf(ctx context.Context, s vault.Source, k snapshot.Key) (time.Time, error) {
	if k.Seq == 0 {
		return time.Time{}, nil
	}
	content, err := s.Document(ctx, vault.RecordName(k))
	if errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	if r, err := snapshot.ParseRecord(content); err == nil && r.Key == k {
		return r.Time, nil
	}
	return time.Time{}, nil
}

// Nothing is the source that has nothing: what a place is before it is a copy.
type Nothing struct{}

var _ vault.Source = Nothing{}

func (Nothing) lacks(what string) error {
	return tripod.Errorf(tripod.NotFound, "%s: is not there", what)
}

// Get implements vault.Reader.
func (n Nothing) Get(_ context.Context, ids []tripod.ID, _ func(int, []byte) error, onError func(int, error) error) error {
	for i := range ids {
		err := n.lacks("blob " + ids[i].String()[:16])
		if onError != nil {
			err = onError(i, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Documents implements vault.Reader.
func (Nothing) Documents(context.Context, string, func(string, []byte) error) error { return nil }

// Document implements vault.Source.
func (n Nothing) Document(_ context.Context, name string) ([]byte, error) { return nil, n.lacks(name) }

// Names implements vault.Source.
func (Nothing) Names(context.Context, string, func(string, int64) error) error { return nil }

// Copies implements vault.Source.
func (Nothing) Copies(_ context.Context, ids []tripod.ID) ([][]vault.Copy, error) {
	return make([][]vault.Copy, len(ids)), nil
}
