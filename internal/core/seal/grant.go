package seal

import (
	"crypto/hpke"

	"tripod/internal/core/tripod"
)

// GrantContext binds a grant to the one snapshot it opens.
type GrantContext struct {
	Company tripod.CompanyID
	Machine tripod.MachineID
	Source  tripod.SourceID
	Seq     uint64
	Root    tripod.ID
}

func (c *GrantContext) info() []byte {
	b := []byte("tripod 1 grant\n")
	b = append(b, c.Company[:]...)
	b = append(b, c.Machine[:]...)
	b = append(b, c.Source[:]...)
	for i := range 8 {
		b = append(b, byte(c.Seq>>(8*i)))
	}
	return append(b, c.Root[:]...)
}

// SealGrant seals a root's capability to a recipient's HPKE public key
// (RFC 9180; KEM ML-KEM-768 + X25519, HKDF-SHA256, AES-256-GCM).
func SealGrant(recipient []byte, c *GrantContext, root *Ref) ([]byte, error) {
	pk, err := kem().NewPublicKey(recipient)
	if err != nil {
		return nil, tripod.Errorf(tripod.Corrupt, "grant: recipient's key: %w", err)
	}
	sealed, err := hpke.Seal(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), c.info(), AppendRef(nil, root))
	if err != nil {
		return nil, tripod.Errorf(tripod.Internal, "grant: %w", err)
	}
	return sealed, nil
}

// OpenGrant opens a grant with the recipient's private key. It returns
// Corrupt when the grant is not for this key and this snapshot.
func OpenGrant(private []byte, c *GrantContext, sealed []byte) (Ref, error) {
	sk, err := kem().NewPrivateKey(private)
	if err != nil {
		return Ref{}, tripod.Errorf(tripod.Corrupt, "grant: own key: %w", err)
	}
	plain, err := hpke.Open(sk, hpke.HKDFSHA256(), hpke.AES256GCM(), c.info(), sealed)
	if err != nil || len(plain) != RefLen {
		return Ref{}, tripod.Errorf(tripod.Corrupt, "grant: does not open for this key and snapshot")
	}
	root := RefFrom(plain)
	if root.ID() != c.Root {
		return Ref{}, tripod.Errorf(tripod.Corrupt, "grant: opens another root than the record names")
	}
	return root, nil
}

// SealLabel seals a snapshot's label so that whoever can open the snapshot
// can read it. It draws a random nonce.
func SealLabel(root *Ref, label []byte) []byte {
	id := root.ID()
	return sealWith(derive("tripod 1 label", root.H), id[:], label)
}

// OpenLabel opens what SealLabel gave.
func OpenLabel(root *Ref, sealed []byte) ([]byte, error) {
	id := root.ID()
	plain, ok := openWith(derive("tripod 1 label", root.H), id[:], sealed)
	if !ok {
		return nil, tripod.Errorf(tripod.Corrupt, "snapshot label: does not decrypt")
	}
	return plain, nil
}
