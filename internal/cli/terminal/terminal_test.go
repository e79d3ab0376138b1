package terminal

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 5 << 40: "5.0 TiB", -1: "?"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

// Names are raw bytes, of which JSON knows some only.
func TestNamesThatJSONCannotTell(t *testing.T) {
	const name = "bad\xffname"
	if b, err := base64.StdEncoding.DecodeString(Raw(name)); err != nil || string(b) != name {
		t.Errorf("%q, %v", b, err)
	}
	if Raw("gut\u00e9") != "" || RawAll([]string{"a", "b"}) != nil {
		t.Error("what JSON can tell is told twice")
	}
	if raw := RawAll([]string{"a", name}); len(raw) != 2 || raw[0] != "" || raw[1] != Raw(name) {
		t.Errorf("%q", raw)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &Console{Err: w, JSON: true}
	c.Warn(name, errors.New("unreadable"))
	c.Warn("good", errors.New("unreadable"))
	w.Close()
	var told [2]map[string]any
	d := json.NewDecoder(r)
	if err := errors.Join(d.Decode(&told[0]), d.Decode(&told[1])); err != nil {
		t.Fatal(err)
	}
	if told[0]["path_raw"] != Raw(name) || told[1]["path_raw"] != nil {
		t.Errorf("%v", told)
	}
}

// A list that is printed entry by entry is one JSON object, whatever its head holds.
func TestALongListIsJSON(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &Console{Out: w}
	c.BeginList("ls", "entries", map[string]string{"path": "/a\a{\xff}", "path_raw": "x"})
	c.EndList()
	w.Close()
	var told struct {
		Type    string
		V       int
		Path    string
		Entries []any
	}
	if err := json.NewDecoder(r).Decode(&told); err != nil || told.Type != "ls" || told.V != 1 || told.Path != "/a\a{\ufffd}" || told.Entries == nil {
		t.Errorf("%+v, %v", told, err)
	}
}

func TestNumbers(t *testing.T) {
	for e, want := range map[run.Event]string{
		{Files: 1, Bytes: 1}: "reading: 1 file, 1 B",
		{Files: 1, FilesTotal: 1, Bytes: 1, BytesTotal: 2}:          "reading: 1 of 1 file, 1 B of 2 B",
		{Files: 1, FilesTotal: 1234, Bytes: 1, BytesTotal: 5 << 10}: "reading: 1 of 1,234 files, 1 B of 5.0 KiB",
	} {
		e.Phase = "reading"
		if got := newRate().status(e); got != want {
			t.Errorf("status %q, want %q", got, want)
		}
	}
	for d, want := range map[time.Duration]string{1500 * time.Millisecond: "1.5 s", 42 * time.Second: "42 s", 75 * time.Second: "1 min 15 s", 2*time.Hour + 3*time.Minute: "2 h 3 min"} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "64K": 64 << 10, "1m": 1 << 20, "2MiB": 2 << 20, "3GB": 3 << 30} {
		if got, ok := ParseSize(text); !ok || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "K", "-1", "1X", "1.5M", "99999999T", "1 M"} {
		if got, ok := ParseSize(text); ok {
			t.Errorf("ParseSize(%q) = %d", text, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain name": "plain name", "täxt": "täxt", "a\x1b[31m": `a\x1b[31m`, "line\nbreak": `line\nbreak`, "\xff": `\xff`, `"q"`: `"q"`, "a\"\n": `a"\n`,
	} {
		if got := Printable(text); got != want {
			t.Errorf("Printable(%q) = %q, want %q", text, got, want)
		}
	}
	for word, want := range map[string]string{"/a/b-c": "/a/b-c", "a b": "'a b'", "": "''", "it's": `'it'\''s'`} {
		if got := Quoted(word); got != want {
			t.Errorf("Quoted(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestMode(t *testing.T) {
	for mode, want := range map[uint32]string{0o644: "-rw-r--r--", 0o4755: "-rwsr-xr-x", 0o2644: "-rw-r-Sr--", 0o1777: "-rwxrwxrwt", 0: "----------"} {
		if got := Mode('-', mode); got != want {
			t.Errorf("Mode(%o) = %q, want %q", mode, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	r := newRate()
	for want, e := range map[string]run.Event{
		"scanning":                          {Phase: run.Scanning},
		"saving: 3 files, 2.0 KiB":          {Phase: run.Saving, Files: 3, Bytes: 2048},
		"reading: 1 of 4 files, 5 B of 9 B": {Phase: run.Reading, Files: 1, FilesTotal: 4, Bytes: 5, BytesTotal: 9},
	} {
		if got := r.status(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// With --json, warnings are lines of JSON on standard error, and are counted.
func TestWarnJSON(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &Console{Err: write, JSON: true}
	c.Warn("a/b", errors.New("not read"))
	write.Close()
	got, err := io.ReadAll(read)
	if want := `{"type":"warning","v":1,"item":"a/b","kind":"internal","message":"not read"}` + "\n"; err != nil || string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	if c.Warnings() != 1 {
		t.Errorf("%d warnings", c.Warnings())
	}
}

func TestInterruptible(t *testing.T) {
	text := strings.Repeat("0123456789", readAhead/4)
	got, err := io.ReadAll(Interruptible(t.Context(), iotest.HalfReader(strings.NewReader(text))))
	if err != nil || string(got) != text {
		t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
	}
	if err := iotest.TestReader(Interruptible(t.Context(), strings.NewReader("short")), []byte("short")); err != nil {
		t.Error(err)
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(Interruptible(t.Context(), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// A read that nothing ever answers ends with the context.
func TestInterruptibleEnds(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = w.Write([]byte("first"))
		cancel()
	}()
	got, err := io.ReadAll(Interruptible(ctx, r))
	if !errors.Is(err, context.Canceled) || (len(got) != 0 && string(got) != "first") {
		t.Errorf("%q, %v", got, err)
	}
}

// A name out of a file system, a vault or a command line does nothing to the
// terminal it is shown on, whichever way it gets there.
func TestNothingReachesTheTerminalRaw(t *testing.T) {
	const hostile = "a\x1b]0;x\a\r\nb\u009b31m\u202e\x7f\xff"
	bad := tripod.Errorf(tripod.NotFound, "%s is not there", hostile).WithHint("look for %s", hostile)
	ways := map[string]func(c *Console){
		"Printf":   func(c *Console) { c.Printf("%s, %v, %q\n", hostile, errors.New(hostile), hostile) },
		"Tell":     func(c *Console) { c.Tell("%s, %v", hostile, errors.New(hostile)) },
		"Table":    func(c *Console) { c.Table([][]string{{"NAME", "SIZE"}, {hostile, "1"}}) },
		"Warn":     func(c *Console) { c.Warn(hostile, bad) },
		"Say":      func(c *Console) { (&tty{out: c.Err}).say("%s\n  %s", bad, tripod.HintOf(bad)) },
		"Quoted":   func(c *Console) { fmt.Fprint(c.Out, "tripod ls "+Quoted(hostile)) },
		"Progress": func(c *Console) { c.Tell("%s", newRate().status(run.Event{Phase: run.Waiting, Item: hostile})) },
		"Result":   func(c *Console) { _ = c.Result("test", map[string]any{"name": hostile}) },
		"JSON":     func(c *Console) { c.JSON = true; c.Warn(hostile, bad) },
	}
	for way, show := range ways {
		file, err := os.Create(filepath.Join(t.TempDir(), "shown"))
		if err != nil {
			t.Fatal(err)
		}
		show(&Console{Out: file, Err: file})
		shown, err := os.ReadFile(file.Name())
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(shown), "\n", " ")
		text = strings.ReplaceAll(text, "\u202e", "") // as JSON it is data
		if len(text) == 0 || Printable(text) != text {
			t.Errorf("%s shows %q", way, text)
		}
		if way == "Warn" && strings.Count(string(shown), "\n") != 2 {
			t.Errorf("%s takes more lines than it has: %q", way, shown)
		}
	}
}

// What is quoted is one word for a shell, with the same bytes.
func TestQuoted(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("not proved: quoting, no bash")
	}
	for _, word := range []string{"", "/mnt/disk", "it's a disk", "a\nb'\\", "\x1b[0m1", "ä\xff", "$(x) `y`"} {
		out, err := exec.Command(bash, "-c", "printf %s "+Quoted(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q quoted as %s is %q, %v", word, Quoted(word), out, err)
		}
	}
}
