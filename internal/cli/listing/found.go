package listing

import (
	"strings"

	"tripod/internal/cli/terminal"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/browse"
)

type foundFile struct {
	Path     string    `json:"path"`
	PathRaw  string    `json:"path_raw,omitempty"`
	Host     string    `json:"host"`
	Versions []version `json:"versions"`
}

type version struct {
	Entry     *Entry   `json:"entry"`
	Snapshots []string `json:"snapshots"`
}

// Found prints the files that were found for a pattern, with their versions.
func Found(c *terminal.Console, pattern string, found []browse.Found) error {
	if !c.JSON {
		for i := range found {
			printFound(c, &found[i])
		}
		return nil
	}
	list := []foundFile{}
	for i := range found {
		j := foundFile{Path: "/" + found[i].Path, PathRaw: terminal.Raw("/" + found[i].Path), Host: found[i].Host}
		for k := range found[i].Versions {
			v := &found[i].Versions[k]
			j.Versions = append(j.Versions, version{OfEntry(&v.Entry), v.Snapshots})
		}
		list = append(list, j)
	}
	return c.Result("find", map[string]any{"pattern": pattern, "found": list})
}

func printFound(c *terminal.Console, f *browse.Found) {
	c.Printf("/%s  (on %s)\n", f.Path, f.Host)
	for i := range f.Versions {
		v := &f.Versions[i]
		in := strings.Join(v.Snapshots, ", ")
		if n := len(v.Snapshots); n > 3 {
			in = tripod.Count(n, "snapshot") + ", " + v.Snapshots[0] + " to " + v.Snapshots[n-1]
		}
		c.Printf("  %s  %12s  in %s\n", terminal.When(modified(&v.Entry)), size(&v.Entry), in)
	}
}
