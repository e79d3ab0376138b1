package seal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

// CompanyPublic is what everyone may know of a company: who it is, the key
// that grants are sealed to, and the key that endorses its machines. Every
// machine pins it.
type CompanyPublic struct {
	ID   tripod.CompanyID
	Box  []byte            // HPKE public key, ML-KEM-768 + X25519
	Sign ed25519.PublicKey // 32 bytes
}

// CompanyKeys is the private half, and the secret its data is named under.
// It lies in the keyring and nowhere else.
type CompanyKeys struct {
	ID     tripod.CompanyID
	Box    []byte // HPKE private key
	Sign   ed25519.PrivateKey
	Domain Secret // the de-duplication secret D
	// Others are key pairs that are not in force: while the company's key is being
	// replaced, the one before or the one to come.
	Others []KeyPair
}

// KeyPair is the part of a company's keys that is replaced from time to time.
type KeyPair struct {
	Box  []byte // HPKE private key
	Sign ed25519.PrivateKey
}

// Renew puts a fresh pair in force. The one before stays with the others.
func (k *CompanyKeys) Renew() error {
	fresh, err := newPair()
	if err != nil {
		return err
	}
	k.Others = append([]KeyPair{{k.Box, k.Sign}}, k.Others...)
	k.Box, k.Sign = fresh.Box, fresh.Sign
	return nil
}

// Use puts the pair with this public signing key in force, and reports whether
// there is one.
func (k *CompanyKeys) Use(sign ed25519.PublicKey) bool {
	if sign.Equal(k.Sign.Public()) {
		return true
	}
	for i, p := range k.Others {
		if sign.Equal(p.Sign.Public()) {
			k.Others = slices.Clone(k.Others)
			k.Others[i] = KeyPair{k.Box, k.Sign}
			k.Box, k.Sign = p.Box, p.Sign
			return true
		}
	}
	return false
}

// MachineKeys is what one machine needs to write. It cannot read with them.
type MachineKeys struct {
	Company     CompanyPublic
	Domain      Secret
	Node        Secret           // names and keys of this machine's nodes
	Machine     tripod.MachineID // follows from Sign
	Incarnation uint64           // a cloned or restored machine takes a new one
	Sign        ed25519.PrivateKey
}

func kem() hpke.KEM { return hpke.MLKEM768X25519() }

// NewCompany makes a company's keys from fresh randomness.
func NewCompany() (*CompanyKeys, error) {
	pair, err := newPair()
	if err != nil {
		return nil, err
	}
	k := &CompanyKeys{Box: pair.Box, Sign: pair.Sign, Domain: randomSecret()}
	fill(k.ID[:])
	return k, nil
}

func newPair() (p KeyPair, err error) {
	box, err := kem().GenerateKey()
	if err == nil {
		p.Box, err = box.Bytes()
	}
	if err == nil {
		_, p.Sign, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return p, tripod.Errorf(tripod.Internal, "company key: %w", err)
	}
	return p, nil
}

// Public gives the half that everyone may know.
func (k *CompanyKeys) Public() (CompanyPublic, error) {
	box, err := kem().NewPrivateKey(k.Box)
	if err != nil {
		return CompanyPublic{}, tripod.Errorf(tripod.Corrupt, "company key: %w", err)
	}
	public, ok := k.Sign.Public().(ed25519.PublicKey)
	if !ok {
		return CompanyPublic{}, tripod.Errorf(tripod.Corrupt, "company signing key: not Ed25519")
	}
	return CompanyPublic{ID: k.ID, Box: box.PublicKey().Bytes(), Sign: public}, nil
}

// NewMachine makes the keys of one more machine of the company. The company
// must endorse them before anyone accepts what the machine signs.
func (k *CompanyKeys) NewMachine() (*MachineKeys, error) {
	public, err := k.Public()
	if err != nil {
		return nil, err
	}
	verify, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, tripod.Errorf(tripod.Internal, "machine key: %w", err)
	}
	return &MachineKeys{
		Company: public, Domain: k.Domain, Node: randomSecret(), Machine: frame.MachineIDOf(verify), Incarnation: 1, Sign: sign,
	}, nil
}

// NewSigner makes an Ed25519 key pair from fresh randomness.
func NewSigner() (ed25519.PublicKey, ed25519.PrivateKey, error) {
	return ed25519.GenerateKey(rand.Reader)
}

// Sealer makes a sealer for this machine's blobs.
func (m *MachineKeys) Sealer(level Level) *Sealer {
	return NewSealer(m.Company.ID, m.Domain, m.Node, level)
}

