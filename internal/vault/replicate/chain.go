package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

const (
	mostWaiting = 256     // snapshots that are pulled and not yet accepted
	mostNodes   = 8 << 20 // bytes of their nodes
)

// accepted is a snapshot whose blobs are pulled, to be accepted when they are put.
type accepted struct {
	record []byte
	grants [][]byte
	key    snapshot.Key
}

// chain takes what the copy lacks of one chain. It ends with the first record
// that was forged, or does not follow the one before: what comes after cannot be
// trusted to be all. A snapshot whose data the source has lost is left out, and
// tried again by the next run.
func (c *copying) chain(ctx context.Context, ch *Chain) error {
	if err := c.compareHeld(ctx, ch); err != nil {
		return err
	}
	var last []byte // the record before, as the source or the copy has it
	var lastSeq uint64
	for _, seq := range ch.missing {
		if lastSeq != seq-1 {
			var err error
			if last, err = c.before(ctx, ch.key(seq-1)); err != nil {
				return err
			}
		}
		record, err := c.record(ctx, ch.key(seq), last)
		if err == nil {
			err = c.snapshot(ctx, ch.key(seq), record)
		}
		if stop, err := c.refused(ch.key(seq), err); stop || err != nil {
			return err
		}
		last, lastSeq = record, seq
	}
	return nil
}

// refusal marks an error over which a chain ends.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refused tells of what is wrong with a snapshot, and whether its chain ends
// there. Other errors are given back.
func (c *copying) refused(k snapshot.Key, err error) (stop bool, _ error) {
	_, stop = errors.AsType[*refusal](err)
	kind := tripod.KindOf(err)
	if !stop && (err == nil || kind != tripod.Corrupt && kind != tripod.NotFound && kind != tripod.Denied && kind != tripod.Conflict && kind != tripod.Invalid) {
		return false, err
	}
	c.problem(vault.RecordName(k), k, err)
	return stop, nil
}

// compareHeld looks at what both have of a chain: for a source that was rolled
// back, and for records that are not the same.
func (c *copying) compareHeld(ctx context.Context, ch *Chain) error {
	if ch.extras > 0 {
		what := fmt.Sprintf("snapshots %s", strings.Join(strings.Fields(fmt.Sprint(ch.extra)[1:len(fmt.Sprint(ch.extra))-1]), ", "))
		if ch.extras > len(ch.extra) {
			what = tripod.Count(ch.extras, "snapshot")
		}
		text := "the source does not show %s of machine %.8s, which the copy has: it lost them, or hides them"
		if ch.CopyHas > ch.Newest {
			text = "the source does not show %s of machine %.8s, which the copy has: it was rolled back, or hides them"
		}
		c.problem(vault.RecordName(ch.key(ch.extra[0])), ch.key(ch.extra[0]), tripod.Errorf(tripod.Corrupt, text, what, ch.Machine).
			WithHint("the copy keeps them; to give them back to the source: tripod scrub --vault SOURCE --from COPY"))
	}
	for _, seq := range ch.differ {
		if err := c.compareRecords(ctx, ch.key(seq)); err != nil {
			return err
		}
	}
	if len(ch.missing) > 0 || ch.Newest == 0 || ch.Newest != ch.CopyHas {
		return nil // chaining the next record shows it
	}
	return c.compareRecords(ctx, ch.key(ch.Newest))
}

