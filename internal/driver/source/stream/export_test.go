package stream

import (
	"context"
	"time"
)

// ImpatientCommand is a Command that waits for nobody's children.
func ImpatientCommand(ctx context.Context, name string, argv ...string) (*Stream, error) {
	return command(ctx, time.Millisecond, name, argv...)
}
