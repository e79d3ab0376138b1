package tree

import (
	"strings"
	"unicode/utf8"
)

// WindowsName reports whether Windows takes a name for what it is. It gives some
// names a meaning, whatever follows their first dot; drops dots and spaces at an
// end, so that two names could be one file; and knows no bytes beside Unicode.
func WindowsName(name string) bool {
	const forbidden = "<>:\"/\\|?*"
	if name == "" || !utf8.ValidString(name) || strings.ContainsAny(name, forbidden) || strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		return false
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return false
	}
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	stem = strings.TrimRight(stem, " ")
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return false
	}
	for _, port := range []string{"COM", "LPT"} {
		// The superscript digits count as digits there.
		if n, ok := strings.CutPrefix(stem, port); ok && utf8.RuneCountInString(n) == 1 && strings.Contains("0123456789¹²³", n) {
			return false
		}
	}
	return true
}
