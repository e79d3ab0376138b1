// Package kit makes the recovery kit: one page for paper that says what a person
// needs to get a vault back on a new machine, and how.
package kit

import (
	"bytes"
	"fmt"
	"html"
	"strings"
	"time"
)

// Kit is what the page says.
type Kit struct {
	Place       string // of the vault
	Quoted      string // the same for a shell
	Company     string
	Vault       string // its id
	Fingerprint string // of the company's key
	Made        time.Time
	Code        string // recovery code; when empty there is room to write it
	Passphrase  string // when it was made for the person; else empty
}

const style = `
@page { size: A4; margin: 18mm }
body { font: 11pt/1.45 system-ui, sans-serif; color: #000; background: #fff; max-width: 174mm; margin: 8mm auto; padding: 0 6mm }
h1 { font-size: 20pt; margin: 0 0 2mm } h2 { font-size: 13pt; margin: 7mm 0 2mm }
table { border-collapse: collapse; width: 100% } th { text-align: left; font-weight: 600; padding: 1mm 4mm 1mm 0; white-space: nowrap; vertical-align: top }
td { padding: 1mm 0; overflow-wrap: anywhere }
code, .code { font-family: ui-monospace, monospace } pre { background: #f3f3f3; padding: 2.5mm 3mm; white-space: pre-wrap; overflow-wrap: anywhere; margin: 1.5mm 0 }
.code { font-size: 15pt; border: 0.6mm solid #000; padding: 5mm; text-align: center; margin: 2mm 0 }
.room { height: 9mm } li { margin-bottom: 2mm } .small { font-size: 9.5pt; color: #333 }
@media print { body { margin: 0; padding: 0; max-width: none } pre { border: 0.3mm solid #888 } h2 { break-after: avoid } }
`

// Page gives the page as HTML that needs nothing else, neither script nor network.
func (k *Kit) Page() []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) {
		for i, a := range args {
			args[i] = html.EscapeString(fmt.Sprint(a))
		}
		fmt.Fprintf(&b, format, args...)
	}
	p("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n" +
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n")
	p("<title>Recovery kit of a Tripod vault</title>\n<style>%s</style>\n</head>\n<body>\n<h1>Recovery kit</h1>\n", style)
	p("<p>With this page and a copy of the vault, everything that was backed up comes back on any machine. Keep it where fire, theft or a broken machine do not reach it, away from the vault.</p>\n")
	p("<table>\n")
	for _, row := range [][2]string{
		{"Vault", k.Place}, {"Vault id", k.Vault}, {"Company", k.Company}, {"Company key", k.Fingerprint}, {"Printed", k.Made.Format("2006-01-02 15:04 -0700")},
	} {
		p("<tr><th scope=\"row\">%s</th><td><code>%s</code></td></tr>\n", row[0], row[1])
	}
	p("</table>\n<h2>Recovery code</h2>\n")
	if k.Code == "" {
		p("<div class=\"code room\"></div>\n<p class=\"small\">Copy the code here that was shown when the vault was made. If it is lost, make another one while you still have the passphrase: <code>tripod vault recovery-code</code>.</p>\n")
	} else {
		p("<div class=\"code\">%s</div>\n<p class=\"small\">This code opens the vault without its passphrase. It is stored nowhere else: delete the file of this page once it is printed.</p>\n", k.Code)
	}
	if k.Passphrase != "" {
		p("<h2>Passphrase</h2>\n<div class=\"code\">%s</div>\n<p class=\"small\">It was made for you. It opens the vault too.</p>\n", k.Passphrase)
	}
	p("<h2>To restore on a new machine</h2>\n<ol>\n")
	for _, step := range [][2]string{
		{"Install Tripod: one file, tripod, in a folder of the search path.", "tripod version"},
		{"Make the vault, or any copy of it, reachable from there. If its place is another one now, give that one below.", "tripod vault info --vault " + k.Quoted},
		{"Open it with the recovery code, and set a new passphrase.", "tripod recovery open --vault " + k.Quoted},
		{"Look at what there is.", "tripod snapshots --vault " + k.Quoted},
		{"Restore it into a new folder.", "tripod restore latest --to restored --vault " + k.Quoted},
	} {
		p("<li>%s<pre>%s</pre></li>\n", step[0], step[1])
	}
	p("</ol>\n<h2>Once a year</h2>\n<p>Try the code; it changes nothing:</p>\n<pre>%s</pre>\n", "tripod recovery test --vault "+k.Quoted)
	p("<p class=\"small\">Compare the company key above with what <code>tripod vault info</code> shows. It changes when someone has replaced the key (<code>tripod vault rotate-key</code>): then print this page again; the code stays the same.</p>\n")
	p("</body>\n</html>\n")
	return b.Bytes()
}

// Fingerprint writes the first half of a hash in groups, as people compare it.
func Fingerprint(hash [32]byte) string {
	var groups []string
	for i := 0; i < len(hash)/2; i += 2 {
		groups = append(groups, fmt.Sprintf("%x", hash[i:i+2]))
	}
	return strings.Join(groups, " ")
}
