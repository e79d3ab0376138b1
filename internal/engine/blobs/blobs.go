// Package blobs reads sealed blobs back into plaintext: it fetches them from a
// vault in batches, opens them on as many goroutines as the vault hands them
// out, and walks the trees, lists and disk maps they make. What a reader
// delivers is believed only after it proved to be what its parent names.
//
// Restore, verify and browse stand on it. Start with Reader; walk.go goes
// through file trees, extent.go tells where a file's bytes are, copy.go brings
// them into order.
package blobs

import (
	"context"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/vault"
)

// Want names a blob to read.
type Want struct {
	Ref  seal.Ref
	Kind tripod.BlobKind
}

// Reader reads one company's blobs. It may be used concurrently.
type Reader struct {
	vault   vault.Reader
	company tripod.CompanyID
	free    chan *scratch
	nodes   *Cache[any]
	hashers chan *seal.Sealer
	// Check makes every read compute the frame's public checksum too.
	Check bool
	// KeepLeaves makes the node cache hold leaves too, which who goes through a
	// tree once does not need and which are large.
	KeepLeaves bool
}

// scratch is what opening one blob takes; it is used again.
type scratch struct {
	opener *seal.Opener
	plain  []byte
}

// mostOpening is how many blobs are opened at a time, at most, without making
// and forgetting the memory for it.
const mostOpening = 16

// cachedNodes bounds the node cache: a leaf of 1,024 entries takes up to 1 MB.
const cachedNodes = 24

// New makes a reader of a company's blobs.
func New(r vault.Reader, company tripod.CompanyID) *Reader {
	return &Reader{
		vault: r, company: company, free: make(chan *scratch, mostOpening),
		nodes: NewCache[any](cachedNodes), hashers: make(chan *seal.Sealer, mostOpening),
	}
}

func (r *Reader) take() *scratch {
	select {
	case s := <-r.free:
		return s
	default:
		return &scratch{opener: seal.NewOpener()}
	}
}

func (r *Reader) give(s *scratch) {
	select {
	case r.free <- s:
	default:
	}
}

// Use receives the plaintext of the i-th blob wanted, valid until it returns,
// and the ids its frame says it needs. Calls may be concurrent. Corrupt says
// that this copy of the blob is not usable.
type Use func(i int, plain []byte, refs []tripod.ID) error

