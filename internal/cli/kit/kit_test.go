package kit

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// The page says all that is needed, lets nothing in that is not text, and fetches
// nothing.
func TestPage(t *testing.T) {
	k := &Kit{
		Place: "/mnt/<b>&disk", Quoted: "'/mnt/<b>&disk'", Company: "c0", Vault: "v0", Fingerprint: "f0 f1",
		Made: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Code: "AAAA-BBBB",
	}
	page := string(k.Page())
	for _, want := range []string{
		"/mnt/&lt;b&gt;&amp;disk", ">c0<", ">v0<", ">f0 f1<", "2026-01-02", "AAAA-BBBB", "size: A4",
		"tripod recovery open --vault &#39;/mnt/&lt;b&gt;&amp;disk&#39;", "tripod recovery test --vault", "tripod restore latest",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("does not say %q", want)
		}
	}
	for _, never := range []string{"<b>", "<script", "src=", "href=", "url(", "http://", "https://", "Passphrase</h2>"} {
		if strings.Contains(page, never) {
			t.Errorf("says %q", never)
		}
	}
	k.Code, k.Passphrase = "", "eight words"
	page = string(k.Page())
	if strings.Contains(page, "AAAA") || !strings.Contains(page, `class="code room"`) || !strings.Contains(page, "eight words") {
		t.Error("a page without its code, or with a passphrase, says something else")
	}
	// Every element is closed.
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	depth := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		}
	}
	if depth != 0 {
		t.Errorf("%d elements are open", depth)
	}
}

func TestFingerprint(t *testing.T) {
	if got := Fingerprint([32]byte{0xab, 1, 2}); got != "ab01 0200 0000 0000 0000 0000 0000 0000" {
		t.Error(got)
	}
}
