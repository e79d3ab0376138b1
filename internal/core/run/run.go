// Package run says how a piece of long work tells of itself: its phases, the
// events it emits on the way, and the warnings it ends with. Engines emit
// events and never print or log; whoever started the run draws them.
package run

// Phase names what a run is doing.
type Phase string

// The phases runs go through.
const (
	Waiting  Phase = "waiting"  // for another writer of the same vault
	Opening  Phase = "opening"  // reading the vault's index
	Scanning Phase = "scanning" // finding out what there is to do
	Saving   Phase = "saving"   // reading, sealing and storing
	Reading  Phase = "reading"  // fetching and opening stored data
	Finish   Phase = "finish"   // last metadata and the commit
)

// Event is one sign of life. The counters are totals since the run began;
// a Total of 0 means it is not known yet. Emitters limit themselves to some
// ten progress events a second; warnings are never dropped.
type Event struct {
	Phase      Phase
	Files      int64  // files done
	FilesTotal int64  // files expected
	Bytes      int64  // plaintext bytes done
	BytesTotal int64  // plaintext bytes expected
	Stored     int64  // bytes written to the vault
	Item       string // what is worked on, or what Warning is about
	Warning    error  // something was left out or differs; the run goes on
}

// Progress receives events. Calls are serialized by the emitter and must
// return quickly. A nil Progress is legal: use Emit.
type Progress func(Event)

// Emit calls p unless it is nil.
func (p Progress) Emit(e Event) {
	if p != nil {
		p(e)
	}
}
