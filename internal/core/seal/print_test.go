package seal

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// No way of printing gives a key away, in a struct or on its own.
func TestSecretsDoNotPrint(t *testing.T) {
	keys, err := NewCompany()
	if err != nil {
		t.Fatal(err)
	}
	m, err := keys.NewMachine()
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{
		"domain": keys.Domain[:], "company box": keys.Box, "company sign": keys.Sign.Seed(), "node": m.Node[:], "machine sign": m.Sign.Seed(),
	}
	things := map[string]any{
		"secret": m.Node, "pointer to a secret": &m.Node, "company": *keys, "pointer to a company": keys,
		"machine": *m, "pointer to a machine": m, "ref": Ref{H: m.Node}, "sealer": m.Sealer(Fast),
		"in structs": struct {
			C *CompanyKeys
			M MachineKeys
			S []Secret
		}{keys, *m, []Secret{keys.Domain}},
	}
	for name, thing := range things {
		texts := []string{fmt.Sprint(thing)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%08x", "%t"} {
			texts = append(texts, fmt.Sprintf(verb, thing))
		}
		if name != "sealer" { // has nothing that JSON sees
			b, err := json.Marshal(thing)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(b))
		}
		for _, text := range texts {
			for which, s := range secrets {
				if reveals(text, s[:8]) {
					t.Errorf("%s printed shows %s: %.200s", name, which, text)
				}
			}
			if !strings.Contains(text, hidden) && name != "in structs" {
				t.Errorf("%s prints as %.200s", name, text)
			}
		}
	}
}

// reveals reports whether text shows b in any of the ways Go prints bytes.
func reveals(text string, b []byte) bool {
	plain := strings.NewReplacer(" ", "", ",", "", "0x", "", "[", "", "]", "").Replace(strings.ToLower(text))
	var decimal, octal, binary strings.Builder
	for _, c := range b {
		fmt.Fprintf(&decimal, "%d", c)
		fmt.Fprintf(&octal, "%o", c)
		fmt.Fprintf(&binary, "%b", c)
	}
	for _, form := range []string{string(b), hex.EncodeToString(b), decimal.String(), octal.String(), binary.String()} {
		if strings.Contains(text, form) || strings.Contains(plain, form) {
			return true
		}
	}
	return strings.Contains(text, strings.Trim(fmt.Sprintf("%q", b), `"`))
}
