package tree

import (
	"bytes"
	"encoding/binary"

	"tripod/internal/core/seal"
	"tripod/internal/core/tripod"
)

// A disk map is a radix tree of fan-out 256 over a disk's blocks. A block of
// zeros is absent, and so is a node without blocks; a dirty block rewrites its
// path only. The last block of a disk is as long as what is left of the disk.
const (
	diskVersion = 1
	// DiskFan is the number of slots of a disk-map node.
	DiskFan = 256
	// MinBlock and MaxBlock bound a disk map's block size, in bytes; it is a
	// power of two.
	MinBlock = 64 << 10
	MaxBlock = 4 << 20
	// DefaultBlock is the usual block size in bytes.
	DefaultBlock = 1 << 20
	maxDisk      = 1 << 60
)

// DiskNode is a decoded node of a disk map. At level 0 the slots are data
// blobs, one per block; above they are disk nodes.
type DiskNode struct {
	Level int
	Size  int64 // of the whole disk, bytes
	Block int   // bytes
	Slots []Slot
}

// Slot is a present child of a disk node.
type Slot struct {
	Index int // 0 to 255
	Ref   seal.Ref
}

// DiskLevels is how many levels above the blocks a disk of a size needs: the
// root's level.
func DiskLevels(size int64, block int) int {
	blocks := (size + int64(block) - 1) / int64(block)
	level := 0
	for n := int64(DiskFan); n < blocks; n *= DiskFan {
		level++
	}
	return level
}

// SlotKind is the kind of the node's children.
func (n *DiskNode) SlotKind() tripod.BlobKind {
	if n.Level == 0 {
		return tripod.Data
	}
	return tripod.Disk
}

// SlotBlocks is how many blocks one slot of the node spans.
func (n *DiskNode) SlotBlocks() int64 {
	span := int64(1)
	for range n.Level {
		span *= DiskFan
	}
	return span
}

func (n *DiskNode) append(dst []byte) []byte {
	dst = append(dst, diskVersion, byte(n.Level))
	dst = binary.AppendUvarint(dst, uint64(n.Size))
	dst = binary.AppendUvarint(dst, uint64(n.Block))
	dst = binary.AppendUvarint(dst, uint64(len(n.Slots)))
	dst = append(dst, bytes.Repeat([]byte{byte(n.SlotKind())}, len(n.Slots))...)
	for i := range n.Slots {
		dst = seal.AppendRef(dst, &n.Slots[i].Ref)
	}
	for i := range n.Slots {
		dst = append(dst, byte(n.Slots[i].Index))
	}
	return dst
}

// DecodeDisk decodes a disk node. refs are the ones its frame carries.
func DecodeDisk(plain []byte, refs []tripod.ID) (*DiskNode, error) {
	f := &fields{b: plain}
	version := f.byte()
	n := &DiskNode{Level: int(f.byte()), Size: f.length(), Block: int(f.u32())}
	if f.bad || version != diskVersion || n.Level > maxLevel || n.Size > maxDisk ||
		n.Block < MinBlock || n.Block > MaxBlock || n.Block&(n.Block-1) != 0 || n.Level > DiskLevels(n.Size, n.Block) {
		return nil, tripod.Errorf(tripod.Corrupt, "disk map: impossible header")
	}
	children := f.refs()
	if len(children) > DiskFan {
		f.fail()
		children = nil
	}
	last := -1
	for i := range children {
		s := Slot{Index: int(f.byte()), Ref: children[i].Ref}
		if children[i].Kind != n.SlotKind() || s.Index <= last {
			f.fail()
		}
		last = s.Index
		n.Slots = append(n.Slots, s)
	}
	if err := f.done("disk map"); err != nil {
		return nil, err
	}
	return n, CheckRefs(children, refs)
}

// DiskBuilder makes a disk map from its blocks in ascending order.
type DiskBuilder struct {
	size   int64
	block  int
	emit   Emit
	levels [][]Slot
	index  []int64 // the node index open at each level
	next   int64   // the first block that may still be added
}

// NewDiskBuilder makes a builder for a disk of size bytes in blocks of block
// bytes, a power of two from MinBlock to MaxBlock.
func NewDiskBuilder(size int64, block int, emit Emit) (*DiskBuilder, error) {
	if size < 0 || size > maxDisk || block < MinBlock || block > MaxBlock || block&(block-1) != 0 {
		return nil, tripod.Errorf(tripod.Invalid, "disk map: block size %d", block).
			WithHint("choose a power of two from %d to %d", MinBlock, MaxBlock)
	}
	n := DiskLevels(size, block) + 1
	return &DiskBuilder{size: size, block: block, emit: emit, levels: make([][]Slot, n), index: make([]int64, n)}, nil
}

// Add says that block i, which is not all zeros, is the data blob ref.
func (b *DiskBuilder) Add(i int64, ref seal.Ref) error {
	if err := b.advance(i, 1); err != nil {
		return err
	}
	return b.put(0, i, ref)
}

// advance takes note that span blocks from first on are added.
func (b *DiskBuilder) advance(first, span int64) error {
	if first < b.next || first >= b.blocks() {
		return tripod.Errorf(tripod.Invalid, "disk map: block %d added after block %d of a disk of %d bytes", first, b.next-1, b.size)
	}
	b.next = first + span
	return nil
}

func (b *DiskBuilder) blocks() int64 { return (b.size + int64(b.block) - 1) / int64(b.block) }

// AddNode puts a whole subtree, of a level below the root, unread. index is
// its position among the nodes of that level. Blocks below it must not be added.
func (b *DiskBuilder) AddNode(level int, index int64, ref seal.Ref) error {
	if level < 0 || level >= len(b.levels)-1 || index > b.blocks() {
		return tripod.Errorf(tripod.Invalid, "disk map: no whole node at level %d", level)
	}
	span := (&DiskNode{Level: level + 1}).SlotBlocks()
	if err := b.advance(index*span, span); err != nil {
		return err
	}
	if err := b.close(level); err != nil {
		return err
	}
	return b.put(level+1, index, ref)
}

func (b *DiskBuilder) put(level int, child int64, ref seal.Ref) error {
	node := child / DiskFan
	if node != b.index[level] {
		if err := b.close(level); err != nil {
			return err
		}
		b.index[level] = node
	}
	b.levels[level] = append(b.levels[level], Slot{Index: int(child % DiskFan), Ref: ref})
	return nil
}

func (b *DiskBuilder) close(level int) error {
	// Lower levels hold what belongs before or into this node.
	if level > 0 {
		if err := b.close(level - 1); err != nil {
			return err
		}
	}
	if len(b.levels[level]) == 0 || level == len(b.levels)-1 {
		return nil
	}
	ref, err := b.node(level)
	if err != nil {
		return err
	}
	return b.put(level+1, b.index[level], ref)
}

func (b *DiskBuilder) node(level int) (seal.Ref, error) {
	n := DiskNode{Level: level, Size: b.size, Block: b.block, Slots: b.levels[level]}
	var ids []tripod.ID
	for i := range n.Slots {
		ids = append(ids, n.Slots[i].Ref.ID())
	}
	ref, err := b.emit(tripod.Disk, seal.SortRefs(ids), n.append(nil))
	b.levels[level] = b.levels[level][:0]
	return ref, err
}

// Finish closes the map and returns its root, present even for a disk of zeros.
func (b *DiskBuilder) Finish() (seal.Ref, error) {
	top := len(b.levels) - 1
	if top > 0 {
		if err := b.close(top - 1); err != nil {
			return seal.Ref{}, err
		}
	}
	return b.node(top)
}
