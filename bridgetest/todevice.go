package bridgetest

import "encoding/json"

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

// deliver gives a to-device message to the appservice that owns the user, and keeps it for /sync: Synapse takes what an appservice was sent
// for not delivered until the device has asked for it and for what came after.
func (hs *Homeserver) deliver(acc *account, d *device, typ, sender string, content json.RawMessage) {
	at := hs.advance()
	if !hs.opts.NoToDevice && hs.traits.toDevice {
		for _, as := range hs.services {
			if !as.mine(acc.id) || !as.wantsEphemeral(hs) {
				continue
			}
			as.offerToDevice(map[string]any{
				"type": typ, "sender": sender, "content": content, "to_user_id": acc.id, "to_device_id": d.id,
			})
			if hs.traits.family != synapse {
				return
			}
		}
	}
	d.inbox = append(d.inbox, toDevice{at, typ, sender, content})
}
