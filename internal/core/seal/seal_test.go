package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"tripod/internal/core/frame"
	"tripod/internal/core/tripod"
)

func testCompany() tripod.CompanyID { return tripod.CompanyID{1, 2, 3} }

func testSealer(level Level) *Sealer {
	return NewSealer(testCompany(), Secret{2}, Secret{3}, level)
}

// noise is n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// prose is n bytes that compress as source code does.
func prose(n int) []byte {
	words := strings.Fields("func return error if err nil for range type struct string int var const package import")
	var text strings.Builder
	rng := rand.New(rand.NewPCG(1, 2))
	for text.Len() < n {
		text.WriteString(words[rng.IntN(len(words))] + string(rune('a'+rng.IntN(26))) + " ")
	}
	return []byte(text.String()[:n])
}

func seal1(s *Sealer, kind tripod.BlobKind, refs []tripod.ID, plain []byte) (Ref, []byte) {
	r := s.Ref(kind, refs, plain)
	return r, s.Seal(nil, kind, &r, refs, plain)
}

func genBlob(t *rapid.T) (kind tripod.BlobKind, refs []tripod.ID, plain []byte) {
	kind = tripod.BlobKind(rapid.IntRange(1, 4).Draw(t, "kind"))
	if kind.Node() {
		for range rapid.IntRange(0, 20).Draw(t, "refs") {
			refs = append(refs, tripod.ID{rapid.Byte().Draw(t, "ref")})
		}
		refs = SortRefs(refs)
	}
	switch rapid.IntRange(0, 2).Draw(t, "content") {
	case 0:
		plain = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plain")
	case 1:
		plain = noise(rapid.IntRange(0, 100_000).Draw(t, "noise"))
	default:
		plain = bytes.Repeat([]byte{'a', 'b', 'c'}, rapid.IntRange(0, 50_000).Draw(t, "text"))
	}
	return kind, refs, plain
}

func TestWhatIsSealedOpens(t *testing.T) {
	s, small, o := testSealer(Fast), testSealer(Small), NewOpener()
	rapid.Check(t, func(t *rapid.T) {
		kind, refs, plain := genBlob(t)
		sealer := s
		if rapid.Bool().Draw(t, "small") {
			sealer = small
		}
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "prefix")
		r := sealer.Ref(kind, refs, plain)
		encoded := sealer.Seal(bytes.Clone(prefix), kind, &r, refs, plain)
		if !bytes.HasPrefix(encoded, prefix) {
			t.Fatal("Seal changed what it appends to")
		}
		encoded = encoded[len(prefix):]
		f, rest, err := frame.Parse(encoded)
		if err != nil || len(rest) != 0 || f.Check() != nil || f.ID != r.ID() {
			t.Fatal("not a frame of this blob", err)
		}
		got, gotRefs, err := o.Open(bytes.Clone(prefix), testCompany(), kind, &r, encoded)
		if err != nil || !bytes.Equal(got, append(bytes.Clone(prefix), plain...)) || len(gotRefs) != len(refs) {
			t.Fatal("opens to something else", err)
		}
	})
}

