package listing

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
)

// Whoever keeps a vault words why snapshots expired.
func TestGone(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	gone := []catalog.Snapshot{
		{ID: "22222222", Record: &snapshot.Record{Type: tripod.Files, Time: at.Add(time.Hour)}, Forgotten: true},
		{ID: "11111111", Record: &snapshot.Record{Type: tripod.Files, Time: at}, Expired: true, Expiry: &snapshot.Expiry{Time: at, Policy: 3, Reason: hostile}},
	}
	text := shown(t, false, func(c *terminal.Console) error { TableGone(c, gone, new(catalog.Catalog)); return nil })
	first, second := strings.Index(text, "11111111"), strings.Index(text, "22222222")
	if first < 0 || second < first || !strings.Contains(text, `by policy 3: bad\x1b[31m\xff`) || strings.Contains(text, "\x1b") || !strings.Contains(text, "forgotten") {
		t.Errorf("%q", text)
	}
	text = shown(t, true, func(c *terminal.Console) error { return c.Result("snapshots", map[string]any{"gone": OfGone(gone)}) })
	if !json.Valid([]byte(text)) || strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
}
