package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"tripod/internal/core/tripod"
)

// objectChecks are those about one object at a time.
func objectChecks() []check {
	return []check{
		{"an object is read back as it was put", func(ctx context.Context, e *env) error {
			for i, size := range []int{1, 4095, 4096, 4097, 1 << 20} {
				name := fmt.Sprintf("size/%d", size)
				if err := errors.Join(e.put(ctx, name, pattern(byte(i), size)), e.holds(ctx, name, pattern(byte(i), size))); err != nil {
					return err
				}
			}
			return nil
		}},
		{"an object may be empty", func(ctx context.Context, e *env) error {
			if err := errors.Join(e.put(ctx, "nil", nil), e.put(ctx, "empty", []byte{})); err != nil {
				return err
			}
			n, err := e.store.Get(ctx, e.prefix+"nil", make([]byte, 1), 0)
			if n != 0 || err != io.EOF { //nolint:errorlint // the contract says io.EOF itself
				return fmt.Errorf("get: %d bytes, %v; want 0, EOF", n, err)
			}
			return errors.Join(e.holds(ctx, "nil", nil), e.holds(ctx, "empty", nil))
		}},
		{"a taken name is refused and its object stays", func(ctx context.Context, e *env) error {
			first := pattern(1, 5000)
			if err := e.put(ctx, "taken", first); err != nil {
				return err
			}
			for _, data := range [][]byte{pattern(2, 9000), pattern(3, 10), nil, first} {
				if err := wantKind("second put", e.store.Put(ctx, e.prefix+"taken", data), tripod.Exists); err != nil {
					return err
				}
			}
			return e.holds(ctx, "taken", first)
		}},
		{"the caller's bytes are not kept", func(ctx context.Context, e *env) error {
			data := pattern(1, 5000)
			if err := e.put(ctx, "mine", data); err != nil {
				return err
			}
			clear(data)
			got := make([]byte, 5000)
			if _, err := e.store.Get(ctx, e.prefix+"mine", got, 0); err != nil {
				return err
			}
			clear(got)
			return e.holds(ctx, "mine", pattern(1, 5000))
		}},
		{"a range is read as io.ReaderAt reads it", checkRanges},
		{"a missing object is not found", checkMissing},
		{"a deleted object is gone and its name free", func(ctx context.Context, e *env) error {
			old, fresh := pattern(1, 3000), pattern(2, 2000)
			if err := errors.Join(e.put(ctx, "gone", old), e.holds(ctx, "gone", old)); err != nil {
				return err
			}
			if err := e.store.Delete(ctx, e.prefix+"gone"); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
			_, err := e.store.Get(ctx, e.prefix+"gone", make([]byte, 1), 0)
			if err := wantKind("get after delete", err, tripod.NotFound); err != nil {
				return err
			}
			if err := wantKind("second delete", e.store.Delete(ctx, e.prefix+"gone"), tripod.NotFound); err != nil {
				return err
			}
			return errors.Join(e.put(ctx, "gone", fresh), e.holds(ctx, "gone", fresh))
		}},
		{"names up to 255 bytes hold", func(ctx context.Context, e *env) error {
			deep := strings.Repeat("d/", (255-len(e.prefix))/2)
			deep += strings.Repeat("x", 255-len(e.prefix)-len(deep))
			deep = strings.TrimSuffix(deep, "/")
			for i, name := range []string{e.longName("1"), e.longName("2"), deep, "0", "-", "_", "a.b-c_d", "a..b", "-_/-", "x.tmp", "con", "nul.txt"} {
				data := pattern(byte(i), 100)
				if err := errors.Join(e.put(ctx, name, data), e.holds(ctx, name, data)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"a hostile name is invalid, whatever the method", checkHostileNames},
		{"a name is an object or a folder", func(ctx context.Context, e *env) error {
			// A store may also keep both, as buckets do.
			if err := e.put(ctx, "both", []byte("object")); err != nil {
				return err
			}
			if err := e.store.Put(ctx, e.prefix+"both/below", []byte("below")); err != nil && !errors.Is(err, tripod.Conflict) {
				return fmt.Errorf("put below an object: got %w, want success or a conflict", err)
			}
			if _, err := e.store.Head(ctx, e.prefix+"both/none"); !errors.Is(err, tripod.NotFound) {
				return fmt.Errorf("head below an object: got %w, want not found", err)
			}
			if err := e.put(ctx, "folder/a", nil); err != nil {
				return err
			}
			if _, err := e.store.Head(ctx, e.prefix+"folder"); !errors.Is(err, tripod.NotFound) {
				return fmt.Errorf("head of a folder: got %w, want not found", err)
			}
			if err := e.store.Put(ctx, e.prefix+"folder", nil); err != nil && !errors.Is(err, tripod.Conflict) {
				return fmt.Errorf("put onto a folder: got %w, want success or a conflict", err)
			}
			return e.holds(ctx, "both", []byte("object"))
		}},
	}
}

func checkRanges(ctx context.Context, e *env) error {
	data := pattern(7, 10000)
	if err := e.put(ctx, "range", data); err != nil {
		return err
	}
	for _, c := range []struct {
		off  int64
		size int
		n    int
		err  error
	}{
		{0, 10000, 10000, nil},
		{0, 10001, 10000, io.EOF},
		{0, 1, 1, nil},
		{9999, 1, 1, nil},
		{9999, 2, 1, io.EOF},
		{10000, 1, 0, io.EOF},
		{10001, 1, 0, io.EOF},
		{1 << 40, 1, 0, io.EOF},
		{4095, 2, 2, nil},
		{5000, 5000, 5000, nil},
		{5000, 6000, 5000, io.EOF},
		{0, 0, 0, nil},
		{77, 0, 0, nil},
	} {
		p := bytes.Repeat([]byte{0xee}, c.size)
		n, err := e.store.Get(ctx, e.prefix+"range", p, c.off)
		if n != c.n || err != c.err { //nolint:errorlint // the contract says io.EOF itself
			return fmt.Errorf("get %d bytes at %d: %d, %w; want %d, %w", c.size, c.off, n, err, c.n, c.err)
		}
		if n > 0 && !bytes.Equal(p[:n], data[c.off:c.off+int64(n)]) {
			return fmt.Errorf("get %d bytes at %d: wrong bytes", c.size, c.off)
		}
		if n < c.size && p[n] != 0xee {
			return fmt.Errorf("get %d bytes at %d: wrote behind the %d it told", c.size, c.off, n)
		}
	}
	_, err := e.store.Get(ctx, e.prefix+"range", make([]byte, 1), -1)
	return wantKind("get at a negative offset", err, tripod.Invalid)
}

func checkMissing(ctx context.Context, e *env) error {
	for _, name := range []string{"none", "no/folder/none"} {
		_, getErr := e.store.Get(ctx, e.prefix+name, make([]byte, 1), 0)
		_, emptyErr := e.store.Get(ctx, e.prefix+name, nil, 0)
		_, headErr := e.store.Head(ctx, e.prefix+name)
		if err := errors.Join(
			wantKind("get", getErr, tripod.NotFound),
			wantKind("get of nothing", emptyErr, tripod.NotFound),
			wantKind("head", headErr, tripod.NotFound),
			wantKind("delete", e.store.Delete(ctx, e.prefix+name), tripod.NotFound),
		); err != nil {
			return err
		}
	}
	return nil
}
