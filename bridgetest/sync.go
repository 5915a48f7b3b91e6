package bridgetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// syncFilter is what of a filter /sync heeds.
type syncFilter struct {
	raw  json.RawMessage
	Room struct {
		Rooms    *[]string      `json:"rooms"`
		Timeline timelineFilter `json:"timeline"`
	} `json:"room"`
	Presence    typeFilter `json:"presence"`
	AccountData typeFilter `json:"account_data"`
}

// typeFilter is one that lets through everything or nothing: that is all that clients use of it.
type typeFilter struct {
	Types    *[]string `json:"types"`
	NotTypes []string  `json:"not_types"`
}

func (f *typeFilter) nothing() bool {
	return f.Types != nil && len(*f.Types) == 0 || slices.Contains(f.NotTypes, "*")
}

// without leaves out rooms.
func (f *syncFilter) without(room string) bool {
	return f.Room.Rooms != nil && !slices.Contains(*f.Room.Rooms, room)
}

func (hs *Homeserver) postFilter(c *call) (any, error) {
	var f syncFilter
	if err := c.json(&f); err != nil {
		return nil, err
	}
	if c.vars["user"] != c.user() {
		return nil, forbidden("Cannot create filters for other users")
	}
	f.raw = slices.Clone(c.body)
	id := strconv.Itoa(len(hs.filters))
	hs.filters[c.user()+"\x00"+id] = f
	return map[string]any{"filter_id": id}, nil
}

func (hs *Homeserver) getFilter(c *call) (any, error) {
	f, have := hs.filters[c.vars["user"]+"\x00"+c.vars["filter"]]
	if !have || c.vars["user"] != c.user() {
		return nil, notFound("No such filter")
	}
	return f.raw, nil
}

// getSync answers at once when there is something new, and otherwise waits for it.
func (hs *Homeserver) getSync(c *call) (any, error) {
	hs.mu.Lock()
	refused := hs.traits.family == synapse && hs.isSender(c.user())
	hs.mu.Unlock()
	if refused {
		return nil, errors.New("a sender_localpart has no /sync") // 500, as in Synapse, whatever token it asks with
	}
	var filter syncFilter
	if s := c.param("filter"); strings.HasPrefix(s, "{") {
		if json.Unmarshal([]byte(s), &filter) != nil {
			return nil, badRequest("M_UNKNOWN", "Invalid filter JSON")
		}
	} else if s != "" {
		hs.mu.Lock()
		f, have := hs.filters[c.user()+"\x00"+s]
		hs.mu.Unlock()
		if !have {
			return nil, badRequest("M_INVALID_PARAM", "No such filter")
		}
		filter = f
	}
	if filter.Room.Timeline.Limit <= 0 {
		filter.Room.Timeline.Limit = 10
	}
	since := int64(0)
	if s := c.param("since"); s != "" {
		at, err := parseToken(s)
		if err != nil {
			return nil, err
		}
		since = at
	}
	timeout, _ := strconv.ParseInt(c.param("timeout"), 10, 64)
	ctx, cancel := context.WithTimeout(c.Context(), time.Duration(timeout)*time.Millisecond)
	defer cancel()
	for {
		hs.mu.Lock()
		s := &syncing{hs: hs, c: c, since: since, filter: filter.Room.Timeline, all: filter}
		answer := s.build()
		changed := hs.changed
		hs.mu.Unlock()
		if s.news || since == 0 || timeout <= 0 || hs.await(ctx, changed) != nil {
			return answer, nil
		}
	}
}

// syncing puts one answer together; the data is locked.
type syncing struct {
	hs     *Homeserver
	c      *call
	since  int64
	filter timelineFilter
	all    syncFilter
	news   bool
	lists  map[string]bool // whose devices changed
	gone   map[string]bool // who may share no room any more
}

