package terminal

import (
	"context"
	"io"
)

// readAhead is how much is read at once, and twice as much is in memory.
const readAhead = 256 << 10

// Interruptible reads from r until ctx ends. What is piped in can keep a read
// waiting for ever, and closing it does not wake the reader, so a goroutine
// reads ahead; it is left behind with its read when the context ends, as the
// program ends then.
func Interruptible(ctx context.Context, r io.Reader) io.Reader {
	parts := make(chan part)
	empty := make(chan []byte, 2)
	for range cap(empty) {
		empty <- make([]byte, readAhead)
	}
	go func() {
		for {
			var buf []byte
			select {
			case buf = <-empty:
			case <-ctx.Done():
				return
			}
			n, err := r.Read(buf[:readAhead])
			select {
			case parts <- part{buf[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return &interruptible{done: ctx.Done(), cause: ctx.Err, parts: parts, empty: empty}
}

// part is what one read gave.
type part struct {
	content []byte
	err     error
}

type interruptible struct {
	done  <-chan struct{}
	cause func() error
	parts <-chan part
	empty chan<- []byte
	now   part
	rest  []byte // of now, not yet handed out
}

// Read implements io.Reader. After an error it keeps returning it.
func (i *interruptible) Read(p []byte) (int, error) {
	for len(i.rest) == 0 {
		if i.now.err != nil {
			return 0, i.now.err
		}
		if i.now.content != nil {
			i.empty <- i.now.content // never waits: there are as many places as buffers
			i.now.content = nil
		}
		select {
		case <-i.done:
			i.now.err = i.cause()
		case i.now = <-i.parts:
			i.rest = i.now.content
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}
