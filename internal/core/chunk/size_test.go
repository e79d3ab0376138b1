package chunk_test

import (
	"testing"

	"tripod/internal/core/chunk"
	"tripod/internal/core/seal"
)

func TestChunksAreOneMebibyteOnAverage(t *testing.T) {
	const n = 64 << 20
	data := random(n, 9)
	chunks := split(t, chunk.NewSplitter(seal.Secret{7}), data)
	if avg := n / len(chunks); avg < chunk.Avg*3/4 || avg > chunk.Avg*3/2 {
		t.Fatalf("chunks of random bytes have %d bytes on average, not about %d", avg, chunk.Avg)
	}
}
