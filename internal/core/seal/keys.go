package seal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"

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
	box, err := kem().GenerateKey()
	if err != nil {
		return nil, tripod.Errorf(tripod.Internal, "company key: %w", err)
	}
	private, err := box.Bytes()
	if err != nil {
		return nil, tripod.Errorf(tripod.Internal, "company key: %w", err)
	}
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, tripod.Errorf(tripod.Internal, "company key: %w", err)
	}
	k := &CompanyKeys{Box: private, Sign: sign, Domain: randomSecret()}
	fill(k.ID[:])
	return k, nil
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

func (k *CompanyKeys) marshal() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddBytes([]byte(companyTag))
	b.AddBytes(k.ID[:])
	addBytes(b, k.Box)
	b.AddBytes(k.Sign.Seed())
	b.AddBytes(k.Domain[:])
	return b.BytesOrPanic()
}

func unmarshalCompany(p []byte) (*CompanyKeys, error) {
	s := cryptobyte.String(p)
	k := new(CompanyKeys)
	seed := make([]byte, ed25519.SeedSize)
	if !readTag(&s, companyTag) || !s.CopyBytes(k.ID[:]) || !readBytes(&s, &k.Box) ||
		!s.CopyBytes(seed) || !s.CopyBytes(k.Domain[:]) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "company keys: malformed")
	}
	k.Sign = ed25519.NewKeyFromSeed(seed)
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
