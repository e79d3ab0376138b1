package local

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sync/errgroup"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store"
	"tripod/internal/vault"
)

const (
	documentReads = 8  // read at a time
	documentAhead = 64 // read before fn sees the first of them
)

// Documents implements vault.Reader. Objects whose names no document has are
// left out.
func (v *Vault) Documents(ctx context.Context, prefix string, fn func(name string, content []byte) error) error {
	var ahead []store.Info
	list := func(prefix string) error {
		return v.store.List(ctx, prefix, func(i store.Info) error {
			if !vault.Documented(i.Name) {
				return nil
			}
			if ahead = append(ahead, i); len(ahead) < documentAhead {
				return nil
			}
			err := v.readDocuments(ctx, ahead, fn)
			ahead = ahead[:0]
			return err
		})
	}
	// Packs may be many more than documents, so they are never listed.
	for _, kind := range []string{
		vault.ArchiveName, vault.ExpiryPrefix, vault.OrderPrefix, vault.GrantPrefix, vault.HoldPrefix, vault.SuccessionPrefix, vault.KeyringPrefix,
		vault.CertificatePrefix, vault.ManifestPrefix, vault.PolicyPrefix, vault.RecordPrefix, vault.ShredPrefix, vault.DescriptorName,
	} {
		var err error
		switch {
		case strings.HasPrefix(prefix, kind):
			err = list(prefix)
		case strings.HasPrefix(kind, prefix):
			err = list(kind)
		}
		if err != nil {
			return err
		}
	}
	return v.readDocuments(ctx, ahead, fn)
}

// readDocuments reads documents, several at a time, and hands them on in order.
func (v *Vault) readDocuments(ctx context.Context, infos []store.Info, fn func(string, []byte) error) error {
	contents := make([][]byte, len(infos))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(documentReads)
	for i, info := range infos {
		g.Go(func() error {
			content, err := readWhole(gctx, v.store, info.Name, info.Size)
			err = v.judge(gctx, info.Name, err)
			switch {
			case errors.Is(err, tripod.NotFound):
				return nil // deleted since the list
			case errors.Is(err, tripod.Corrupt):
				contents[i] = []byte{} // one bad place keeps nobody from the rest
				return nil
			}
			contents[i] = content
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, info := range infos {
		if contents[i] == nil {
			continue
		}
		if err := fn(info.Name, contents[i]); err != nil {
			return err
		}
	}
	return nil
}

// Head gives the newest record of a machine's source as encoded, and the number
// that its name says: 0 when there is none. Of a record that cannot be read the
// content is empty.
func (v *Vault) Head(ctx context.Context, machine tripod.MachineID, source tripod.SourceID) (seq uint64, encoded []byte, err error) {
	var last store.Info
	err = v.store.List(ctx, vault.ChainPrefix(machine, source), func(i store.Info) error {
		if vault.Documented(i.Name) {
			last = i
		}
		return nil
	})
	if err != nil || last.Name == "" {
		return 0, nil, err
	}
	k, ok := vault.ParseKeyPath(strings.TrimPrefix(last.Name, vault.RecordPrefix))
	if !ok {
		return 0, nil, tripod.Errorf(tripod.Corrupt, "%s: names no snapshot", last.Name)
	}
	encoded, err = readWhole(ctx, v.store, last.Name, last.Size)
	if err = v.judge(ctx, last.Name, err); errors.Is(err, tripod.Corrupt) {
		return k.Seq, nil, nil
	}
	return k.Seq, encoded, err
}

// certificate reads a machine's certificate and checks that the company
// endorsed it.
func (v *Vault) certificate(ctx context.Context, m tripod.MachineID) (*snapshot.Certificate, error) {
	raw, err := readWhole(ctx, v.store, vault.CertificateName(m), -1)
	if errors.Is(err, tripod.NotFound) {
		return nil, tripod.Errorf(tripod.Denied, "machine %.8s: has no certificate in this vault", m).
			WithHint("enrol the machine first")
	}
	if err != nil {
		return nil, err
	}
	c, err := snapshot.ParseCertificate(raw, v.Descriptor())
	if err == nil && c.Machine != m {
		err = tripod.Errorf(tripod.Denied, "machine %.8s: its certificate names machine %.8s", m, c.Machine)
	}
	return c, err
}
