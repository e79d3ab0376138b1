// Package vaulttest is the conformance suite of the vault contract, and a maker
// of what vaults hold: frames that look sealed, signed documents. The frames are
// noise under a right head and a right sum, which is all that a vault can see.
package vaulttest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// World is a company and what it puts into its vault. All of it follows from a
// seed.
type World struct {
	Descriptor *snapshot.Descriptor
	Encoded    []byte // of the descriptor
	Keyring    []byte

	company    ed25519.PrivateKey
	inviter    ed25519.PrivateKey
	invitation []byte
	seed       uint64
}

// Blob is a blob as a vault sees it.
type Blob struct {
	ID    tripod.ID
	Sum   tripod.Sum
	Kind  tripod.BlobKind
	Refs  []tripod.ID
	Frame []byte
}

// Machine is a machine of the company.
type Machine struct {
	ID          tripod.MachineID
	Certificate []byte

	world *World
	key   ed25519.PrivateKey
}

// NewWorld makes a company.
func NewWorld(seed uint64) *World {
	w := &World{seed: seed, Keyring: []byte("a sealed keyring")}
	w.company, w.inviter = w.key("company"), w.key("inviter")
	w.Descriptor = &snapshot.Descriptor{
		Company: tripod.CompanyID(w.bytes(16, "company id")), Vault: [16]byte(w.bytes(16, "vault id")),
		Box: w.bytes(64, "box"), Sign: public(w.company), Created: time.Unix(1_700_000_000, 0).UTC(),
	}
	w.Encoded = w.Descriptor.Encode(w.company)
	invitation := snapshot.Invitation{Company: w.Descriptor.Company, Key: public(w.inviter)}
	w.invitation = invitation.Encode(w.company)
	return w
}

func public(k ed25519.PrivateKey) ed25519.PublicKey {
	return k.Public().(ed25519.PublicKey) //nolint:forcetypeassert // that is what it returns
}

// bytes gives n bytes that follow from the seed and a label.
func (w *World) bytes(n int, label string, numbers ...int) []byte {
	h := blake3.New()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], w.seed)
	_, _ = h.Write(b[:])
	for _, n := range numbers {
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		_, _ = h.Write(b[:])
	}
	_, _ = h.WriteString(label)
	out := make([]byte, n)
	if n <= 64 {
		_, _ = h.Digest().Read(out)
		return out
	}
	_, _ = rand.NewChaCha8([32]byte(h.Sum(nil))).Read(out)
	return out
}

func (w *World) key(label string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(w.bytes(ed25519.SeedSize, label))
}

// Machine makes the nth machine, with its certificate.
func (w *World) Machine(n int) *Machine {
	m := &Machine{key: ed25519.NewKeyFromSeed(w.bytes(ed25519.SeedSize, "machine key", n)), world: w}
	m.ID = frame.MachineIDOf(public(m.key))
	c := snapshot.Certificate{
		Company: w.Descriptor.Company, Machine: m.ID, Key: public(m.key),
		Enrolled: time.Unix(1_700_000_100, 0).UTC(), Invitation: w.invitation,
	}
	m.Certificate = c.Encode(w.inviter)
	return m
}

// Data makes the nth data blob, with a body of size bytes.
func (w *World) Data(n, size int) Blob {
	return w.blob(tripod.Data, tripod.ID(w.bytes(32, "data", n, size)), nil, w.bytes(max(size, frame.TagLen), "body", n))
}

// Node makes a node blob that needs others.
func (w *World) Node(kind tripod.BlobKind, children ...Blob) Blob {
	var refs []tripod.ID
	h := blake3.New()
	_, _ = h.Write([]byte{byte(kind)})
	for _, c := range children {
		refs = append(refs, c.ID)
	}
	slices.SortFunc(refs, func(a, b tripod.ID) int { return bytes.Compare(a[:], b[:]) })
	refs = slices.Compact(refs)
	for i := range refs {
		_, _ = h.Write(refs[i][:])
	}
	id := tripod.ID(h.Sum(nil))
	return w.blob(kind, id, refs, w.bytes(100+int(id[0]), "node", int(binary.LittleEndian.Uint32(id[:]))))
}

// Variant makes another frame of the same blob.
func (w *World) Variant(b Blob, n int) Blob {
	return w.blob(b.Kind, b.ID, b.Refs, w.bytes(80, "variant", n))
}

