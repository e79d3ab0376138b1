package blobs

import (
	"context"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// ahead is how many nodes are fetched at a time while those before are used.
const ahead = 4

// Lost is told that part of a tree cannot be read, before fn gets what follows
// it. It gives nil to go on without it. Calls may be concurrent with those of fn.
type Lost func(what Span, err error) error

// Walk calls fn with runs of the entries that q selects, in order, each run
// from one leaf. fn may keep the entries. Nodes are read ahead while fn works.
// With lost nil, a node that cannot be read ends the walk.
func (r *Reader) Walk(ctx context.Context, root seal.Ref, q tree.Query, fn func([]tree.Entry) error, lost Lost) error {
	top, err := r.Node(ctx, root)
	if err != nil {
		if lost != nil && Damage(err) && ctx.Err() == nil {
			return lost(Span{}, err)
		}
		return inTree("", err)
	}
	return r.walk(ctx, top, &tree.Place{}, q, fn, lost)
}

// walk goes through a node that stands in place p.
func (r *Reader) walk(ctx context.Context, n *tree.Node, p *tree.Place, q tree.Query, fn func([]tree.Entry) error, lost Lost) error {
	entries, want := tree.Next(n, q)
	if n.Level == 0 {
		if len(entries) == 0 {
			return nil
		}
		return fn(entries)
	}
	return Ahead(ctx, p.Below(n, want), ahead,
		func(ctx context.Context, part []tree.Placed) ([]stood, error) {
			return r.children(ctx, part, lost)
		},
		func(nodes []stood) error {
			for i := range nodes {
				if err := r.walk(ctx, nodes[i].node, nodes[i].place, q, fn, lost); err != nil {
					return err
				}
			}
			return nil
		})
}

// stood is a node that fits its place.
type stood struct {
	node  *tree.Node
	place *tree.Place
}

// children reads nodes and checks that they fit their places. Those that are
// lost are told and left out.
func (r *Reader) children(ctx context.Context, part []tree.Placed, lost Lost) ([]stood, error) {
	refs := make([]seal.Ref, len(part))
	for i := range part {
		refs[i] = part[i].Ref
	}
	bad := make([]error, len(part))
	nodes, err := r.Nodes(ctx, tripod.Tree, refs, func(i int, err error) error {
		bad[i] = err
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []stood
	for i := range part {
		place := &part[i].Place
		child, ok := nodes[i].(*tree.Node)
		if ok {
			bad[i] = place.Check(child)
		}
		if bad[i] == nil {
			out = append(out, stood{child, place})
			continue
		}
		if lost == nil {
			return nil, inTree(place.From(), bad[i])
		}
		if err := lost(SpanOf(place), bad[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func inTree(from string, err error) error {
	if !Damage(err) {
		return err
	}
	return tripod.Errorf(tripod.Corrupt, "folders from /%s on: %w", from, err)
}

// Ahead works through items in parts of n: it fetches the next part while use
// works on the one before. It returns when both have ended.
func Ahead[I, O any](ctx context.Context, items []I, n int, fetch func(context.Context, []I) (O, error), use func(O) error) error {
	if len(items) <= n { // nothing to read ahead
		if len(items) == 0 {
			return nil
		}
		out, err := fetch(ctx, items)
		if err != nil {
			return err
		}
		return use(out)
	}
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		out O
		err error
	}
	parts := make(chan result) // unbuffered: one part is used, one waits or is fetched
	go func() {
		defer close(parts)
		for len(items) > 0 {
			k := min(n, len(items))
			out, err := fetch(ctx, items[:k])
			items = items[k:]
			select {
			case parts <- result{out, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range parts { // wait for the goroutine to end
		}
	}()
	for p := range parts {
		if p.err != nil {
			return p.err
		}
		if err := use(p.out); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Find reads the entry of a path, or nil when there is none.
func (r *Reader) Find(ctx context.Context, root seal.Ref, path string) (found *tree.Entry, err error) {
	err = r.Walk(ctx, root, tree.One(path), func(entries []tree.Entry) error {
		found = &entries[0]
		return nil
	}, nil)
	return found, err
}
