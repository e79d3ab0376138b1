package tree

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// Child is a blob that a node needs.
type Child struct {
	Ref  seal.Ref
	Kind tripod.BlobKind
	// The first key below an inner node's child; empty elsewhere.
	Parent, Name string
}

// Node is a decoded node of a file tree. A leaf (level 0) has Entries; its
// Children are the blobs its entries refer to, each once. An inner node's
// Children are the nodes one level below, in order.
type Node struct {
	Level    int
	Entries  []Entry
	Children []Child
}

const (
	maxLevel    = 8
	maxChildren = 1 << 12
)

// CheckRefs returns Corrupt unless refs, which the provider sees and keeps
// alive, are exactly the ids of the children the sealed part names.
func CheckRefs(children []Child, refs []tripod.ID) error {
	ids := make([]tripod.ID, len(children))
	for i := range children {
		ids[i] = children[i].Ref.ID()
	}
	if !slices.Equal(seal.SortRefs(ids), refs) {
		return tripod.Errorf(tripod.Corrupt, "node: its public refs are not the blobs it needs")
	}
	return nil
}

// DecodeNode decodes a file-tree node. refs are the ones its frame carries.
func DecodeNode(plain []byte, refs []tripod.ID) (*Node, error) {
	n, err := ParseNode(plain)
	if err != nil {
		return nil, err
	}
	return n, CheckRefs(n.Children, refs)
}

// ParseNode decodes a file-tree node that came without a frame, from a place
// that keeps it whole.
func ParseNode(plain []byte) (*Node, error) {
	f := &fields{b: plain}
	version, level := f.byte(), int(f.byte())
	if f.bad || version != leafVersion || level > maxLevel || len(plain) > 2*maxNodeBytes {
		return nil, tripod.Errorf(tripod.Corrupt, "tree node: unknown version or level")
	}
	n := &Node{Level: level}
	var err error
	if level == 0 {
		n.Entries, n.Children, err = decodeLeaf(f)
	} else {
		n.Children, err = decodeInner(f)
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

func decodeInner(f *fields) ([]Child, error) {
	children := f.refs()
	if len(children) > maxChildren {
		f.fail()
	}
	for i := range children {
		c := &children[i]
		c.Parent, c.Name = f.text(maxText), f.text(maxText)
		if c.Kind != tripod.Tree || (i > 0 && Compare(children[i-1].Parent, children[i-1].Name, c.Parent, c.Name) >= 0) {
			f.fail()
		}
	}
	if len(children) == 0 {
		f.fail()
	}
	return children, f.done("tree node")
}

func appendInner(dst []byte, level int, children []Child) []byte {
	dst = append(dst, leafVersion, byte(level))
	dst = binary.AppendUvarint(dst, uint64(len(children)))
	dst = append(dst, bytes.Repeat([]byte{byte(tripod.Tree)}, len(children))...)
	for i := range children {
		dst = seal.AppendRef(dst, &children[i].Ref)
	}
	for i := range children {
		dst = appendText(dst, children[i].Parent)
		dst = appendText(dst, children[i].Name)
	}
	return dst
}

// Query selects entries of a file tree: those with keys from (Parent, Name)
// on, as long as they match.
type Query struct {
	from  [2]string
	match func(parent, name string) bool
}

// One selects the entry of a path.
func One(path string) Query {
	parent, name := SplitPath(path)
	return Query{from: [2]string{parent, name}, match: func(p, n string) bool { return p == parent && n == name }}
}

// ListOf selects the entries directly in a folder.
func ListOf(dir string) Query {
	return Query{from: [2]string{dir, ""}, match: func(p, n string) bool { return p == dir && n != "" }}
}

// Under selects everything inside a folder, at any depth, but not the folder
// itself.
func Under(dir string) Query {
	return Query{from: [2]string{dir, ""}, match: func(p, n string) bool { return Below(p, dir) && n != "" }}
}

// All selects every entry.
func All() Query {
	return Query{match: func(string, string) bool { return true }}
}

// Next answers a query as far as one node can: the entries of a leaf that
// match, or the children of an inner node that may hold some, in order.
func Next(n *Node, q Query) (entries []Entry, want []Child) {
	if n.Level > 0 {
		return nil, n.wanted(q)
	}
	start := sort.Search(len(n.Entries), func(i int) bool {
		return Compare(n.Entries[i].Parent, n.Entries[i].Name, q.from[0], q.from[1]) >= 0
	})
	end := start
	for end < len(n.Entries) && q.match(n.Entries[end].Parent, n.Entries[end].Name) {
		end++
	}
	// The first key of ListOf and Under is the root's own, which matches
	// neither; it is the one entry that may stand before the matches.
	if end == start && start < len(n.Entries) && n.Entries[start].Name == "" {
		start++
		for end = start; end < len(n.Entries) && q.match(n.Entries[end].Parent, n.Entries[end].Name); end++ {
		}
	}
	return n.Entries[start:end], nil
}

func (n *Node) wanted(q Query) []Child {
	// The last child that begins at or before the first key may hold it.
	start := max(0, sort.Search(len(n.Children), func(i int) bool {
		c := &n.Children[i]
		return Compare(c.Parent, c.Name, q.from[0], q.from[1]) > 0
	})-1)
	end := start + 1
	for end < len(n.Children) {
		c := &n.Children[end]
		if !q.match(c.Parent, c.Name) && c.Name != "" {
			break
		}
		end++
	}
	return n.Children[start:min(end, len(n.Children))]
}