// SourceID names a source of this machine by what describes it.
func (m *MachineKeys) SourceID(description string) (id tripod.SourceID) {
	h := keyed(derive("tripod 1 source", m.Node))
	_, _ = h.WriteString(description)
	copy(id[:], h.Sum(nil))
	return id
}

// ChunkKey keys content-defined chunking, the same on all the company's machines.
func (m *MachineKeys) ChunkKey() Secret { return derive("tripod 1 chunk", m.Domain) }

// BundleKey keys where bundles of small files are cut, the same on all the
// company's machines.
func (m *MachineKeys) BundleKey() Secret { return derive("tripod 1 bundle", m.Domain) }

// TreeKey keys where this machine's file trees are cut.
func (m *MachineKeys) TreeKey() Secret { return derive("tripod 1 tree", m.Node) }

// CacheKey keys the hashes in this machine's local cache.
func (m *MachineKeys) CacheKey() Secret { return derive("tripod 1 cache", m.Node) }

func randomSecret() (s Secret) {
	fill(s[:])
	return s
}

// fill never fails: crypto/rand ends the program where it cannot serve.
func fill(b []byte) { _, _ = rand.Read(b) }

const (
	companyTag = "tripod 1 company keys"
	machineTag = "tripod 1 machine keys"
)

func addBytes(b *cryptobyte.Builder, p []byte) {
	b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(p) })
}

func readBytes(s *cryptobyte.String, out *[]byte) bool {
	var v cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&v) {
		return false
	}
	*out = append([]byte(nil), v...)
	return true
}

// maxPairs is how many key pairs a keyring holds at most.
const maxPairs = 16

func (k *CompanyKeys) marshal() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddBytes([]byte(companyTag))
	b.AddBytes(k.ID[:])
	b.AddBytes(k.Domain[:])
	pairs := append([]KeyPair{{k.Box, k.Sign}}, k.Others...)
	b.AddUint8(uint8(len(pairs)))
	for _, p := range pairs {
		addBytes(b, p.Box)
		b.AddBytes(p.Sign.Seed())
	}
	return b.BytesOrPanic()
}

func unmarshalCompany(p []byte) (*CompanyKeys, error) {
	malformed := tripod.Errorf(tripod.Corrupt, "company keys: malformed")
	s := cryptobyte.String(p)
	k := new(CompanyKeys)
	var n uint8
	if !readTag(&s, companyTag) || !s.CopyBytes(k.ID[:]) || !s.CopyBytes(k.Domain[:]) || !s.ReadUint8(&n) || n == 0 || n > maxPairs {
		return nil, malformed
	}
	for i := range n {
		var pair KeyPair
		seed := make([]byte, ed25519.SeedSize)
		if !readBytes(&s, &pair.Box) || !s.CopyBytes(seed) {
			return nil, malformed
		}
		pair.Sign = ed25519.NewKeyFromSeed(seed)
		if i == 0 {
			k.Box, k.Sign = pair.Box, pair.Sign
			continue
		}
		k.Others = append(k.Others, pair)
	}
	if !s.Empty() {
		return nil, malformed
	}
	return k, nil
}

// Marshal encodes the keys for the machine's own configuration.
func (m *MachineKeys) Marshal() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddBytes([]byte(machineTag))
	b.AddBytes(m.Company.ID[:])
	addBytes(b, m.Company.Box)
	b.AddBytes(m.Company.Sign)
	b.AddBytes(m.Domain[:])
	b.AddBytes(m.Node[:])
	b.AddUint64(m.Incarnation)
	b.AddBytes(m.Sign.Seed())
	return b.BytesOrPanic()
}

// UnmarshalMachine decodes what Marshal gave.
func UnmarshalMachine(p []byte) (*MachineKeys, error) {
	s := cryptobyte.String(p)
	m := new(MachineKeys)
	sign, seed := make([]byte, ed25519.PublicKeySize), make([]byte, ed25519.SeedSize)
	if !readTag(&s, machineTag) || !s.CopyBytes(m.Company.ID[:]) || !readBytes(&s, &m.Company.Box) ||
		!s.CopyBytes(sign) || !s.CopyBytes(m.Domain[:]) || !s.CopyBytes(m.Node[:]) ||
		!s.ReadUint64(&m.Incarnation) || !s.CopyBytes(seed) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "machine keys: malformed")
	}
	m.Company.Sign, m.Sign = sign, ed25519.NewKeyFromSeed(seed)
	m.Machine = frame.MachineIDOf(ed25519.PublicKey(m.Sign[ed25519.SeedSize:]))
	return m, nil
}

func readTag(s *cryptobyte.String, tag string) bool {
	var got []byte
	return s.ReadBytes(&got, len(tag)) && string(got) == tag
}
