package snapshot

import (
	"time"

	"golang.org/x/crypto/cryptobyte"

	"tripod/internal/core/tripod"
)

const (
	archiveTag  = "tripod 1 archive\n"
	manifestTag = "tripod 1 manifest\n"
)

// MostSegments is how many segments a manifest can name.
const MostSegments = (MaxDocument - 1<<10) / len(tripod.PackID{})

// Archive says of a copy of a vault that it is an archive: what is in it is only
// ever added to.
type Archive struct {
	Company tripod.CompanyID
	Vault   [16]byte
	Created time.Time
}

// Encode encodes the document.
func (a *Archive) Encode() []byte {
	b := cryptobyte.NewBuilder([]byte(archiveTag))
	b.AddUint8(Version)
	b.AddBytes(a.Company[:])
	b.AddBytes(a.Vault[:])
	addTime(b, a.Created)
	return sum(b)
}

// ParseArchive decodes what Encode made.
func ParseArchive(encoded []byte, d *Descriptor) (*Archive, error) {
	s, err := openSum(encoded, archiveTag, "archive")
	if err != nil {
		return nil, err
	}
	a := new(Archive)
	if !s.CopyBytes(a.Company[:]) || !s.CopyBytes(a.Vault[:]) || !readTime(&s, &a.Created) || !s.Empty() {
		return nil, tripod.Errorf(tripod.Corrupt, "archive: malformed")
	}
	if a.Company != d.Company || a.Vault != d.Vault {
		return nil, tripod.Errorf(tripod.Denied, "archive: is of another vault")
	}
	return a, nil
}

// Manifest tells which segments of an archive a snapshot needs. Whoever keeps the
// archive writes it without a key.
type Manifest struct {
	Company  tripod.CompanyID
	Key      Key
	Record   Hash      // of the record it is about
	Time     time.Time // when it was made
	Until    time.Time // all of them, and the documents, are locked as long; zero for no lock
	Segments []tripod.PackID
}

// Encode encodes a manifest of at most MostSegments.
func (m *Manifest) Encode() []byte {
	b := cryptobyte.NewBuilder([]byte(manifestTag))
	b.AddUint8(Version)
	b.AddBytes(m.Company[:])
	m.Key.add(b)
	b.AddBytes(m.Record[:])
	addTime(b, m.Time)
	addTime(b, m.Until)
	b.AddUint32(uint32(len(m.Segments)))
	for i := range m.Segments {
		b.AddBytes(m.Segments[i][:])
	}
	return sum(b)
}

// ParseManifest decodes what Encode made.
func ParseManifest(encoded []byte, d *Descriptor) (*Manifest, error) {
	s, err := openSum(encoded, manifestTag, "manifest")
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	var n uint32
	ok := s.CopyBytes(m.Company[:]) && m.Key.read(&s) && s.CopyBytes(m.Record[:]) && readTime(&s, &m.Time) && readTime(&s, &m.Until) && s.ReadUint32(&n)
	if !ok || m.Key.Seq == 0 || int64(len(s)) != int64(n)*int64(len(tripod.PackID{})) {
		return nil, tripod.Errorf(tripod.Corrupt, "manifest: malformed")
	}
	m.Segments = make([]tripod.PackID, n)
	for i := range m.Segments {
		s.CopyBytes(m.Segments[i][:])
	}
	if m.Company != d.Company {
		return nil, tripod.Errorf(tripod.Denied, "manifest: belongs to another company")
	}
	return m, nil
}
