package collect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"

	"tripod/internal/core/frame"
	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/store/faulty"
	"tripod/internal/driver/store/mem"
	"tripod/internal/vault"
	"tripod/internal/vault/collect"
	"tripod/internal/vault/local"
	"tripod/internal/vault/vaulttest"
)

// TestHistories runs seeded histories of backups, commits, orders to forget and
// collections, in which sessions go on between the steps of a collection and
// the store dies at any of its operations. After every step all that live
// snapshots need is there, byte for byte; in the end nothing else is.
func TestHistories(t *testing.T) {
	n := 2000
	switch {
	case os.Getenv("TRIPOD_LONG") != "":
		n = 100_000
	case testing.Short():
		n = 40
	}
	first := 1
	if text := os.Getenv("TRIPOD_SEED"); text != "" {
		seed, err := strconv.Atoi(text)
		must(t, err)
		first, n = seed, 1
	}
	seeds := make(chan int)
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for seed := range seeds {
				h := &history{r: rand.New(rand.NewPCG(uint64(seed), 0)), ctx: t.Context(), tempDir: t.TempDir()}
				if err := h.play(); err != nil {
					t.Errorf("TRIPOD_SEED=%d: %v", seed, err)
				}
			}
		})
	}
	for i := range n {
		if t.Failed() {
			break
		}
		seeds <- first + i
	}
	close(seeds)
	wait.Wait()
}

// history is a vault, those who use it, and what it must hold.
type history struct {
	r       *rand.Rand
	ctx     context.Context
	tempDir string
	dirs    int
	w       *vaulttest.World
	m       *vaulttest.Machine
	store   *mem.Store
	faults  *faulty.Store
	v       *local.Vault

	sessions []*writer
	all      []vaulttest.Blob // ever made
	byID     map[tripod.ID]vaulttest.Blob
	heads    map[int][]byte // newest record by source
	live     map[string]liveSnapshot
	made     int
}

type liveSnapshot struct {
	record []byte
	root   vaulttest.Blob
}

// writer is a session and what it may build upon.
type writer struct {
	*local.Session
	source int
	counts []vaulttest.Blob
}

func (h *history) play() (err error) {
	h.w = vaulttest.NewWorld(1)
	h.m = h.w.Machine(1)
	h.store = mem.New()
	h.byID, h.heads, h.live = map[tripod.ID]vaulttest.Blob{}, map[int][]byte{}, map[string]liveSnapshot{}
	if err := local.Create(h.ctx, h.store, h.w.Encoded, h.w.Keyring); err != nil {
		return err
	}
	if err := h.open(false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.shut()) }()
	s, err := h.v.Begin(h.ctx, vault.Holder{}, nil)
	if err != nil {
		return err
	}
	if err := s.PutDocument(h.ctx, vault.CertificateName(h.m.ID), h.m.Certificate); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	for step := range 12 + h.r.IntN(12) {
		if err := h.step(); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if err := h.check(h.v); err != nil {
			return fmt.Errorf("after step %d: %w", step, err)
		}
	}
	return h.end()
}

// open opens the vault with the index it had or with none.
func (h *history) open(anew bool) error {
	if anew || h.dirs == 0 {
		h.dirs++
	}
	h.faults = faulty.New(h.store)
	v, err := local.Open(h.ctx, h.faults, local.Options{IndexDir: fmt.Sprintf("%s/%d", h.tempDir, h.dirs)})
	h.v = v
	return err
}

// shut ends all sessions as a process does that ends.
func (h *history) shut() error {
	for _, s := range h.sessions {
		_ = s.Close() // the store may be dead
	}
	h.sessions = nil
	return h.v.Close()
}

func (h *history) step() error {
	switch n := h.r.IntN(10); {
	case n < 5:
		return h.backup()
	case n < 6:
		return h.forget()
	case n < 8:
		return h.collect()
	case n < 9:
		return h.die()
	default:
		if err := h.shut(); err != nil {
			return err
		}
		return h.open(h.r.IntN(2) == 0)
	}
}

// backup lets one of a few sessions do something.
func (h *history) backup() error {
	if len(h.sessions) < 3 && h.r.IntN(2) == 0 || len(h.sessions) == 0 {
		s, err := h.v.Begin(h.ctx, vault.Holder{Text: "a history"}, nil)
		if err != nil {
			return err
		}
		h.sessions = append(h.sessions, &writer{Session: s, source: h.r.IntN(3)})
	}
	at := h.r.IntN(len(h.sessions))
	s := h.sessions[at]
	for range 1 + h.r.IntN(4) {
		if err := h.write(s); err != nil {
			return err
		}
	}
	switch h.r.IntN(4) {
	case 0:
		return h.finish(at, true)
	case 1:
		return h.finish(at, false)
	}
	return nil
}

func (h *history) write(s *writer) error {
	switch h.r.IntN(3) {
	case 0:
		return h.ask(s)
	case 1:
		var batch []vaulttest.Blob
		for range 1 + h.r.IntN(3) {
			batch = append(batch, h.w.Data(h.r.IntN(30), 40))
		}
		return h.put(s, batch...)
	}
	if len(s.counts) == 0 {
		return nil
	}
	var below []vaulttest.Blob
	for range 1 + h.r.IntN(4) {
		below = append(below, s.counts[h.r.IntN(len(s.counts))])
	}
	return h.put(s, h.w.Node(tripod.Tree, below...))
}

