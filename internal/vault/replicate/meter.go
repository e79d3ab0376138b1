package replicate

import (
	"sync"
	"time"

	"tripod/internal/core/run"
)

// meter counts what a run does, and tells of it some ten times a second.
type meter struct {
	mu       sync.Mutex
	progress run.Progress
	event    run.Event
	blobs    int64
	last     time.Time
}

func newMeter(p run.Progress) *meter { return &meter{progress: p, event: run.Event{Phase: run.Saving}} }

func (m *meter) read(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event.Bytes += int64(n)
	m.tell()
}

func (m *meter) put(blobs int, stored int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs += int64(blobs)
	m.event.Stored += stored
	m.tell()
}

func (m *meter) at(item string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event.Item = item
	m.tell()
}

// tell is called with the lock held.
func (m *meter) tell() {
	if now := time.Now(); now.Sub(m.last) >= 100*time.Millisecond {
		m.last = now
		m.progress.Emit(m.event)
	}
}