func TestTheLongestBlobOpens(t *testing.T) {
	for name, plain := range map[string][]byte{"noise": noise(tripod.MaxPlain), "zeros": make([]byte, tripod.MaxPlain)} {
		r, encoded := seal1(testSealer(Fast), tripod.Data, nil, plain)
		got, _, err := NewOpener().Open(nil, testCompany(), tripod.Data, &r, encoded)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryBitOfAFrameCounts(t *testing.T) {
	refs := []tripod.ID{{1}, {2}}
	r, encoded := seal1(testSealer(Fast), tripod.Tree, refs, []byte("some node"))
	o := NewOpener()
	f, _, err := frame.Parse(encoded)
	if err != nil {
		t.Fatal(err)
	}
	sum := f.Len() + frame.NonceLen // a flip there is Frame.Check's to find
	for i := range len(encoded) * 8 {
		if i/8 >= sum && i/8 < sum+32 {
			continue
		}
		bad := bytes.Clone(encoded)
		bad[i/8] ^= 1 << (i % 8)
		if _, _, err := o.Open(nil, testCompany(), tripod.Tree, &r, bad); err == nil {
			t.Fatalf("bit %d flipped unseen", i)
		}
	}
	for n := range encoded {
		if _, _, err := o.Open(nil, testCompany(), tripod.Tree, &r, encoded[:n]); !errors.Is(err, tripod.Corrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestWhatElseIsDeliveredIsNamed(t *testing.T) {
	s, o := testSealer(Fast), NewOpener()
	refs := []tripod.ID{{1}, {2}}
	r, encoded := seal1(s, tripod.Tree, refs, []byte("some node"))
	other, _ := seal1(s, tripod.Tree, refs, []byte("another"))
	lying := r
	lying.U[0] ^= 1
	// A server that knows the key could replace the refs; the content stays.
	fewer := resealed(r, tripod.Tree, refs[:1], s.pack([]byte("some node")))
	for want, open := range map[string]func() error{
		"another blob was delivered": func() error { _, _, err := o.Open(nil, testCompany(), tripod.Tree, &other, encoded); return err },
		"is of kind tree, not list":  func() error { _, _, err := o.Open(nil, testCompany(), tripod.List, &r, encoded); return err },
		"another company":            func() error { _, _, err := o.Open(nil, tripod.CompanyID{9}, tripod.Tree, &r, encoded); return err },
		"bytes follow": func() error {
			_, _, err := o.Open(nil, testCompany(), tripod.Tree, &r, append(bytes.Clone(encoded), 0))
			return err
		},
		"is not the content its parent names":  func() error { _, _, err := o.Open(nil, testCompany(), tripod.Tree, &lying, encoded); return err },
		"is not the content its parent names ": func() error { _, _, err := o.Open(nil, testCompany(), tripod.Tree, &r, fewer); return err },
	} {
		if err := open(); !errors.Is(err, tripod.Corrupt) || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// resealed is a frame that decrypts: what someone with the key could make.
func resealed(r Ref, kind tripod.BlobKind, refs []tripod.ID, c []byte) []byte {
	h := frame.Head{Suite: frame.Suite1, Kind: kind, Company: testCompany(), BodyLen: len(c) + frame.TagLen, ID: r.ID(), Refs: refs}
	head := frame.AppendHead(nil, &h)
	nonce := nonceFor(r.H, head, c)
	return frame.Append(nil, &h, nonce[:], gcm(r.H).Seal(nil, nonce[:], c, head))
}

func TestEqualContentMakesEqualFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind, refs, plain := genBlob(t)
		_, a := seal1(testSealer(Fast), kind, refs, plain)
		_, b := seal1(testSealer(Fast), kind, refs, plain)
		if !bytes.Equal(a, b) {
			t.Fatal("two sealers of one company differ")
		}
	})
}

// One key serves one plaintext. Whatever else differs, the nonce must.
func TestNoNonceServesTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := Secret(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "h"))
		part := rapid.SliceOfN(rapid.Byte(), 0, 20)
		headA, cA := part.Draw(t, "head"), part.Draw(t, "c")
		headB, cB := part.Draw(t, "head"), part.Draw(t, "c")
		if rapid.Bool().Draw(t, "shift") { // the same bytes, divided elsewhere
			all := append(bytes.Clone(headA), cA...)
			cut := rapid.IntRange(0, len(all)).Draw(t, "cut")
			headB, cB = all[:cut], all[cut:]
		}
		same := bytes.Equal(headA, headB) && bytes.Equal(cA, cB)
		if (nonceFor(h, headA, cA) == nonceFor(h, headB, cB)) != same {
			t.Fatal("one nonce for two messages")
		}
	})
	plain := prose(60_000)
	ra, a := seal1(testSealer(Fast), tripod.Data, nil, plain)
	rb, b := seal1(testSealer(Small), tripod.Data, nil, plain)
	fa, _, _ := frame.Parse(a)
	fb, _, _ := frame.Parse(b)
	if ra != rb || bytes.Equal(a, b) || bytes.Equal(fa.Nonce, fb.Nonce) {
		t.Fatal("two compressor levels must share the key and not the nonce")
	}
}

