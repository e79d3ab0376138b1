package reader

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"tripod/internal/core/frame"
	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// The test vectors of spec/vectors, checked against the product's code and
// against this reader. "go test ./test/reader/... -update" writes them anew.
var update = flag.Bool("update", false, "write spec/vectors anew")

// hx is bytes that are hex in a vector file.
type hx []byte

func (h hx) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hx) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// golden compares what the code makes now with a vector file.
func golden(t *testing.T, name string, fresh any) {
	t.Helper()
	path := filepath.Join("../../../spec/vectors", name)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(fresh); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("%s: the code makes something else now; a format that vaults are written in must not change", name)
	}
}

// frozen reads a vector file whose making is random; make is called when
// there is none yet.
func frozen[T any](t *testing.T, name string, fresh func() T) (v T) {
	t.Helper()
	path := filepath.Join("../../../spec/vectors", name)
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && *update {
		golden(t, name, fresh())
		raw, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// xof is n bytes that others can make too: BLAKE3's extended output over a name.
func xof(name string, n int) []byte {
	h := blake3.New()
	_, _ = h.WriteString(name)
	out := make([]byte, n)
	_, _ = h.Digest().Read(out)
	return out
}

// counting is 32 bytes that count from first.
func counting(first byte) (s [32]byte) {
	for i := range s {
		s[i] = first + byte(i)
	}
	return s
}

const vectorDomain, vectorNode, vectorCompany = 0x20, 0x40, 0x00

func vectorID(first byte) (id [16]byte) {
	full := counting(first)
	copy(id[:], full[:])
	return id
}

func newSealer() *seal.Sealer {
	return seal.NewSealer(vectorID(vectorCompany), counting(vectorDomain), counting(vectorNode), seal.Fast)
}

// testVault is a vault without a directory, to open frames with.
func testVault(t testing.TB) *Vault {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain))
	if err != nil {
		t.Fatal(err)
	}
	return &Vault{company: &company{id: vectorID(vectorCompany)}, decoder: dec, index: map[[32]byte][]place{}}
}

type blobVector struct {
	Name  string `json:"name"`
	Kind  byte   `json:"kind"`
	Refs  []hx   `json:"refs"`
	Plain hx     `json:"plain,omitempty"`
	U     hx     `json:"u"`
	H     hx     `json:"h"`
	ID    hx     `json:"id,omitempty"`
	Key   hx     `json:"key,omitempty"`
	Nonce hx     `json:"nonce,omitempty"`
	Frame hx     `json:"frame"`
	Times int    `json:"plain_times,omitempty"` // how often Plain is repeated
}

type blobVectors struct {
	Note    string       `json:"note"`
	Company hx           `json:"company"`
	Domain  hx           `json:"domain,omitempty"`
	Node    hx           `json:"node,omitempty"`
	Blobs   []blobVector `json:"blobs"`
}

// sealVector seals content that does not compress.
func sealVector(s *seal.Sealer, name string, kind tripod.BlobKind, refs []tripod.ID, plain []byte) blobVector {
	r := s.Ref(kind, refs, plain)
	id, key := r.ID(), seal.Derive("tripod 1 key", r.H)
	encoded := s.Seal(nil, kind, &r, refs, plain)
	f, _, err := frame.Parse(encoded)
	if err != nil {
		panic(err)
	}
	v := blobVector{
		Name: name, Kind: byte(kind), Refs: []hx{}, Plain: plain, U: r.U[:], H: r.H[:], ID: id[:], Key: key[:],
		Nonce: f.Nonce, Frame: encoded,
	}
	for i := range refs {
		v.Refs = append(v.Refs, refs[i][:])
	}
	return v
}

func blobs() blobVectors {
	company, domain, node := vectorID(vectorCompany), counting(vectorDomain), counting(vectorNode)
	s := newSealer()
	refs := []tripod.ID{counting(0x80), counting(0x90)}
	return blobVectors{
		Note:    "content of a blob to its frame; all is stored, so that no compressor's version matters",
		Company: company[:], Domain: domain[:], Node: node[:],
		Blobs: []blobVector{
			sealVector(s, "data, empty", tripod.Data, nil, nil),
			sealVector(s, "data, one byte", tripod.Data, nil, []byte{0x61}),
			sealVector(s, "data, 300 bytes", tripod.Data, nil, xof("data", 300)),
			sealVector(s, "tree with two refs", tripod.Tree, refs, xof("tree", 40)),
			sealVector(s, "tree without refs", tripod.Tree, nil, xof("tree", 40)),
			sealVector(s, "list with one ref", tripod.List, refs[:1], xof("list", 40)),
			sealVector(s, "disk with two refs", tripod.Disk, refs, xof("disk", 40)),
		},
	}
}

