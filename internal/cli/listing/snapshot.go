// Package listing is how the content of a vault looks when it is listed, as JSON
// and as lines for people: snapshots, the entries in them (entry.go), and what
// find and diff tell of entries (found.go, change.go). What there is comes from
// the engines.
package listing

import (
	"slices"
	"strings"
	"time"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
)

// Snapshot is a snapshot as JSON.
type Snapshot struct {
	ID       string   `json:"id"`
	Time     string   `json:"time"`
	Host     string   `json:"host"`
	Type     string   `json:"type"`
	Paths    []string `json:"paths"`
	Raw      []string `json:"paths_raw,omitempty"` // see terminal.Raw
	Tags     []string `json:"tags"`
	Files    int64    `json:"files"`
	Bytes    int64    `json:"bytes"`
	Skipped  int64    `json:"skipped"`
	Machine  string   `json:"machine"`
	Source   string   `json:"source"`
	Sequence uint64   `json:"sequence"`
	Program  string   `json:"program"`
	Hash     string   `json:"record_hash"`
}

// OfSnapshot is a snapshot for JSON.
func OfSnapshot(s *catalog.Snapshot) Snapshot {
	j := Snapshot{
		ID: s.ID, Time: s.Record.Time.UTC().Format(time.RFC3339), Type: s.Record.Type.String(), Paths: []string{}, Tags: []string{},
		Machine: s.Key.Machine.String(), Source: s.Key.Source.String(), Sequence: s.Key.Seq, Hash: tripod.Sum(s.Hash).String(),
	}
	if l := s.Label; l != nil {
		j.Host, j.Files, j.Bytes, j.Skipped, j.Program = l.Host, l.Files, l.Bytes, l.Skipped, l.Program
		j.Paths, j.Tags, j.Raw = append(j.Paths, l.Paths...), append(j.Tags, l.Tags...), terminal.RawAll(l.Paths)
	}
	return j
}

// OfSnapshots is a list of snapshots for JSON, empty when there are none.
func OfSnapshots(found []catalog.Snapshot) []Snapshot {
	list := make([]Snapshot, 0, len(found))
	for i := range found {
		list = append(list, OfSnapshot(&found[i]))
	}
	return list
}

// Table prints snapshots for people.
func Table(c *terminal.Console, found []catalog.Snapshot) {
	head := []string{"ID", "TIME", "HOST", "TYPE", "FILES", "SIZE", "TAGS", "PATHS"}
	some := slices.ContainsFunc(found, func(s catalog.Snapshot) bool { return s.Label != nil && s.Label.Skipped > 0 })
	if some { // a column that is empty else
		head = slices.Insert(head, 6, "LEFT OUT")
	}
	rows := [][]string{head}
	for i, s := range OfSnapshots(found) {
		files, left, tags := "-", "-", "-"
		if found[i].Record.Type == tripod.Files {
			files = tripod.Number(s.Files)
		}
		if s.Skipped > 0 {
			left = tripod.Number(s.Skipped)
		}
		if len(s.Tags) > 0 {
			tags = strings.Join(s.Tags, ",")
		}
		row := []string{s.ID, terminal.When(found[i].Record.Time), s.Host, s.Type, files, terminal.Size(s.Bytes), tags, strings.Join(s.Paths, " ")}
		if some {
			row = slices.Insert(row, 6, left)
		}
		rows = append(rows, row)
	}
	c.Table(rows)
}
