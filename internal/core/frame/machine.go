package frame

import (
	"crypto/ed25519"

	"github.com/zeebo/blake3"

	"tripod/internal/core/tripod"
)

const contextMachine = "tripod 1 machine id"

// MachineIDOf gives the id of the machine that signs with a key. An id fits one
// key alone, so whoever may endorse machines cannot endorse a second key for
// one that exists. It stands here because the customer's side names machines by
// it and a provider, which holds no keys, checks it.
func MachineIDOf(key ed25519.PublicKey) (id tripod.MachineID) {
	h := blake3.NewDeriveKey(contextMachine)
	_, _ = h.Write(key)
	copy(id[:], h.Sum(nil))
	return id
}
