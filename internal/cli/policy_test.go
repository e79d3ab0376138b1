package cli

import (
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"36h": 36 * time.Hour, "1d": day, "8w": 56 * day, "2y": 730 * day, "292y": 292 * 365 * day,
		"": 0, "d": 0, "0d": 0, "-1d": 0, "1": 0, "1m": 0, "1.5d": 0, "293y": 0, "99999999999d": 0, "1 d": 0,
	} {
		got, err := parseSpan(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
}
