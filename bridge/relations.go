package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// This file keeps relations true in the moment in which their target crosses the other way: whoever answers a message has it from
// the one side before the bridge has committed what it became on the other. The relation waits for that.

const (
	// relationWait bounds the wait: then the message goes without its relation.
	relationWait = 30 * time.Second
	// relationPoll is how long a row waits for its target at most before it looks again; it is woken sooner.
	relationPoll = time.Second
	// redactionAge is the age from which on a message may have been redacted while it waited.
	redactionAge = 5 * time.Second
)

// errTargetUnderWay is no failure: the row is looked at again.
var errTargetUnderWay = errors.New("the message that is answered is still under way")

// errGhostMoves is none either.
var errGhostMoves = errors.New("the ghost's coming or going before it is still under way")

// underWay knows what crosses and is not committed: one message of a channel towards the network, one row of a lane towards Matrix.
type underWay struct {
	mu      sync.Mutex
	what    map[string]int64 // towards Matrix, which row
	waiting map[string]bool  // somebody waits for it
}

func newUnderWay() *underWay { return &underWay{what: map[string]int64{}, waiting: map[string]bool{}} }

func (u *underWay) set(key string, row int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.what[key] = row
}

func (u *underWay) is(key string, row int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.what[key] == row
}

// end says whether somebody waits for that.
func (u *underWay) end(key string) (awaited bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.what, key)
	awaited = u.waiting[key]
	delete(u.waiting, key)
	return awaited
}

// wait says whether there is anything to wait for.
func (u *underWay) wait(key string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.what[key] == 0 {
		return false
	}
	u.waiting[key] = true
	return true
}

// leaving notes a message on its way to the network. sent is the effect that ends it; failed ends it otherwise.
func (b *Bridge) leaving(p *portal) (sent appservice.Effect, failed func()) {
	b.toNetwork.set(p.Channel, 1)
	end := func() {
		if b.toNetwork.end(p.Channel) {
			b.outbox.Wake(string(p.Room))
		}
	}
	return func(tx *store.Tx) error {
		tx.AfterCommit(end)
		return nil
	}, end
}

// arriving notes the row of a lane that is on its way to Matrix, until arrived: also while it waits to be tried again.
func (b *Bridge) arriving(row *store.Outgoing) {
	if row.Op == opMessage {
		b.toMatrix.set(row.Lane, row.ID)
	}
}

// arrived ends that.
func (b *Bridge) arrived(lane string) {
	if b.toMatrix.end(lane) {
		b.as.Wake()
	}
}

// awaitsRow says whether a message's relation may be to a row that is under way.
func (b *Bridge) awaitsRow(room id.RoomID, written time.Time) error {
	if time.Since(written) < relationWait && b.toMatrix.wait(string(room)) {
		return appservice.Later(errTargetUnderWay)
	}
	return nil
}

// awaitsEvent says whether a row's relation may be to an event that is under way.
func (b *Bridge) awaitsEvent(channel string, row *store.Outgoing) error {
	if time.Since(row.Created) < relationWait && b.toNetwork.wait(channel) {
		return errTargetUnderWay
	}
	return nil
}

// withdrawn says whether a message that had to wait was redacted meanwhile: the redaction waits behind it, or was done with while it waited for its key. What the
// homeserver does not show who speaks in the room is taken as it came.
func (b *Bridge) withdrawn(ctx context.Context, ev *appservice.Event, written time.Time) (bool, error) {
	if ev.Attempts == 0 && time.Since(written) < redactionAge && !b.held.wasParked(ev, time.Now()) {
		return false, nil
	}
	speaker, err := b.speaker(ctx, ev.RoomID)
	if err != nil {
		return false, err
	}
	raw, err := b.as.Ghost(speaker).Event(ctx, ev.RoomID, ev.ID)
	if errors.Is(err, mautrix.MNotFound) || isRefusal(err) {
		return false, nil
	} else if err != nil {
		return false, appservice.Later(fmt.Errorf("looking whether it was redacted while it waited: %w", err))
	}
	var now struct {
		Unsigned struct {
			Because json.RawMessage `json:"redacted_because"`
		} `json:"unsigned"`
	}
	return json.Unmarshal(raw, &now) == nil && len(now.Unsigned.Because) > 0, nil
}