func (w *World) blob(kind tripod.BlobKind, id tripod.ID, refs []tripod.ID, body []byte) Blob {
	h := frame.Head{Suite: frame.Suite1, Kind: kind, Company: w.Descriptor.Company, BodyLen: len(body), ID: id, Refs: refs}
	b := Blob{ID: id, Kind: kind, Refs: refs, Frame: frame.Append(nil, &h, make([]byte, frame.NonceLen), body)}
	f, _, err := frame.Parse(b.Frame)
	if err != nil {
		panic(err) // a mistake in the test
	}
	b.Sum = f.Sum
	return b
}

// Frames gives the frames of blobs, for Put.
func Frames(blobs ...Blob) [][]byte {
	var all [][]byte
	for _, b := range blobs {
		all = append(all, b.Frame)
	}
	return all
}

// IDs gives the ids of blobs.
func IDs(blobs ...Blob) []tripod.ID {
	var all []tripod.ID
	for _, b := range blobs {
		all = append(all, b.ID)
	}
	return all
}

// Source names the nth source of any machine.
func (w *World) Source(n int) tripod.SourceID { return tripod.SourceID(w.bytes(16, "source", n)) }

// Record makes a record of a file tree that follows the encoded one prev, which
// is nil for the first. change may be nil.
func (m *Machine) Record(source tripod.SourceID, prev []byte, root tripod.ID, change func(*snapshot.Record)) []byte {
	r := &snapshot.Record{
		Company: m.world.Descriptor.Company, Key: snapshot.Key{Machine: m.ID, Source: source, Seq: 1},
		Incarnation: 1, Type: tripod.Files, Root: root, Time: time.Unix(1_700_001_000, 0).UTC(),
	}
	if prev != nil {
		last, err := snapshot.ParseRecord(prev)
		if err != nil {
			panic(err) // a mistake in the test
		}
		r.Key.Seq, r.Prev = last.Key.Seq+1, snapshot.HashOf(prev)
	}
	if change != nil {
		change(r)
	}
	return r.Sign(m.key)
}

// Grant makes the grant of a record's root to a recipient's public key.
func (m *Machine) Grant(record, recipient []byte, n int) []byte {
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		panic(err) // a mistake in the test
	}
	g := snapshot.Grant{Company: r.Company, Key: r.Key, Recipient: snapshot.HashOf(recipient), Sealed: m.world.bytes(120, "grant", n)}
	return g.Encode(m.key)
}

// Grants makes what Commit wants beside the record.
func (m *Machine) Grants(record []byte) [][]byte {
	return [][]byte{m.Grant(record, m.world.Descriptor.Box, 0)}
}

// Forget makes the order to forget a snapshot, and the document's name.
func (w *World) Forget(record []byte) (name string, order []byte) {
	r, err := snapshot.ParseRecord(record)
	if err != nil {
		panic(err) // a mistake in the test
	}
	o := snapshot.Order{Company: r.Company, Key: r.Key, Record: snapshot.HashOf(record), Time: time.Unix(1_700_002_000, 0).UTC()}
	return vault.OrderName(r.Key), o.Encode(w.company)
}

// Policy signs a policy of the company.
func (w *World) Policy(p snapshot.Policy) []byte {
	p.Company = w.Descriptor.Company
	return p.Encode(w.company)
}

// Shred makes the order to shred a machine.
func (w *World) Shred(m tripod.MachineID) []byte {
	o := snapshot.Shred{Company: w.Descriptor.Company, Machine: m}
	return o.Encode(w.company)
}

// Forge makes a frame that bears a blob's id and sum and has other refs.
func (w *World) Forge(b Blob, refs []tripod.ID) []byte {
	f, _, err := frame.Parse(b.Frame)
	if err != nil {
		panic(err) // a mistake in the test
	}
	h := f.Head
	h.Refs = refs
	forged := frame.AppendHead(nil, &h)
	forged = append(forged, f.Nonce...)
	forged = append(forged, f.Sum[:]...)
	return append(forged, f.Body...)
}

// ClassOf gives the class of the packs that blobs go to.
func ClassOf(blobs []Blob) frame.Class { return frame.ClassOf(blobs[0].Kind) }
