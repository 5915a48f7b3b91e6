package bridgetest

import (
	"net/http"
	"reflect"
	"strconv"
)

// draft is an event that is not yet one.
type draft struct {
	typ       string
	sender    string
	stateKey  *string
	content   map[string]any
	timestamp int64 // 0: now
	redacted  *pdu  // the event that this one redacts
	txnID     string
	device    string
}

// maxEvent is the size of a whole event in bytes; the content alone may be a little smaller.
const maxEvent = 65000

// emit checks a draft, appends it to its room and offers it to appservices. State that changes nothing makes no event:
// the one that is there is returned, as by Synapse.
func (hs *Homeserver) emit(r *room, d draft) (*pdu, error) {
	if err := r.authorise(d); err != nil {
		return nil, err
	}
	if err := r.checkLevels(d); err != nil {
		return nil, err
	}
	if len(mustJSON(d.content)) > maxEvent {
		return nil, refuse(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "event too large")
	}
	content := cloneContent(d.content)
	if content == nil {
		content = map[string]any{}
	}
	p := &pdu{
		id: r.nextEventID(d), room: r, typ: d.typ, sender: d.sender, stateKey: d.stateKey, content: content,
		timestamp: d.timestamp, txnID: d.txnID, txnDevice: d.device,
	}
	if d.stateKey != nil {
		key := *d.stateKey
		p.stateKey = &key
		sid := stateID{d.typ, key}
		p.replaced = r.state[sid]
		if p.replaced != nil && p.replaced.sender == d.sender && p.replaced.redacted == nil && reflect.DeepEqual(p.replaced.content, content) {
			return p.replaced, nil
		}
		if d.typ == "m.room.member" && p.membership() == "join" {
			hs.count(hs.opts.Limits.JoinsByRoom, roomJoins, r.id)
		}
		if d.typ == "m.room.member" && p.membership() == "invite" {
			p.inviteTo = r.strippedState(d.sender)
		}
	}
	if p.timestamp == 0 {
		p.timestamp = hs.now()
	}
	p.at = hs.advance()
	hs.arrival = max(hs.arrival+1, hs.opts.Clock.Now().UnixNano())
	p.arrived = hs.arrival
	hs.events[p.id] = p
	r.timeline = append(r.timeline, p)
	if p.stateKey != nil {
		r.state[stateID{p.typ, *p.stateKey}] = p
		if p.typ == "m.room.member" && p.membership() != "join" {
			hs.endTyping(r, *p.stateKey)
		}
	}
	if d.redacted != nil {
		p.redacts = d.redacted.id
		d.redacted.redact(p)
	}
	hs.wakeRecoverers()
	for _, as := range hs.services {
		if as.interested(hs, p) {
			as.offerEvent(p)
		}
	}
	hs.notify()
	return p, nil
}

// roomOf finds the room of a request, for those who are or were in it.
func (hs *Homeserver) roomOf(c *call) (*room, error) {
	r := hs.rooms[c.vars["room"]]
	if r == nil || r.membership(c.user()) == "" {
		return nil, forbidden("User %s not in room %s, and room previews are disabled", c.user(), c.vars["room"])
	}
	return r, nil
}

func (hs *Homeserver) knownRoom(c *call) (*room, error) {
	r := hs.rooms[c.vars["room"]]
	if r == nil {
		return nil, forbidden("User %s not in room %s (None)", c.user(), c.vars["room"])
	}
	return r, nil
}

// roomToPostIn is the room of a request for those who may send at all, and not too much.
func (hs *Homeserver) roomToPostIn(c *call) (*room, error) {
	r, err := hs.knownRoom(c)
	if err == nil {
		err = hs.mayPost(c)
	}
	return r, err
}

func (hs *Homeserver) mayPost(c *call) error {
	if err := c.suspendedFrom("Sending messages"); err != nil {
		return err
	}
	return hs.limitMessages(c)
}

// massaged is the timestamp that an appservice may give an event.
func massaged(c *call) int64 {
	if c.who.service == nil {
		return 0
	}
	ts, _ := strconv.ParseInt(c.param("ts"), 10, 64)
	return ts
}

func (c *call) content() (map[string]any, error) {
	var content map[string]any
	if err := c.json(&content); err != nil {
		return nil, err
	}
	if content == nil {
		return nil, badRequest("M_BAD_JSON", "Content must be a JSON object.")
	}
	return content, nil
}

func (hs *Homeserver) putSend(c *call) (any, error) {
	content, err := c.content()
	if err != nil {
		return nil, err
	}
	return hs.once(c, "event", func() (*pdu, error) {
		r, err := hs.roomToPostIn(c)
		if err != nil {
			return nil, err
		}
		d := draft{
			typ: c.vars["type"], sender: c.user(), content: content, timestamp: massaged(c),
			txnID: c.vars["txn"], device: c.who.device,
		}
		if d.typ == "m.room.redaction" {
			id, _ := content["redacts"].(string)
			if target := hs.events[id]; target != nil && target.room == r {
				d.redacted = target
			}
		}
		p, err := hs.emit(r, d)
		if err == nil && hs.traits.family != synapse { // there typing goes on until its user's client or time ends it
			hs.endTyping(r, c.user())
		}
		return p, err
	})
}

func (hs *Homeserver) putRedact(c *call) (any, error) {
	content := map[string]any{}
	if err := c.maybeJSON(&content); err != nil {
		return nil, err
	}
	return hs.once(c, "event", func() (*pdu, error) {
		target := hs.events[c.vars["event"]]
		if target == nil || target.room.id != c.vars["room"] {
			return nil, notFound("Event %s not found", c.vars["event"])
		}
		r := target.room
		if target.sender != c.user() { // one's own can be redacted also by the suspended
			if err := c.suspendedFrom("Sending messages"); err != nil {
				return nil, err
			}
		}
		if err := hs.limitMessages(c); err != nil {
			return nil, err
		}
		content["redacts"] = target.id
		return hs.emit(r, draft{
			typ: "m.room.redaction", sender: c.user(), content: content, redacted: target, timestamp: massaged(c),
			txnID: c.vars["txn"], device: c.who.device,
		})
	})
}

func (hs *Homeserver) putStateEvent(c *call) (any, error) {
	content, err := c.content()
	if err != nil {
		return nil, err
	}
	r, err := hs.roomToPostIn(c)
	if err != nil {
		return nil, err
	}
	key := c.vars["key"]
	if c.vars["type"] == "m.room.member" {
		if m, _ := content["membership"].(string); m == "" {
			return nil, badRequest("M_BAD_JSON", "'membership' is missing")
		}
	}
	p, err := hs.emit(r, draft{typ: c.vars["type"], sender: c.user(), stateKey: &key, content: content, timestamp: massaged(c)})
	if err != nil {
		return nil, err
	}
	return map[string]any{"event_id": p.id}, nil
}

func (hs *Homeserver) getState(c *call) (any, error) {
	r, err := hs.roomOf(c)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, p := range r.stateEvents() {
		out = append(out, hs.outOfSync(p, c.who))
	}
	return out, nil
}

func (hs *Homeserver) getStateEvent(c *call) (any, error) {
	r, err := hs.roomOf(c)
	if err != nil {
		return nil, err
	}
	p := r.state[stateID{c.vars["type"], c.vars["key"]}]
	if p == nil {
		return nil, notFound("Event not found.")
	}
	if c.param("format") == "event" {
		return p.client(c.who), nil
	}
	return p.content, nil
}
