package bridgetest

import (
	"encoding/json"
	"errors"
	"time"
)

func (hs *Homeserver) putTyping(c *call) (any, error) {
	var req struct {
		Typing  *bool `json:"typing"`
		Timeout int64 `json:"timeout"` // milliseconds
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	if c.vars["user"] != c.user() {
		return nil, badRequest("M_FORBIDDEN", "Cannot set another user's typing state")
	}
	if req.Typing == nil {
		return nil, errors.New("no typing") // 500, as in Synapse
	}
	r, err := hs.knownRoom(c)
	if err != nil {
		return nil, err
	}
	if !r.joined(c.user()) {
		return nil, forbidden("User %s not in room %s (%s)", c.user(), r.id, orNone(r.membership(c.user())))
	}
	if !*req.Typing {
		hs.endTyping(r, c.user())
		return struct{}{}, nil
	}
	timeout := time.Duration(req.Timeout) * time.Millisecond
	if timeout <= 0 || timeout > 2*time.Minute {
		timeout = 30 * time.Second
	}
	user := c.user()
	old, was := r.typing[user]
	if was {
		hs.opts.Clock.cancel(old)
	}
	var end *alarm
	end = hs.opts.Clock.at(hs.opts.Clock.Now().Add(timeout), func() {
		hs.mu.Lock()
		defer hs.mu.Unlock()
		if r.typing[user] == end && !hs.closed {
			hs.endTyping(r, user)
		}
	})
	r.typing[user] = end
	if !was {
		hs.typingChanged(r)
	}
	return struct{}{}, nil
}

// endTyping ends what may not have begun.
func (hs *Homeserver) endTyping(r *room, user string) {
	end, typing := r.typing[user]
	if !typing {
		return
	}
	hs.opts.Clock.cancel(end)
	delete(r.typing, user)
	hs.typingChanged(r)
}

func (hs *Homeserver) typingChanged(r *room) {
	r.typingAt = hs.advance()
	hs.offerEphemeral(r, map[string]any{"type": "m.typing", "room_id": r.id, "content": map[string]any{"user_ids": r.typingUsers()}})
	hs.notify()
}

// offerEphemeral gives an ephemeral event to every appservice that has to do with the room.
func (hs *Homeserver) offerEphemeral(r *room, event map[string]any) {
	for _, as := range hs.services {
		if as.interestedInRoom(hs, r) {
			as.offerEphemeral(hs, event)
		}
	}
}

func (hs *Homeserver) postReceipt(c *call) (any, error) {
	var req struct {
		ThreadID string `json:"thread_id"`
	}
	if err := c.maybeJSON(&req); err != nil {
		return nil, err
	}
	r, err := hs.knownRoom(c)
	if err != nil {
		return nil, err
	}
	return struct{}{}, hs.receive(c, r, c.vars["kind"], c.vars["event"], req.ThreadID)
}

// receive notes how far a user has read.
func (hs *Homeserver) receive(c *call, r *room, kind, event, thread string) error {
	if !r.joined(c.user()) {
		return forbidden("User %s not in room %s (%s)", c.user(), r.id, orNone(r.membership(c.user())))
	}
	switch kind {
	case "m.fully_read":
		hs.setAccountData(c.who.account, r.id, "m.fully_read", mustJSON(map[string]any{"event_id": event}))
		return nil
	case "m.read", "m.read.private":
	default:
		return badRequest("M_UNKNOWN", "Receipt type must be 'm.read', 'm.read.private' or 'm.fully_read'")
	}
	rec := receipt{event: event, ts: hs.now(), at: hs.advance()}
	r.receipts[receiptID{c.user(), kind, thread}] = rec
	// Private receipts are pushed to appservices too, and none has its thread.
	hs.offerEphemeral(r, map[string]any{"type": "m.receipt", "room_id": r.id, "content": map[string]any{
		event: map[string]any{kind: map[string]any{c.user(): map[string]any{"ts": rec.ts}}},
	}})
	hs.notify()
	return nil
}

func (hs *Homeserver) postReadMarkers(c *call) (any, error) {
	var req map[string]any
	if err := c.json(&req); err != nil {
		return nil, err
	}
	r, err := hs.knownRoom(c)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"m.fully_read", "m.read", "m.read.private"} {
		if event, _ := req[kind].(string); event != "" {
			if err := hs.receive(c, r, kind, event, ""); err != nil {
				return nil, err
			}
		}
	}
	return struct{}{}, nil
}

func (hs *Homeserver) getPresence(c *call) (any, error) {
	acc := hs.accounts[c.vars["user"]]
	if acc == nil || acc.presence == nil {
		return map[string]any{"presence": "offline"}, nil
	}
	return acc.presenceContent(hs.now()), nil
}

func (a *account) presenceContent(now int64) map[string]any {
	out := map[string]any{"last_active_ago": max(now-a.presenceTS, 0)}
	for k, v := range a.presence {
		out[k] = v
	}
	if a.presence["presence"] == "online" {
		out["currently_active"] = true
	}
	return out
}

func (hs *Homeserver) putPresence(c *call) (any, error) {
	var req struct {
		Presence string  `json:"presence"`
		Status   *string `json:"status_msg"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	if c.vars["user"] != c.user() {
		return nil, forbidden("Can only set your own presence state")
	}
	switch req.Presence {
	case "online", "offline", "unavailable":
	default:
		return nil, badRequest("M_UNKNOWN", "Invalid presence state")
	}
	acc := c.who.account
	acc.presence = map[string]any{"presence": req.Presence}
	if req.Status != nil {
		acc.presence["status_msg"] = *req.Status
	}
	acc.presenceAt, acc.presenceTS = hs.advance(), hs.now()
	for _, as := range hs.services {
		if as.interestedInPresence(hs, acc.id) {
			as.offerEphemeral(hs, map[string]any{"type": "m.presence", "sender": acc.id, "content": acc.presenceContent(hs.now())})
		}
	}
	hs.notify()
	return struct{}{}, nil
}

func (hs *Homeserver) setAccountData(acc *account, room, typ string, content json.RawMessage) {
	acc.accountData[room+"\x00"+typ] = stored{content, hs.advance()}
	hs.notify()
}

func (hs *Homeserver) putAccountData(c *call) (any, error) {
	content, err := c.content()
	if err != nil {
		return nil, err
	}
	if c.vars["user"] != c.user() {
		return nil, forbidden("Cannot add account data for other users.")
	}
	hs.setAccountData(c.who.account, c.vars["room"], c.vars["type"], mustJSON(content))
	return struct{}{}, nil
}

func (hs *Homeserver) getAccountData(c *call) (any, error) {
	if c.vars["user"] != c.user() {
		return nil, forbidden("Cannot get account data for other users.")
	}
	s, have := c.who.account.accountData[c.vars["room"]+"\x00"+c.vars["type"]]
	if !have {
		return nil, notFound("Account data not found")
	}
	return s.content, nil
}
