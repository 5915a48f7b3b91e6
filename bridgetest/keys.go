package bridgetest

import (
	"encoding/json"
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
	for id := range d.oneTime {
		algorithm, _, _ := strings.Cut(id, ":")
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
	for id, key := range req.OneTime {
		if have := d.oneTime[id]; have != nil && !sameJSON(have, key) {
			return nil, badRequest("M_UNKNOWN", "One time key %s already exists. Old key: %s; new key: %s", id, have, key)
		}
		d.oneTime[id] = key
	}
	for id, key := range req.Fallback {
		algorithm, _, _ := strings.Cut(id, ":")
		if old := d.fallback[algorithm]; old == nil || old.id != id {
			d.fallback[algorithm] = &fallbackKey{id: id, key: key}
		}
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
				keys[user][id] = hs.describeKeys(acc, d)
			}
		}
		for _, kind := range crossSigningKinds {
			if key := acc.crossKeys[kind]; key != nil && (kind != "user_signing" || user == c.user()) {
				cross[kind][user] = key
			}
		}
	}
	return map[string]any{
		"device_keys": keys, "failures": failures,
		"master_keys": cross["master"], "self_signing_keys": cross["self_signing"], "user_signing_keys": cross["user_signing"],
	}, nil
}

// describeKeys is the device's signed keys with its name in the unsigned part.
func (hs *Homeserver) describeKeys(acc *account, d *device) json.RawMessage {
	var out map[string]json.RawMessage
	if json.Unmarshal(d.keys, &out) != nil {
		return d.keys
	}
	unsigned := map[string]any{}
	if d.name != nil {
		unsigned["device_display_name"] = *d.name
	}
	out["unsigned"] = mustJSON(unsigned)
	if hs.traits.family == synapse {
		return mergeSignatures(mustJSON(out), map[string]map[string]string{acc.id: nil})
	}
	return mustJSON(out)
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

func (d *device) claim(algorithm string) (string, json.RawMessage) {
	ids := make([]string, 0, len(d.oneTime))
	for id := range d.oneTime {
		if strings.HasPrefix(id, algorithm+":") {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		id := slices.Min(ids)
		key := d.oneTime[id]
		delete(d.oneTime, id)
		return id, key
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

// postCrossSigning takes the keys without asking for a password, of users too: a User has none to type.
func (hs *Homeserver) postCrossSigning(c *call) (any, error) {
	var req rawMap
	if err := c.json(&req); err != nil {
		return nil, err
	}
	for _, kind := range crossSigningKinds {
		if key := req[kind+"_key"]; key != nil {
			c.who.account.crossKeys[kind] = key
		}
	}
	hs.deviceListChanged(c.who.account)
	return struct{}{}, nil
}

// crossKeyIDs are the public cross-signing keys, which Synapse counts among the devices when it tells appservices of
// one-time keys.
func (a *account) crossKeyIDs() []string {
	var out []string
	for _, raw := range a.crossKeys {
		var key struct {
			Keys map[string]string `json:"keys"`
		}
		_ = json.Unmarshal(raw, &key)
		for _, public := range key.Keys {
			out = append(out, public)
		}
	}
	return out
}

// postSignatures merges signatures into the keys that they are about.
func (hs *Homeserver) postSignatures(c *call) (any, error) {
	var req map[string]map[string]struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	for user, signed := range req {
		acc := hs.accounts[user]
		if acc == nil {
			continue
		}
		for id, s := range signed {
			if d := acc.devices[id]; d != nil && d.keys != nil {
				d.keys = mergeSignatures(d.keys, s.Signatures)
			}
			for kind, key := range acc.crossKeys {
				if strings.Contains(string(key), `"ed25519:`+id+`"`) {
					acc.crossKeys[kind] = mergeSignatures(key, s.Signatures)
				}
			}
		}
		hs.deviceListChanged(acc)
	}
	return map[string]any{"failures": struct{}{}}, nil
}

func mergeSignatures(key json.RawMessage, more map[string]map[string]string) json.RawMessage {
	var out map[string]any
	if json.Unmarshal(key, &out) != nil {
		return key
	}
	have, _ := out["signatures"].(map[string]any)
	if have == nil {
		have = make(map[string]any)
	}
	for user, sigs := range more {
		of, _ := have[user].(map[string]any)
		if of == nil {
			of = make(map[string]any)
		}
		for id, sig := range sigs {
			of[id] = sig
		}
		have[user] = of
	}
	out["signatures"] = have
	return mustJSON(out)
}

func (hs *Homeserver) putSendToDevice(c *call) (any, error) {
	var req struct {
		Messages map[string]map[string]json.RawMessage `json:"messages"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	return hs.once(c, "to_device", func() (*pdu, error) {
		for user, devices := range req.Messages {
			acc := hs.accounts[user]
			if acc == nil {
				continue
			}
			for id, content := range devices {
				for _, deviceID := range acc.deviceIDs() {
					if id == "*" || id == deviceID {
						hs.deliver(acc, acc.devices[deviceID], c.vars["type"], c.user(), content)
					}
				}
			}
		}
		hs.notify()
		return nil, nil
	})
}

// deliver gives a to-device message to the appservice that owns the user, or keeps it for /sync.
func (hs *Homeserver) deliver(acc *account, d *device, typ, sender string, content json.RawMessage) {
	at := hs.advance()
	if !hs.opts.NoToDevice && hs.traits.toDevice {
		for _, as := range hs.services {
			if as.mine(acc.id) && as.wantsEphemeral(hs) {
				as.offerToDevice(map[string]any{
					"type": typ, "sender": sender, "content": content, "to_user_id": acc.id, "to_device_id": d.id,
				})
				return
			}
		}
	}
	d.inbox = append(d.inbox, toDevice{at, typ, sender, content})
}
