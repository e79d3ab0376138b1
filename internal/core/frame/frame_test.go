package frame_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

func sample(kind tripod.BlobKind, id byte, refs int, body []byte) []byte {
	h := frame.Head{Suite: frame.Suite1, Kind: kind, Company: tripod.CompanyID{9}, BodyLen: len(body), ID: tripod.ID{id}}
	for i := range refs {
		h.Refs = append(h.Refs, tripod.ID{byte(i >> 8), byte(i)})
	}
	return frame.Append(nil, &h, make([]byte, frame.NonceLen), body)
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), frame.TagLen, 200).Draw(t, "body")
		refs := rapid.IntRange(0, 300).Draw(t, "refs")
		b := sample(tripod.Tree, 7, refs, body)
		f, rest, err := frame.Parse(append(b, 1, 2, 3))
		if err != nil || !bytes.Equal(rest, []byte{1, 2, 3}) {
			t.Fatal(err, rest)
		}
		if f.ID != (tripod.ID{7}) || len(f.Refs) != refs || !bytes.Equal(f.Body, body) || f.Check() != nil {
			t.Fatal("not what was written")
		}
	})
}

func TestEveryBitOfAFrameIsChecked(t *testing.T) {
	b := sample(tripod.Tree, 7, 2, make([]byte, 40))
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		f, _, err := frame.Parse(bad)
		if err == nil {
			err = f.Check()
		}
		if err == nil {
			t.Fatalf("bit %d flipped unseen", i)
		}
	}
}

// One flipped bit must not keep readers from other copies, nor healers from it.
func TestAnotherVersionIsDamageThatNamesBothCauses(t *testing.T) {
	for _, v := range []byte{0, frame.Version + 1, frame.Version | 0x80} {
		b := sample(tripod.Data, 7, 0, make([]byte, 40))
		b[4] = v
		_, _, err := frame.Parse(b)
		id, p := newPack(t)
		p[len(p)-frame.TrailerLen+5] = v
		_, packErr := parsePack(id, p)
		for what, err := range map[string]error{"frame": err, "pack": packErr} {
			if !errors.Is(err, tripod.Corrupt) || !strings.Contains(err.Error(), "damaged, or written by a newer tripod") {
				t.Errorf("%s of version %d: %v", what, v, err)
			}
		}
	}
}

func TestAnEmptyPackHasNoBytes(t *testing.T) {
	var p frame.Pack
	if id, b := p.Finish(); id != (tripod.PackID{}) || b != nil {
		t.Errorf("%v, %d bytes", id, len(b))
	}
	if err := p.Add(nil); err == nil {
		t.Error("took nothing for a frame")
	}
}

func newPack(t testing.TB) (tripod.PackID, []byte) {
	var p frame.Pack
	p.Reset(frame.DataClass)
	for i := range 5 {
		if err := p.Add(sample(tripod.Data, byte(i), 0, bytes.Repeat([]byte{byte(i)}, 20+i))); err != nil {
			t.Fatal(err)
		}
	}
	return p.Finish()
}

func parsePack(id tripod.PackID, b []byte) (frame.TOC, error) {
	if len(b) < frame.TrailerLen {
		return frame.TOC{}, errors.New("short")
	}
	n, err := frame.TOCLen(b[len(b)-frame.TrailerLen:])
	if err != nil {
		return frame.TOC{}, err
	}
	if n > len(b) {
		return frame.TOC{}, errors.New("short")
	}
	return frame.ParseTOC(id, int64(len(b)), b[len(b)-n:])
}

func TestPackRoundTripAndEveryBit(t *testing.T) {
	id, b := newPack(t)
	check := func(b []byte) error {
		toc, err := parsePack(id, b)
		if err != nil {
			return err
		}
		for _, r := range toc.Rows {
			f, _, err := frame.Parse(b[r.Offset : r.Offset+int64(r.Len)])
			if err != nil {
				return err
			}
			if f.ID != r.ID || f.Sum != r.Sum {
				return errors.New("row and frame differ")
			}
			if err := f.Check(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := check(b); err != nil {
		t.Fatal(err)
	}
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if check(bad) == nil {
			t.Fatalf("bit %d flipped unseen", i)
		}
	}
	for n := range len(b) {
		if check(b[:n]) == nil {
			t.Fatalf("cut to %d bytes unseen", n)
		}
	}
}

func TestPackRefusesTheOtherClassAndBadFrames(t *testing.T) {
	var p frame.Pack
	p.Reset(frame.DataClass)
	if err := p.Add(sample(tripod.Tree, 1, 0, make([]byte, 20))); !errors.Is(err, tripod.Invalid) {
		t.Fatalf("a node in a data pack: %v", err)
	}
	bad := sample(tripod.Data, 1, 0, make([]byte, 20))
	bad[len(bad)-1] ^= 1
	if err := p.Add(bad); !errors.Is(err, tripod.Corrupt) {
		t.Fatalf("a damaged frame: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample(tripod.Tree, 7, 3, make([]byte, 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, rest, err := frame.Parse(b)
		if err == nil && fr.FrameLen()+len(rest) != len(b) {
			t.Fatal("bytes unaccounted for")
		}
	})
}

func FuzzParseTOC(f *testing.F) {
	id, b := newPack(f)
	f.Add(id[:], b)
	f.Fuzz(func(t *testing.T, name, b []byte) {
		var id tripod.PackID
		copy(id[:], name)
		_, _ = parsePack(id, b)
	})
}
