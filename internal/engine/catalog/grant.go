package catalog

import (
	"context"

	"tripod/internal/core/seal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/keyring"
	"tripod/internal/vault"
)

// Grant makes the grant that opens a snapshot's root for the company.
func Grant(keys *seal.MachineKeys, key snapshot.Key, root *seal.Ref) ([]byte, error) {
	c := seal.GrantContext{Company: keys.Company.ID, Machine: key.Machine, Source: key.Source, Seq: key.Seq, Root: root.ID()}
	sealed, err := seal.SealGrant(keys.Company.Box, &c, root)
	if err != nil {
		return nil, err
	}
	g := snapshot.Grant{Company: keys.Company.ID, Key: key, Recipient: snapshot.HashOf(keys.Company.Box), Sealed: sealed}
	return g.Encode(keys.Sign), nil
}

// Grants is where grants lie.
type Grants interface {
	keyring.Documents
	vault.Admin
}

// Regrant looks whether the company's grant of the snapshot with this encoded
// record is still there: without it nobody opens the snapshot. A lost one is made
// again from the one of the roots that is the snapshot's, and told by an error in
// any case. A forgotten or expired snapshot needs none.
func Regrant(ctx context.Context, g Grants, keys *seal.MachineKeys, record []byte, roots ...*seal.Ref) error {
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		return err
	}
	name := vault.GrantName(r.Key, snapshot.HashOf(keys.Company.Box))
	for _, name := range []string{name, vault.OrderName(r.Key), vault.ExpiryName(r.Key)} {
		there := false
		err := g.Documents(ctx, name, func(string, []byte) error { there = true; return nil })
		if there || err != nil {
			return err
		}
	}
	hash := snapshot.HashOf(record)
	for _, root := range roots {
		if root.ID() != r.Root {
			continue
		}
		made, err := Grant(keys, r.Key, root)
		if err == nil {
			err = g.PutDocument(ctx, name, made)
		}
		if err != nil {
			return err
		}
		return tripod.Errorf(tripod.NotFound, "snapshot %x: the vault had lost its grant, which was made again", hash[:4]).
			WithHint("find out what else is lost: tripod verify")
	}
	return tripod.Errorf(tripod.NotFound, "snapshot %x: the vault has lost its grant, so nobody can open it", hash[:4]).
		WithHint("another copy of the vault may have it: %s", name)
}