func TestKindsRefsAndSecretsSeparate(t *testing.T) {
	seen := map[Secret]string{}
	for _, s := range []*Sealer{testSealer(Fast), NewSealer(testCompany(), Secret{4}, Secret{5}, Fast)} {
		for kind := tripod.Data; kind <= tripod.Disk; kind++ {
			for _, refs := range [][]tripod.ID{nil, {{1}}, {{1}, {2}}} {
				// With refs and length not divided, these would be one.
				for _, plain := range []string{"", "x", strings.Repeat("\x00", 32)} {
					r := s.Ref(kind, refs, []byte(plain))
					what := kind.String() + plain
					if seen[r.H] != "" {
						t.Fatalf("%s and %s share a key", what, seen[r.H])
					}
					seen[r.H] = what
				}
			}
		}
	}
}

func TestCompressibleTellsNoiseFromText(t *testing.T) {
	const threshold = 32 << 10
	small := testSealer(Small)
	compressible := func(p []byte) bool { return small.encoderFor(p) != nil }
	if !compressible(noise(threshold-1)) || compressible(noise(threshold)) || compressible(noise(4<<20)) {
		t.Error("noise is tried when short, and only then")
	}
	text := bytes.Repeat([]byte("the quick brown fox "), 4000)
	if !compressible(text) {
		t.Error("text is not tried")
	}
	six := noise(1 << 20)
	for i := range six {
		six[i] &= 0x3f // six bits a byte, as base64 has
	}
	if !compressible(six) {
		t.Error("base64 is not tried")
	}
	half := append(noise(512<<10), bytes.Repeat([]byte("text"), 128<<10)...)
	if !compressible(half) {
		t.Error("half text is not tried")
	}
	if small.encoderFor(six) != small.strong || small.encoderFor(bytes.Repeat([]byte("abab"), 256<<10)) != small.zstd {
		t.Error("the strong encoder is not for what rewards it")
	}
}

func TestPaddingIsSmallAndHidesLengths(t *testing.T) {
	seen := map[int]bool{}
	for n := 1; n < 1<<21; n += 1 + n/500 {
		p := padme(n)
		if p < n || float64(p) > 1.12*float64(n) || (n >= 64<<10 && float64(p) > 1.04*float64(n)) || padme(p) != p {
			t.Fatalf("%d becomes %d", n, p)
		}
		seen[p] = true
	}
	if len(seen) > 400 {
		t.Fatalf("%d lengths remain to be told apart", len(seen))
	}
	if n := padme(tripod.MaxPlain + innerLen); n+frame.TagLen > frame.MaxBody {
		t.Fatalf("the longest blob becomes %d, more than a frame takes", n)
	}
}

// spent is the memory that f allocates, in bytes.
func spent(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestACompressionBombIsRefusedCheaply(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, 1<<30/4), nil) // 256 MiB of zeros
	for name, c := range map[string]struct {
		packed []byte
		stated uint32
	}{
		"more than stated":          {bomb, 1000},
		"more than stated, at most": {bomb, tripod.MaxPlain},
		"less than stated":          {enc.EncodeAll([]byte("x"), nil), 2},
		"stated beyond the limit":   {bomb, tripod.MaxPlain + 1},
		"window of a gigabyte":      {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 1, 0, 0}, 1000},
		"not compressed":            {[]byte("not zstd at all"), 1000},
		"nothing":                   {nil, 1000},
	} {
		inner := binary.LittleEndian.AppendUint32([]byte{codecZstd}, c.stated)
		inner = binary.LittleEndian.AppendUint32(inner, uint32(len(c.packed)))
		inner = append(inner, c.packed...)
		r := Ref{H: Secret{1}}
		encoded, o := resealed(r, tripod.Data, nil, inner), NewOpener()
		n := spent(func() { _, _, err = o.Open(nil, testCompany(), tripod.Data, &r, encoded) })
		if !errors.Is(err, tripod.Corrupt) || !strings.Contains(err.Error(), "decompress") || n > 40<<20 {
			t.Errorf("%s: %v, %d KiB allocated", name, err, n>>10)
		}
	}
}

