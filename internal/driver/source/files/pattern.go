package files

import (
	"bytes"
	"os"
	"strings"
	"unicode/utf8"

	"tripod/internal/core/tripod"
)

// Patterns are rules of exclusion, in order: the last one that matches decides.
type Patterns []pattern

// pattern is one rule. A rule of one segment without anchor looks at names
// alone, which is quick and what most rules are.
type pattern struct {
	keep     bool // begins with "!": what matches is kept
	dirOnly  bool // ends in "/"
	anchored bool // begins with "/"
	segments []string
}

// deep is the segment that stands for any number of folders.
const deep = "**"

// ParsePatterns reads rules of exclusion.
//
//	*.o          the name, at any depth
//	build/       the same, folders only
//	docs/*.pdf   the end of the path, at any depth
//	/var/cache   the whole path
//	src/**/test  ** stands for any number of folders, also none
//	!keep.o      kept, although an earlier rule excludes it
//
// * and ? stop at slashes; [a-z] is one of, [!a-z] none of; \ takes the next
// character as it is. Upper and lower case differ. What lies in an excluded
// folder is not looked at, so no rule can bring it back.
func ParsePatterns(texts []string) (Patterns, error) {
	ps := make(Patterns, 0, len(texts))
	for _, text := range texts {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// ReadPatterns reads rules from a file: one per line, blank lines and lines that
// begin with # do not count.
func ReadPatterns(name string) (Patterns, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, tripod.Errorf(kindOf(err), "exclude file: %w", err)
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")) // editors on Windows
	var ps Patterns
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		line = trimLine(line)
		if line == "" || line[0] == '#' {
			continue
		}
		p, err := parsePattern(line)
		if err != nil {
			return nil, tripod.Errorf(tripod.Invalid, "exclude file %s, line %d: %w", name, number, err)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// trimLine removes white space, but not a last blank that "\ " protects.
func trimLine(line string) string {
	line = strings.TrimLeft(line, " \t")
	trimmed := strings.TrimRight(line, " \t\r\n")
	before := strings.TrimRight(trimmed, `\`)
	if (len(trimmed)-len(before))%2 == 1 && len(trimmed) < len(line) && line[len(trimmed)] == ' ' {
		return trimmed + " "
	}
	return trimmed
}

func parsePattern(text string) (pattern, error) {
	bad := func(why string) (pattern, error) {
		return pattern{}, tripod.Errorf(tripod.Invalid, "pattern %q: %s", text, why)
	}
	var p pattern
	rest, keep := strings.CutPrefix(text, "!")
	p.keep = keep
	p.anchored = strings.HasPrefix(rest, "/")
	p.dirOnly = strings.HasSuffix(rest, "/")
	for segment := range strings.SplitSeq(rest, "/") {
		switch segment {
		case "":
			continue
		case ".", "..":
			return bad("a pattern is not relative to a folder: begin it with a name or with a slash")
		}
		if why := checkGlob(segment); why != "" {
			return bad(why)
		}
		if n := len(p.segments); segment == deep && n > 0 && p.segments[n-1] == deep {
			continue
		}
		p.segments = append(p.segments, segment)
	}
	if len(p.segments) == 0 {
		return bad("it names nothing")
	}
	// "a/**" means what lies in a, not a itself.
	if p.segments[len(p.segments)-1] == deep {
		p.segments = append(p.segments, "*")
	}
	if !p.anchored && len(p.segments) > 1 && p.segments[0] != deep {
		p.segments = append([]string{deep}, p.segments...)
	}
	return p, nil
}

// byPath reports whether a rule looks at more than names, so that the walk
// splits paths only when it must.
func (ps Patterns) byPath() bool {
	for i := range ps {
		if !ps[i].byName() {
			return true
		}
	}
	return false
}

func (p *pattern) byName() bool { return !p.anchored && len(p.segments) == 1 }

// excluded decides about the entry name in the folder whose path has the
// components parent; parent may be nil unless byPath.
func (ps Patterns) excluded(parent []string, name string, dir bool) bool {
	for i := len(ps) - 1; i >= 0; i-- {
		if ps[i].match(parent, name, dir) {
			return !ps[i].keep
		}
	}
	return false
}

func (p *pattern) match(parent []string, name string, dir bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	last := len(p.segments) - 1
	// The last segment is never deep, so it has to match the name: a cheap no.
	if !glob(p.segments[last], name) {
		return false
	}
	return p.byName() || matchPath(p.segments[:last], parent)
}

// matchPath matches all of path. Only the latest ** is ever tried again, as
// with * in glob: what an earlier one could still reach, the latest can too. So it
// takes at most len(segments) * len(path) steps.
func matchPath(segments, path []string) bool {
	s, p := 0, 0
	again, from := -1, 0
	for s < len(segments) || p < len(path) {
		switch {
		case s < len(segments) && segments[s] == deep:
			again, from = s, p
			s++
		case s < len(segments) && p < len(path) && glob(segments[s], path[p]):
			s++
			p++
		case again >= 0 && from < len(path):
			from++
			s, p = again+1, from
		default:
			return false
		}
	}
	return true
}

// glob matches all of name against one checked segment.
func glob(segment, name string) bool {
	s, n := 0, 0
	again, from := -1, 0
	for s < len(segment) || n < len(name) {
		if s < len(segment) && segment[s] == '*' {
			again, from = s, n
			s++
			continue
		}
		if s < len(segment) && n < len(name) {
			if ds, dn, ok := one(segment[s:], name[n:]); ok {
				s += ds
				n += dn
				continue
			}
		}
		if again < 0 || from >= len(name) {
			return false
		}
		_, size := character(name[from:])
		from += size
		s, n = again+1, from
	}
	return true
}

// one matches one character of name and tells how much of both it took.
func one(segment, name string) (ds, dn int, ok bool) {
	switch segment[0] {
	case '?':
		_, dn = character(name)
		return 1, dn, true
	case '[':
		c, dn := character(name)
		ds, in, _ := class(segment, c)
		return ds, dn, in
	case '\\':
		return 2, 1, segment[1] == name[0]
	default:
		return 1, 1, segment[0] == name[0]
	}
}

// character decodes one character. A byte that is no UTF-8 is a character of
// its own, apart from all others.
func character(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		r = 0xDC00 | rune(s[0]) // no text can hold a lone surrogate
	}
	return r, n
}

// class reads "[...]" and reports whether c is in it; size is 0 when it is
// malformed, with the reason.
func class(s string, c rune) (size int, in bool, why string) {
	i := 1
	negate := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negate {
		i++
	}
	for first := true; ; first = false {
		if i >= len(s) {
			return 0, false, "[ without ]"
		}
		if s[i] == ']' && !first {
			return i + 1, in != negate, ""
		}
		low, n := classCharacter(s[i:])
		i += n
		high := low
		if i+1 < len(s) && s[i] == '-' && s[i+1] != ']' {
			high, n = classCharacter(s[i+1:])
			i += 1 + n
		}
		if n == 0 {
			return 0, false, `\ at the end`
		}
		if high < low {
			return 0, false, "a range from high to low"
		}
		in = in || (low <= c && c <= high)
	}
}

func classCharacter(s string) (rune, int) {
	if s[0] != '\\' {
		return character(s)
	}
	if len(s) == 1 {
		return 0, 0
	}
	r, n := character(s[1:])
	return r, n + 1
}

// checkGlob says what is wrong with a segment, "" when nothing is. The matcher
// relies on it.
func checkGlob(segment string) string {
	for i := 0; i < len(segment); {
		switch segment[i] {
		case '\\':
			if i+1 == len(segment) {
				return `\ at the end`
			}
			i += 2
		case '[':
			size, _, why := class(segment[i:], 0)
			if why != "" {
				return why
			}
			i += size
		case 0:
			return "no name contains a zero byte"
		default:
			i++
		}
	}
	return ""
}
