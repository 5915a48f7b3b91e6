package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// This file settles what was asked of the homeserver and never answered. A row is committed before anything of it leaves, and
// a room's lane has one row under way: so what may have been said before is the head of its lane at a start, and a row that was
// tried already. (Rows of ghosts' lanes need none of this: who comes in twice is in.) With a device the same transaction ID brings the same event. Without, a homeserver forgets its transaction
// IDs when it is restarted; then the event is looked for by the row's ID, which travels in the clear part of its content:
// among the echoes that come in, and last in the room's history.

// outboxKey is where in an event's content the ID of its outbox row stands.
const outboxKey = "io.github.trestle-bridge.outbox"

// rememberedFor is how long a homeserver is trusted to know a device's transaction IDs: Synapse forgets them after 24 h.
const rememberedFor = 20 * time.Hour

// clockSkew is by how much the homeserver's clock may be behind.
const clockSkew = time.Hour

// withOutboxID puts the row's ID into an event's content, an object.
func withOutboxID(content json.RawMessage, txnID string) json.RawMessage {
	rest := bytes.TrimLeft(bytes.TrimSpace(content), "{")
	marked := append([]byte(`{"`+outboxKey+`":`), mustJSON(txnID)...)
	if !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("}")) {
		marked = append(marked, ',')
	}
	return append(marked, rest...)
}

// outboxID reads what withOutboxID wrote; it is "" where nothing is.
func outboxID(content json.RawMessage) string {
	if !bytes.Contains(content, []byte(outboxKey)) {
		return ""
	}
	var marked map[string]json.RawMessage
	var txnID string
	if json.Unmarshal(content, &marked) != nil || json.Unmarshal(marked[outboxKey], &txnID) != nil {
		return ""
	}
	return txnID
}

// unanswered knows the rows of which the homeserver may have done already what they want.
type unanswered struct {
	mu    sync.Mutex
	heads map[int64]struct{}   // rows that were first in their lanes when the process started
	sent  map[string]unsettled // by transaction ID: asked for by this process, without a device, and not committed yet
}

type unsettled struct {
	row  int64
	lane string
	o    *outgoing
}

func newUnanswered() *unanswered {
	return &unanswered{heads: map[int64]struct{}{}, sent: map[string]unsettled{}}
}

// head notes a row that an earlier process may have been about.
func (u *unanswered) head(row int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.heads[row] = struct{}{}
}

// isHead says whether an earlier process may have been about a row.
func (u *unanswered) isHead(row int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, head := u.heads[row]
	return head
}

// asking notes a row whose event an echo may settle.
func (u *unanswered) asking(row *store.Outgoing, o *outgoing) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sent[row.TxnID] = unsettled{row.ID, row.Lane, o}
}

// done forgets a row that is over.
func (u *unanswered) done(row *store.Outgoing) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.heads, row.ID)
	delete(u.sent, row.TxnID)
}

// gone forgets a row that was settled without its worker.
func (u *unanswered) gone(row int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.heads, row)
	for txnID, of := range u.sent { // there are as many as rows under way
		if of.row == row {
			delete(u.sent, txnID)
		}
	}
}

// mayBeDone says whether the homeserver may have been asked before.
func (u *unanswered) mayBeDone(row *store.Outgoing) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, head := u.heads[row.ID]
	_, asked := u.sent[row.TxnID]
	return head || asked || row.Attempts > 0 || row.Cause != ""
}

// find gives the row that an echo settles.
func (u *unanswered) find(content func() json.RawMessage) (txnID string, of unsettled, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.sent) == 0 {
		return "", unsettled{}, false
	}
	txnID = outboxID(content())
	of, ok = u.sent[txnID]
	return txnID, of, ok
}

// alreadySent gives the event that a row has become, as far as that has to be found out, or "".
func (b *Bridge) alreadySent(ctx context.Context, row *store.Outgoing, o *outgoing, sender *appservice.Intent, device id.DeviceID) (id.EventID, error) {
	again := b.unanswered.mayBeDone(row)
	if device == "" {
		b.unanswered.asking(row, o)
	}
	since, replayed := row.Created.Add(-clockSkew), row.Attempts == 0 && row.Cause != ""
	switch {
	case !again, device != "" && !replayed && time.Since(row.Created) < rememberedFor:
		return "", nil
	case replayed: // out of the dead letters: nobody knows how long ago it was sent
		since = time.Time{}
	}
	found, err := sender.FindSent(ctx, o.Room, since, func(content json.RawMessage) bool { return outboxID(content) == row.TxnID })
	if err != nil {
		return "", fmt.Errorf("finding out whether it was sent before: %w", err)
	}
	return found, nil
}

// recordSent maps a message that is on Matrix to its event.
func (b *Bridge) recordSent(o *outgoing, sender id.UserID, eventID id.EventID) func(tx *store.Tx) error {
	if o.Channel == "" {
		return nil
	}
	mapping := &store.Message{
		Channel: o.Channel, RemoteID: o.RemoteID, Event: string(eventID), Room: string(o.Room), Sender: string(sender), At: o.happened(),
	}
	return func(tx *store.Tx) error { return tx.PutMessage(mapping) }
}

// echo looks at what comes back of the bridge's own: it settles a row whose answer has not come.
func (b *Bridge) echo(ev *appservice.Event) []appservice.Effect {
	if ev.StateKey != nil {
		return nil
	}
	_, row, ok := b.unanswered.find(func() json.RawMessage {
		var own struct {
			Content json.RawMessage `json:"content"`
		}
		if json.Unmarshal(ev.Raw, &own) != nil {
			return nil
		}
		return own.Content
	})
	if !ok || row.o.Room != ev.RoomID || b.actor(row.o) != ev.Sender {
		return nil
	}
	record := b.recordSent(row.o, ev.Sender, ev.ID)
	return []appservice.Effect{func(tx *store.Tx) error {
		tx.AfterCommit(func() { b.outbox.Wake(row.lane) })
		if record != nil {
			if err := record(tx); err != nil {
				return err
			}
		}
		return tx.OutgoingDone(row.row)
	}}
}
