package bridgetest

import "encoding/json"

// pdu is an event of a room.
type pdu struct {
	id        string
	room      *room
	typ       string
	sender    string
	stateKey  *string
	content   map[string]any
	timestamp int64
	at        int64 // position in the stream
	arrived   int64 // unix nanoseconds at which it came, no two the same
	redacts   string
	redacted  *pdu // by what
	replaced  *pdu // the state event that this one replaced
	inviteTo  []map[string]any
	// Who sent it with which transaction ID, so that the sender's client recognises it.
	txnID, txnDevice string
}

func (p *pdu) membership() string {
	s, _ := p.content["membership"].(string)
	return s
}

func (p *pdu) isState(typ, key string) bool {
	return p.stateKey != nil && p.typ == typ && *p.stateKey == key
}

// client is the event as a client sees it; the zero identity sees what everybody does.
func (p *pdu) client(who identity) map[string]any {
	unsigned := map[string]any{"age": max(p.room.clock.Now().UnixMilli()-p.timestamp, 0)}
	if p.replaced != nil {
		unsigned["prev_content"] = p.replaced.content
		unsigned["prev_sender"] = p.replaced.sender
		unsigned["replaces_state"] = p.replaced.id
	}
	if p.redacted != nil {
		unsigned["redacted_by"] = p.redacted.id
		unsigned["redacted_because"] = p.redacted.client(identity{})
	}
	if p.txnID != "" && p.sentBy(who) {
		unsigned["transaction_id"] = p.txnID
	}
	out := map[string]any{
		"type": p.typ, "event_id": p.id, "room_id": p.room.id, "sender": p.sender, "content": p.content,
		"origin_server_ts": p.timestamp, "unsigned": unsigned,
	}
	if p.stateKey != nil {
		out["state_key"] = *p.stateKey
	}
	if p.redacts != "" {
		out["redacts"] = p.redacts
	}
	return out
}

// sentBy tells whether a session sent the event. Those of an appservice are one, for what was sent without a device.
func (p *pdu) sentBy(who identity) bool {
	if who.account == nil || who.account.id != p.sender {
		return false
	}
	return who.device != "" && who.device == p.txnDevice || who.service != nil && p.txnDevice == ""
}

// inTimeline is the event as one of a room's history, which tells what the viewer's membership was then (MSC4115).
func (hs *Homeserver) inTimeline(p *pdu, who identity) map[string]any {
	out := hs.outOfSync(p, who)
	if hs.traits.oldCopies {
		out["unsigned"].(map[string]any)["membership"] = p.room.membershipAt(who.account.id, p)
	}
	return out
}

// outOfSync is the event as every endpoint but /sync and a single piece of state has it: Synapse's are in the older form.
func (hs *Homeserver) outOfSync(p *pdu, who identity) map[string]any {
	if hs.traits.oldCopies {
		return p.legacy(who)
	}
	return p.client(who)
}

// legacy is the event in the older form, with copies of things at its top.
func (p *pdu) legacy(who identity) map[string]any {
	out := p.client(who)
	unsigned, _ := out["unsigned"].(map[string]any)
	if p.inviteTo != nil {
		unsigned["invite_room_state"] = p.inviteTo
	}
	if p.redacted != nil {
		unsigned["redacted_because"] = p.redacted.legacy(identity{})
	}
	for _, key := range []string{"age", "prev_content", "replaces_state", "invite_room_state", "redacted_because"} {
		if v, have := unsigned[key]; have {
			out[key] = v
		}
	}
	out["user_id"] = p.sender
	return out
}

// stripped is what somebody who is not in the room may see.
func (p *pdu) stripped() map[string]any {
	return map[string]any{"type": p.typ, "sender": p.sender, "state_key": *p.stateKey, "content": p.content}
}

// keptKeys are what a redaction leaves of the content (room version 11).
var keptKeys = map[string][]string{
	"m.room.member":             {"membership", "join_authorised_via_users_server"},
	"m.room.join_rules":         {"join_rule", "allow"},
	"m.room.power_levels":       {"ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users", "users_default"},
	"m.room.history_visibility": {"history_visibility"},
	"m.room.redaction":          {"redacts"},
}

// redact takes the content away, in the way of room version 11.
func (p *pdu) redact(by *pdu) {
	if p.typ != "m.room.create" {
		kept := make(map[string]any)
		for _, key := range keptKeys[p.typ] {
			if v, have := p.content[key]; have {
				kept[key] = v
			}
		}
		p.content = kept
	}
	p.redacted = by
}

// cloneContent copies content so that what a request brought is the event's alone.
func cloneContent(in map[string]any) map[string]any {
	var out map[string]any
	_ = json.Unmarshal(mustJSON(in), &out)
	return out
}
