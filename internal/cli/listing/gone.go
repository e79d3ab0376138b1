package listing

import (
	"slices"

	"tripod/internal/cli/terminal"
	"tripod/internal/engine/catalog"
)

// Gone is a snapshot that expired or was forgotten, as JSON.
type Gone struct {
	Snapshot
	Because string `json:"because"`
}

// byTime is snapshots, oldest first.
func byTime(list []catalog.Snapshot) []catalog.Snapshot {
	return slices.SortedStableFunc(slices.Values(list), func(a, b catalog.Snapshot) int { return a.Record.Time.Compare(b.Record.Time) })
}

func because(s *catalog.Snapshot) string {
	if s.Expired {
		return s.Because()
	}
	return "forgotten"
}

// OfGone is a list of them for JSON, oldest first.
func OfGone(gone []catalog.Snapshot) []Gone {
	list := make([]Gone, 0, len(gone))
	for _, s := range byTime(gone) {
		list = append(list, Gone{OfSnapshot(&s), because(&s)})
	}
	return list
}

// TableGone prints them for people. Whose they are the other snapshots of the
// source tell: their own names are sealed for good.
func TableGone(c *terminal.Console, gone []catalog.Snapshot, of *catalog.Catalog) {
	rows := [][]string{{"GONE", "TIME", "OF", "WHY"}}
	for _, s := range byTime(gone) {
		rows = append(rows, []string{s.ID, terminal.When(s.Record.Time), of.Who(s.Key.Machine, s.Key.Source), because(&s)})
	}
	c.Table(rows)
}