func TestVectorsOfBlobs(t *testing.T) {
	fresh := blobs()
	golden(t, "blob.json", fresh)
	v := testVault(t)
	for _, b := range fresh.Blobs {
		r := ref{h: fixed32(b.H), u: fixed32(b.U)}
		plain, refs, err := v.open(b.Kind, &r, b.Frame)
		if err != nil || !bytes.Equal(plain, b.Plain) || len(refs) != len(b.Refs) {
			t.Errorf("%s: %v", b.Name, err)
		}
		if id := r.id(); !bytes.Equal(id[:], b.ID) {
			t.Errorf("%s: another id", b.Name)
		}
	}
}

func TestVectorsOfCompressedBlobs(t *testing.T) {
	const text = "Tripod stands on three legs. "
	vectors := frozen(t, "zstd.json", func() blobVectors {
		company := vectorID(vectorCompany)
		out := blobVectors{Note: "frames to open, not to make: compressors differ", Company: company[:]}
		for name, level := range map[string]seal.Level{"fast": seal.Fast, "small": seal.Small} {
			s := seal.NewSealer(company, counting(vectorDomain), counting(vectorNode), level)
			b := sealVector(s, name, tripod.Data, nil, bytes.Repeat([]byte(text), 400))
			b.Plain, b.Times, b.Key, b.Nonce, b.ID = hx(text), 400, nil, nil, nil
			out.Blobs = append(out.Blobs, b)
		}
		return out
	})
	v := testVault(t)
	for _, b := range vectors.Blobs {
		want := bytes.Repeat(b.Plain, b.Times)
		r := ref{h: fixed32(b.H), u: fixed32(b.U)}
		plain, _, err := v.open(b.Kind, &r, b.Frame)
		if err != nil || !bytes.Equal(plain, want) {
			t.Errorf("%s: the reader: %v", b.Name, err)
		}
		sr := seal.Ref{H: fixed32(b.H), U: fixed32(b.U)}
		plain, _, err = seal.NewOpener().Open(nil, tripod.CompanyID(vectors.Company), tripod.BlobKind(b.Kind), &sr, b.Frame)
		if err != nil || !bytes.Equal(plain, want) {
			t.Errorf("%s: the product: %v", b.Name, err)
		}
	}
}

type refusedVector struct {
	Name  string `json:"name"`
	Kind  byte   `json:"kind"`
	H     hx     `json:"h"`
	U     hx     `json:"u"`
	Frame hx     `json:"frame"`
}

// refused is frames that a reader must not accept for the ref beside them.
func refused() (out []refusedVector) {
	good := blobs().Blobs[3]
	add := func(name string, change func(v *refusedVector, b []byte)) {
		v := refusedVector{Name: name, Kind: good.Kind, H: bytes.Clone(good.H), U: bytes.Clone(good.U), Frame: bytes.Clone(good.Frame)}
		change(&v, v.Frame)
		out = append(out, v)
	}
	resum := func(b []byte) {
		f, _, err := frame.Parse(b)
		if err != nil {
			panic(err)
		}
		sum := frame.SumOf(f.RawHead, f.Nonce, f.Body)
		copy(b[f.Len()+frame.NonceLen:], sum[:])
	}
	add("another magic", func(_ *refusedVector, b []byte) { b[3] = '2' })
	add("a newer version", func(_ *refusedVector, b []byte) { b[4] = 2 })
	add("another suite", func(_ *refusedVector, b []byte) { b[5] = 2 })
	add("an unknown kind", func(v *refusedVector, b []byte) { b[6], v.Kind = 5, 5 })
	add("an unknown flag", func(_ *refusedVector, b []byte) { b[7] = 1 })
	add("another kind", func(v *refusedVector, _ []byte) { v.Kind = byte(tripod.List) })
	add("another company", func(_ *refusedVector, b []byte) { b[8] ^= 1; resum(b) })
	add("another ref", func(v *refusedVector, _ []byte) { v.H[0] ^= 1 })
	add("another content under the same id", func(v *refusedVector, _ []byte) { v.U[0] ^= 1 })
	add("refs not ascending", func(_ *refusedVector, b []byte) {
		a := bytes.Clone(b[64:96])
		copy(b[64:], b[96:128])
		copy(b[96:], a)
	})
	add("a ref replaced", func(_ *refusedVector, b []byte) { b[95] ^= 1; resum(b) })
	add("body shorter than a tag", func(_ *refusedVector, b []byte) { binary.LittleEndian.PutUint32(b[24:], 15) })
	add("body longer than allowed", func(_ *refusedVector, b []byte) { binary.LittleEndian.PutUint32(b[24:], frame.MaxBody+1) })
	add("too many refs", func(_ *refusedVector, b []byte) { binary.LittleEndian.PutUint32(b[28:], tripod.MaxRefs+1) })
	add("cut off", func(v *refusedVector, b []byte) { v.Frame = b[:len(b)-1] })
	add("a byte too many", func(v *refusedVector, b []byte) { v.Frame = append(b, 0) })
	add("body changed", func(_ *refusedVector, b []byte) { b[len(b)-1] ^= 1; resum(b) })
	add("nonce changed", func(_ *refusedVector, b []byte) { b[128] ^= 1; resum(b) })
	return out
}

