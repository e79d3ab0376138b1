package restore_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/snapshot"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/blobs"
	. "tripod/internal/engine/enginetest" //nolint:revive // its names read as the tests' own
	"tripod/internal/engine/restore"
)

// lose makes blobs missing that hold these bytes.
func lose(w *World, pieces ...[]byte) {
	gone := map[tripod.ID]bool{}
	for _, p := range pieces {
		ref := w.Data(p)
		gone[ref.ID()] = true
	}
	w.Vault.OnFrame = func(id tripod.ID, b []byte) []byte {
		if gone[id] {
			return nil
		}
		return b
	}
}

// holed is data with zeros in the ranges.
func holed(data []byte, ranges ...tree.Range) []byte {
	data = bytes.Clone(data)
	for _, r := range ranges {
		clear(data[r.Offset : r.Offset+r.Length])
	}
	return data
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func holds(t testing.TB, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, not the %d wanted: %v", path, len(got), len(want), err)
	}
}

func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s is there", path)
	}
}

// inPart checks that a restore told of one file of which these ranges are missing.
func inPart(t testing.TB, r *restore.Report, err error, path, at string, size int64, missing ...tree.Range) {
	t.Helper()
	var lost int64
	for _, m := range missing {
		lost += m.Length
	}
	if !errors.Is(err, tripod.Corrupt) || r.Failed != 1 || !slices.Equal(r.Damaged, []string{path}) || len(r.Problems) != 1 || len(r.Partial) != 1 {
		t.Fatalf("%+v: %v", r, err)
	}
	if p := r.Partial[0]; p.Path != path || p.At != at || p.Size != size || p.Lost != lost || !slices.Equal(p.Missing, missing) {
		t.Errorf("told %+v, not %s at %s of %d bytes without %v", p, path, at, size, missing)
	}
	for _, part := range []string{path + ": ", blobs.RangesText(missing), at} {
		if text := r.Problems[0].Error(); !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

const chunk = 128 << 10

// A long file with a damaged blob is kept under its partial name, with zeros
// where bytes are missing, and never under its own.
func TestADamagedLongFileIsKeptInPart(t *testing.T) {
	for _, chunks := range []int{5, 40} { // pieces, a list
		w := New(t)
		f, all := big(chunks*chunk - 100)
		w.Snapshot("/d", append(all, Text("d/small", "small")), Sizes{Chunk: chunk})
		end := int64(chunks-1) * chunk
		lose(w, f.Data[chunk:2*chunk], f.Data[2*chunk:3*chunk], f.Data[end:])
		missing := []tree.Range{{Offset: chunk, Length: 2 * chunk}, {Offset: end, Length: chunk - 100}}
		for _, rule := range []restore.Overwrite{restore.Never, restore.Changed, restore.Always} {
			dir := t.TempDir()
			at := filepath.Join(dir, "big")
			if rule == restore.Always {
				write(t, at, "mine")
				write(t, at+".partial", "older")
			}
			r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: rule})
			inPart(t, r, err, "/d/big", at+".partial", f.Size, missing...)
			holds(t, at+".partial", holed(f.Data, missing...))
			holds(t, filepath.Join(dir, "small"), []byte("small"))
			if rule == restore.Always {
				holds(t, at, []byte("mine"))
			} else {
				absent(t, at)
			}
			i, err := os.Lstat(at + ".partial")
			if err != nil || i.Mode().Perm() != 0o600 || i.ModTime().Unix() == f.Sec {
				t.Errorf("looks like a whole file: %v, %v", i, err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".tripod*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	}
}

// What has the partial name already is replaced only where the rule allows it
// and it is no part of the snapshot.
func TestPartialNamesAreNotTakenFromOthers(t *testing.T) {
	w := New(t)
	f, all := big(3 * chunk)
	w.Snapshot("/d", all, Sizes{Chunk: chunk})
	lose(w, f.Data[:chunk])
	missing := tree.Range{Length: chunk}
	dir := t.TempDir()
	at := filepath.Join(dir, "big")
	write(t, at+".partial", "mine")
	r, err := restoreAll(t, w, restore.Options{To: dir})
	inPart(t, r, err, "/d/big", "", f.Size, missing)
	holds(t, at+".partial", []byte("mine"))
	absent(t, at)
	r, err = restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Changed})
	inPart(t, r, err, "/d/big", at+".partial", f.Size, missing)
	holds(t, at+".partial", holed(f.Data, missing))

	if err := errors.Join(os.Remove(at+".partial"), os.Mkdir(at+".partial", 0o700)); err != nil {
		t.Fatal(err)
	}
	r, err = restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Always})
	inPart(t, r, err, "/d/big", "", f.Size, missing)
	absent(t, at)

	w.Vault.OnFrame = nil
	w.Snapshot("/d", append(all, Text("d/big.partial", "of the snapshot")), Sizes{Chunk: chunk})
	lose(w, f.Data[:chunk])
	for _, rule := range []restore.Overwrite{restore.Never, restore.Changed, restore.Always} {
		dir := t.TempDir()
		r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: rule})
		inPart(t, r, err, "/d/big", "", f.Size, missing)
		holds(t, filepath.Join(dir, "big.partial"), []byte("of the snapshot"))
		absent(t, filepath.Join(dir, "big"))
	}
}