// compareRecords tells when two copies have different records under one name.
func (c *copying) compareRecords(ctx context.Context, k snapshot.Key) error {
	name := vault.RecordName(k)
	theirs, err := c.src.Document(ctx, name)
	if err != nil && !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.NotFound) {
		return err
	}
	ours, err := c.dst.Document(ctx, name)
	if err != nil && !errors.Is(err, tripod.Corrupt) && !errors.Is(err, tripod.NotFound) {
		return err
	}
	if bytes.Equal(theirs, ours) {
		return nil
	}
	cert, err := c.certificate(ctx, k.Machine)
	if err != nil {
		_, err = c.refused(k, err)
		return err
	}
	_, theirErr := verifyRecord(theirs, k, cert)
	_, ourErr := verifyRecord(ours, k, cert)
	switch {
	case theirErr != nil && ourErr == nil:
		err = tripod.Errorf(tripod.Corrupt, "the source's record of snapshot %d of machine %.8s is not the one that the copy has: %w", k.Seq, k.Machine, theirErr).
			WithHint("the copy keeps its own; to give it back to the source: tripod scrub --vault SOURCE --from COPY")
	case ourErr != nil && theirErr == nil:
		err = tripod.Errorf(tripod.Corrupt, "the copy's record of snapshot %d of machine %.8s is damaged: %w", k.Seq, k.Machine, ourErr).
			WithHint("tripod scrub --from SOURCE heals it")
	default:
		err = tripod.Errorf(tripod.Conflict, "the source and the copy have different records of snapshot %d of machine %.8s", k.Seq, k.Machine).
			WithHint("one of them was rolled back, and the machine backed up to it again: ask who did so; the copy keeps its own")
	}
	c.problem(name, k, err)
	return nil
}

// certificate is a machine's, from the copy.
func (c *copying) certificate(ctx context.Context, m tripod.MachineID) (*snapshot.Certificate, error) {
	if cert := c.certificates[m]; cert != nil {
		return cert, nil
	}
	content, err := c.dst.Document(ctx, vault.CertificateName(m))
	if errors.Is(err, tripod.NotFound) {
		return nil, tripod.Errorf(tripod.Denied, "machine %.8s: the source has no certificate of it", m).
			WithHint("its next backup puts it back")
	}
	if err != nil {
		return nil, err
	}
	cert, err := snapshot.ParseCertificate(content, c.dst.Descriptor())
	if err == nil && cert.Machine != m {
		err = tripod.Errorf(tripod.Denied, "machine %.8s: its certificate names machine %.8s", m, cert.Machine)
	}
	if err == nil {
		c.certificates[m] = cert
	}
	return cert, err
}

// verifyRecord checks that bytes are the record of a snapshot.
func verifyRecord(content []byte, k snapshot.Key, cert *snapshot.Certificate) (*snapshot.Record, error) {
	r, err := snapshot.VerifyRecord(content, cert)
	if err == nil && r.Key != k {
		err = tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s: another record lies in its place", k.Seq, k.Machine)
	}
	return r, err
}

// before gives the record in front of the first one that the copy lacks: the
// copy's own, or nil when there is none.
func (c *copying) before(ctx context.Context, k snapshot.Key) ([]byte, error) {
	if k.Seq == 0 {
		return nil, nil
	}
	for _, s := range []vault.Source{c.dst, c.src} {
		content, err := s.Document(ctx, vault.RecordName(k))
		if err == nil {
			return content, nil
		}
		if !errors.Is(err, tripod.NotFound) && !errors.Is(err, tripod.Corrupt) {
			return nil, err
		}
	}
	return nil, nil
}

// record reads a record of the source and checks it against the one before.
func (c *copying) record(ctx context.Context, k snapshot.Key, last []byte) ([]byte, error) {
	content, err := c.src.Document(ctx, vault.RecordName(k))
	if err != nil {
		if errors.Is(err, tripod.Corrupt) || errors.Is(err, tripod.NotFound) {
			err = &refusal{err}
		}
		return nil, err
	}
	cert, err := c.certificate(ctx, k.Machine)
	if err != nil {
		return nil, &refusal{err}
	}
	r, err := verifyRecord(content, k, cert)
	if err != nil {
		return nil, &refusal{fmt.Errorf("the source's record is refused: %w", err)}
	}
	var prev *snapshot.Record
	if last != nil {
		if prev, err = snapshot.ParseRecord(last); err != nil {
			return nil, &refusal{fmt.Errorf("snapshot %d of machine %.8s: the record before it is damaged: %w", k.Seq, k.Machine, err)}
		}
	}
	if k.Seq > 1 && prev == nil {
		return nil, &refusal{tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s: the source does not show snapshot %d, which comes before it", k.Seq, k.Machine, k.Seq-1).
			WithHint("the source lost or hides it; nothing after it is taken: look into other copies")}
	}
	if err := snapshot.Chain(prev, snapshot.HashOf(last), r); err != nil {
		return nil, &refusal{err}
	}
	return content, nil
}

