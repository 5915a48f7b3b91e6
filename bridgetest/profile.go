package bridgetest

import (
	"encoding/json"
	"net/http"
	"strings"
)

// maxProfile is the size of a whole profile in bytes (MSC4133).
const maxProfile = 64 << 10

func (hs *Homeserver) profileOf(user string) (*account, error) {
	acc := hs.accounts[user]
	if acc == nil || !acc.registered {
		return nil, refuse(http.StatusNotFound, "M_UNKNOWN", "No row found (profiles)")
	}
	return acc, nil
}

func (hs *Homeserver) getProfile(c *call) (any, error) {
	acc, err := hs.profileOf(c.vars["user"])
	if err != nil {
		return nil, err
	}
	return acc.profile, nil
}

func (hs *Homeserver) getProfileKey(c *call) (any, error) {
	acc, err := hs.profileOf(c.vars["user"])
	if err != nil {
		return nil, err
	}
	key := c.vars["key"]
	if !hs.hasProfileField(key) {
		return nil, unrecognized()
	}
	value, have := acc.profile[key]
	if !have {
		switch {
		case key != "displayname" && key != "avatar_url":
		case hs.traits.family == synapse:
			return map[string]any{key: nil}, nil
		default:
			return struct{}{}, nil
		}
		return nil, notFound("Profile was not found")
	}
	return map[string]any{key: value}, nil
}

func (hs *Homeserver) putProfileKey(c *call) (any, error) {
	key := c.vars["key"]
	if !hs.hasProfileField(key) {
		return nil, unrecognized()
	}
	var req map[string]json.RawMessage
	if err := c.json(&req); err != nil {
		return nil, err
	}
	value, have := req[key]
	if !have {
		return nil, badRequest("M_MISSING_PARAM", "Missing key '%s'", key)
	}
	acc, err := hs.ownProfile(c)
	if err != nil {
		return nil, err
	}
	size := len(value)
	for k, v := range acc.profile {
		if k != key {
			size += len(k) + len(v)
		}
	}
	if size > maxProfile {
		return nil, badRequest("M_PROFILE_TOO_LARGE", "Profile too large")
	}
	before := string(acc.profile[key])
	if string(value) == "null" || (key == "displayname" || key == "avatar_url") && string(value) == `""` {
		delete(acc.profile, key)
	} else {
		acc.setProfile(key, value)
	}
	if c.param("propagate") != "false" && before != string(acc.profile[key]) {
		hs.propagateProfile(acc, key)
	}
	return struct{}{}, nil
}

func (hs *Homeserver) deleteProfileKey(c *call) (any, error) {
	if !hs.hasProfileField(c.vars["key"]) {
		return nil, unrecognized()
	}
	acc, err := hs.ownProfile(c)
	if err != nil {
		return nil, err
	}
	delete(acc.profile, c.vars["key"])
	hs.propagateProfile(acc, c.vars["key"])
	return struct{}{}, nil
}

func (hs *Homeserver) ownProfile(c *call) (*account, error) {
	if c.vars["user"] != c.user() {
		what := c.vars["key"]
		if !strings.Contains(what, ".") {
			what = strings.TrimSuffix(what, "_url")
		}
		return nil, badRequest("M_FORBIDDEN", "Cannot set another user's %s", what)
	}
	return c.who.account, c.suspendedFrom("Updating profile")
}

// hasProfileField tells whether the server knows a key of profiles: two it always does, any by MSC4133.
func (hs *Homeserver) hasProfileField(key string) bool {
	return hs.traits.profileFields || key == "displayname" || key == "avatar_url"
}

// propagateProfile shows a changed name or picture in every room that the user is in.
func (hs *Homeserver) propagateProfile(acc *account, key string) {
	if key != "displayname" && key != "avatar_url" {
		return
	}
	for _, r := range hs.roomsOf(acc.id, "join") {
		content := hs.memberContent(acc.id, "join")
		_, _ = hs.emit(r, draft{typ: "m.room.member", sender: acc.id, stateKey: &acc.id, content: content})
	}
}

// memberContent is the content of a membership event, with the user's name and picture.
func (hs *Homeserver) memberContent(user, membership string) map[string]any {
	content := map[string]any{"membership": membership}
	if acc := hs.accounts[user]; acc != nil && (membership == "join" || membership == "invite") {
		if name := acc.displayName(); name != "" {
			content["displayname"] = name
		}
		if url := acc.profileString("avatar_url"); url != "" {
			content["avatar_url"] = url
		}
	}
	return content
}
