package terminal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"tripod/internal/core/tripod"
)

// Printf prints a result. What stands in args is Printable there, here and in
// the other functions that take a format.
func (c *Console) Printf(format string, args ...any) {
	printable(args)
	c.wrote(fmt.Fprintf(c.Out, format, args...))
}

// wrote keeps the first error of standard output.
func (c *Console) wrote(_ int, err error) {
	if err != nil && c.outErr == nil {
		c.outErr = System(err, "write standard output")
	}
}

// Tell prints a message that is no result: nothing with --quiet or --json.
func (c *Console) Tell(format string, args ...any) {
	if c.Quiet || c.JSON {
		return
	}
	printable(args)
	fmt.Fprintf(c.Err, format+"\n", args...)
}

// Result prints a command's result as one JSON object with a type and a
// version beside its own fields.
func (c *Console) Result(kind string, v any) error {
	body, err := marshal(v)
	if err != nil {
		return tripod.Errorf(tripod.Internal, "result: %w", err)
	}
	head := fmt.Sprintf(`{"type":%q,"v":1`, kind)
	if rest := bytes.TrimPrefix(body, []byte("{")); len(rest) > 1 {
		head += ","
	}
	c.wrote(fmt.Fprintf(c.Out, "%s%s\n", head, bytes.TrimPrefix(body, []byte("{"))))
	return nil
}

// BeginList begins a result that holds a list, which is printed entry by entry.
// head is an object with the fields in front of it.
func (c *Console) BeginList(kind, list string, head any) {
	body, err := marshal(head)
	if err != nil {
		body = []byte("{}") // head is made of what JSON knows
	}
	c.wrote(fmt.Fprintf(c.Out, `{"type":%q,"v":1,%s,%q:[`, kind, body[1:len(body)-1], list))
}

// EndList ends what BeginList began.
func (c *Console) EndList() { c.Printf("]}\n") }

func (c *Console) PrintJSON(w io.Writer, v any) {
	if body, err := marshal(v); err == nil {
		_, _ = w.Write(append(body, '\n')) // there is nowhere to tell of a failure
	}
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	body := bytes.TrimSpace(b.Bytes())
	if !bytes.ContainsFunc(body, unicode.IsControl) {
		return body, err
	}
	// Package json lets U+007F to U+009F through, which terminals obey.
	var clean []byte
	for _, r := range string(body) {
		if unicode.IsControl(r) {
			clean = fmt.Appendf(clean, `\u%04x`, r)
		} else {
			clean = utf8.AppendRune(clean, r)
		}
	}
	return clean, err
}

// Table prints rows in columns. The first row is the heading.
func (c *Console) Table(rows [][]string) {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i := range r {
			cells[i] = Printable(r[i])
		}
		c.wrote(io.WriteString(w, strings.TrimRight(strings.Join(cells, "\t"), "\t")+"\n"))
	}
	c.wrote(0, w.Flush())
}

// printable makes texts and errors among args Printable, in place.
func printable(args []any) {
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			args[i] = Printable(arg)
		case error:
			args[i] = OneLine(arg)
		}
	}
}

// Printable keeps names from playing with the terminal: what is no printable
// UTF-8 is shown as Go would write it.
func Printable(s string) string {
	ok := utf8.ValidString(s)
	for _, r := range s {
		ok = ok && (unicode.IsPrint(r) || r == ' ')
	}
	if ok {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// Raw gives the bytes of a name in base64 when JSON, which knows text alone, cannot
// tell them; else "". Names that JSON prints have it beside them.
func Raw(name string) string {
	if utf8.ValidString(name) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(name))
}

// RawAll is Raw of each name of a list, nil when JSON can tell them all.
func RawAll(names []string) (raw []string) {
	for i, n := range names {
		if b := Raw(n); b != "" {
			if raw == nil {
				raw = make([]string, len(names))
			}
			raw[i] = b
		}
	}
	return raw
}

// Size prints a number of bytes for people.
func Size(n int64) string {
	if n < 0 {
		return "?"
	}
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	unit := 0
	for f >= 1023.95 && unit < 6 {
		f /= 1 << 10
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, " KMGTPE"[unit])
}

// Duration prints how long something took.
func Duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()+0.5))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// When prints a point in time in the zone of this machine.
func When(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// Quoted is a word for a shell's command line, and Printable.
func Quoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=\\", r) || r > 127
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	if Printable(word) != word {
		return "$'" + octal(word) + "'"
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// octal is the inside of $'...', in which three digits never take in a fourth.
func octal(word string) string {
	var b strings.Builder
	for _, c := range []byte(word) {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Plural picks a form by number.
func Plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// Mode is a file's type and permissions as ls shows them: -rwxr-xr-x.
func Mode(letter byte, mode uint32) string {
	b := []byte("?rwxrwxrwx")
	b[0] = letter
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			b[1+i] = '-'
		}
	}
	for _, s := range []struct {
		bit     uint32
		at      int
		with, x byte // instead of x: with it and without
	}{{0o4000, 3, 's', 'S'}, {0o2000, 6, 's', 'S'}, {0o1000, 9, 't', 'T'}} {
		switch {
		case mode&s.bit == 0:
		case b[s.at] == 'x':
			b[s.at] = s.with
		default:
			b[s.at] = s.x
		}
	}
	return string(b)
}

// ParseSize reads a number of bytes such as 65536, 256K, 1M or 2GiB; ok is false
// for anything else.
func ParseSize(text string) (n int64, ok bool) {
	digits := strings.TrimRight(text, "kmgtibKMGTIB")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text[len(digits):]), "B"), "I")
	shift := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
	s, ok := shift[unit]
	if !ok || n > 1<<62>>s {
		return 0, false
	}
	return n << s, true
}
