package tripod_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"tripod/internal/core/tripod"
)

func TestACountFitsItsNoun(t *testing.T) {
	for text, want := range map[string]string{
		tripod.Count(0, "entry"): "0 entries", tripod.Count(1, "entry"): "1 entry", tripod.Count(int64(1), "file"): "1 file",
		tripod.Count(1234, "file"): "1,234 files", tripod.Number(999): "999", tripod.Number(-1234567): "-1,234,567",
	} {
		if text != want {
			t.Errorf("%q, want %q", text, want)
		}
	}
}

func TestKindsAreFoundThroughWrapping(t *testing.T) {
	inner := tripod.Errorf(tripod.NotFound, "blob %d: missing: %w", 7, io.EOF).WithHint("look in zone %d", 2)
	outer := fmt.Errorf("restore: %w", inner)
	classed := tripod.Errorf(tripod.Corrupt, "snapshot: %w", outer)
	switch {
	case inner.Error() != "blob 7: missing: EOF":
		t.Errorf("message %q", inner)
	case !errors.Is(outer, tripod.NotFound) || errors.Is(outer, tripod.Corrupt) || !errors.Is(outer, io.EOF):
		t.Error("a wrapped error lost its kind or cause")
	case tripod.KindOf(outer) != tripod.NotFound || tripod.KindOf(classed) != tripod.Corrupt:
		t.Error("the outermost kind counts")
	case !errors.Is(classed, tripod.NotFound) || !errors.Is(classed, tripod.Corrupt):
		t.Error("a reclassed error is of both kinds")
	case tripod.HintOf(classed) != "look in zone 2":
		t.Errorf("hint %q", tripod.HintOf(classed))
	}
	other := tripod.Errorf(tripod.Denied, "x: %w", inner).WithHint("first")
	if tripod.HintOf(other) != "first" {
		t.Error("the outermost hint counts")
	}
}

func TestErrorfKeepsEveryCause(t *testing.T) {
	two := tripod.Errorf(tripod.Corrupt, "x: %w and %w", io.EOF, tripod.Errorf(tripod.NotFound, "y").WithHint("z"))
	if !errors.Is(two, io.EOF) || !errors.Is(two, tripod.NotFound) || tripod.KindOf(two) != tripod.Corrupt || tripod.HintOf(two) != "z" {
		t.Error("a cause got lost")
	}
}

func TestErrorsWithoutAKindAreInternal(t *testing.T) {
	if tripod.KindOf(io.EOF) != tripod.Internal || tripod.HintOf(io.EOF) != "" || tripod.HintOf(nil) != "" {
		t.Error("a stranger got a kind or hint")
	}
	bare := fmt.Errorf("x: %w", tripod.Exhausted)
	if tripod.KindOf(bare) != tripod.Exhausted || !errors.Is(bare, tripod.Exhausted) {
		t.Error("a bare kind is an error of that kind")
	}
	joined := errors.Join(io.EOF, tripod.Errorf(tripod.Fenced, "x"))
	if tripod.KindOf(joined) != tripod.Fenced {
		t.Error("not found among joined errors")
	}
}

func TestEveryKindHasItsOwnName(t *testing.T) {
	seen := map[string]bool{}
	for k := tripod.Internal; k <= tripod.Fenced; k++ {
		if name := k.Error(); name == "" || name == "unknown" || seen[name] {
			t.Errorf("kind %d is called %q", k, name)
		}
		seen[k.Error()] = true
	}
	if tripod.ErrorKind(200).Error() != "unknown" || tripod.BlobKind(0).String() != "unknown" || tripod.SourceType(9).String() != "unknown" {
		t.Error("what is not known has a name")
	}
	if tripod.Data.String() != "data" || tripod.Disk.String() != "disk" || tripod.DiskImage.String() != "disk" || tripod.Stream.String() != "stream" {
		t.Error("wrong names")
	}
	for k := range tripod.BlobKind(10) {
		if k.Valid() != (k >= 1 && k <= 4) || k.Node() == (k == tripod.Data) {
			t.Errorf("kind %d", k)
		}
	}
}

func TestParseHex(t *testing.T) {
	var id tripod.MachineID
	for text, want := range map[string]bool{
		strings.Repeat("0f", 16): true, strings.Repeat("0F", 16): true, strings.Repeat("0f", 15): false, strings.Repeat("0f", 17): false,
		strings.Repeat("0g", 16): false, "": false, strings.Repeat("\u023a", 16): false,
	} {
		if got := tripod.ParseHex(id[:], text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if !tripod.ParseHex(id[:], strings.Repeat("0f", 16)) || id.String() != strings.Repeat("0f", 16) {
		t.Error("does not come back")
	}
}
