//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tripod/internal/core/frame"
	kinds "tripod/internal/core/tripod"
	"tripod/internal/driver/store/fs"
	"tripod/internal/vault"
	"tripod/internal/vault/collect"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

const (
	leafBlobs    = 1000 // data blobs below a node
	collectSnaps = 10
	bodyLen      = 64 // of a made-up data blob, bytes
)

// collection measures a collection that frees half of many blobs, and how fast
// a backup puts blobs beside one.
func (b *bench) collection(ctx context.Context) (section, error) {
	b.dropTree()
	s := newSeries(b.tools, "index", "collect", "again")
	places := b.absolute(corpus{path: b.dir})
	if len(places) != 1 || places[0].tool.name != "tripod" {
		return section{Name: "collect", Title: "Collection", Note: "no peer can be measured on the same blobs"}, nil
	}
	if err := needSpace(b.dir, int64(b.blobs)*500/1e9+2); err != nil {
		return section{}, err
	}
	p := places[0]
	defer os.RemoveAll(p.dir) // lint:errcheck what stays is only litter
	for _, d := range []string{"cache", "home", "tmp", "vault"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o700); err != nil {
			return section{}, err
		}
	}
	say("collect: making %d blobs in %d snapshots, of which every other is forgotten", b.blobs, collectSnaps)
	alone, beside, err := manyBlobs(ctx, p, b.blobs)
	if err != nil {
		return section{}, fmt.Errorf("make blobs: %w", err)
	}
	for i, args := range [][]string{
		{"vault", "rebuild-index", "--vault", "{vault}"}, {"collect", "--vault", "{vault}"}, {"collect", "--vault", "{vault}"},
	} {
		err := b.attempt(ctx, s, "collect", s.steps[i], p.tool.name, func() (sample, error) {
			before, _, err := footprint(p.vault())
			if err != nil {
				return sample{}, err
			}
			m, err := measure(ctx, p.env(), p.command(args), nil)
			if err != nil {
				return m, err
			}
			after, objects, err := footprint(p.vault())
			m.Added, m.Objects = after-before, objects
			return m, err
		})
		if err != nil {
			return section{}, err
		}
	}
	sec := newSection("collect", fmt.Sprintf("Collection in a vault of %d blobs, half of which nothing needs; one run", b.blobs), s)
	if m, ok := s.of("collect", "tripod"); ok {
		sec.Verdicts = []verdict{
			below("peak memory, MB", float64(m.Peak)/1e6, 1000),
			below("a backup's time for its blobs beside a collection, ratio", beside.Seconds()/alone.Seconds(), 1/0.8),
		}
		sec.Verdicts[0].Detail = fmt.Sprintf("%.0f blobs a second", float64(b.blobs)/m.Seconds)
	}
	return sec, nil
}

// manyBlobs fills a place's vault. It tells how long it takes to put a share of
// them alone and while a collection runs.
func manyBlobs(ctx context.Context, p place, n int) (alone, beside time.Duration, err error) {
	w := vaulttest.NewWorld(1)
	store, err := fs.Create(p.vault())
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := local.Create(ctx, store, w.Encoded, w.Keyring); err != nil {
		return 0, 0, err
	}
	v, err := local.Open(ctx, store, local.Options{IndexDir: filepath.Join(p.dir, "making")})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	m := w.Machine(1)
	s, err := v.Begin(ctx, vault.Holder{Text: "bench"}, nil)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.PutDocument(ctx, vault.CertificateName(m.ID), m.Certificate); err != nil {
		return 0, 0, err
	}
	maker := &blobMaker{w: w, s: s}
	if err := maker.snapshots(ctx, m, n); err != nil {
		return 0, 0, err
	}
	share := max(n/50, leafBlobs)
	if alone, err = maker.timed(ctx, share); err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	collecting, stop := context.WithCancel(ctx)
	go func() {
		_, err := collect.Run(collecting, v, collect.Options{TempDir: filepath.Join(p.dir, "tmp"), DryRun: true})
		done <- err
	}()
	beside, err = maker.timed(ctx, share)
	stop()
	if e := <-done; e != nil && !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	return alone, beside, err
}

// blobMaker puts made-up blobs.
type blobMaker struct {
	w    *vaulttest.World
	s    *local.Session
	made int
}

// leaf puts data blobs.
func (m *blobMaker) leaf(ctx context.Context, n int) ([]vaulttest.Blob, error) {
	blobs := make([]vaulttest.Blob, n)
	for i := range blobs {
		blobs[i] = m.w.Data(m.made, bodyLen)
		m.made++
	}
	_, err := m.s.Put(ctx, frame.DataClass, vaulttest.Frames(blobs...))
	return blobs, err
}

func (m *blobMaker) timed(ctx context.Context, n int) (time.Duration, error) {
	began := time.Now()
	for range n / leafBlobs {
		if _, err := m.leaf(ctx, leafBlobs); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// snapshots puts n blobs so that each pack holds some of every snapshot, and
// forgets every other snapshot.
func (m *blobMaker) snapshots(ctx context.Context, machine *vaulttest.Machine, n int) error {
	var roots [collectSnaps][]vaulttest.Blob
	const together = 20 // leaves in a pack
	for made := 0; made < n; made += leafBlobs * together {
		var all []vaulttest.Blob
		for range leafBlobs * together {
			all = append(all, m.w.Data(m.made, bodyLen))
			m.made++
		}
		if _, err := m.s.Put(ctx, frame.DataClass, vaulttest.Frames(all...)); err != nil {
			return err
		}
		var nodes []vaulttest.Blob
		for k := range together {
			leaf := m.w.Node(kinds.Tree, all[k*leafBlobs:(k+1)*leafBlobs]...)
			nodes = append(nodes, leaf)
			roots[k%collectSnaps] = append(roots[k%collectSnaps], vaulttest.Blob{ID: leaf.ID, Kind: leaf.Kind})
		}
		if _, err := m.s.Put(ctx, frame.NodeClass, vaulttest.Frames(nodes...)); err != nil {
			return err
		}
	}
	var last []byte
	for i := range roots {
		root := m.w.Node(kinds.Tree, roots[i]...)
		if _, err := m.s.Put(ctx, frame.NodeClass, vaulttest.Frames(root)); err != nil {
			return err
		}
		last = machine.Record(m.w.Source(1), last, root.ID, nil)
		if err := m.s.Commit(ctx, last, machine.Grants(last)); err != nil {
			return err
		}
		if i%2 == 0 {
			name, order := m.w.Forget(last)
			if err := m.s.PutDocument(ctx, name, order); err != nil {
				return err
			}
		}
	}
	return nil
}
