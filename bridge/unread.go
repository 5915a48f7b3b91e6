package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

// This file is what becomes of encrypted events that cannot be read. One whose key has not come holds up its room for a while; then it is parked, and
// its key asked for; when that comes it is handled after all, and when it does not it is a dead letter. What else of its sender's cannot be read meanwhile is
// parked at once: who makes up sessions, each with an event, holds up nobody. All others are dead letters at once.

// errPlain is why what was written in the clear into an encrypted room is not taken: anybody on the way could have written it.
var errPlain = errors.New("it was not encrypted, as everything in this room should be")

// unreadable says why an event cannot be read, in words for its sender. Empty: it is something else that is wrong.
func unreadable(err error) string {
	switch {
	case isKeyless(err):
		return "the key to read it never came. Write it again; if that does not help, log out of your client and in again"
	case errors.Is(err, crypto.ErrUntrusted):
		return "it comes from a device that its owner has not verified. Verify it in your client's settings, and write it again"
	case errors.Is(err, crypto.ErrReplayed):
		return "it repeats an earlier message"
	case errors.Is(err, crypto.ErrMismatch):
		return "it does not come from the device that it names"
	case errors.Is(err, crypto.ErrCorrupt), errors.Is(err, crypto.ErrNotForMe):
		return "it is damaged, or was changed on its way"
	case errors.Is(err, errPlain):
		return errPlain.Error()
	}
	return ""
}

// isKeyless says whether an event cannot be read because its key is not here, which may pass.
func isKeyless(err error) bool {
	return errors.Is(err, crypto.ErrNoKey) || errors.Is(err, crypto.ErrNoMachine)
}

// tellUnread tells the sender of an event that cannot be read, once for all of a kind.
func (b *Bridge) tellUnread(ev *appservice.Event, why string) []appservice.Effect {
	if !b.firstTelling("unread", string(ev.RoomID), string(ev.Sender), why) {
		return nil
	}
	return b.answer(ev, fmt.Sprintf("I cannot read this message, and it did not reach %s: %s.", b.info.Name, why))
}

// sessionOf says which session of its room an event was encrypted in.
func sessionOf(ev *appservice.Event) (id.SessionID, error) {
	decoded, err := ev.Decode()
	if err != nil {
		return "", err
	}
	content, ok := decoded.Content.Parsed.(*event.EncryptedEventContent)
	if !ok || content.SessionID == "" {
		return "", appservice.Permanent(fmt.Errorf("%w: it names no session", crypto.ErrCorrupt))
	}
	return content.SessionID, nil
}

// awaitKey is for an event whose key is not there.
func (b *Bridge) awaitKey(ctx context.Context, ev *appservice.Event, reader id.UserID, cause error) ([]appservice.Effect, error) {
	if ev.InDoubt { // it was read before, and perhaps sent
		return nil, appservice.Permanent(InDoubt(fmt.Errorf("the bridge was stopped while it was sending it, and cannot read it again: %w", cause)))
	}
	session, err := sessionOf(ev)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if left := b.held.wait(ev, session, now, b.cfg.Encryption.Hold); left > 0 {
		return nil, appservice.LaterIn(left, cause)
	}
	changed, err := b.cipher.Watch(ctx, ev, session, reader)
	if err != nil {
		return nil, err
	}
	if opened, err := b.cipher.Open(ctx, ev, reader); !isKeyless(err) { // the key came before it was watched for: nothing would take the event up again
		return b.goOn(ctx, ev, opened, err)
	}
	if b.held.giveUp(ev, session, now, now.Add(b.cfg.Encryption.Patience)) {
		b.log.Warn().Err(cause).Stringer("room", ev.RoomID).Stringer("event_id", ev.ID).Str("session", string(session)).Msg("The key of an event has not come; asking for it")
		if err := b.cipher.RequestKey(ctx, ev, reader); err != nil {
			b.log.Warn().Err(err).Stringer("event_id", ev.ID).Msg("The key of an event cannot be asked for")
		}
	}
	return []appservice.Effect{b.as.Park(ev, session, now.Add(b.cfg.Encryption.Patience), changed)}, nil
}

// maxHeld is how many rooms, sessions and senders are remembered. To forget one makes its room be held up once more.
const maxHeld = 10_000

// held remembers which rooms are held up by an event without a key, since when, and what is not waited for like that any more: sessions, and senders in a room.
type held struct {
	mu       sync.Mutex
	rooms    map[id.RoomID]heldEvent
	sessions map[inRoom]time.Time // until when
	senders  map[inRoom]time.Time // the same
	parked   map[inRoom]time.Time // events that were parked: for as long as they may be, and may come out
	used     map[inRoom]holds     // by senders, and by all in a room, who have no name
}