func (s *syncing) build() map[string]any {
	s.lists, s.gone = make(map[string]bool), make(map[string]bool)
	acc := s.c.who.account
	join, invite, leave := object{}, object{}, object{}
	presence := []any{}
	near := map[string]bool{acc.id: true}
	for _, r := range s.hs.rooms {
		member := r.state[stateID{"m.room.member", acc.id}]
		if member == nil {
			continue
		}
		switch member.membership() {
		case "join":
			if out := s.joined(r, member); out != nil && !s.all.without(r.id) {
				join[r.id] = out
			}
			for _, user := range r.members("join") {
				near[user] = true
			}
		case "invite":
			if member.at > s.since && !s.all.without(r.id) {
				stripped := append(slices.Clone(member.inviteTo), member.stripped())
				invite[r.id] = object{"invite_state": object{"events": stripped}}
			}
		default:
			if member.at > s.since && s.since > 0 {
				for _, user := range r.members("join") {
					s.gone[user] = true
				}
			}
			if member.at > s.since && s.since > 0 && !s.all.without(r.id) {
				visible := r.view(acc.id)
				events := []any{}
				for _, p := range since(r.timeline, s.since) {
					if visible(p) && s.filter.accepts(p) {
						events = append(events, p.client(s.c.who))
					}
				}
				leave[r.id] = object{"timeline": object{"events": events, "limited": false, "prev_batch": token(s.since)}, "state": object{"events": []any{}}}
			}
		}
	}
	for user := range near {
		other := s.hs.accounts[user]
		if other == nil {
			continue
		}
		if other.presence != nil && other.presenceAt > s.since && !s.all.Presence.nothing() {
			presence = append(presence, object{"type": "m.presence", "sender": user, "content": other.presenceContent(s.hs.now())})
		}
		if s.since > 0 && other.devicesAt > s.since {
			s.lists[user] = true
		}
	}
	changed := make([]string, 0, len(s.lists))
	for user := range s.lists {
		changed = append(changed, user)
	}
	slices.Sort(changed)
	left := []string{}
	for user := range s.gone {
		if !near[user] {
			left = append(left, user)
		}
	}
	slices.Sort(left)
	messages := s.toDevice()
	global := []any{}
	if !s.all.AccountData.nothing() {
		global = s.accountData("")
	}
	s.news = len(join)+len(invite)+len(leave)+len(presence)+len(changed)+len(left)+len(messages)+len(global) > 0
	out := map[string]any{
		"next_batch":   token(s.hs.stream),
		"rooms":        object{"join": join, "invite": invite, "leave": leave},
		"presence":     object{"events": presence},
		"account_data": object{"events": global},
		"to_device":    object{"events": messages},
		"device_lists": object{"changed": changed, "left": left},
	}
	if hs := s.hs; hs.traits.family == synapse {
		leaveOutEmpty(out)
	}
	if d := acc.devices[s.c.who.device]; d != nil {
		out["device_one_time_keys_count"] = d.counts(true)
		out["device_unused_fallback_key_types"] = d.unusedFallback()
	}
	return out
}

// leaveOutEmpty takes out the sections with nothing in them, as Synapse does.
func leaveOutEmpty(out map[string]any) {
	for key, section := range out {
		fields, ok := section.(object)
		for name, list := range fields {
			if reflect.ValueOf(list).Len() == 0 {
				delete(fields, name)
			}
		}
		if ok && len(fields) == 0 {
			delete(out, key)
		}
	}
}

// since returns the events after a position.
func since(timeline []*pdu, at int64) []*pdu {
	i, _ := slices.BinarySearchFunc(timeline, at+1, func(p *pdu, at int64) int { return cmp.Compare(p.at, at) })
	return timeline[i:]
}

