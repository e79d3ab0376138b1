package backup_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain draws few histories, each of which makes dozens of backups; the
// long lane draws a hundred.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("TRIPOD_LONG") == "" {
		if err := flag.Set("rapid.checks", "12"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
