package backup

import (
	"context"

	"tripod/internal/core/run"
	"tripod/internal/core/seal"
	"tripod/internal/core/tree"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// Stream backs up bytes that come once, front to back. A stream that ends in
// an error makes no snapshot.
func Stream(ctx context.Context, in source.Stream, o Options) (*Report, error) {
	if l := o.label(); l.Check() != nil {
		return new(Report), l.Check()
	}
	s := begin(ctx, tripod.Stream, o)
	err := s.stream(ctx, in)
	return s.finish(), err
}

func (s *session) stream(ctx context.Context, in source.Stream) error {
	s.report.Files, s.report.New = 1, 1
	s.meter.phase(run.Saving)
	if s.DryRun {
		return tripod.Errorf(tripod.Invalid, "dry run of a stream: it can be read only once").
			WithHint("leave --dry-run away")
	}
	old := readRefs(s.cachePath())
	held := false
	if !old.empty() {
		var err error
		if held, err = s.holdsRoot(ctx, &old.root); err != nil {
			return err
		}
	}
	if held {
		s.base = old.root
	}
	known := map[knownSum]bool{}
	for i := range int64(old.len()) {
		if r := old.at(i); held {
			known[sumOfRef(&r)] = true
		}
	}
	var fresh []byte
	list := tree.NewListBuilder(func(kind tripod.BlobKind, refs []tripod.ID, plain []byte) (seal.Ref, error) {
		return s.up.node(ctx, kind, refs, plain)
	})
	err := newSplitTools(s.Keys.ChunkKey()).split(ctx, in, func(ctx context.Context, c []byte) (seal.Ref, error) {
		return s.up.blob(ctx, c, func(r *seal.Ref) bool { return known[sumOfRef(r)] })
	}, func(part sealed) error {
		s.report.Bytes += int64(part.length)
		s.meter.done(0, int64(part.length), in.Name())
		fresh = seal.AppendRef(fresh, &part.ref)
		return list.Add(part.ref, int64(part.length))
	})
	if err != nil {
		return err
	}
	root, err := list.Finish()
	if err != nil {
		return err
	}
	if err := s.up.flush(ctx); err != nil {
		return err
	}
	s.report.Read = s.report.Bytes
	if s.report.Bytes == 0 {
		s.Warnings.add("", tripod.Errorf(tripod.Invalid, "stream %s: is empty, and so is its snapshot", in.Name()).
			WithHint("did the program that makes it fail?"))
	}
	if err := s.commit(ctx, root); err != nil {
		return err
	}
	if path := s.cachePath(); path != "" {
		if err := (&refTable{root: root, refs: fresh}).save(path); err != nil {
			s.Warnings.add(path, err)
		}
	}
	return nil
}