// Fetch reads blobs in the order that suits the vault. A blob that is missing,
// damaged, or never delivered is told to onError, which gives nil to go on
// without it; when onError is nil, it ends the call. Whatever else fails ends
// it always.
func (r *Reader) Fetch(ctx context.Context, wants []Want, use Use, onError func(i int, err error) error) error {
	if len(wants) == 0 {
		return ctx.Err()
	}
	ids := make([]tripod.ID, len(wants))
	for i := range wants {
		ids[i] = wants[i].Ref.ID()
	}
	done := make([]bool, len(wants)) // each element is written by one goroutine at a time
	survive := func(i int, err error) error {
		done[i] = true
		if onError == nil || !Damage(err) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return onError(i, err)
	}
	err := r.vault.Get(ctx, ids, func(i int, encoded []byte) error {
		if i < 0 || i >= len(wants) {
			return tripod.Errorf(tripod.Internal, "blob %d of %d: delivered without being asked for", i, len(wants))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s := r.take()
		defer r.give(s)
		if err := r.open(s, &wants[i], encoded, func(plain []byte, refs []tripod.ID) error { return use(i, plain, refs) }); err != nil {
			return err
		}
		done[i] = true
		return nil
	}, survive)
	if err != nil {
		return err
	}
	for i := range done {
		if done[i] {
			continue
		}
		if err := survive(i, tripod.Errorf(tripod.NotFound, "blob %.16s: was asked for and not delivered", ids[i])); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Holds reports whether plain is the whole plaintext of the data blob with this U.
func (r *Reader) Holds(plain []byte, u *[32]byte) bool {
	var s *seal.Sealer
	select {
	case s = <-r.hashers:
	default:
		// U depends on no secret, so any will do.
		s = seal.NewSealer(r.company, seal.Secret{}, seal.Secret{}, seal.Fast)
	}
	ref := s.Ref(tripod.Data, nil, plain)
	select {
	case r.hashers <- s:
	default:
	}
	return ref.U == *u
}

// Damage reports whether err says that a blob is lost, rather than out of reach.
func Damage(err error) bool {
	k := tripod.KindOf(err)
	return k == tripod.Corrupt || k == tripod.NotFound
}

func (r *Reader) open(s *scratch, w *Want, encoded []byte, use func([]byte, []tripod.ID) error) error {
	if r.Check {
		if err := checkSum(encoded); err != nil {
			return err
		}
	}
	plain, refs, err := s.opener.Open(s.plain[:0], r.company, w.Kind, &w.Ref, encoded)
	if err != nil {
		return err
	}
	// What Open returns may be a shorter view of the memory it was given.
	if cap(plain) > cap(s.plain) {
		s.plain = plain
	}
	return use(plain, refs)
}

// Decode turns a node's plaintext into a *tree.Node, *tree.ListNode or
// *tree.DiskNode, by its kind.
func Decode(kind tripod.BlobKind, plain []byte, refs []tripod.ID) (any, error) {
	// Decoded nodes keep slices of what they were decoded from.
	plain = append([]byte(nil), plain...)
	switch kind {
	case tripod.Tree:
		return tree.DecodeNode(plain, refs)
	case tripod.List:
		return tree.DecodeList(plain, refs)
	case tripod.Disk:
		return tree.DecodeDisk(plain, refs)
	case tripod.Data:
	}
	return nil, tripod.Errorf(tripod.Internal, "blob of kind %s: is no node", kind)
}

// Nodes reads several nodes of one kind and gives them in the order of refs:
// *tree.Node, *tree.ListNode or *tree.DiskNode. A lost one is told to onError,
// if that is set, and then is nil.
func (r *Reader) Nodes(ctx context.Context, kind tripod.BlobKind, refs []seal.Ref, onError func(i int, err error) error) ([]any, error) {
	out := make([]any, len(refs))
	var wants []Want
	var at []int
	for i := range refs {
		if n, ok := r.nodes.Get(refs[i]); ok {
			out[i] = n
			continue
		}
		wants, at = append(wants, Want{Ref: refs[i], Kind: kind}), append(at, i)
	}
	if len(wants) == 0 {
		return out, ctx.Err()
	}
	var lost func(int, error) error
	if onError != nil {
		lost = func(i int, err error) error { return onError(at[i], err) }
	}
	err := r.Fetch(ctx, wants, func(i int, plain []byte, refs []tripod.ID) error {
		n, err := Decode(kind, plain, refs)
		if err != nil {
			return tripod.Errorf(tripod.KindOf(err), "blob %.16s: %w", wants[i].Ref.ID(), err)
		}
		out[at[i]] = n
		return nil
	}, lost)
	if err != nil {
		return nil, err
	}
	for i, n := range out {
		if leaf, ok := n.(*tree.Node); n != nil && (!ok || leaf.Level > 0 || r.KeepLeaves) {
			r.nodes.Put(refs[i], n)
		}
	}
	return out, nil
}

// Node reads one node of a file tree.
func (r *Reader) Node(ctx context.Context, ref seal.Ref) (*tree.Node, error) {
	return one[*tree.Node](ctx, r, tripod.Tree, ref)
}

// List reads one node of a list.
func (r *Reader) List(ctx context.Context, ref seal.Ref) (*tree.ListNode, error) {
	return one[*tree.ListNode](ctx, r, tripod.List, ref)
}

// Disk reads one node of a disk map.
func (r *Reader) Disk(ctx context.Context, ref seal.Ref) (*tree.DiskNode, error) {
	return one[*tree.DiskNode](ctx, r, tripod.Disk, ref)
}

func one[N any](ctx context.Context, r *Reader, kind tripod.BlobKind, ref seal.Ref) (n N, err error) {
	got, err := r.Nodes(ctx, kind, []seal.Ref{ref}, nil)
	if err != nil {
		return n, err
	}
	n, ok := got[0].(N)
	if !ok { // the cache holds it under another kind: two kinds never share a Ref
		return n, tripod.Errorf(tripod.Corrupt, "blob %.16s: is not of kind %s", ref.ID(), kind)
	}
	return n, nil
}
