package backup

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"tripod/internal/core/run"
	"tripod/internal/core/tripod"
	"tripod/internal/driver/source"
)

// every is the least time between two progress events.
const every = 100 * time.Millisecond

// meter counts what is done and tells of it, not too often.
type meter struct {
	files, bytes, stored   atomic.Int64
	filesTotal, bytesTotal atomic.Int64
	due                    atomic.Int64 // unix nanoseconds of the next event

	mu       sync.Mutex // held while telling, so that events are serialized
	progress run.Progress
	now      run.Phase
}

func newMeter(p run.Progress) *meter { return &meter{progress: p, now: run.Scanning} }

func (m *meter) phase(p run.Phase) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = p
	m.tell("", nil)
}

// done counts finished work and tells of it when an event is due.
func (m *meter) done(files, bytes int64, item string) {
	m.files.Add(files)
	m.bytes.Add(bytes)
	if m.progress == nil {
		return
	}
	now, due := time.Now().UnixNano(), m.due.Load()
	if now < due || !m.due.CompareAndSwap(due, now+int64(every)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(item, nil)
}

func (m *meter) warn(item string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(item, err)
}

// last tells the final counts.
func (m *meter) last() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell("", nil)
}

// tell emits an event; the caller holds mu.
func (m *meter) tell(item string, warning error) {
	m.progress.Emit(run.Event{
		Phase: m.now, Files: m.files.Load(), FilesTotal: m.filesTotal.Load(), Bytes: m.bytes.Load(),
		BytesTotal: m.bytesTotal.Load(), Stored: m.stored.Load(), Item: item, Warning: warning,
	})
}

// Warnings collects what a run leaves out. Give its Watcher to the source and
// itself to the run. The zero value is ready.
type Warnings struct {
	count atomic.Int64
	meter atomic.Pointer[meter]
	first atomic.Pointer[error] // that is not NotFound
}

// Watcher passes a source's warnings on to the run's progress.
func (w *Warnings) Watcher() source.Watcher { return source.Watcher{Warn: w.addEntry} }

// Count is how many there were so far.
func (w *Warnings) Count() int64 { return w.count.Load() }

func (w *Warnings) attach(m *meter) { w.meter.Store(m) }

func (w *Warnings) add(path string, err error) {
	w.count.Add(1)
	if !errors.Is(err, tripod.NotFound) {
		w.first.CompareAndSwap(nil, &err)
	}
	if m := w.meter.Load(); m != nil {
		m.warn(path, err)
	}
}