func TestVectorsOfRefusedFrames(t *testing.T) {
	fresh := refused()
	golden(t, "refused.json", fresh)
	v := testVault(t)
	for _, b := range fresh {
		r := ref{h: fixed32(b.H), u: fixed32(b.U)}
		if _, _, err := v.open(b.Kind, &r, b.Frame); err == nil {
			t.Errorf("%s: accepted by the reader", b.Name)
		}
		sr := seal.Ref{H: fixed32(b.H), U: fixed32(b.U)}
		if _, _, err := seal.NewOpener().Open(nil, vectorID(vectorCompany), tripod.BlobKind(b.Kind), &sr, b.Frame); err == nil {
			t.Errorf("%s: accepted by the product", b.Name)
		}
	}
}

func TestVectorsOfPacks(t *testing.T) {
	type vector struct {
		Name   string `json:"name"`
		Class  byte   `json:"class"`
		Frames []hx   `json:"frames"`
		Pack   hx     `json:"pack"`
	}
	all := blobs().Blobs
	var fresh []vector
	for class, frames := range map[frame.Class][]blobVector{frame.DataClass: all[:3], frame.NodeClass: all[3:]} {
		var p frame.Pack
		p.Reset(class)
		v := vector{Class: byte(class)}
		for _, b := range frames {
			if err := p.Add(b.Frame); err != nil {
				t.Fatal(err)
			}
			v.Frames = append(v.Frames, b.Frame)
		}
		id, raw := p.Finish()
		v.Name, v.Pack = id.String(), bytes.Clone(raw)
		fresh = append(fresh, v)
	}
	if fresh[0].Class > fresh[1].Class {
		fresh[0], fresh[1] = fresh[1], fresh[0]
	}
	golden(t, "pack.json", fresh)
	v := testVault(t)
	v.dir = t.TempDir()
	for _, p := range fresh {
		name := filepath.Join("pack", p.Name[:2], p.Name)
		if err := os.MkdirAll(filepath.Join(v.dir, "pack", p.Name[:2]), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v.dir, name), p.Pack, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.readTables(); err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		r := ref{h: fixed32(b.H), u: fixed32(b.U)}
		if plain, _, err := v.blob(b.Kind, &r); err != nil || !bytes.Equal(plain, b.Plain) {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

func TestVectorsOfPadding(t *testing.T) {
	var fresh [][2]int
	s := newSealer()
	for _, n := range []int{0, 1, 2, 3, 6, 7, 8, 20, 55, 56, 100, 247, 1000, 4096, 65535, 65536, 100_000, 1 << 20, 5_000_000, 16 << 20} {
		plain := xof("padding", n)
		r := s.Ref(tripod.Data, nil, plain)
		f, _, err := frame.Parse(s.Seal(nil, tripod.Data, &r, nil, plain))
		if err != nil {
			t.Fatal(err)
		}
		fresh = append(fresh, [2]int{n + 9, f.BodyLen - frame.TagLen})
	}
	golden(t, "padding.json", map[string]any{"note": "length of C without padding, and with it", "lengths": fresh})
}

func TestVectorsOfDerivation(t *testing.T) {
	from := counting(0xa0)
	fresh := map[string]any{"from": hx(from[:])}
	derived := map[string]hx{}
	for _, use := range []string{"id", "key", "nonce", "label", "chunk", "bundle", "tree", "source", "cache"} {
		out := seal.Derive("tripod 1 "+use, from)
		derived["tripod 1 "+use] = out[:]
	}
	fresh["derived"] = derived
	m := seal.MachineKeys{Node: counting(vectorNode), Domain: counting(vectorDomain)}
	source := m.SourceID("files\x00/home")
	fresh["source"] = map[string]hx{"node": hx(m.Node[:]), "description": hx("files\x00/home"), "id": source[:]}
	machine, _ := signer(3)
	id := frame.MachineIDOf(public(machine))
	fresh["machine"] = map[string]hx{"key": hx(public(machine)), "id": id[:]}
	golden(t, "derive.json", fresh)
}
