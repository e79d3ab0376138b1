package fs

import (
	"strings"

	"tripod/internal/driver/durable"
)

// TempPrefixOf is how the names of this machine's temporary files begin.
func TempPrefixOf(s *Store) string { return strings.SplitN(s.temp, "-", 2)[0] }

// Thaw makes an object removable whatever its lock says, so that a test can end.
func Thaw(s *Store, name string) error { return s.disk.(durable.Freezer).Thaw(name) }