type heldEvent struct {
	event id.EventID
	since time.Time
}

// mostHolds is how often a room is held up for the whole time until the time of the first is over. Each sender may do it once, and there may be hundreds: whose keys the
// homeserver has all dropped, or whom somebody has made up. Keys that come late count for as long as they were waited for: they may always come at the last moment.
const mostHolds = 3

// holds is how often that was done, with what was less than the whole time.
type holds struct {
	n     float64
	until time.Time
}

// inRoom is a session, a sender or an event.
type inRoom struct {
	room id.RoomID
	name string
}

func newHeld() *held {
	return &held{rooms: map[id.RoomID]heldEvent{}, sessions: map[inRoom]time.Time{}, senders: map[inRoom]time.Time{}, parked: map[inRoom]time.Time{},
		used: map[inRoom]holds{}}
}

// wait gives how long an event still holds up its room.
func (h *held) wait(ev *appservice.Event, session id.SessionID, now time.Time, hold time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.sessions[inRoom{ev.RoomID, string(session)}]) || now.Before(h.senders[inRoom{ev.RoomID, string(ev.Sender)}]) {
		return 0
	}
	if all := h.used[inRoom{room: ev.RoomID}]; all.n >= mostHolds && now.Before(all.until) {
		return 0
	}
	known := h.rooms[ev.RoomID]
	if known.event != ev.ID {
		if len(h.rooms) >= maxHeld {
			clear(h.rooms)
		}
		known = heldEvent{ev.ID, now}
		h.rooms[ev.RoomID] = known
	}
	return hold - now.Sub(known.since)
}

// giveUp notes that events of this session, and what else of the sender's cannot be read, hold nothing up before until. It is false if that was known of
// the session. For the sender the time does not begin anew while it lasts: it ends, whatever comes.
func (h *held) giveUp(ev *appservice.Event, session id.SessionID, now, until time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rooms[ev.RoomID].event == ev.ID {
		h.use(inRoom{room: ev.RoomID}, 1, now, until)
	}
	delete(h.rooms, ev.RoomID)
	note(h.parked, inRoom{ev.RoomID, string(ev.ID)}, now, until)
	note(h.senders, inRoom{ev.RoomID, string(ev.Sender)}, now, until)
	return note(h.sessions, inRoom{ev.RoomID, string(session)}, now, until)
}

// opened notes that an event was read, and for how long it has held up its room until then. until is when that does not count any more.
func (h *held) opened(ev *appservice.Event, now, until time.Time, hold time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.rooms[ev.RoomID]
	delete(h.rooms, ev.RoomID)
	if known.event != ev.ID || hold <= 0 {
		return
	}
	n := min(float64(now.Sub(known.since))/float64(hold), 1)
	h.use(inRoom{room: ev.RoomID}, n, now, until)
	if sender := (inRoom{ev.RoomID, string(ev.Sender)}); h.use(sender, n, now, until) >= 1 {
		note(h.senders, sender, now, until)
	}
}

func (h *held) use(what inRoom, n float64, now, until time.Time) float64 {
	used := h.used[what]
	if !now.Before(used.until) {
		used = holds{until: until}
	}
	if len(h.used) >= maxHeld {
		clear(h.used)
	}
	used.n += n
	h.used[what] = used
	return used.n
}

// wasParked says of an event whether it was parked just before: then it has lost its place before its redaction.
func (h *held) wasParked(ev *appservice.Event, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Before(h.parked[inRoom{ev.RoomID, string(ev.ID)}])
}

func note(over map[inRoom]time.Time, what inRoom, now, until time.Time) bool {
	if now.Before(over[what]) {
		return false
	}
	if len(over) >= maxHeld {
		clear(over)
	}
	over[what] = until
	return true
}

const (
	overdueEvery = 5 * time.Second
	overdueBatch = 100
)

// buryOverdue runs until the bridge stops: it makes dead letters of what has waited too long for its key.
func (b *Bridge) buryOverdue(ctx context.Context) {
	tick := time.NewTicker(min(overdueEvery, max(b.cfg.Encryption.Patience/4, time.Millisecond)))
	defer tick.Stop()
	for {
		for n := overdueBatch; n == overdueBatch; {
			var err error
			if n, err = b.as.BuryOverdue(ctx, overdueBatch, crypto.ErrNoKey); err != nil && ctx.Err() == nil {
				b.failIfLost(err)
				b.log.Warn().Err(err).Msg("What has waited too long for its key cannot be taken away now")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
