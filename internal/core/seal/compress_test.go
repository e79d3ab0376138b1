package seal

import (
	"testing"

	"tripod/internal/core/tripod"
)

// Text takes less than half of its room, and what does not compress hardly more
// than its own.
func TestTextTakesLessRoom(t *testing.T) {
	for name, level := range map[string]Level{"auto": Auto, "fast": Fast, "small": Small} {
		for _, size := range []int{2_000, 100_000, tripod.MaxPlain} {
			if _, sealed := seal1(testSealer(level), tripod.Data, nil, prose(size)); len(sealed) > size/2 {
				t.Errorf("%s: %d bytes of text take %d", name, size, len(sealed))
			}
			if _, sealed := seal1(testSealer(level), tripod.Data, nil, noise(size)); len(sealed) > size+size/8+300 {
				t.Errorf("%s: %d bytes of noise take %d", name, size, len(sealed))
			}
		}
	}
}
