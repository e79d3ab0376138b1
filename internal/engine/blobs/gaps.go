package blobs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"tripod/internal/core/tree"
)

// Gaps collects the bytes of a file that cannot be read. The zero value has none;
// it may be used concurrently.
type Gaps struct {
	mu    sync.Mutex
	list  []tree.Range
	cause error // of the first one told
}

// Add says that bytes are missing and why.
func (g *Gaps) Add(offset, length int64, err error) {
	if length <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cause == nil {
		g.cause = err
	}
	if n := len(g.list); n > 0 && g.list[n-1].Offset+g.list[n-1].Length == offset {
		g.list[n-1].Length += length
		return
	}
	g.list = append(g.list, tree.Range{Offset: offset, Length: length})
}

// First gives what the first gap was told with, nil when there is none.
func (g *Gaps) First() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cause
}

// Ranges gives the gaps in order, adjacent ones as one, and their length in all.
func (g *Gaps) Ranges() (list []tree.Range, lost int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.SortFunc(g.list, func(a, b tree.Range) int { return cmp.Compare(a.Offset, b.Offset) })
	for _, r := range g.list {
		lost += r.Length
		if n := len(list); n > 0 && list[n-1].Offset+list[n-1].Length == r.Offset {
			list[n-1].Length += r.Length
			continue
		}
		list = append(list, r)
	}
	return list, lost
}

// mostRanges that a message names; the report lists more.
const mostRanges = 5

// RangesText names byte ranges for people: first and last byte, from 0.
func RangesText(list []tree.Range) string {
	var b strings.Builder
	b.WriteString("bytes ")
	for i, r := range list {
		if i == mostRanges {
			fmt.Fprintf(&b, " and %d more ranges", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d-%d", r.Offset, r.Offset+r.Length-1)
	}
	return b.String()
}
