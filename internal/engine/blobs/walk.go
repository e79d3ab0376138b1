package blobs

import (
	"context"

	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
)

// ahead is how many nodes are fetched at a time while those before are used.
const ahead = 4

// Lost is told that part of a tree cannot be read: what begins at the path
// from, in the order of a walk. It gives nil to go on without it.
type Lost func(from string, err error) error

// Walk calls fn with runs of the entries that q selects, in order, each run
// from one leaf. fn may keep the entries. Nodes are read ahead while fn works.
// With lost nil, a node that cannot be read ends the walk.
func (r *Reader) Walk(ctx context.Context, root seal.Ref, q tree.Query, fn func([]tree.Entry) error, lost Lost) error {
	top, err := r.Node(ctx, root)
	if err != nil {
		if lost != nil && Damage(err) && ctx.Err() == nil {
			return lost("", err)
		}
		return inTree("", err)
	}
	return r.walk(ctx, top, q, fn, lost)
}

func (r *Reader) walk(ctx context.Context, n *tree.Node, q tree.Query, fn func([]tree.Entry) error, lost Lost) error {
	entries, want := tree.Next(n, q)
	if n.Level == 0 {
		if len(entries) == 0 {
			return nil
		}
		return fn(entries)
	}
	return Ahead(ctx, want, ahead,
		func(ctx context.Context, part []tree.Child) ([]any, error) {
			return r.children(ctx, n.Level, part, lost)
		},
		func(nodes []any) error {
			for _, got := range nodes {
				child, ok := got.(*tree.Node)
				if !ok {
					continue // lost, and told
				}
				if err := r.walk(ctx, child, q, fn, lost); err != nil {
					return err
				}
			}
			return nil
		})
}

// children reads nodes one level below level.
func (r *Reader) children(ctx context.Context, level int, part []tree.Child, lost Lost) ([]any, error) {
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
	for i := range part {
		if child, ok := nodes[i].(*tree.Node); ok {
			bad[i] = Fits(child, level-1, &part[i])
		}
		if bad[i] == nil {
			continue
		}
		nodes[i] = nil
		from := tree.Join(part[i].Parent, part[i].Name)
		if lost == nil {
			return nil, inTree(from, bad[i])
		}
		if err := lost(from, bad[i]); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// Fits checks that a node stands where its parent says: one level lower, with
// the first key its parent names. Otherwise a hostile tree could loop, or hide
// entries from lookups that a walk shows.
func Fits(n *tree.Node, level int, c *tree.Child) error {
	if n.Level != level {
		return tripod.Errorf(tripod.Corrupt, "tree node: is of level %d, not %d", n.Level, level)
	}
	var parent, name string
	switch {
	case n.Level > 0:
		parent, name = n.Children[0].Parent, n.Children[0].Name
	case len(n.Entries) > 0:
		parent, name = n.Entries[0].Parent, n.Entries[0].Name
	}
	if parent != c.Parent || name != c.Name {
		return tripod.Errorf(tripod.Corrupt, "tree node: begins at %q, not at %q", tree.Join(parent, name), tree.Join(c.Parent, c.Name))
	}
	return nil
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
