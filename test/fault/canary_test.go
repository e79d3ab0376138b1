package fault

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNothingReadableLeaks backs up names and contents that stand out, and
// searches for them where a provider or a thief can look.
func TestNothingReadableLeaks(t *testing.T) {
	m := newMachine(t)
	m.init()
	const inName, inText, inTag, inStream = "canaryname7391", "canarytext8824", "canarytag5517", "canarystream6402"
	const inSmall = "canarysmall2236" // content that lies in the tree with the names, and a link's target
	dir := m.path(inName + "folder")
	r := rand.New(rand.NewPCG(1, 30))
	for i, n := range []int{600, 20_000, 300_000, 3 << 20} {
		write(t, filepath.Join(dir, inName, inName+string(rune('a'+i))), append([]byte(inText), noise(r, n)...))
	}
	write(t, filepath.Join(dir, "small"), []byte(inSmall))
	must(t, os.Symlink(inSmall, filepath.Join(dir, "link")))
	m.must("backup", "--tag", inTag, dir)
	write(t, filepath.Join(dir, inName+"z"), []byte(strings.Repeat(inText+"\n", 5000)))
	m.must("backup", "--tag", inTag, dir)
	stream := m.command("backup", "--stdin-name", inStream)
	stream.Stdin = strings.NewReader(strings.Repeat(inText, 100_000))
	if res := wait(stream); res.code != 0 {
		t.Fatal(res)
	}
	host, err := os.Hostname()
	must(t, err)
	secrets := []string{inName, inText, inSmall, inTag, inStream, passphrase}
	if len(host) > 5 {
		secrets = append(secrets, host)
	}
	if found := m.search(m.vault, secrets); len(found) > 0 {
		t.Errorf("the vault holds %q", found)
	}
	// The index names nothing either. The caches of sources hold the leaves of the
	// tree, which means names and the shortest contents: they belong to the machine
	// that has the files.
	if found := m.search(m.path("cache"), []string{inText, inTag, passphrase}); len(found) > 0 {
		t.Errorf("the cache holds %q", found)
	}
	indexes, err := filepath.Glob(m.path("cache", "*", "index-*"))
	if err != nil || len(indexes) == 0 {
		t.Fatalf("no index: %v", err)
	}
	for _, dir := range indexes {
		if found := m.search(dir, secrets); len(found) > 0 {
			t.Errorf("the index holds %q", found)
		}
	}
	// The search itself finds what is there.
	if found := m.search(dir, secrets); len(found) < 2 {
		t.Errorf("the search finds only %q", found)
	}
}

// search tells which of the texts stand in the files of a folder, or in names.
func (m *machine) search(dir string, texts []string) (found []string) {
	m.t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var content []byte
		if d.Type().IsRegular() {
			if content, err = os.ReadFile(name); err != nil {
				return err
			}
		}
		for _, text := range texts {
			// The lock file names the process that writes, and its machine: it is
			// empty when nobody does.
			if bytes.Contains(content, []byte(text)) || strings.Contains(d.Name(), text) {
				found = append(found, text+" in "+name)
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return found
}
