package appservice

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const (
	ephemeralQueue    = 10_000           // things that may wait for the handler; the oldest are dropped
	ephemeralRaw      = 10_000           // events that may wait to be read
	ephemeralBytes    = 16 << 20         // and how large they may be together
	maxStatus         = 1 << 10          // bytes of a status message that are passed on
	typingRooms       = 10_000           // rooms whose typing users are remembered
	typingLifetime    = 2 * time.Minute  // after that a user has stopped typing, whether that was said or not
	ephemeralPatience = 30 * time.Second // a handler that takes longer loses its context
)

// ephemerals passes typing, receipts and presence on. Nothing of it is stored, all of it is bounded, and none of it runs
// on the path of a transaction: offer only puts bytes into a queue.
//
// Two goroutines: the reader takes bytes from the queue and joins what belongs together (the newest typing list of a
// room, the newest receipt of a user in a room and thread, the newest presence of a user); the caller takes one such
// thing after the other to the handler and alone knows who is typing where.
type ephemerals struct {
	handle func(context.Context, *Ephemeral)
	own    func(id.UserID) bool
	log    zerolog.Logger
	count  func(outcome string)

	mu      sync.Mutex
	raw     [][]byte
	waiting map[ephemeralKey]any // the newest of each
	order   []ephemeralKey       // of waiting, oldest first
	toRead  chan struct{}
	toCall  chan struct{}

	typing map[id.RoomID]*typingRoom // the caller's
}

type ephemeralKey struct {
	typ    string // "m.typing", "m.receipt", "m.presence"; "expiry" for typing that nobody ended
	room   id.RoomID
	user   id.UserID
	thread string
}

type typingRoom struct {
	users []id.UserID
	until time.Time
	timer *time.Timer
}

func newEphemerals(handle func(context.Context, *Ephemeral), own func(id.UserID) bool, log zerolog.Logger, count func(string)) *ephemerals {
	return &ephemerals{
		handle: handle, own: own, log: log, count: count,
		waiting: make(map[ephemeralKey]any),
		toRead:  make(chan struct{}, 1),
		toCall:  make(chan struct{}, 1),
		typing:  make(map[id.RoomID]*typingRoom),
	}
}

// offer queues ephemeral events as they came. It keeps copies, so that a large transaction is not held by a small event.
func (e *ephemerals) offer(list [][]byte) {
	if len(list) == 0 {
		return
	}
	e.mu.Lock()
	for _, raw := range list[tooMany(list):] {
		e.raw = append(e.raw, slices.Clone(raw))
	}
	e.raw = slices.Delete(e.raw, 0, tooMany(e.raw))
	e.mu.Unlock()
	signal(e.toRead)
}

// tooMany says how many of a list, from the first on, have no room beside those after them.
func tooMany(list [][]byte) int {
	n, room := len(list), ephemeralBytes
	for n > 0 && len(list)-n < ephemeralRaw && len(list[n-1]) <= room {
		n--
		room -= len(list[n])
	}
	return n
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// read is the reader's goroutine.
func (e *ephemerals) read(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.toRead:
		}
		e.mu.Lock()
		list := e.raw
		e.raw = nil
		e.mu.Unlock()
		for _, raw := range list {
			if ctx.Err() != nil {
				return // none of it is worth a slow stop
			}
			e.take(raw)
		}
	}
}

type rawEphemeral struct {
	Type    string    `json:"type"`
	RoomID  id.RoomID `json:"room_id"`
	Sender  id.UserID `json:"sender"`
	Content struct {
		UserIDs         []id.UserID    `json:"user_ids"`
		Presence        event.Presence `json:"presence"`
		StatusMessage   string         `json:"status_msg"`
		LastActiveAgo   float64        `json:"last_active_ago"`
		CurrentlyActive bool           `json:"currently_active"`
	} `json:"content"`
}

// rawReceipts is content.{event}.{receipt type}.{user}.
type rawReceipts struct {
	Content map[id.EventID]map[string]map[id.UserID]struct {
		TS       float64 `json:"ts"`
		ThreadID string  `json:"thread_id"`
	} `json:"content"`
}