// ask makes the session count on blobs that the vault says it has.
func (h *history) ask(s *writer) error {
	if len(h.all) == 0 {
		return nil
	}
	var about []vaulttest.Blob
	for range 1 + h.r.IntN(5) {
		about = append(about, h.all[h.r.IntN(len(h.all))])
	}
	have, err := s.Have(h.ctx, vaulttest.IDs(about...))
	for i := range have {
		if len(have[i]) > 0 {
			s.counts = append(s.counts, about[i])
		}
	}
	return err
}

func (h *history) put(s *writer, blobs ...vaulttest.Blob) error {
	if _, err := s.Put(h.ctx, frame.ClassOf(blobs[0].Kind), vaulttest.Frames(blobs...)); err != nil {
		return fmt.Errorf("put upon what the session counts on: %w", err)
	}
	for _, b := range blobs {
		if _, known := h.byID[b.ID]; !known {
			h.byID[b.ID] = b
			h.all = append(h.all, b)
		}
	}
	s.counts = append(s.counts, blobs...)
	return nil
}

// finish ends a session, with a snapshot if it has something to commit.
func (h *history) finish(at int, commit bool) error {
	s := h.sessions[at]
	h.sessions = slices.Delete(h.sessions, at, at+1)
	nodes := slices.DeleteFunc(slices.Clone(s.counts), func(b vaulttest.Blob) bool { return b.Kind != tripod.Tree })
	if !commit || len(nodes) == 0 {
		return s.Close()
	}
	root := nodes[h.r.IntN(len(nodes))]
	record := h.m.Record(h.w.Source(s.source), h.heads[s.source], root.ID, nil)
	if err := s.Commit(h.ctx, record, h.m.Grants(record)); err != nil {
		return fmt.Errorf("commit of what the session counts on: %w", err)
	}
	h.made++
	h.heads[s.source] = record
	h.live[orderName(record)] = liveSnapshot{record, root}
	return s.Close()
}

func (h *history) forget() error {
	names := make([]string, 0, len(h.live))
	for name := range h.live {
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	name := names[h.r.IntN(len(names))]
	s, err := h.v.Begin(h.ctx, vault.Holder{}, nil)
	if err != nil {
		return err
	}
	err = s.PutDocument(h.ctx, name, order(h.w, h.live[name].record))
	if err == nil {
		delete(h.live, name)
	}
	return errors.Join(err, s.Close())
}

// collect collects while sessions go on; those that began before the blobs were
// condemned must have ended before the sweep.
func (h *history) collect() error {
	var inside error
	_, err := collect.Run(h.ctx, h.v, collect.Options{
		TempDir: h.tempDir, Unused: float64(h.r.IntN(3)) * 0.2,
		Progress: func(e run.Event) {
			if e.Phase != run.Waiting && h.r.IntN(3) == 0 {
				inside = errors.Join(inside, h.backup())
			}
			for e.Phase == run.Waiting && len(h.sessions) > 0 {
				inside = errors.Join(inside, h.write(h.sessions[0]), h.finish(0, h.r.IntN(2) == 0))
			}
		},
	})
	return errors.Join(err, inside)
}

// die collects on a store that stops to work at some operation, for good. Then
// the process ends, and the next one finds what is there.
func (h *history) die() error {
	for len(h.sessions) > 0 {
		if err := h.finish(0, h.r.IntN(2) == 0); err != nil {
			return err
		}
	}
	h.faults.Script(faulty.On(faulty.From(1+h.r.IntN(40)), faulty.Fail(tripod.Unavailable)))
	_, _ = collect.Run(h.ctx, h.v, collect.Options{TempDir: h.tempDir})
	if err := h.shut(); err != nil {
		return err
	}
	return h.open(h.r.IntN(2) == 0)
}

// needed gives all that live snapshots need.
func (h *history) needed() map[tripod.ID]vaulttest.Blob {
	needed := map[tripod.ID]vaulttest.Blob{}
	var visit func(b vaulttest.Blob)
	visit = func(b vaulttest.Blob) {
		if _, seen := needed[b.ID]; seen {
			return
		}
		needed[b.ID] = b
		for _, ref := range b.Refs {
			visit(h.byID[ref])
		}
	}
	for _, s := range h.live {
		visit(s.root)
	}
	return needed
}

// check reads all that live snapshots need.
func (h *history) check(v *local.Vault) error {
	var ids []tripod.ID
	needed := h.needed()
	for id := range needed {
		ids = append(ids, id)
	}
	return v.Get(h.ctx, ids, func(i int, encoded []byte) error {
		if !bytes.Equal(encoded, needed[ids[i]].Frame) {
			return errors.New("other bytes")
		}
		return nil
	}, nil)
}

// end collects once more, in a quiet vault that someone else opens: what is
// needed is there, and nothing else.
func (h *history) end() error {
	if err := h.shut(); err != nil {
		return err
	}
	if err := h.open(true); err != nil {
		return err
	}
	r, err := collect.Run(h.ctx, h.v, collect.Options{TempDir: h.tempDir})
	if err != nil {
		return err
	}
	if len(r.Kept) > 0 {
		return fmt.Errorf("kept: %v", r.Kept)
	}
	if err := h.shut(); err != nil {
		return err
	}
	if err := h.open(true); err != nil {
		return err
	}
	if err := h.check(h.v); err != nil {
		return err
	}
	idx, err := h.v.Index(h.ctx)
	if err != nil {
		return err
	}
	n, err := idx.Blobs()
	if want := len(h.needed()); err != nil || int(n) != want {
		return fmt.Errorf("the vault holds %d blobs in the end, %d are needed: %w", n, want, err)
	}
	return nil
}
