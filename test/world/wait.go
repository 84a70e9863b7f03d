package world

import (
	"context"
	"time"
)

// pause waits a moment between two looks at a condition.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
