package bridge

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

func TestHeld_SenderWhoseKeyDidNotCome_HoldsUpNothingInThatRoomUntilItsTimeIsOver(t *testing.T) {
	const hold, patience = 10 * time.Second, time.Minute
	h, begin := newHeld(), time.Now()
	n := 0
	holds := func(room id.RoomID, sender id.UserID, session id.SessionID, after time.Duration) bool {
		n++
		ev := &appservice.Event{RoomID: room, Sender: sender, ID: id.EventID(fmt.Sprint("$", n))}
		return h.wait(ev, session, begin.Add(after), hold) > 0
	}
	giveUp := func(session id.SessionID, after time.Duration) bool {
		return h.giveUp(&appservice.Event{RoomID: "!a", Sender: "@mallory"}, session, begin.Add(after), begin.Add(after+patience))
	}
	if !holds("!a", "@mallory", "0", 0) {
		t.Error("the first event holds up nothing")
	}
	if !giveUp("0", hold) {
		t.Error("the first session is known")
	}
	for _, c := range []struct {
		what    string
		room    id.RoomID
		sender  id.UserID
		session id.SessionID
		after   time.Duration
		want    bool
	}{
		{"more of the sender", "!a", "@mallory", "1", hold, false},
		{"the same session of somebody else", "!a", "@alice", "0", hold, false},
		{"somebody else", "!a", "@alice", "2", hold, true},
		{"the sender in another room", "!b", "@mallory", "1", hold, true},
	} {
		if holds(c.room, c.sender, c.session, c.after) != c.want {
			t.Errorf("%s: holds up the room: %t", c.what, !c.want)
		}
	}
	if !giveUp("1", patience) || giveUp("1", patience) { // parked at once: its key is asked for, once
		t.Error("a session of the sender's is to be asked for once")
	}
	if !holds("!a", "@mallory", "3", hold+patience) {
		t.Error("the time begins anew with each event, and never ends")
	}
}

func TestHeld_WhatIsRemembered_IsBounded(t *testing.T) {
	h, now := newHeld(), time.Now()
	for n := range 3 * maxHeld {
		ev := &appservice.Event{RoomID: id.RoomID(fmt.Sprint("!", n)), Sender: id.UserID(fmt.Sprint("@", n)), ID: "$"}
		h.wait(ev, "s", now, time.Hour)
		if n%2 == 0 {
			h.giveUp(ev, "s", now, now.Add(time.Hour))
		} else {
			h.opened(ev, now, now.Add(time.Hour), time.Hour)
		}
	}
	if len(h.rooms) > maxHeld || len(h.sessions) > maxHeld || len(h.senders) > maxHeld || len(h.parked) > maxHeld || len(h.used) > maxHeld {
		t.Errorf("%d rooms, %d sessions, %d senders and %d events are remembered", len(h.rooms), len(h.sessions), len(h.senders), len(h.parked))
	}
}

// Many senders take turns, each of whom would hold up the room once.
func TestHeld_ManySendersWhoseKeysDoNotCome_HoldUpTheRoomNoMoreThanAFew(t *testing.T) {
	const hold, patience = 10 * time.Second, 15 * time.Minute
	h, begin := newHeld(), time.Now()
	held := func(room id.RoomID, from, senders int, after time.Duration) (all time.Duration) {
		for n := range senders {
			name := fmt.Sprint(from + n)
			ev := &appservice.Event{RoomID: room, Sender: id.UserID("@" + name), ID: id.EventID("$" + name)}
			now := begin.Add(after + all)
			if left := h.wait(ev, id.SessionID(name), now, hold); left > 0 {
				all += left
				now = now.Add(left)
			}
			h.giveUp(ev, id.SessionID(name), now, now.Add(patience))
		}
		return all
	}
	if all := held("!a", 0, 100, 0); all != mostHolds*hold {
		t.Errorf("a hundred senders hold up the room for %s", all)
	}
	if all := held("!b", 0, 1, 0); all != hold {
		t.Errorf("another room is held up for %s", all)
	}
	if all := held("!a", 1000, 1, patience+hold); all != hold {
		t.Errorf("after its time the room is held up for %s", all)
	}
}

