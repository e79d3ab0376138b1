package browse

import (
	"cmp"
	"context"
	"encoding/binary"
	"path"
	"slices"
	"strings"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/engine/catalog"
)

// Found is one document and its versions, oldest first.
type Found struct {
	Path     string // absolute in the snapshots, without leading slash
	Host     string
	Versions []Version
}

// Version is one state of a document: its content and modification time.
type Version struct {
	Entry     tree.Entry
	Snapshots []string // ids of those that hold it, oldest first
}

// Query says what to find.
type Query struct {
	// Pattern is a name, or a path when it has a slash; * stands for any text
	// without a slash, ? for one character, [a-z] for one of several, and ** as
	// a whole component for any number of folders.
	Pattern    string
	IgnoreCase bool
	Filter     catalog.Filter
	// Lost is told what could not be searched; nil makes it an error.
	Lost func(s catalog.Snapshot, from string, err error)
}

// Find looks for documents in all snapshots that fit. What snapshots share is
// searched once.
func (b *Browser) Find(ctx context.Context, c *catalog.Catalog, q Query) ([]Found, error) {
	match, err := compile(q.Pattern, q.IgnoreCase)
	if err != nil {
		return nil, err
	}
	f := &finding{Browser: b, match: match, query: q, hits: map[[32]byte][]*tree.Entry{}, found: map[[2]string]*document{}}
	q.Filter.Type = tripod.Files
	for _, s := range c.Select(q.Filter) {
		hits, err := f.node(ctx, s, s.Root, &tree.Place{})
		if err != nil {
			return nil, err
		}
		for _, e := range hits {
			f.add(&s, e)
		}
	}
	return f.result(), nil
}

type finding struct {
	*Browser
	match func(e *tree.Entry) bool
	query Query
	hits  map[[32]byte][]*tree.Entry // of each node searched, by U
	found map[[2]string]*document
}

type document struct {
	versions []Version
	index    map[string]int
}

// node gives the entries below a node that match.
func (f *finding) node(ctx context.Context, s catalog.Snapshot, ref seal.Ref, at *tree.Place) ([]*tree.Entry, error) {
	if hits, ok := f.hits[ref.U]; ok {
		return hits, ctx.Err()
	}
	n, err := f.blobs.Node(ctx, ref)
	if err == nil {
		err = at.Check(n)
	}
	if err != nil {
		from := at.From()
		if f.query.Lost == nil || ctx.Err() != nil {
			return nil, tripod.Errorf(tripod.KindOf(err), "snapshot %s: folders from /%s on: %w", s.ID, from, err)
		}
		f.query.Lost(s, from, err)
		return nil, nil
	}
	var hits []*tree.Entry
	for i := range n.Entries {
		if f.match(&n.Entries[i]) {
			e := n.Entries[i] // a copy, so that the leaf can be forgotten
			hits = append(hits, &e)
		}
	}
	if n.Level > 0 {
		if err := f.readAhead(ctx, n.Children); err != nil {
			return nil, err
		}
		for _, k := range at.Below(n, nil) {
			below, err := f.node(ctx, s, k.Ref, &k.Place)
			if err != nil {
				return nil, err
			}
			hits = append(hits, below...)
		}
	}
	f.hits[ref.U] = hits
	return hits, nil
}

// readAhead fetches the first nodes not yet searched into the cache at once.
func (f *finding) readAhead(ctx context.Context, children []tree.Child) error {
	const most = 16
	var refs []seal.Ref
	for i := range children {
		if _, ok := f.hits[children[i].Ref.U]; !ok && len(refs) < most {
			refs = append(refs, children[i].Ref)
		}
	}
	_, err := f.blobs.Nodes(ctx, tripod.Tree, refs, func(int, error) error { return nil }) // node will tell
	return err
}

func (f *finding) add(s *catalog.Snapshot, e *tree.Entry) {
	key := [2]string{s.Label.Host, e.Path()}
	d := f.found[key]
	if d == nil {
		d = &document{index: map[string]int{}}
		f.found[key] = d
	}
	state := string(identity(e))
	i, ok := d.index[state]
	if !ok {
		i = len(d.versions)
		d.index[state] = i
		d.versions = append(d.versions, Version{Entry: *e})
	}
	d.versions[i].Snapshots = append(d.versions[i].Snapshots, s.ID)
}

// identity is equal for equal states of a document.
func identity(e *tree.Entry) []byte {
	key := []byte{byte(e.Type)}
	key = binary.AppendVarint(key, e.Sec)
	key = binary.AppendUvarint(key, uint64(e.Nsec))
	key = binary.AppendVarint(key, e.Size)
	key = append(key, e.Link...)
	return appendContent(key, e)
}

func appendContent(key []byte, e *tree.Entry) []byte {
	key = append(key, e.Content.Inline...)
	if e.Content.List != nil {
		key = append(key, e.Content.List.U[:]...)
	}
	for i := range e.Content.Pieces {
		p := &e.Content.Pieces[i]
		key = append(key, p.Ref.U[:]...)
		key = binary.LittleEndian.AppendUint32(key, p.Offset)
		key = binary.LittleEndian.AppendUint32(key, p.Length)
	}
	for _, g := range e.Ranges {
		key = binary.AppendVarint(binary.AppendVarint(key, g.Offset), g.Length)
	}
	return key
}

func (f *finding) result() []Found {
	out := make([]Found, 0, len(f.found))
	for key, d := range f.found {
		out = append(out, Found{Host: key[0], Path: key[1], Versions: d.versions})
	}
	slices.SortFunc(out, func(a, b Found) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Host, b.Host)) })
	return out
}

// compile turns a pattern into a test of entries.
func compile(pattern string, ignoreCase bool) (func(*tree.Entry) bool, error) {
	fold := func(s string) string { return s }
	if ignoreCase {
		fold = strings.ToLower
	}
	pattern = fold(pattern)
	parts := strings.Split(strings.Trim(pattern, "/"), "/")
	for _, p := range parts {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return nil, tripod.Errorf(tripod.Invalid, "pattern %q: cannot be understood", pattern).
				WithHint("use * and ? as in a shell; a bracket needs its partner")
		}
	}
	if !strings.Contains(pattern, "/") {
		return func(e *tree.Entry) bool { return e.Name != "" && matches(parts[0], fold(e.Name)) }, nil
	}
	return func(e *tree.Entry) bool { return matchParts(parts, strings.Split(fold(e.Path()), "/")) }, nil
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// matchParts matches component by component. It goes forward and, on a
// mismatch, back to the last ** only, so its cost is bounded.
func matchParts(pattern, names []string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(names) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, mark = p, n
			p++
		case p < len(pattern) && matches(pattern[p], names[n]):
			p, n = p+1, n+1
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}
