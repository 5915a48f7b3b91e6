package bridgetest

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

type alias struct {
	room    *room
	creator string
}

type createRequest struct {
	Preset     string   `json:"preset"`
	Visibility string   `json:"visibility"`
	Name       string   `json:"name"`
	Topic      string   `json:"topic"`
	Alias      string   `json:"room_alias_name"`
	Invite     []string `json:"invite"`
	Version    string   `json:"room_version"`
	Direct     bool     `json:"is_direct"`
	Creation   object   `json:"creation_content"`
	Initial    []struct {
		Type     string `json:"type"`
		StateKey string `json:"state_key"`
		Content  object `json:"content"`
	} `json:"initial_state"`
	Levels json.RawMessage `json:"power_level_content_override"`
}

type object = map[string]any

// presets are the join rule, history visibility, guest access and invite level of a new room.
var presets = map[string]struct {
	rule, guests string
	invite       int
}{
	"private_chat":         {"invite", "can_join", 0},
	"trusted_private_chat": {"invite", "can_join", 0},
	"public_chat":          {"public", "forbidden", 50},
}

func (hs *Homeserver) postCreateRoom(c *call) (any, error) {
	var req createRequest
	if err := c.json(&req); err != nil {
		return nil, err
	}
	if req.Preset == "" {
		req.Preset = "private_chat"
		if req.Visibility == "public" {
			req.Preset = "public_chat"
		}
	}
	preset, have := presets[req.Preset]
	if !have {
		return nil, badRequest("M_BAD_JSON", "'%s' is not a valid preset", req.Preset)
	}
	if req.Version == "" {
		req.Version = defaultVersion
	}
	if roomVersions[req.Version] == "" {
		return nil, badRequest("M_UNSUPPORTED_ROOM_VERSION", "Your homeserver does not support this room version")
	}
	if err := hs.mayPost(c); err != nil {
		return nil, err
	}
	aliasID := ""
	if req.Alias != "" {
		aliasID = "#" + req.Alias + ":" + hs.opts.ServerName
		if hs.aliases[aliasID] != nil {
			return nil, badRequest("M_ROOM_IN_USE", "Room alias already taken")
		}
		if err := hs.mayOwnAlias(c, aliasID); err != nil {
			return nil, err
		}
	}
	for _, user := range req.Invite {
		if !strings.HasPrefix(user, "@") || !strings.Contains(user, ":") {
			return nil, badRequest("M_UNKNOWN", "Invalid user_id: %s", user)
		}
	}
	creator := c.user()
	r := newRoom(hs.newRoomID(req.Version), req.Version, creator, hs.opts.Clock)
	hs.rooms[r.id] = r // it stays when what follows fails: an orphan, with what it got until then
	if err := hs.furnish(r, &req, preset.rule, preset.guests, preset.invite, aliasID); err != nil {
		return nil, err
	}
	for _, user := range req.Invite {
		content := hs.memberContent(user, "invite")
		if req.Direct {
			content["is_direct"] = true
		}
		if _, err := hs.emit(r, draft{typ: "m.room.member", sender: creator, stateKey: &user, content: content}); err != nil {
			return nil, err
		}
	}
	return map[string]any{"room_id": r.id}, nil
}

