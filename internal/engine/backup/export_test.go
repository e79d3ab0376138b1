package backup

import "time"

// WithClock replaces the clock that says when a file was read.
func WithClock(o Options, clock func() time.Time) Options {
	o.clock = clock
	return o
}
