//go:build goolm

package crypto

import (
	"context"
	"sync"
	"time"
)

// A homeserver that could not be reached and answers again was restarted, or cut off: it may have dropped what it had to tell of devices, and messages to
// them. So it is as after a start of the bridge. Where nobody asked anything of it while it was away, that is not noticed; then [doubtDevicesEvery] holds.

// watchEvery is how often it is looked whether it has returned, besides before each use of a room key.
const watchEvery = 5 * time.Second

// returnsEvery is how often at most something is done about it: each time costs all that the bridge knows of devices.
const returnsEvery = time.Minute

// returns is the count of [appservice.AppService.HomeserverReturns] that was acted upon, and when.
type returns struct {
	mu   sync.Mutex
	seen int64
	at   time.Time
}

// doubtAfterReturn marks all devices as outdated, and has the bridge's own ask for what was sent to them, if the homeserver was away since the last time.
func (c *Crypto) doubtAfterReturn(ctx context.Context) error {
	c.returns.mu.Lock()
	defer c.returns.mu.Unlock()
	now := c.as.HomeserverReturns()
	if now == c.returns.seen || time.Since(c.returns.at) < returnsEvery {
		return nil
	}
	if err := c.doubtDevices(ctx); err != nil {
		return err
	}
	c.returns.seen, c.returns.at = now, time.Now()
	c.syncs.askAgain()
	return nil
}

func (c *Crypto) watchHomeserver() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.quit:
			return
		}
		if err := c.doubtAfterReturn(context.Background()); err != nil {
			c.log.Warn().Err(err).Msg("The homeserver was away, and the devices of all users could not be marked as outdated; it is tried again")
		}
	}
}
