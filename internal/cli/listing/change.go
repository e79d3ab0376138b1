package listing

import (
	"time"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
)

type change struct {
	Change  string `json:"change"`
	Path    string `json:"path"`
	PathRaw string `json:"path_raw,omitempty"`
	Old     *Entry `json:"old,omitempty"`
	New     *Entry `json:"new,omitempty"`
}

// Changes prints what differs between two snapshots, as it is found.
type Changes struct {
	console *terminal.Console
	began   time.Time
	counts  map[browse.ChangeKind]int64
	list    []change // for JSON, which is one object
}

// NewChanges begins to print changes.
func NewChanges(c *terminal.Console) *Changes {
	return &Changes{console: c, began: time.Now(), counts: map[browse.ChangeKind]int64{}, list: []change{}}
}

// Add prints one more.
func (l *Changes) Add(c *browse.Change) error {
	l.counts[c.Kind]++
	if l.console.JSON {
		l.list = append(l.list, change{string(c.Kind), "/" + c.Path, terminal.Raw("/" + c.Path), OfEntry(c.Old), OfEntry(c.New)})
		return nil
	}
	l.console.Printf("%s  /%s\n", sign(c.Kind), c.Path)
	return l.console.Failed()
}

// End prints the sum. The snapshots are named by their ids.
func (l *Changes) End(from, to string) error {
	if l.console.JSON {
		return l.console.Result("diff", map[string]any{"from": from, "to": to, "changes": l.list})
	}
	n := func(kinds ...browse.ChangeKind) string {
		var sum int64
		for _, k := range kinds {
			sum += l.counts[k]
		}
		return tripod.Number(sum)
	}
	l.console.Tell("%s added, %s removed, %s changed, %s with other metadata (%s)", n(browse.Added), n(browse.Removed),
		n(browse.Modified, browse.Retyped), n(browse.Metadata), terminal.Duration(time.Since(l.began)))
	return nil
}

func sign(k browse.ChangeKind) string {
	if s, ok := map[browse.ChangeKind]string{browse.Added: "+", browse.Removed: "-", browse.Metadata: "U", browse.Retyped: "T"}[k]; ok {
		return s
	}
	return "M"
}
