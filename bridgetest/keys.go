package bridgetest

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

type rawMap = map[string]json.RawMessage

// counts are the device's unclaimed one-time keys by algorithm. Towards a client signed_curve25519 is always named.
func (d *device) counts(always bool) map[string]int {
	out := make(map[string]int)
	if always {
		out["signed_curve25519"] = 0
	}
	for _, key := range d.oneTime {
		algorithm, _, _ := strings.Cut(key.id, ":")
		out[algorithm]++
	}
	return out
}

func (d *device) unusedFallback() []string {
	out := []string{}
	for algorithm, key := range d.fallback {
		if !key.used {
			out = append(out, algorithm)
		}
	}
	slices.Sort(out)
	return out
}

func (hs *Homeserver) postKeysUpload(c *call) (any, error) {
	var req struct {
		DeviceKeys json.RawMessage `json:"device_keys"`
		OneTime    rawMap          `json:"one_time_keys"`
		Fallback   rawMap          `json:"fallback_keys"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	acc := c.who.account
	d := acc.devices[c.who.device]
	if d == nil && hs.traits.family == dendrite && c.who.service != nil {
		return map[string]any{"one_time_key_counts": struct{}{}}, nil // for a device that is none
	}
	if d == nil {
		return nil, badRequest("M_UNKNOWN", "To upload keys, you must pass device_id when authenticating")
	}
	if len(req.DeviceKeys) > 0 && string(req.DeviceKeys) != "null" {
		var keys struct {
			User   string `json:"user_id"`
			Device string `json:"device_id"`
		}
		if json.Unmarshal(req.DeviceKeys, &keys) != nil || keys.User != acc.id {
			return nil, badRequest("M_BAD_JSON", "Provided `user_id` in `device_keys` does not match that of the authenticated user")
		}
		if keys.Device != d.id {
			return nil, badRequest("M_BAD_JSON", "Provided `device_id` in `device_keys` does not match that of the authenticated user device")
		}
		if string(d.keys) != string(req.DeviceKeys) {
			d.keys = req.DeviceKeys
			hs.deviceListChanged(acc)
		}
	}
	var added []oneTimeKey
	for _, id := range slices.Sorted(maps.Keys(req.OneTime)) { // those of one upload are equal: any order will do
		key := req.OneTime[id]
		i := slices.IndexFunc(d.oneTime, func(have oneTimeKey) bool { return have.id == id })
		if i < 0 {
			added = append(added, oneTimeKey{id, key})
		} else if have := d.oneTime[i].key; !sameJSON(have, key) {
			return nil, badRequest("M_UNKNOWN", "One time key %s already exists. Old key: %s; new key: %s", id, have, key)
		}
	}
	d.oneTime = append(d.oneTime, added...)
	for id, key := range req.Fallback {
		algorithm, _, _ := strings.Cut(id, ":")
		d.fallback[algorithm] = &fallbackKey{id: id, key: key} // unused, also when it is the same again
	}
	return map[string]any{"one_time_key_counts": d.counts(true)}, nil
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && string(mustJSON(x)) == string(mustJSON(y))
}

var crossSigningKinds = []string{"master", "self_signing", "user_signing"}

func (hs *Homeserver) postKeysQuery(c *call) (any, error) {
	var req struct {
		Devices map[string][]string `json:"device_keys"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	keys, cross := make(map[string]rawMap), map[string]rawMap{"master": {}, "self_signing": {}, "user_signing": {}}
	failures := make(map[string]any)
	for user, wanted := range req.Devices {
		_, server, _ := strings.Cut(user, ":")
		if server != hs.opts.ServerName {
			failures[server] = map[string]any{"status": 503, "message": "Not ready for retry"}
			continue
		}
		keys[user] = rawMap{}
		acc := hs.accounts[user]
		if acc == nil {
			continue
		}
		for _, id := range acc.deviceIDs() {
			d := acc.devices[id]
			if d.keys != nil && (len(wanted) == 0 || slices.Contains(wanted, id)) {
				keys[user][id] = hs.describeKeys(acc, d, c.user())
			}
		}
		for _, kind := range crossSigningKinds {
			if key := acc.crossKeys[kind]; key != nil && (kind != "user_signing" || user == c.user()) {
				cross[kind][user] = acc.withSignatures(key, crossKeyName(key), c.user())
			}
		}
	}
	return map[string]any{
		"device_keys": keys, "failures": failures,
		"master_keys": cross["master"], "self_signing_keys": cross["self_signing"], "user_signing_keys": cross["user_signing"],
	}, nil
}

// describeKeys is the device's signed keys with its name in the unsigned part, and the signatures that were added to them.
func (hs *Homeserver) describeKeys(acc *account, d *device, reader string) json.RawMessage {
	var out map[string]json.RawMessage
	if json.Unmarshal(d.keys, &out) != nil {
		return d.keys
	}
	unsigned := map[string]any{}
	if d.name != nil {
		unsigned["device_display_name"] = *d.name
	}
	out["unsigned"] = mustJSON(unsigned)
	keys := mustJSON(out)
	if hs.traits.family == synapse {
		keys = mergeSignatures(keys, map[string]map[string]string{acc.id: nil})
	}
	return acc.withSignatures(keys, d.id, reader)
}

// postKeysClaim hands out one one-time key for each device, and the fallback key when none is left.
func (hs *Homeserver) postKeysClaim(c *call) (any, error) {
	var req struct {
		OneTime map[string]map[string]string `json:"one_time_keys"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	out := make(map[string]map[string]rawMap)
	for user, devices := range req.OneTime {
		acc := hs.accounts[user]
		if acc == nil {
			continue
		}
		for deviceID, algorithm := range devices {
			d := acc.devices[deviceID]
			if d == nil {
				continue
			}
			id, key := d.claim(algorithm)
			if key == nil {
				continue
			}
			if out[user] == nil {
				out[user] = make(map[string]rawMap)
			}
			out[user][deviceID] = rawMap{id: key}
		}
	}
	return map[string]any{"one_time_keys": out, "failures": struct{}{}}, nil
}

// claim takes the key that was uploaded first (MSC4225).
func (d *device) claim(algorithm string) (string, json.RawMessage) {
	for i, key := range d.oneTime {
		if strings.HasPrefix(key.id, algorithm+":") {
			d.oneTime = slices.Delete(d.oneTime, i, i+1)
			return key.id, key.key
		}
	}
	if f := d.fallback[algorithm]; f != nil {
		f.used = true
		return f.id, f.key
	}
	return "", nil
}

func (hs *Homeserver) getKeysChanges(c *call) (any, error) {
	from, err := parseToken(c.param("from"))
	if err != nil {
		return nil, err
	}
	changed := make(map[string]bool)
	for _, r := range hs.roomsOf(c.user(), "join") {
		for _, user := range r.members("join") {
			if acc := hs.accounts[user]; acc != nil && acc.devicesAt > from {
				changed[user] = true
			}
		}
	}
	list := []string{}
	for user := range changed {
		list = append(list, user)
	}
	slices.Sort(list)
	return map[string]any{"changed": list, "left": []string{}}, nil
}
