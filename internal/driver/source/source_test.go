package source_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

func TestCompareIsPreOrder(t *testing.T) {
	want := [][2]string{
		{"", ""},
		{"", "a"},
		{"", "a-b"},
		{"", "b"},
		{"a", "z"},
		{"a/b", "x"},
		{"a/b/c", "x"},
		{"a/b!", "x"}, // '!' sorts before '/', as the slash counts as zero
		{"a\x01", "x"},
		{"a!", "x"},
		{"a-b", "x"},
		{"a\xff", "x"},
	}
	for i := range want {
		for j := range want {
			got := source.Compare(want[i][0], want[i][1], want[j][0], want[j][1])
			if (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("Compare(%q, %q) = %d", want[i], want[j], got)
			}
		}
	}
}

// Comparing paths is comparing their components one after the other.
func TestCompareProperty(t *testing.T) {
	path := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "ab", "a-", "a\x01", "\xff", "b"}), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		a, b := path.Draw(t, "a"), path.Draw(t, "b")
		got := source.Compare(strings.Join(a, "/"), "", strings.Join(b, "/"), "")
		want := slices.Compare(a, b)
		if (got < 0) != (want < 0) || (got > 0) != (want > 0) {
			t.Fatalf("Compare(%q, %q) = %d, want %d", a, b, got, want)
		}
	})
}

func TestPath(t *testing.T) {
	for _, c := range [][3]string{{"", "", ""}, {"", "a", "a"}, {"a/b", "c", "a/b/c"}} {
		e := source.Entry{Parent: c[0], Name: c[1]}
		if e.Path() != c[2] {
			t.Errorf("%q + %q = %q", c[0], c[1], e.Path())
		}
	}
}

// stripes has data in every second unit of ten bytes.
type stripes struct{ size, broken int64 }

func (s stripes) NextData(offset int64) (source.Range, error) {
	if s.broken > 0 && offset >= s.broken {
		return source.Range{}, tripod.Unavailable
	}
	if offset%20 >= 10 {
		offset += 20 - offset%20
	}
	if offset >= s.size {
		return source.Range{}, io.EOF
	}
	return source.Range{Offset: offset, Length: min(10-offset%20, s.size-offset)}, nil
}

func TestDataRanges(t *testing.T) {
	var got []source.Range
	for r, err := range source.DataRanges(stripes{size: 45}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if want := []source.Range{{0, 10}, {20, 10}, {40, 5}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	calls := 0
	for _, err := range source.DataRanges(stripes{size: 45, broken: 5}) {
		if calls++; calls == 2 && !errors.Is(err, tripod.Unavailable) {
			t.Errorf("error %v", err)
		}
	}
	if calls != 2 {
		t.Errorf("%d ranges, the second of which failed", calls)
	}
	for range source.DataRanges(stripes{size: 45}) {
		break
	}
}

func TestOwners(t *testing.T) {
	var o source.Owners
	for range 2 { // asked and remembered
		if got := o.User(0); got != "root" && got != "" {
			t.Errorf("user 0 is %q", got)
		}
		if got := o.User(4_000_000_001); got != "" {
			t.Errorf("user of a number without a name: %q", got)
		}
		if got := o.Group(4_000_000_001); got != "" {
			t.Errorf("group of a number without a name: %q", got)
		}
	}
}

func TestTypeString(t *testing.T) {
	if source.Regular.String() != "file" || source.BlockDevice.String() != "block device" || source.Type(99).String() != "unknown" {
		t.Error("names of types")
	}
}
