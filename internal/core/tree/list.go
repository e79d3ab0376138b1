package tree

import (
	"bytes"
	"encoding/binary"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// A list is the content of a long file or a stream: blobs one after another.
// Lists are cut where the blobs' ids say so, so that an insertion rewrites few.
const (
	listVersion = 1
	listMax     = 1024
	listBits    = 8
	// ListFrom is the number of chunks from which a file gets a list.
	ListFrom = 17
)

// ListNode is a decoded node of a list. At level 0 the items are data blobs,
// above they are lists.
type ListNode struct {
	Level int
	Items []ListItem
}

// ListItem is one part of a list.
type ListItem struct {
	Ref    seal.Ref
	Length int64 // plaintext bytes at and below it
}

// Size is the length of the list's content in bytes.
func (n *ListNode) Size() (size int64) {
	for i := range n.Items {
		size += n.Items[i].Length
	}
	return size
}

// ItemKind is the kind of the node's items.
func (n *ListNode) ItemKind() tripod.BlobKind {
	if n.Level == 0 {
		return tripod.Data
	}
	return tripod.List
}

// DecodeList decodes a list node. refs are the ones its frame carries.
func DecodeList(plain []byte, refs []tripod.ID) (*ListNode, error) {
	f := &fields{b: plain}
	version, level := f.byte(), f.byte()
	if f.bad || version != listVersion || level > maxLevel {
		return nil, tripod.Errorf(tripod.Corrupt, "list node: unknown version or level")
	}
	n := &ListNode{Level: int(level)}
	children := f.refs()
	if len(children) > listMax {
		f.fail()
		children = nil
	}
	var total int64
	for i := range children {
		item := ListItem{Ref: children[i].Ref, Length: f.length()}
		if total += item.Length; children[i].Kind != n.ItemKind() || total < 0 {
			f.fail()
		}
		n.Items = append(n.Items, item)
	}
	if err := f.done("list node"); err != nil {
		return nil, err
	}
	return n, CheckRefs(children, refs)
}

// ListBuilder makes a list from its blobs in order.
type ListBuilder struct {
	emit   Emit
	levels [][]ListItem
}

// NewListBuilder makes a builder that hands finished nodes to emit.
func NewListBuilder(emit Emit) *ListBuilder { return &ListBuilder{emit: emit} }

// Add adds a data blob of the given plaintext length.
func (b *ListBuilder) Add(ref seal.Ref, length int64) error { return b.push(0, ref, length) }

func (b *ListBuilder) push(level int, ref seal.Ref, length int64) error {
	if level == len(b.levels) {
		b.levels = append(b.levels, nil)
	}
	b.levels[level] = append(b.levels[level], ListItem{Ref: ref, Length: length})
	id := ref.ID()
	cut := binary.LittleEndian.Uint32(id[:])&(1<<listBits-1) == 0
	if cut || len(b.levels[level]) == listMax {
		return b.close(level)
	}
	return nil
}

func (b *ListBuilder) close(level int) error {
	ref, length, err := b.node(level)
	if err != nil {
		return err
	}
	return b.push(level+1, ref, length)
}

func (b *ListBuilder) node(level int) (seal.Ref, int64, error) {
	n := ListNode{Level: level, Items: b.levels[level]}
	plain := []byte{listVersion, byte(level)}
	plain = binary.AppendUvarint(plain, uint64(len(n.Items)))
	plain = append(plain, bytes.Repeat([]byte{byte(n.ItemKind())}, len(n.Items))...)
	var ids []tripod.ID
	for i := range n.Items {
		plain = seal.AppendRef(plain, &n.Items[i].Ref)
		ids = append(ids, n.Items[i].Ref.ID())
	}
	for i := range n.Items {
		plain = binary.AppendUvarint(plain, uint64(n.Items[i].Length))
	}
	ref, err := b.emit(tripod.List, seal.SortRefs(ids), plain)
	size := n.Size()
	b.levels[level] = b.levels[level][:0]
	return ref, size, err
}

// Finish closes the list and returns its root, which is a list node even for
// one blob or none.
func (b *ListBuilder) Finish() (seal.Ref, error) {
	if len(b.levels) == 0 {
		b.levels = [][]ListItem{nil}
	}
	for level := 0; ; level++ {
		top := level == len(b.levels)-1
		if top && level > 0 && len(b.levels[level]) == 1 {
			return b.levels[level][0].Ref, nil
		}
		if top {
			ref, _, err := b.node(level)
			return ref, err
		}
		if len(b.levels[level]) == 0 {
			continue
		}
		if err := b.close(level); err != nil {
			return seal.Ref{}, err
		}
	}
}
