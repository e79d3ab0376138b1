package blobs

import "tripod/internal/core/tree"

// Span is a stretch of a file tree in the order of a walk. Its paths have no
// leading slash.
type Span struct {
	From  string // it begins with this path; "" is the beginning
	Until string // and ends before this one; "" is the end
}

// SpanOf is the stretch below a node that should stand in place p.
func SpanOf(p *tree.Place) Span { return Span{p.From(), p.Until()} }

// Has reports whether a path lies in the stretch.
func (s Span) Has(path string) bool {
	parent, name := tree.SplitPath(path)
	fromParent, fromName := tree.SplitPath(s.From)
	untilParent, untilName := tree.SplitPath(s.Until)
	return tree.Compare(parent, name, fromParent, fromName) >= 0 &&
		(s.Until == "" || tree.Compare(parent, name, untilParent, untilName) < 0)
}

// String names the stretch for people.
func (s Span) String() string {
	switch {
	case s == Span{}:
		return "all folders"
	case s.Until == "":
		return "from /" + s.From + " to the end"
	}
	return "from /" + s.From + " up to /" + s.Until
}
