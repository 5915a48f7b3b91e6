package bridgetest

import (
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
)

// timelineFilter is the part of a filter that decides about events of rooms.
type timelineFilter struct {
	Limit      int      `json:"limit"`
	Types      []string `json:"types"`
	NotTypes   []string `json:"not_types"`
	Senders    []string `json:"senders"`
	NotSenders []string `json:"not_senders"`
	Rooms      []string `json:"rooms"`
	NotRooms   []string `json:"not_rooms"`
}

func (f *timelineFilter) accepts(p *pdu) bool {
	return (f.Types == nil || matchType(f.Types, p.typ)) && !matchType(f.NotTypes, p.typ) &&
		(f.Senders == nil || slices.Contains(f.Senders, p.sender)) && !slices.Contains(f.NotSenders, p.sender) &&
		(f.Rooms == nil || slices.Contains(f.Rooms, p.room.id)) && !slices.Contains(f.NotRooms, p.room.id)
}

// matchType matches with "*" for any sequence of characters.
func matchType(patterns []string, typ string) bool {
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, typ); err == nil && ok {
			return true
		}
	}
	return false
}

// A token names a place between two positions of the stream: after the one it holds.
func token(at int64) string { return "s" + strconv.FormatInt(at, 10) }

func parseToken(s string) (int64, error) {
	at, err := strconv.ParseInt(strings.TrimLeft(s, "st"), 10, 64)
	if err != nil || at < 0 {
		return 0, badRequest("M_INVALID_PARAM", "Invalid stream token %q", s)
	}
	return at, nil
}

func (hs *Homeserver) getMessages(c *call) (any, error) {
	r, err := hs.roomOf(c)
	if err != nil {
		return nil, err
	}
	backwards := c.param("dir") != "f"
	from := int64(0)
	if backwards {
		from = hs.stream
	}
	if s := c.param("from"); s != "" {
		if from, err = parseToken(s); err != nil {
			return nil, err
		}
	}
	to := int64(-1)
	if s := c.param("to"); s != "" {
		if to, err = parseToken(s); err != nil {
			return nil, err
		}
	}
	var filter timelineFilter
	if s := c.param("filter"); s != "" {
		if json.Unmarshal([]byte(s), &filter) != nil {
			return nil, badRequest("M_UNKNOWN", "Invalid filter JSON")
		}
	}
	limit := 10
	if n, err := strconv.Atoi(c.param("limit")); err == nil && n > 0 {
		limit = min(n, 1000)
	}
	visible := r.view(c.user())
	chunk := []any{}
	end, more := from, false
	walk := slices.Values(r.timeline)
	if backwards {
		walk = func(yield func(*pdu) bool) {
			for _, p := range slices.Backward(r.timeline) {
				if !yield(p) {
					return
				}
			}
		}
	}
	for p := range walk {
		if backwards && (p.at > from || p.at <= to) || !backwards && (p.at <= from || to >= 0 && p.at > to) {
			continue
		}
		if !visible(p) || !filter.accepts(p) {
			continue
		}
		if len(chunk) == limit {
			more = true
			break
		}
		chunk = append(chunk, hs.inTimeline(p, c.who))
		end = p.at
		if backwards {
			end--
		}
	}
	out := map[string]any{"chunk": chunk, "start": token(from)}
	if more {
		out["end"] = token(end)
	}
	return out, nil
}

// visibleEvent finds the event of a request.
func (hs *Homeserver) visibleEvent(c *call) (*pdu, error) {
	p := hs.events[c.vars["event"]]
	if p == nil || p.room.id != c.vars["room"] {
		return nil, notFound("Event not found.")
	}
	if !p.room.view(c.user())(p) {
		return nil, notFound("Event not found.")
	}
	return p, nil
}

func (hs *Homeserver) getEvent(c *call) (any, error) {
	p, err := hs.visibleEvent(c)
	if err != nil {
		return nil, err
	}
	return hs.inTimeline(p, c.who), nil
}

func (hs *Homeserver) getContext(c *call) (any, error) {
	p, err := hs.visibleEvent(c)
	if err != nil {
		return nil, err
	}
	half := 5
	if n, err := strconv.Atoi(c.param("limit")); err == nil && n >= 0 {
		half = n / 2
	}
	visible := p.room.view(c.user())
	before, after := []any{}, []any{}
	start, end := p.at-1, p.at
	i := slices.Index(p.room.timeline, p)
	for _, q := range slices.Backward(p.room.timeline[:i]) {
		if visible(q) && len(before) < half {
			before = append(before, hs.inTimeline(q, c.who))
			start = q.at - 1
		}
	}
	for _, q := range p.room.timeline[i+1:] {
		if visible(q) && len(after) < half {
			after = append(after, hs.inTimeline(q, c.who))
			end = q.at
		}
	}
	state := []any{}
	for _, q := range p.room.stateEvents() {
		state = append(state, hs.outOfSync(q, c.who))
	}
	return map[string]any{
		"event": hs.inTimeline(p, c.who), "events_before": before, "events_after": after, "state": state,
		"start": token(start), "end": token(end),
	}, nil
}
