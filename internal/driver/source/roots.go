package source

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
)

// Roots gives what absolute paths come down to, sorted: distinct has each place
// once, by its own name where that is given beside others that lead there; roots
// has those of them that lie below no other. Runs with equal roots are runs of
// one source. What lies below is still worth naming to a walk, which would
// perhaps leave it out otherwise.
//
// A path that ends in a symbolic link means the link.
func Roots(paths []string) (distinct, roots []string) {
	type place struct{ path, real string }
	var places []place
	for _, p := range paths {
		p = filepath.Clean(p)
		real := p
		if dir, err := filepath.EvalSymlinks(filepath.Dir(p)); err == nil { // else the walk will tell
			real = filepath.Join(dir, filepath.Base(p))
		}
		places = append(places, place{p, real})
	}
	named := func(p place) int {
		if p.path == p.real {
			return 0 // by its own name
		}
		return 1
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(strings.Compare(a.real, b.real), cmp.Compare(named(a), named(b)), strings.Compare(a.path, b.path))
	})
	places = slices.CompactFunc(places, func(a, b place) bool { return a.real == b.real })
	for _, p := range places {
		distinct = append(distinct, p.path)
		if !slices.ContainsFunc(places, func(other place) bool { return below(other.real, p.real) }) {
			roots = append(roots, p.path)
		}
	}
	slices.Sort(distinct)
	slices.Sort(roots)
	return distinct, roots
}

// below reports whether a path lies in a folder and is not the folder itself.
func below(folder, path string) bool {
	const slash = string(filepath.Separator)
	return path != folder && strings.HasPrefix(path, strings.TrimSuffix(folder, slash)+slash)
}
