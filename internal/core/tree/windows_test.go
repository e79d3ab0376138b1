package tree_test

import (
	"testing"

	"tripod/internal/core/tree"
)

func TestWindowsNames(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "a.txt": true, ".hidden": true, "..a": true, "a b": true, " a": true, "Ünï.docx": true, "CONSOLE": true, "a.CON": true,
		"COM": true, "COM10": true, "COMX": true, "LPT": true, "LPTS1": true, "CONIN": true, "NULL.txt": true, "aux_": true, "日本語": true,
		"COM\u0663": true,

		"": false, ".": false, "..": false, "a.": false, "a ": false, "a. .": false, "a...": false,
		`a\b`: false, "a/b": false, "C:": false, "a:stream": false, "a*": false, "a?": false, `a"b`: false, "a<b": false, "a>b": false, "a|b": false,
		"a\nb": false, "a\x00b": false, "\x1f": false, "a\xff": false,
		"CON": false, "con": false, "Con.txt": false, "NUL.tar.gz": false, "nul .txt": false, "AUX": false, "prn.": false, "PRN.x": false,
		"CONIN$": false, "conout$.log": false,
		"COM1": false, "com9.txt": false, "LPT0": false, "lpt1 .x": false, "COM¹": false, "LPT³.txt": false,
	} {
		if tree.WindowsName(name) != good {
			t.Errorf("%q: %v, want %v", name, !good, good)
		}
	}
}
