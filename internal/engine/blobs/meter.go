package blobs

import (
	"sync"
	"sync/atomic"
	"time"

	"tripod/internal/core/run"
)

// Meter counts what a run has done and tells it to a run.Progress some ten
// times a second. Warnings are told at once. It may be used concurrently.
type Meter struct {
	progress   run.Progress
	files      atomic.Int64
	bytes      atomic.Int64
	next       atomic.Int64 // when to tell again, nanoseconds since start
	start      time.Time
	mu         sync.Mutex // serializes calls of progress
	phase      run.Phase
	filesTotal int64
	bytesTotal int64
}

const tellEvery = 100 * time.Millisecond

// NewMeter makes a meter. Totals of 0 are not known.
func NewMeter(p run.Progress, phase run.Phase, files, bytes int64) *Meter {
	m := &Meter{progress: p, start: time.Now(), phase: phase, filesTotal: files, bytesTotal: bytes}
	m.tell("", nil)
	return m
}

// Add counts files and bytes.
func (m *Meter) Add(files, bytes int64) {
	m.files.Add(files)
	m.bytes.Add(bytes)
	if m.progress == nil {
		return
	}
	now := int64(time.Since(m.start))
	if next := m.next.Load(); now >= next && m.next.CompareAndSwap(next, now+int64(tellEvery)) {
		m.tell("", nil)
	}
}

// Warn tells a warning about an item.
func (m *Meter) Warn(item string, warning error) { m.tell(item, warning) }

// Phase says what the run does from now on.
func (m *Meter) Phase(p run.Phase) {
	m.mu.Lock()
	m.phase = p
	m.mu.Unlock()
	m.tell("", nil)
}

// Done tells the final figures.
func (m *Meter) Done() { m.tell("", nil) }

// Counts are what was counted so far.
func (m *Meter) Counts() (files, bytes int64) { return m.files.Load(), m.bytes.Load() }

func (m *Meter) tell(item string, warning error) {
	if m.progress == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress.Emit(run.Event{
		Phase: m.phase, Files: m.files.Load(), FilesTotal: m.filesTotal,
		Bytes: m.bytes.Load(), BytesTotal: m.bytesTotal, Item: item, Warning: warning,
	})
}
