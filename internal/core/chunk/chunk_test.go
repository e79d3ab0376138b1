package chunk_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"tripod/internal/core/chunk"
	"tripod/internal/core/seal"
)

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = c.Read(b)
	return b
}

func split(t *testing.T, s *chunk.Splitter, data []byte) (out [][]byte) {
	t.Helper()
	if err := s.Split(bytes.NewReader(data), func(c []byte) error {
		out = append(out, bytes.Clone(c))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestChunksAreTheStreamWithinTheirSizes(t *testing.T) {
	s := chunk.NewSplitter(seal.Secret{1})
	for _, n := range []int{0, 1, chunk.Min - 1, chunk.Min, chunk.Max, chunk.Max + 1, 30 << 20} {
		data := random(n, 1)
		chunks := split(t, s, data)
		if !bytes.Equal(bytes.Join(chunks, nil), data) {
			t.Fatalf("%d bytes: chunks are not the stream", n)
		}
		for i, c := range chunks {
			if len(c) > chunk.Max || (len(c) < chunk.Min && i < len(chunks)-1) {
				t.Fatalf("%d bytes: chunk %d has %d", n, i, len(c))
			}
		}
	}
}

func TestAnInsertionMovesFewCuts(t *testing.T) {
	s := chunk.NewSplitter(seal.Secret{1})
	data := random(40<<20, 2)
	before := map[string]bool{}
	for _, c := range split(t, s, data) {
		before[string(c)] = true
	}
	fresh := 0
	for _, c := range split(t, s, append([]byte("inserted"), data...)) {
		if !before[string(c)] {
			fresh++
		}
	}
	if fresh > 3 {
		t.Fatalf("%d of about 40 chunks changed", fresh)
	}
}

func TestCutsDependOnTheKey(t *testing.T) {
	data := random(20<<20, 3)
	a, b := split(t, chunk.NewSplitter(seal.Secret{1}), data), split(t, chunk.NewSplitter(seal.Secret{2}), data)
	if len(a[0]) == len(b[0]) && len(a[1]) == len(b[1]) {
		t.Fatal("two keys cut alike")
	}
}

func TestBundlesAreNearOneMebibyte(t *testing.T) {
	b := chunk.NewBundler(seal.Secret{1})
	r := rand.New(rand.NewPCG(1, 2))
	size, bundles, total := 0, 0, 0
	for i := range 50_000 {
		n := r.IntN(30_000)
		if b.CutBefore(string(rune(i)), n) {
			if size > 2<<20 {
				t.Fatalf("a bundle of %d bytes", size)
			}
			bundles, size = bundles+1, 0
		}
		size, total = size+n, total+n
	}
	if avg := total / bundles; avg < 700<<10 || avg > 1300<<10 {
		t.Fatalf("bundles of %d bytes on average", avg)
	}
}

func BenchmarkSplit(b *testing.B) {
	s := chunk.NewSplitter(seal.Secret{1})
	data := random(64<<20, 4)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_ = s.Split(bytes.NewReader(data), func([]byte) error { return nil })
	}
}
