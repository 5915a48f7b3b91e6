package bridgetest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
)

// transaction is what an appservice is to acknowledge. Once it has failed, or is made while the appservice is down, only the
// events are left of one of Synapse's: it stores nothing else.
type transaction struct {
	id     string
	number int // Synapse's
	events []*pdu
	more   map[string]any // everything but the events
	poison [sections][]json.RawMessage
}

// takeTransaction makes a transaction of the oldest of what waits.
func (hs *Homeserver) takeTransaction(as *appService) *transaction {
	defer hs.notify()
	t := &transaction{more: make(map[string]any)}
	room := hs.traits.batch // in what is left of the transaction
	t.events = cut(&as.events, room)
	if hs.traits.family == conduit {
		room -= len(t.events) // one limit for everything
	}
	ephemeral := cut(&as.ephemeral, room)
	if hs.traits.family == conduit {
		room -= len(ephemeral)
	}
	toDevice := cut(&as.toDevice, room)
	t.poison, as.poison = as.poison, [sections][]json.RawMessage{}
	if hs.traits.family == conduit {
		hs.describeConduit(as, t, ephemeral, toDevice)
		return t
	}
	if as.wantsEphemeral(hs) {
		t.more[as.ephemeralKey(hs)], t.more[toDeviceKey] = ephemeral, toDevice
	}
	if as.wantsDevices(hs) {
		if len(as.lists) > 0 {
			t.more["org.matrix.msc3202.device_lists"] = map[string]any{"changed": as.lists, "left": []string{}}
		}
		counts, fallback := hs.keyCounts(as, t.events, toDevice)
		if len(counts) > 0 {
			t.more["org.matrix.msc3202.device_one_time_key_counts"] = counts
			t.more["org.matrix.msc3202.device_one_time_keys_count"] = counts
			t.more["org.matrix.msc3202.device_unused_fallback_key_types"] = fallback
		}
	}
	as.lists = nil
	return t
}

// describeConduit leaves out what is empty, and writes the keys in one spelling.
func (hs *Homeserver) describeConduit(as *appService, t *transaction, ephemeral, toDevice []map[string]any) {
	if len(ephemeral) > 0 {
		t.more[as.ephemeralKey(hs)] = ephemeral
	}
	if len(toDevice) > 0 {
		t.more[toDeviceKey] = toDevice
	}
	if as.wantsDevices(hs) {
		if len(as.lists) > 0 {
			t.more["org.matrix.msc3202.device_lists"] = map[string]any{"changed": as.lists}
		}
		counts, fallback := hs.keyCounts(as, t.events, toDevice)
		if len(counts) > 0 {
			t.more["org.matrix.msc3202.device_one_time_keys_count"] = counts
			t.more["org.matrix.msc3202.device_unused_fallback_key_types"] = fallback
		}
	}
	as.lists = nil
	t.id = contentID(t.events, ephemeral, toDevice)
}

const toDeviceKey = "de.sorunome.msc2409.to_device"

// ephemeralKey is where a transaction has its ephemeral events; empty for appservices that want none.
func (as *appService) ephemeralKey(hs *Homeserver) string {
	switch {
	case as.reg.ReceiveEphemeral, as.reg.PushEphemeral && hs.traits.family == conduit:
		return "ephemeral"
	case as.reg.PushEphemeral:
		return "de.sorunome.msc2409.ephemeral"
	}
	return ""
}

// contentID is the hash of what a transaction holds: the same content has the same ID, also years later.
func contentID(events []*pdu, more ...[]map[string]any) string {
	hash := sha256.New()
	for _, p := range events {
		hash.Write([]byte(p.id))
		hash.Write([]byte{0xff})
	}
	for _, list := range more {
		for _, element := range list {
			hash.Write(mustJSON(element))
			hash.Write([]byte{0xff})
		}
	}
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil))
}

// cut takes as many elements as fit.
func cut[T any](queue *[]T, fit int) []T {
	n := min(len(*queue), max(fit, 0))
	out := append([]T{}, (*queue)[:n]...)
	*queue = slices.Delete(*queue, 0, n)
	return out
}

