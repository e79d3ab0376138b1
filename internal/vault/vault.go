// Package vault is the contract of a company's store in one zone, as machines
// and readers see it: sealed blobs in, sealed blobs out, and a log of signed
// documents. Nothing in this package or below it can open what it keeps.
//
// local implements the contract in this process over a driver/store; index is
// its derived index.
package vault

import (
	"context"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

// Writer takes in blobs and snapshots. A blob is acknowledged when Put
// returns nil: from then on it survives crashes. Blobs go bottom-up: a node is
// accepted only when every blob it refers to is there and, for nodes, closed
// (all below it is there too).
type Writer interface {
	// Have tells for each id the sums under which the vault holds it: none
	// when it must be put. Nodes that are not closed count as missing.
	Have(ctx context.Context, ids []tripod.ID) ([][]tripod.Sum, error)

	// Put stores encoded frames of one class, one upload batch of at most
	// tripod.MaxPack bytes, in order. Frames held already under the same sum
	// are skipped; stored tells the bytes written. It returns Corrupt for a
	// frame whose sum does not match, Invalid for another company's, and
	// NotFound, naming them, when refs are missing.
	Put(ctx context.Context, class frame.Class, frames [][]byte) (stored int64, err error)

	// Commit makes a snapshot of the signed record: it must follow the chain,
	// its root must be closed, and grants must hold one to the company's key.
	// When it returns nil the snapshot exists, durably.
	Commit(ctx context.Context, record []byte, grants [][]byte) error
}

// Reader gives back what was put.
type Reader interface {
	// Get fetches blobs, in an order of its own and several at a time, and
	// calls use with the index in ids and the frame, which is valid until
	// use returns. Calls of use may be concurrent. When the vault holds
	// several copies or variants of a blob and use returns Corrupt, the next
	// is tried. The first error that remains ends Get, unless missing blobs
	// or damage are to be survived: see onError.
	//
	// onError, when not nil, is called instead of ending for a blob that
	// is missing (NotFound), unreadable, or refused by use; Get goes on
	// when it returns nil.
	Get(ctx context.Context, ids []tripod.ID, use func(i int, encoded []byte) error, onError func(i int, err error) error) error

	// Documents calls fn for every document whose name begins with prefix,
	// in ascending order of names. The content is empty for one that is
	// there and cannot be read while others can.
	Documents(ctx context.Context, prefix string, fn func(name string, content []byte) error) error
}

// Names of documents.
const (
	DescriptorName    = "vault"
	SuccessionPrefix  = "key/"      // key/00000002: the company's second key, and those after it
	KeyringPrefix     = "keyring/"  // keyring/00000001: the highest number counts
	CertificatePrefix = "machine/"  // machine/MACHINE
	RecordPrefix      = "record/"   // record/MACHINE/SOURCE/00000000000000000001
	GrantPrefix       = "grant/"    // grant/MACHINE/SOURCE/SEQ/RECIPIENT
	OrderPrefix       = "forget/"   // forget/MACHINE/SOURCE/SEQ
	PolicyPrefix      = "policy/"   // policy/00000001: the highest number counts
	ExpiryPrefix      = "expire/"   // expire/MACHINE/SOURCE/SEQ: retention let the snapshot go
	ShredPrefix       = "shred/"    // shred/MACHINE: its snapshots must never be opened again
	HoldPrefix        = "hold/"     // hold/NAME: while there is one nothing expires
	CopyName          = "copy"      // in a further copy of a vault: 16 random bytes that tell it from the others
	ArchiveName       = "archive"   // in a copy that is an archive: what lies there is only ever added to
	ManifestPrefix    = "manifest/" // manifest/MACHINE/SOURCE/SEQ/UNTIL: which segments of an archive the snapshot needs
)

// Admin changes what stands beside the data.
type Admin interface {
	// PutDocument creates a document; Exists when the name is taken.
	// Certificates and orders are checked against the descriptor.
	PutDocument(ctx context.Context, name string, content []byte) error

	// RemoveDocument removes what opens nothing that should be opened: keyrings
	// that a newer one has replaced, grants to a company key that is not in force
	// any more where there is one to the new key, and grants of machines that the
	// company ordered to shred. Anything else is Denied. It is no error when the
	// document is not there.
	RemoveDocument(ctx context.Context, name string) error
}

// Stats describes a vault's content.
type Stats struct {
	Packs     int64
	PackBytes int64
	Blobs     int64 // distinct ids
	Records   int64
	Forgotten int64 // by order; one that expired as well counts here alone
	Expired   int64
}

// Holder describes who writes to a vault, to those who wait.
type Holder struct {
	Machine tripod.MachineID
	Text    string // host, process, since when
}

// KeyPath is the part of a document's name that stands for a snapshot.
func KeyPath(k snapshot.Key) string {
	const digits = 20
	seq := make([]byte, digits)
	n := k.Seq
	for i := digits - 1; i >= 0; i-- {
		seq[i] = byte('0' + n%10)
		n /= 10
	}
	return k.Machine.String() + "/" + k.Source.String() + "/" + string(seq)
}
