package bridgetest

import "strings"

// cached is the answer to a transaction ID that was seen.
type cached struct{ answer any }

// once runs a request unless its transaction ID was seen before. Synapse looks in two places: in memory by path, for an
// appservice whichever ghost it acts as, and in its database by room, user, device and ID. Only the second survives a
// restart, and only a request with a device gets there. Dendrite has the first alone; Continuwuity and Tuwunel have the
// second alone, by user, device and ID, with a device or without.
func (hs *Homeserver) once(c *call, kind string, run func() (*pdu, error)) (any, error) {
	memory, durable := hs.txnKeys(c, kind)
	if hit, seen := hs.txnCache[memory]; seen && memory != "" {
		return hit.answer, nil
	}
	eventID := ""
	if durable != "" {
		if eventID = hs.txnStore[durable]; eventID == nothingSent {
			return struct{}{}, nil
		}
	}
	var answer any = struct{}{}
	if eventID == "" {
		p, err := run()
		if err != nil {
			return nil, err
		}
		eventID = nothingSent
		if p != nil {
			eventID = p.id
		}
		if durable != "" && (p != nil || memory == "") {
			hs.txnStore[durable] = eventID
		}
	}
	if eventID != nothingSent {
		answer = map[string]any{"event_id": eventID}
	}
	if memory != "" {
		hs.txnCache[memory] = cached{answer}
	}
	return answer, nil
}

// nothingSent stands for the event of a request that sends none.
const nothingSent = "-"

// txnKeys are where a transaction ID is looked for; an empty one is nowhere.
func (hs *Homeserver) txnKeys(c *call, kind string) (memory, durable string) {
	if hs.traits.family == conduit {
		return "", strings.Join([]string{c.user(), c.who.device, c.vars["txn"]}, "\x00")
	}
	owner := "user\x00" + c.user() + "\x00" + c.who.device
	if c.who.service != nil {
		owner = "appservice\x00" + c.who.service.reg.ID
	}
	memory = owner + "\x00" + c.URL.EscapedPath()
	if c.who.device != "" && hs.traits.family == synapse {
		durable = strings.Join([]string{kind, c.vars["room"], c.user(), c.who.device, c.vars["txn"]}, "\x00")
	}
	return memory, durable
}
