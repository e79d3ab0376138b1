package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"tripod/internal/core/tripod"
)

// printf prints a result.
func (a *app) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(a.env.Out, format, args...); err != nil && a.outErr == nil {
		a.outErr = system(err, "write standard output")
	}
}

// tell prints a message that is no result: nothing with --quiet or --json.
func (a *app) tell(format string, args ...any) {
	if a.quiet || a.json {
		return
	}
	fmt.Fprintf(a.env.Err, format+"\n", args...)
}

// result prints a command's result as one JSON object with a type and a
// version beside its own fields.
func (a *app) result(kind string, v any) error {
	body, err := marshal(v)
	if err != nil {
		return tripod.Errorf(tripod.Internal, "result: %w", err)
	}
	head := fmt.Sprintf(`{"type":%q,"v":1`, kind)
	if rest := bytes.TrimPrefix(body, []byte("{")); len(rest) > 1 {
		head += ","
	}
	a.printf("%s%s\n", head, bytes.TrimPrefix(body, []byte("{")))
	return nil
}

func (a *app) printJSON(w io.Writer, v any) {
	if body, err := marshal(v); err == nil {
		_, _ = w.Write(append(body, '\n')) // there is nowhere to tell of a failure
	}
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// table prints rows in columns. The first row is the heading.
func (a *app) table(rows [][]string) {
	w := tabwriter.NewWriter(a.env.Out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if _, err := io.WriteString(w, strings.TrimRight(strings.Join(r, "\t"), "\t")+"\n"); err != nil && a.outErr == nil {
			a.outErr = system(err, "write standard output")
		}
	}
	if err := w.Flush(); err != nil && a.outErr == nil {
		a.outErr = system(err, "write standard output")
	}
}

// printable keeps names from playing with the terminal: what is no printable
// UTF-8 is shown as Go would write it.
func printable(s string) string {
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

// size prints a number of bytes for people.
func size(n int64) string {
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

// count prints a number with its noun: "1 file", "1,234 files".
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return number(n) + " " + stem + "ies"
	}
	return number(n) + " " + noun + "s"
}

// number groups digits by thousands.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// duration prints how long something took.
func duration(d time.Duration) string {
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

// when prints a point in time in the zone of this machine.
func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// isTerminal reports whether a file is one.
func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// plural picks a form by number.
func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