// snapshot pulls what a record needs.
func (c *copying) snapshot(ctx context.Context, k snapshot.Key, record []byte) error {
	c.puller.meter.at(fmt.Sprintf("snapshot %d of machine %.8s", k.Seq, k.Machine))
	gone, err := c.gone(ctx, k, record)
	if gone || err != nil {
		return err
	}
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		return err
	}
	var grants [][]byte
	var found []string
	err = c.src.Names(ctx, vault.GrantPrefix+vault.KeyPath(k)+"/", func(name string, _ int64) error {
		found = append(found, name)
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range found {
		g, err := c.src.Document(ctx, name)
		if err == nil {
			_, err = c.grant(ctx, name, k, g)
		}
		if err == nil {
			grants = append(grants, g)
			continue
		}
		if _, err := c.refused(k, err); err != nil {
			return err
		}
	}
	if err := c.puller.Pull(ctx, r.Root); err != nil {
		if errors.Is(err, tripod.NotFound) || errors.Is(err, tripod.Corrupt) {
			err = tripod.Errorf(tripod.Corrupt, "snapshot %d of machine %.8s is not whole at the source: %w", k.Seq, k.Machine, err).
				WithHint("it is tried again by the next run; to heal the source, back up again there, or: tripod scrub --vault SOURCE --from COPY")
		}
		return err
	}
	c.waiting = append(c.waiting, accepted{record, grants, k})
	if len(c.waiting) >= mostWaiting || c.puller.filled() >= mostNodes {
		return c.accept(ctx)
	}
	return nil
}

// grant checks a grant of the source, so that a bad one beside a good one does no
// harm.
func (c *copying) grant(ctx context.Context, name string, k snapshot.Key, content []byte) (*snapshot.Grant, error) {
	cert, err := c.certificate(ctx, k.Machine)
	if err != nil {
		return nil, err
	}
	g, err := snapshot.VerifyGrantOf(content, cert, c.dst.Descriptor())
	if err == nil && vault.GrantName(g.Key, g.Recipient) != name {
		err = tripod.Errorf(tripod.Corrupt, "%s: is another grant", name)
	}
	return g, err
}

// gone takes the bare record of a snapshot that the source has given up: on the
// company's order, or because it expired. An expiry is not believed while the
// record is locked.
func (c *copying) gone(ctx context.Context, k snapshot.Key, record []byte) (bool, error) {
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		return false, err
	}
	by := []string{vault.ShredName(k.Machine)}
	if !c.opts.Now.Before(r.LockUntil) {
		by = append(by, vault.OrderName(k), vault.ExpiryName(k))
	}
	for _, name := range by {
		content, err := c.src.Document(ctx, name)
		if errors.Is(err, tripod.NotFound) || errors.Is(err, tripod.Corrupt) {
			continue
		}
		if err == nil {
			err = c.session.AcceptGone(ctx, record, name, content)
		}
		if err != nil {
			return false, err
		}
		c.report.Gone++
		return true, nil
	}
	return false, nil
}

// accept puts what was pulled and makes the snapshots exist.
func (c *copying) accept(ctx context.Context) error {
	if err := c.puller.Flush(ctx); err != nil {
		return err
	}
	for _, a := range c.waiting {
		err := c.session.Accept(ctx, a.record, a.grants)
		if err == nil {
			c.report.Snapshots++
		}
		if _, err := c.refused(a.key, err); err != nil {
			return err
		}
	}
	c.waiting = c.waiting[:0]
	return nil
}
