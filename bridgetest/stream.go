package bridgetest

import "context"

// advance moves the stream on by one position, which is given to whatever happens now.
func (hs *Homeserver) advance() int64 {
	hs.stream++
	return hs.stream
}

// notify wakes whoever waits for the stream to move.
func (hs *Homeserver) notify() {
	close(hs.changed)
	hs.changed = make(chan struct{})
}

// await returns when the stream moved on from where the channel was taken, or nobody waits any longer.
func (hs *Homeserver) await(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-hs.ctx.Done():
		return hs.ctx.Err()
	}
}