// joined is what is new in a room the user is in; nil when nothing is.
func (s *syncing) joined(r *room, member *pdu) object {
	before := member // the user's membership at the beginning
	for before != nil && before.at > s.since {
		before = before.replaced
	}
	start, fresh := s.since, before == nil || before.membership() != "join"
	if fresh {
		start = 0
	}
	visible := r.view(s.c.user())
	var events []*pdu
	for _, p := range since(r.timeline, start) {
		if visible(p) && s.filter.accepts(p) {
			events = append(events, p)
		}
		if p.at <= s.since || p.typ != "m.room.member" || s.since == 0 {
			continue
		}
		if p.membership() == "join" {
			s.lists[p.sender] = true // the user shares a room with somebody new
		} else if p.stateKey != nil && p.membership() != "invite" {
			s.gone[*p.stateKey] = true
		}
	}
	if fresh && s.since > 0 {
		for _, user := range r.members("join") {
			s.lists[user] = true
		}
	}
	limited := len(events) > s.filter.Limit
	if limited {
		events = events[len(events)-s.filter.Limit:]
	}
	first := s.hs.stream + 1
	if len(events) > 0 {
		first = events[0].at
	}
	state := []any{}
	if fresh || limited {
		latest := make(map[stateID]*pdu)
		for _, p := range since(r.timeline, start) {
			if p.at < first && p.stateKey != nil {
				latest[stateID{p.typ, *p.stateKey}] = p
			}
		}
		for _, p := range since(r.timeline, start) {
			if p.stateKey != nil && latest[stateID{p.typ, *p.stateKey}] == p {
				state = append(state, p.client(s.c.who))
			}
		}
	}
	timeline := []any{}
	for _, p := range events {
		timeline = append(timeline, p.client(s.c.who))
	}
	ephemeral, data := s.ephemeral(r, start), s.accountData(r.id)
	if !fresh && len(timeline)+len(ephemeral)+len(data) == 0 {
		return nil
	}
	return object{
		"timeline":             object{"events": timeline, "limited": limited, "prev_batch": token(first - 1)},
		"state":                object{"events": state},
		"ephemeral":            object{"events": ephemeral},
		"account_data":         object{"events": data},
		"unread_notifications": object{"notification_count": 0, "highlight_count": 0},
		"summary":              object{"m.joined_member_count": len(r.members("join")), "m.invited_member_count": len(r.members("invite"))},
	}
}

// ephemeral is what a room's typing users and receipts changed to; other people's private receipts are theirs.
func (s *syncing) ephemeral(r *room, start int64) []any {
	out := []any{}
	if r.typingAt > start && (s.since > 0 || len(r.typing) > 0) {
		out = append(out, object{"type": "m.typing", "content": object{"user_ids": r.typingUsers()}})
	}
	content := make(map[string]map[string]map[string]any)
	for who, rec := range r.receipts {
		if rec.at <= start || who.kind == "m.read.private" && who.user != s.c.user() {
			continue
		}
		if content[rec.event] == nil {
			content[rec.event] = make(map[string]map[string]any)
		}
		if content[rec.event][who.kind] == nil {
			content[rec.event][who.kind] = make(map[string]any)
		}
		data := object{"ts": rec.ts}
		if who.thread != "" {
			data["thread_id"] = who.thread
		}
		content[rec.event][who.kind][who.user] = data
	}
	if len(content) > 0 {
		out = append(out, object{"type": "m.receipt", "content": content})
	}
	return out
}

func (s *syncing) accountData(room string) []any {
	out := []any{}
	for key, data := range s.c.who.account.accountData {
		in, typ, _ := strings.Cut(key, "\x00")
		if in == room && data.at > s.since {
			out = append(out, object{"type": typ, "content": data.content})
		}
	}
	return out
}

// toDevice returns the device's messages; those that an earlier answer held were received and go.
func (s *syncing) toDevice() []any {
	out := []any{}
	d := s.c.who.account.devices[s.c.who.device]
	if d == nil {
		return out
	}
	d.inbox = slices.DeleteFunc(d.inbox, func(m toDevice) bool { return m.at <= s.since })
	for _, m := range d.inbox {
		out = append(out, object{"type": m.eventType, "sender": m.sender, "content": m.content})
	}
	return out
}