// A key may always come at the last moment, and its message is read.
func TestHeld_KeysThatComeLate_HoldUpTheRoomNoLongerThanThoseThatDoNotCome(t *testing.T) {
	const hold, patience = 10 * time.Second, 15 * time.Minute
	h, begin := newHeld(), time.Now()
	held := func(room id.RoomID, sender func(n int) string, late, after time.Duration) (all time.Duration) {
		for n := range 100 {
			name := fmt.Sprint("$", room, n, after)
			ev := &appservice.Event{RoomID: room, Sender: id.UserID(sender(n)), ID: id.EventID(name)}
			if now := begin.Add(after + all); h.wait(ev, id.SessionID(name), now, hold) > 0 {
				all += late
				now = now.Add(late)
				h.opened(ev, now, now.Add(patience), hold)
			}
		}
		return all
	}
	one := func(int) string { return "@mallory" }
	each := func(n int) string { return fmt.Sprint("@", n) }
	for _, late := range []time.Duration{time.Second, hold / 3, hold - time.Millisecond} {
		room := id.RoomID(fmt.Sprint("!one", late))
		if all := held(room, one, late, 0); all < hold || all > 2*hold {
			t.Errorf("keys %s late: one sender holds up the room for %s", late, all)
		}
		if all := held(room, one, late, patience+2*hold); all < hold {
			t.Errorf("keys %s late: after its time the sender holds up the room for %s", late, all)
		}
		if all := held(id.RoomID(fmt.Sprint("!each", late)), each, late, 0); all > (mostHolds+1)*hold {
			t.Errorf("keys %s late: a hundred senders hold up the room for %s", late, all)
		}
	}
	if all := held("!soon", one, 50*time.Millisecond, 0); all != 5*time.Second {
		t.Errorf("keys that come soon are not waited for: the room is held up for %s", all)
	}
}

// keyAfterTheFirst is a cipher whose key comes after an event was tried to be opened, and before anybody watches for it.
type keyAfterTheFirst struct {
	cipher
	opened int
	then   error
}

func (c *keyAfterTheFirst) Open(context.Context, *appservice.Event, id.UserID) (*event.Event, error) {
	if c.opened++; c.opened == 1 {
		return nil, crypto.ErrNoKey
	}
	return nil, c.then
}

func (c *keyAfterTheFirst) Watch(context.Context, *appservice.Event, id.SessionID, id.UserID) (func(*store.Tx) (bool, error), error) {
	return func(*store.Tx) (bool, error) { return false, nil }, nil
}

func (c *keyAfterTheFirst) RequestKey(context.Context, *appservice.Event, id.UserID) error {
	return nil
}

func TestAwaitKey_KeyCameAndSomethingElseIsWrong_IsNotWaitedForAnyMore(t *testing.T) {
	raw := `{"event_id":"$1","room_id":"!r","sender":"@a:b","type":"m.room.encrypted","content":{"algorithm":"m.megolm.v1.aes-sha2","session_id":"s","ciphertext":"c"}}`
	for _, then := range []error{crypto.ErrUntrusted, errors.New("the homeserver is away")} {
		c := &keyAfterTheFirst{then: then}
		b := &Bridge{cipher: c, held: newHeld(), cfg: &Config{}, log: zerolog.Nop()}
		ev := &appservice.Event{Kind: store.KindPDU, ID: "$1", RoomID: "!r", Sender: "@a:b", Type: "m.room.encrypted", Raw: []byte(raw)}
		_, err := c.Open(t.Context(), ev, "@bot:b")
		effects, err := b.awaitKey(t.Context(), ev, "@bot:b", err)
		if !errors.Is(err, then) || appservice.IsPermanent(err) != (then == crypto.ErrUntrusted) || len(effects) > 0 {
			t.Errorf("%v: got %d effects and %v", then, len(effects), err)
		}
	}
	c := &keyAfterTheFirst{then: crypto.ErrNoKey}
	b := &Bridge{cipher: c, held: newHeld(), cfg: &Config{}, log: zerolog.Nop()}
	effects, err := b.awaitKey(t.Context(), &appservice.Event{Kind: store.KindPDU, ID: "$1", RoomID: "!r", Sender: "@a:b", Type: "m.room.encrypted", Raw: []byte(raw)}, "@bot:b", crypto.ErrNoKey)
	if err != nil || len(effects) != 1 {
		t.Errorf("without a key: got %d effects and %v, want that it is parked", len(effects), err)
	}
}

// It may have left when the process ended: parked, it would come back as one that was never begun, and leave once more.
func TestAwaitKey_EventThatMayHaveBeenSent_IsNeitherWaitedForNorParked(t *testing.T) {
	c := &keyAfterTheFirst{then: crypto.ErrNoKey}
	b := &Bridge{cipher: c, held: newHeld(), cfg: &Config{}, log: zerolog.Nop()}
	b.cfg.Encryption.Hold = time.Minute
	effects, err := b.awaitKey(t.Context(), &appservice.Event{Kind: store.KindPDU, ID: "$1", RoomID: "!r", Sender: "@a:b", InDoubt: true}, "@bot:b", crypto.ErrNoKey)
	if !appservice.IsPermanent(err) || !IsInDoubt(err) || len(effects) > 0 {
		t.Errorf("got %d effects and %v, want a dead letter in doubt", len(effects), err)
	}
}