// furnish sends the events with which a room begins, in Synapse's order.
func (hs *Homeserver) furnish(r *room, req *createRequest, rule, guests string, invite int, aliasID string) error {
	creation := cloneContent(req.Creation)
	if creation == nil {
		creation = object{}
	}
	creation["room_version"] = r.version
	if r.creatorsRule() && req.Preset == "trusted_private_chat" && len(req.Invite) > 0 {
		more, _ := creation["additional_creators"].([]any)
		for _, user := range req.Invite {
			if !slices.Contains(more, any(user)) {
				more = append(more, user)
			}
		}
		creation["additional_creators"] = more
	}
	levels := object{
		"ban": 50, "events_default": 0, "historical": 100, "invite": invite, "kick": 50, "redact": 50, "state_default": 50,
		"users": object{r.creator: 100}, "users_default": 0,
		"events": object{
			"m.room.avatar": 50, "m.room.canonical_alias": 50, "m.room.encryption": 100, "m.room.history_visibility": 100,
			"m.room.name": 50, "m.room.power_levels": 100, "m.room.server_acl": 100, "m.room.tombstone": 100,
		},
	}
	if r.creatorsRule() {
		levels["users"] = object{}
		levels["events"].(object)["m.room.tombstone"] = 150
	} else if req.Preset == "trusted_private_chat" {
		users := object{r.creator: 100}
		for _, user := range req.Invite {
			users[user] = 100
		}
		levels["users"] = users
	}
	if req.Preset == "public_chat" {
		levels["m.call.invite"] = 50 // beside the events, where it means nothing
	}
	if len(req.Levels) > 0 {
		if err := json.Unmarshal(req.Levels, &levels); err != nil { // key by key over the defaults
			return badRequest("M_BAD_JSON", "power_level_content_override is not an object")
		}
	}
	type piece struct {
		typ, key string
		content  object
	}
	pieces := []piece{
		{"m.room.create", "", creation},
		{"m.room.member", r.creator, hs.memberContent(r.creator, "join")},
		{"m.room.power_levels", "", levels},
	}
	initial := make(map[stateID]bool)
	for _, s := range req.Initial {
		initial[stateID{s.Type, s.StateKey}] = true
	}
	if aliasID != "" {
		hs.aliases[aliasID] = &alias{r, r.creator}
		pieces = append(pieces, piece{"m.room.canonical_alias", "", object{"alias": aliasID}})
	}
	for _, p := range []piece{
		{"m.room.join_rules", "", object{"join_rule": rule}},
		{"m.room.history_visibility", "", object{"history_visibility": "shared"}},
		{"m.room.guest_access", "", object{"guest_access": guests}},
	} {
		if !initial[stateID{p.typ, p.key}] && p.content["guest_access"] != "forbidden" {
			pieces = append(pieces, p)
		}
	}
	for _, s := range req.Initial {
		pieces = append(pieces, piece{s.Type, s.StateKey, s.Content})
	}
	if req.Name != "" {
		pieces = append(pieces, piece{"m.room.name", "", object{"name": req.Name}})
	}
	if req.Topic != "" {
		pieces = append(pieces, piece{"m.room.topic", "", object{
			"topic": req.Topic, "m.topic": object{"m.text": []any{object{"body": req.Topic}}},
		}})
	}
	for _, p := range pieces {
		if _, err := hs.emit(r, draft{typ: p.typ, sender: r.creator, stateKey: &p.key, content: p.content}); err != nil {
			return err
		}
	}
	return nil
}

// roomsOf returns the rooms in which a user has a membership, in a stable order.
func (hs *Homeserver) roomsOf(user, membership string) []*room {
	var out []*room
	for _, r := range hs.rooms {
		if r.membership(user) == membership {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *room) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (hs *Homeserver) getJoinedRooms(c *call) (any, error) {
	ids := []string{}
	for _, r := range hs.roomsOf(c.user(), "join") {
		ids = append(ids, r.id)
	}
	return map[string]any{"joined_rooms": ids}, nil
}

func (hs *Homeserver) getJoinedMembers(c *call) (any, error) {
	r, err := hs.roomOf(c)
	// An appservice may look into any room in which it has somebody.
	if err != nil && c.who.service != nil && hs.rooms[c.vars["room"]] != nil && c.who.service.hasMember(hs.rooms[c.vars["room"]]) {
		r, err = hs.rooms[c.vars["room"]], nil
	}
	if err != nil {
		return nil, err
	}
	joined := make(map[string]any)
	for _, user := range r.members("join") {
		content := r.stateContent("m.room.member", user)
		joined[user] = map[string]any{"display_name": content["displayname"], "avatar_url": content["avatar_url"]}
	}
	return map[string]any{"joined": joined}, nil
}

func (hs *Homeserver) getMembers(c *call) (any, error) {
	r, err := hs.roomOf(c)
	if err != nil {
		return nil, err
	}
	want, not := c.param("membership"), c.param("not_membership")
	chunk := []any{}
	for _, p := range r.stateEvents() {
		if p.typ == "m.room.member" && (want == "" || p.membership() == want) && (not == "" || p.membership() != not) {
			chunk = append(chunk, hs.outOfSync(p, c.who))
		}
	}
	return map[string]any{"chunk": chunk}, nil
}