// A link that someone planted under the partial name is not followed.
func TestAPlantedPartialNameIsNotFollowed(t *testing.T) {
	w := New(t)
	f, all := big(3 * chunk)
	w.Snapshot("/d", all, Sizes{Chunk: chunk})
	lose(w, f.Data[:chunk])
	for _, rule := range []restore.Overwrite{restore.Never, restore.Changed, restore.Always} {
		dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
		write(t, victim, "secret")
		if err := os.Symlink(victim, filepath.Join(dir, "big.partial")); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: rule}); !errors.Is(err, tripod.Corrupt) {
			t.Error(err)
		}
		holds(t, victim, []byte("secret"))
	}
}

// A file updated in place loses its name when it cannot be made whole, unless
// nothing of it was written.
func TestADamagedUpdateIsKeptInPart(t *testing.T) {
	w := New(t)
	f, all := big(4 * chunk)
	w.Snapshot("/d", all, Sizes{Chunk: chunk})
	lose(w, f.Data[chunk:2*chunk])
	missing := tree.Range{Offset: chunk, Length: chunk}
	dir := t.TempDir()
	at := filepath.Join(dir, "big")
	there := bytes.Clone(f.Data)
	there[5], there[chunk+5] = there[5]^1, there[chunk+5]^1
	write(t, at, string(there))
	r, err := restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Changed})
	inPart(t, r, err, "/d/big", at+".partial", f.Size, missing)
	there[5] ^= 1
	holds(t, at+".partial", there) // the missing bytes are what they were
	absent(t, at)

	write(t, at, string(there))
	r, err = restoreAll(t, w, restore.Options{To: dir, Overwrite: restore.Changed})
	inPart(t, r, err, "/d/big", "", f.Size, missing)
	holds(t, at, there)
}

// A lost node of a list costs the bytes below it.
func TestALostListNodeCostsItsBytes(t *testing.T) {
	w := New(t)
	f, all := big(9000)
	w.Snapshot("/d", all, Sizes{Chunk: 3})
	var lists []tripod.ID
	for _, id := range w.Vault.Order {
		if g, _, err := frame.Parse(w.Vault.Frames[id]); err == nil && g.Kind == tripod.List {
			lists = append(lists, id)
		}
	}
	if len(lists) < 3 {
		t.Fatalf("%d nodes of a list", len(lists))
	}
	var lost int64
	for i, id := range lists {
		w.Vault.OnFrame = func(at tripod.ID, b []byte) []byte {
			if at == id {
				return nil
			}
			return b
		}
		dir := t.TempDir()
		at := filepath.Join(dir, "big")
		r, err := restoreAll(t, w, restore.Options{To: dir})
		if !errors.Is(err, tripod.Corrupt) || r.Failed != 1 {
			t.Fatalf("%+v: %v", r, err)
		}
		absent(t, at)
		if i == len(lists)-1 { // the root was put last
			if len(r.Partial) > 0 {
				t.Errorf("no byte is known, and told was %+v", r.Partial)
			}
			absent(t, at+".partial")
			continue
		}
		inPart(t, r, err, "/d/big", at+".partial", f.Size, r.Partial[0].Missing...)
		holds(t, at+".partial", holed(f.Data, r.Partial[0].Missing...))
		lost += r.Partial[0].Lost
	}
	if lost != f.Size {
		t.Errorf("all nodes together cost %d bytes of %d", lost, f.Size)
	}
}

