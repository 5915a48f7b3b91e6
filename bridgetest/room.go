package bridgetest

import "slices"

type stateID struct{ typ, key string }

// room is a room with its whole history.
type room struct {
	id       string
	clock    *Clock
	version  string
	creator  string
	timeline []*pdu
	state    map[stateID]*pdu
	typing   map[string]*alarm
	typingAt int64
	receipts map[receiptID]receipt
}

type receiptID struct{ user, kind, thread string }

type receipt struct {
	event string
	ts    int64
	at    int64
}

func newRoom(id, version, creator string, clock *Clock) *room {
	return &room{
		id: id, version: version, creator: creator, clock: clock, state: make(map[stateID]*pdu),
		typing: make(map[string]*alarm), receipts: make(map[receiptID]receipt),
	}
}

// stateContent returns the content of a piece of state; nil when there is none.
func (r *room) stateContent(typ, key string) map[string]any {
	if p := r.state[stateID{typ, key}]; p != nil {
		return p.content
	}
	return nil
}

func (r *room) stateString(typ, key, field string) string {
	s, _ := r.stateContent(typ, key)[field].(string)
	return s
}

// membership returns a user's; empty when the user never had one.
func (r *room) membership(user string) string {
	return r.stateString("m.room.member", user, "membership")
}

func (r *room) joined(user string) bool { return r.membership(user) == "join" }

// members returns the users with a membership, sorted.
func (r *room) members(membership string) []string {
	var out []string
	for k := range r.state {
		if k.typ == "m.room.member" && r.membership(k.key) == membership {
			out = append(out, k.key)
		}
	}
	slices.Sort(out)
	return out
}

// stateEvents returns the current state in the order in which it came to be.
func (r *room) stateEvents() []*pdu {
	out := make([]*pdu, 0, len(r.state))
	for _, p := range r.state {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *pdu) int { return int(a.at - b.at) })
	return out
}

// membershipAt returns a user's as of an event, which may be the change itself; "leave" when there was none.
func (r *room) membershipAt(user string, at *pdu) string {
	membership := "leave"
	for _, p := range r.timeline {
		if p.at > at.at {
			break
		}
		if p.isState("m.room.member", user) {
			membership = p.membership()
		}
	}
	return membership
}

// strippedState is what an invited user sees.
func (r *room) strippedState(sender string) []map[string]any {
	ids := []stateID{
		{"m.room.create", ""}, {"m.room.join_rules", ""}, {"m.room.canonical_alias", ""}, {"m.room.avatar", ""},
		{"m.room.name", ""}, {"m.room.topic", ""}, {"m.room.encryption", ""}, {"m.room.member", sender},
	}
	var out []map[string]any
	for _, sid := range ids {
		if p := r.state[sid]; p != nil {
			out = append(out, p.stripped())
		}
	}
	return out
}

func (r *room) typingUsers() []string {
	out := make([]string, 0, len(r.typing))
	for user := range r.typing {
		out = append(out, user)
	}
	slices.Sort(out)
	return out
}

func (r *room) stopTimers() {
	for _, end := range r.typing {
		r.clock.cancel(end)
	}
}

// view returns what decides whether a user may see an event: the members everything that the history visibility opens
// to them, those who left what was sent while they were in the room.
func (r *room) view(user string) func(*pdu) bool {
	visibility := r.stateString("m.room.history_visibility", "", "history_visibility")
	var changes []*pdu
	for _, p := range r.timeline {
		if p.isState("m.room.member", user) {
			changes = append(changes, p)
		}
	}
	return func(p *pdu) bool {
		if visibility == "world_readable" {
			return true
		}
		membership := ""
		for _, c := range changes {
			switch {
			case c.at <= p.at:
				membership = c.membership()
				if c == p {
					return true
				}
			case c.membership() == "join" && (visibility == "" || visibility == "shared"):
				return true // what came before a join is open to whoever joined since
			}
		}
		return membership == "join" || membership == "invite" && visibility == "invited"
	}
}