// body is what goes over the wire: the events as they are now, and what is left of the rest.
func (hs *Homeserver) body(as *appService, t *transaction) json.RawMessage {
	out := map[string]any{}
	for k, v := range t.more {
		out[k] = v
	}
	if as.wantsEphemeral(hs) && t.more == nil {
		out[as.ephemeralKey(hs)], out[toDeviceKey] = []any{}, []any{}
	}
	events := make([]map[string]any, 0, len(t.events))
	for _, p := range t.events {
		events = append(events, hs.forAppService(p))
	}
	out["events"] = events
	for in, key := range [sections]string{"events", as.ephemeralKey(hs), toDeviceKey} {
		poison := t.poison[in]
		if len(poison) == 0 || Section(in) != EventSection && (t.more == nil || !as.wantsEphemeral(hs)) {
			continue
		}
		var good []json.RawMessage
		_ = json.Unmarshal(mustJSON(out[key]), &good)
		out[key] = slices.Concat(poison, good)
	}
	return mustJSON(out)
}

// forAppService is an event in the form in which appservices get it.
func (hs *Homeserver) forAppService(p *pdu) map[string]any {
	if hs.traits.oldCopies {
		return p.legacy(identity{})
	}
	out := p.client(identity{})
	if hs.traits.family == dendrite {
		unsigned, _ := out["unsigned"].(map[string]any)
		delete(unsigned, "age")
		if p.inviteTo != nil {
			unsigned["invite_room_state"] = p.inviteTo
		}
		if len(unsigned) == 0 {
			delete(out, "unsigned")
		}
	}
	return out
}

func (as *appService) wantsDevices(hs *Homeserver) bool {
	return as.reg.DeviceExtensions && !hs.opts.NoDeviceExtensions && hs.traits.extensions
}

// offerDeviceList notes that a user's devices changed, when the user is the appservice's or shares a room with it.
func (as *appService) offerDeviceList(hs *Homeserver, user string) {
	if !as.wantsDevices(hs) || slices.Contains(as.lists, user) {
		return
	}
	concerned := as.mine(user)
	for _, r := range hs.rooms {
		concerned = concerned || r.joined(user) && as.hasMember(r)
	}
	if concerned {
		as.lists = append(as.lists, user)
		as.prod()
	}
}

// keyCounts counts the keys of the sender, of the appservice's users in the rooms of events, and of those whom to-device
// messages are for. Synapse counts public cross-signing keys among the devices.
func (hs *Homeserver) keyCounts(as *appService, events []*pdu, toDevice []map[string]any) (counts map[string]map[string]map[string]int, fallback map[string]map[string][]string) {
	users := map[string]bool{as.sender.id: true}
	for _, p := range events {
		for _, user := range p.room.members("join") {
			users[user] = users[user] || as.mine(user)
		}
	}
	for _, m := range toDevice {
		user, _ := m["to_user_id"].(string)
		users[user] = true
	}
	counts, fallback = make(map[string]map[string]map[string]int), make(map[string]map[string][]string)
	for user, wanted := range users {
		acc := hs.accounts[user]
		if !wanted || acc == nil || len(acc.devices) == 0 {
			continue
		}
		counts[user], fallback[user] = make(map[string]map[string]int), make(map[string][]string)
		for id, d := range acc.devices {
			counts[user][id], fallback[user][id] = d.counts(false), d.unusedFallback()
		}
		if hs.traits.family != synapse {
			continue
		}
		for _, id := range acc.crossKeyIDs() {
			counts[user][id], fallback[user][id] = map[string]int{}, []string{}
		}
	}
	return counts, fallback
}

// sortByRoom puts events into the order in which Continuwuity and Tuwunel keep them: by room, the oldest room first.
func sortByRoom(events []*pdu) {
	slices.SortStableFunc(events, func(a, b *pdu) int {
		return int(a.room.timeline[0].at - b.room.timeline[0].at)
	})
}
