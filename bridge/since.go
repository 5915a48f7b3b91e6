package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// happened is when a message was written, as far as its network told: never later than now.
func (o *outgoing) happened() time.Time {
	now := time.Now()
	if o.Timestamp > 0 && o.Timestamp < now.UnixMilli() {
		return time.UnixMilli(o.Timestamp)
	}
	return now
}

// Since looks at what was taken in last: it waits in the outbox, or is on Matrix.
func (s *sink) Since(ctx context.Context, channel string) (time.Time, error) {
	b := s.b
	p := b.portals.channel(channel)
	if p == nil {
		return time.Time{}, nil
	}
	newest, err := b.store.NewestRemote(ctx, p.Channel)
	if err != nil {
		return time.Time{}, fmt.Errorf("finding out what came last from %s: %w", channel, err)
	}
	row, err := b.store.NewestOutgoing(ctx, string(p.Room), opMessage)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return time.Time{}, fmt.Errorf("finding out what came last from %s: %w", channel, err)
	default:
		var o outgoing
		if json.Unmarshal(row.Payload, &o) == nil && o.Channel == p.Channel {
			if at := o.happened(); at.After(newest) {
				newest = at
			}
		}
	}
	if newest.Before(p.Created) {
		return p.Created, nil
	}
	return newest, nil
}