func TestInnerHeadersThatLieAreRefused(t *testing.T) {
	o := NewOpener()
	for name, c := range map[string][]byte{
		"no header":       {0, 0, 0, 0, 0, 0, 0, 0},
		"unknown codec":   {2, 1, 0, 0, 0, 1, 0, 0, 0, 'x'},
		"stored, shorter": {0, 2, 0, 0, 0, 1, 0, 0, 0, 'x'},
		"beyond the end":  {0, 2, 0, 0, 0, 2, 0, 0, 0, 'x'},
		"far beyond":      {0, 255, 255, 255, 255, 255, 255, 255, 255, 'x'},
	} {
		r := Ref{H: Secret{1}}
		if _, _, err := o.Open(nil, testCompany(), tripod.Data, &r, resealed(r, tripod.Data, nil, c)); !errors.Is(err, tripod.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSortRefs(t *testing.T) {
	got := SortRefs([]tripod.ID{{3}, {1}, {3}, {2}, {1}})
	if len(got) != 3 || got[0] != (tripod.ID{1}) || got[2] != (tripod.ID{3}) {
		t.Fatal(got)
	}
}

func FuzzOpen(f *testing.F) {
	r, encoded := seal1(testSealer(Fast), tripod.Data, nil, bytes.Repeat([]byte("text "), 100))
	f.Add(encoded, []byte{})
	f.Add(resealed(r, tripod.Data, nil, []byte{1, 9, 0, 0, 0, 0, 0, 0, 0}), []byte{})
	f.Add([]byte{}, []byte{1, 9, 0, 0, 0, 4, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd})
	o := NewOpener()
	f.Fuzz(func(t *testing.T, encoded, inner []byte) {
		_, _, _ = o.Open(nil, testCompany(), tripod.Data, &r, encoded)
		if len(inner) > 1<<16 {
			return
		}
		// Behind the encryption, where a compromised machine writes.
		var err error
		var out []byte
		forged := resealed(r, tripod.Data, nil, inner)
		if n := spent(func() { out, _, err = o.Open(nil, testCompany(), tripod.Data, &r, forged) }); n > 64<<20 {
			t.Fatalf("%d MiB allocated", n>>20)
		}
		if err == nil && testSealer(Fast).Ref(tripod.Data, nil, out) != r {
			t.Fatal("opened to other content")
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	const n = 1 << 20
	words := prose(n)
	for level, levelName := range []string{"fast", "small"} {
		for name, plain := range map[string][]byte{"text": words, "noise": noise(n)} {
			b.Run(levelName+"/"+name, func(b *testing.B) {
				s := testSealer(Level(level))
				var dst []byte
				b.SetBytes(n)
				b.ReportAllocs()
				for b.Loop() {
					r := s.Ref(tripod.Data, nil, plain)
					dst = s.Seal(dst[:0], tripod.Data, &r, nil, plain)
				}
			})
			if level > 0 {
				continue
			}
			b.Run("open/"+name, func(b *testing.B) {
				r, encoded := seal1(testSealer(Fast), tripod.Data, nil, plain)
				o := NewOpener()
				var dst []byte
				b.SetBytes(n)
				b.ReportAllocs()
				for b.Loop() {
					dst, _, _ = o.Open(dst[:0], testCompany(), tripod.Data, &r, encoded)
				}
			})
		}
	}
}
