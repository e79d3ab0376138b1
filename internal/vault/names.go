package vault

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
)

// PackPrefix begins the names of packs, which are no documents: pack/ab/ab...,
// the first byte of the name in hex, then all of it.
const PackPrefix = "pack/"

// PackName is the object name of a pack.
func PackName(p tripod.PackID) string {
	name := p.String()
	return PackPrefix + name[:2] + "/" + name
}

// ParsePackName reads what PackName made.
func ParsePackName(name string) (p tripod.PackID, ok bool) {
	ok = tripod.ParseHex(p[:], name[strings.LastIndexByte(name, '/')+1:]) && PackName(p) == name
	return p, ok
}

// KeyringName is the name of the nth keyring, counted from 1.
func KeyringName(n int) string { return fmt.Sprintf("%s%08d", KeyringPrefix, n) }

// ParseKeyringName reads what KeyringName made.
func ParseKeyringName(name string) (n int, ok bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, KeyringPrefix))
	return n, err == nil && n > 0 && KeyringName(n) == name
}

// SuccessionName is the name of the document that puts the company's nth key in
// force, from 2.
func SuccessionName(n uint32) string { return fmt.Sprintf("%s%08d", SuccessionPrefix, n) }

// ParseSuccessionName reads what SuccessionName made.
func ParseSuccessionName(name string) (n uint32, ok bool) {
	number, err := strconv.ParseUint(strings.TrimPrefix(name, SuccessionPrefix), 10, 32)
	n = uint32(number)
	return n, err == nil && n > 1 && SuccessionName(n) == name
}

// ShredName is the name of the order to shred a machine.
func ShredName(m tripod.MachineID) string { return ShredPrefix + m.String() }

// CertificateName is the name of a machine's certificate.
func CertificateName(m tripod.MachineID) string { return CertificatePrefix + m.String() }

// RecordName is the name of a snapshot's record.
func RecordName(k snapshot.Key) string { return RecordPrefix + KeyPath(k) }

// OrderName is the name of the order to forget a snapshot.
func OrderName(k snapshot.Key) string { return OrderPrefix + KeyPath(k) }

// ExpiryName is the name of the document by which retention lets a snapshot go.
func ExpiryName(k snapshot.Key) string { return ExpiryPrefix + KeyPath(k) }

// PolicyName is the name of the nth policy, counted from 1.
func PolicyName(n uint32) string { return fmt.Sprintf("%s%08d", PolicyPrefix, n) }

// ParsePolicyName reads what PolicyName made.
func ParsePolicyName(name string) (n uint32, ok bool) {
	number, err := strconv.ParseUint(strings.TrimPrefix(name, PolicyPrefix), 10, 32)
	n = uint32(number)
	return n, err == nil && n > 0 && PolicyName(n) == name
}

// HoldName is the name of a hold; see snapshot.CheckHoldName.
func HoldName(hold string) string { return HoldPrefix + hold }

// GrantName is the name of the grant that opens a snapshot for a recipient, of
// whom the first eight bytes of the hash stand in it.
func GrantName(k snapshot.Key, recipient snapshot.Hash) string {
	return fmt.Sprintf("%s%s/%x", GrantPrefix, KeyPath(k), recipient[:8])
}

// ChainPrefix begins the names of all records of a machine's source.
func ChainPrefix(m tripod.MachineID, s tripod.SourceID) string {
	return RecordPrefix + m.String() + "/" + s.String() + "/"
}

// ParseKeyPath reads what KeyPath made.
func ParseKeyPath(path string) (k snapshot.Key, ok bool) {
	parts := strings.Split(path, "/")
	if len(parts) != 3 || !tripod.ParseHex(k.Machine[:], parts[0]) || !tripod.ParseHex(k.Source[:], parts[1]) {
		return k, false
	}
	n, err := strconv.ParseUint(parts[2], 10, 64)
	k.Seq = n
	return k, err == nil && KeyPath(k) == path
}

// ManifestName is the name of a snapshot's manifest in an archive. The one of the
// latest time counts, to the second; the zero time stands for no lock.
func ManifestName(k snapshot.Key, until time.Time) string {
	seconds := int64(0)
	if !until.IsZero() {
		seconds = max(until.Unix(), 0)
	}
	return fmt.Sprintf("%s%s/%012d", ManifestPrefix, KeyPath(k), seconds)
}

// ParseManifestName reads what ManifestName made.
func ParseManifestName(name string) (k snapshot.Key, until time.Time, ok bool) {
	rest, found := strings.CutPrefix(name, ManifestPrefix)
	at := strings.LastIndexByte(rest, '/')
	if !found || at < 0 {
		return k, until, false
	}
	seconds, err := strconv.ParseInt(rest[at+1:], 10, 64)
	k, ok = ParseKeyPath(rest[:at])
	if seconds > 0 {
		until = time.Unix(seconds, 0).UTC()
	}
	return k, until, ok && err == nil && ManifestName(k, until) == name
}

// Documented reports whether a name is one that a document of a vault can have.
func Documented(name string) bool {
	kind, rest, _ := strings.Cut(name, "/")
	switch kind + "/" {
	case KeyringPrefix:
		_, ok := ParseKeyringName(name)
		return ok
	case SuccessionPrefix:
		_, ok := ParseSuccessionName(name)
		return ok
	case ShredPrefix:
		var m tripod.MachineID
		return tripod.ParseHex(m[:], rest) && ShredName(m) == name
	case CertificatePrefix:
		var m tripod.MachineID
		return tripod.ParseHex(m[:], rest) && CertificateName(m) == name
	case RecordPrefix, OrderPrefix, ExpiryPrefix:
		_, ok := ParseKeyPath(rest)
		return ok
	case PolicyPrefix:
		_, ok := ParsePolicyName(name)
		return ok
	case ManifestPrefix:
		_, _, ok := ParseManifestName(name)
		return ok
	case HoldPrefix:
		return snapshot.CheckHoldName(rest) == nil
	case GrantPrefix:
		at := strings.LastIndexByte(rest, '/')
		var recipient [8]byte
		if at < 0 || !tripod.ParseHex(recipient[:], rest[at+1:]) {
			return false
		}
		k, ok := ParseKeyPath(rest[:at])
		return ok && name == fmt.Sprintf("%s%s/%x", GrantPrefix, KeyPath(k), recipient)
	}
	return name == DescriptorName || name == CopyName || name == ArchiveName
}