// A file of which no byte can be read leaves nothing, and so does a restore that
// ends before its end.
func TestNothingIsKeptOfNothing(t *testing.T) {
	w := New(t)
	f, all := big(2 * chunk)
	w.Snapshot("/d", all, Sizes{Chunk: chunk})
	lose(w, f.Data[:chunk], f.Data[chunk:])
	dir := t.TempDir()
	r, err := restoreAll(t, w, restore.Options{To: dir})
	if !errors.Is(err, tripod.Corrupt) || r.Failed != 1 || len(r.Partial) > 0 {
		t.Errorf("%+v: %v", r, err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	w = New(t)
	f, all = big(3 * chunk)
	w.Snapshot("/d", all, Sizes{Chunk: chunk})
	lose(w, f.Data[chunk:2*chunk])
	snap, dir := latest(t, w), t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := os.Symlink("nowhere", filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	inner := w.Vault.OnFrame
	w.Vault.OnFrame = func(id tripod.ID, b []byte) []byte {
		if b = inner(id, b); b == nil {
			cancel()
		}
		return b
	}
	if _, err := restore.Files(ctx, w.Vault, snap, restore.Options{To: dir}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	absent(t, filepath.Join(dir, "big"))
}

// Damaged disks and streams are kept in part like files.
func TestDamagedDisksAndStreamsAreKeptInPart(t *testing.T) {
	const block = tree.MinBlock
	data := []byte(random(rand.New(rand.NewPCG(3, 3)), 20*block))
	for kind, run := range map[tripod.SourceType]func(w *World, o restore.Options) (*restore.Report, error){
		tripod.DiskImage: func(w *World, o restore.Options) (*restore.Report, error) {
			return restore.Disk(context.Background(), w.Vault, latest(t, w), o)
		},
		tripod.Stream: func(w *World, o restore.Options) (*restore.Report, error) {
			return restore.StreamTo(context.Background(), w.Vault, latest(t, w), o)
		},
	} {
		w := New(t)
		root := w.Disk(data, block)
		if kind == tripod.Stream {
			root = w.List(data, block)
		}
		w.Commit("it", kind, root, snapshot.Label{Host: "h", Paths: []string{"/dev/it"}, Bytes: int64(len(data))})
		lose(w, data[block:2*block], data[2*block:3*block], data[19*block:])
		missing := []tree.Range{{Offset: block, Length: 2 * block}, {Offset: 19 * block, Length: block}}
		dir := t.TempDir()
		at := filepath.Join(dir, "it")
		r, err := run(w, restore.Options{To: dir})
		inPart(t, r, err, "/dev/it", at+".partial", int64(len(data)), missing...)
		holds(t, at+".partial", holed(data, missing...))
		absent(t, at)
		if r.Files != 0 || !strings.Contains(tripod.HintOf(err), ".partial") {
			t.Errorf("%s: %+v, hint %q", kind, r, tripod.HintOf(err))
		}

		// What an earlier restore left is not touched unasked.
		if r, err = run(w, restore.Options{To: dir}); !errors.Is(err, tripod.Conflict) || tripod.HintOf(err) == "" {
			t.Errorf("%s: a partial file in the way: %+v, %v", kind, r, err)
		}
		holds(t, at+".partial", holed(data, missing...))

		// Another copy of the vault has it all.
		w.Vault.OnFrame = nil
		if r, err = run(w, restore.Options{To: dir, Overwrite: restore.Changed}); err != nil || r.Bytes != 3*block {
			t.Errorf("%s: %+v, %v", kind, r, err)
		}
		holds(t, at, data)
		absent(t, at+".partial")

		// In place, what cannot be made right loses its name.
		lose(w, data[block:2*block])
		spoiled := bytes.Clone(data)
		spoiled[block]++
		write(t, at, string(spoiled))
		r, err = run(w, restore.Options{To: dir, Overwrite: restore.Changed})
		inPart(t, r, err, "/dev/it", at+".partial", int64(len(data)), tree.Range{Offset: block, Length: block})
		holds(t, at+".partial", spoiled)
		absent(t, at)

		// Of nothing, nothing is kept.
		w.Vault.OnFrame = func(id tripod.ID, b []byte) []byte {
			if g, _, err := frame.Parse(b); err == nil && g.Kind == tripod.Data {
				return nil
			}
			return b
		}
		r, err = run(w, restore.Options{To: filepath.Join(dir, "none")})
		if !errors.Is(err, tripod.Corrupt) || r.Failed != 1 {
			t.Errorf("%s: %+v, %v", kind, r, err)
		}
		absent(t, filepath.Join(dir, "none"))
		absent(t, filepath.Join(dir, "none.partial"))
	}
}

// Warnings name entries as the snapshot does, wherever the target is.
func TestWarningsNamePathsOfTheSnapshot(t *testing.T) {
	w, want := New(t), mixed(31)
	w.Snapshot("/home/me", want, TinySizes())
	for _, path := range []string{"", "a", "/home/me/a", "/"} {
		dir := t.TempDir()
		if _, err := restoreAll(t, w, restore.Options{To: dir, Path: path}); err != nil {
			t.Fatal(err)
		}
		r, err := restoreAll(t, w, restore.Options{To: dir, Path: path})
		if err != nil || len(r.Problems) == 0 {
			t.Fatalf("%+v: %v", r, err)
		}
		for _, p := range r.Problems {
			name, _, _ := strings.Cut(p.Error(), ": ")
			if !slices.ContainsFunc(want, func(f File) bool { return "/"+f.Path() == name }) {
				t.Errorf("%q names no path of the snapshot", p)
			}
		}
	}
}