// take reads one event; what cannot be read, or is not known, is dropped by itself.
func (e *ephemerals) take(raw []byte) {
	var typ struct {
		Type   string `json:"type"`
		RoomID string `json:"room_id"`
	}
	if err := json.Unmarshal(raw, &typ, lenient); err != nil {
		e.log.Debug().Err(err).Msg("An ephemeral event cannot be read")
		return
	}
	room := id.RoomID(typ.RoomID)
	if typ.Type != "m.presence" && !strings.HasPrefix(typ.RoomID, "!") {
		e.log.Debug().Str("type", typ.Type).Msg("An ephemeral event has no room")
		return
	}
	switch typ.Type {
	case "m.receipt":
		var receipts rawReceipts
		if err := json.Unmarshal(raw, &receipts, lenient); err != nil {
			e.log.Debug().Err(err).Msg("A receipt cannot be read")
			return
		}
		for eventID, byType := range receipts.Content {
			for user, r := range byType["m.read"] { // m.read.private is nobody's business but the reader's
				// What is longer than any ID is not kept: strangers write these, and many wait.
				if !e.own(user) && max(len(user), len(eventID), len(r.ThreadID)) <= maxID {
					e.put(ephemeralKey{"m.receipt", room, user, r.ThreadID}, Receipt{user, eventID, r.ThreadID, time.UnixMilli(int64(r.TS))})
				}
			}
		}
	case "m.typing", "m.presence":
		var ev rawEphemeral
		if err := json.Unmarshal(raw, &ev, lenient); err != nil {
			e.log.Debug().Err(err).Str("type", typ.Type).Msg("An ephemeral event cannot be read")
			return
		}
		if typ.Type == "m.typing" {
			users := slices.DeleteFunc(ev.Content.UserIDs, func(user id.UserID) bool { return len(user) > maxID || e.own(user) })
			slices.Sort(users)
			e.put(ephemeralKey{typ: "m.typing", room: room}, slices.Compact(users))
		} else if ev.Sender != "" && len(ev.Sender) <= maxID && !e.own(ev.Sender) {
			status := ev.Content.StatusMessage
			status = strings.ToValidUTF8(status[:min(len(status), maxStatus)], "")
			e.put(ephemeralKey{typ: "m.presence", user: ev.Sender}, &Presence{
				ev.Sender, ev.Content.Presence, strings.Clone(status),
				time.Duration(ev.Content.LastActiveAgo) * time.Millisecond, ev.Content.CurrentlyActive,
			})
		}
	default:
		e.log.Debug().Str("type", typ.Type).Msg("An ephemeral event is of an unknown type")
	}
}

// put queues something for the handler, in place of an older one of the same key.
func (e *ephemerals) put(key ephemeralKey, value any) {
	e.mu.Lock()
	if _, there := e.waiting[key]; !there {
		if len(e.order) >= ephemeralQueue {
			delete(e.waiting, e.order[0])
			e.order = e.order[1:]
			e.count("dropped")
		}
		e.order = append(e.order, key)
	}
	e.waiting[key] = value
	e.mu.Unlock()
	signal(e.toCall)
}

func (e *ephemerals) next() (key ephemeralKey, value any, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.order) == 0 {
		e.order = nil
		return key, nil, false
	}
	key = e.order[0]
	e.order = e.order[1:]
	value = e.waiting[key]
	delete(e.waiting, key)
	return key, value, true
}

// call is the caller's goroutine.
func (e *ephemerals) call(ctx context.Context) {
	defer func() {
		for _, room := range e.typing {
			room.timer.Stop()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.toCall:
		}
		for key, value, ok := e.next(); ok && ctx.Err() == nil; key, value, ok = e.next() {
			ev := &Ephemeral{Type: key.typ, RoomID: key.room}
			switch v := value.(type) {
			case Receipt:
				ev.Receipts = []Receipt{v}
			case *Presence:
				ev.Presence = v
			case []id.UserID: // nil when the typing of a room has expired
				if room := e.typing[key.room]; key.typ == "expiry" && (room == nil || time.Now().Before(room.until)) {
					continue // somebody typed again while the expiry waited its turn
				}
				ev.Type = "m.typing"
				ev.Typing = e.typists(key.room, v)
				if ev.Typing == nil {
					continue
				}
			}
			e.hand(ctx, ev)
		}
	}
}

// typists compares the users who type in a room with those of before. It returns nil when nothing has changed.
func (e *ephemerals) typists(roomID id.RoomID, users []id.UserID) *TypingChange {
	room := e.typing[roomID]
	if room == nil {
		if len(users) == 0 || len(e.typing) >= typingRooms {
			return nil
		}
		room = &typingRoom{timer: time.AfterFunc(typingLifetime, func() {
			e.put(ephemeralKey{typ: "expiry", room: roomID}, []id.UserID(nil))
		})}
		e.typing[roomID] = room
	}
	change := &TypingChange{}
	for _, user := range users {
		if !slices.Contains(room.users, user) {
			change.Started = append(change.Started, user)
		}
	}
	for _, user := range room.users {
		if !slices.Contains(users, user) {
			change.Stopped = append(change.Stopped, user)
		}
	}
	room.users = users
	if len(users) == 0 {
		room.timer.Stop()
		delete(e.typing, roomID)
	} else {
		room.until = time.Now().Add(typingLifetime)
		room.timer.Reset(typingLifetime)
	}
	if change.Started == nil && change.Stopped == nil {
		return nil
	}
	return change
}

func (e *ephemerals) hand(ctx context.Context, ev *Ephemeral) {
	ctx, cancel := context.WithTimeout(ctx, ephemeralPatience)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			e.log.Error().Str("type", ev.Type).Str("panic", fmt.Sprint(v)).Bytes("stack", debug.Stack()).Msg("A handler panicked over an ephemeral event")
		}
	}()
	e.handle(ctx, ev)
	e.count("handled")
}
