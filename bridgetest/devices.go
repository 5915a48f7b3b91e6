package bridgetest

import "net/http"

func (d *device) describe(acc *account) map[string]any {
	return map[string]any{
		"user_id": acc.id, "device_id": d.id, "display_name": d.name, "last_seen_ts": nil, "last_seen_ip": nil,
	}
}

func (hs *Homeserver) getDevices(c *call) (any, error) {
	list := []any{}
	for _, d := range c.who.account.deviceIDs() {
		list = append(list, c.who.account.devices[d].describe(c.who.account))
	}
	return map[string]any{"devices": list}, nil
}

func (hs *Homeserver) getDevice(c *call) (any, error) {
	d := c.who.account.devices[c.vars["device"]]
	if d == nil {
		return nil, notFound("No device found")
	}
	return d.describe(c.who.account), nil
}

// putDevice renames a device; for an appservice it makes it too (MSC4190).
func (hs *Homeserver) putDevice(c *call) (any, error) {
	var req struct {
		Name *string `json:"display_name"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	acc, deviceID := c.who.account, c.vars["device"]
	status := http.StatusOK
	if c.who.service != nil {
		if _, created := hs.ensureDevice(acc, deviceID); created {
			status = http.StatusCreated
		}
	}
	if d := acc.devices[deviceID]; d != nil && req.Name != nil && (d.name == nil || *d.name != *req.Name) {
		d.name = req.Name
		hs.deviceListChanged(acc)
	}
	return answerWithStatus{status, struct{}{}}, nil
}

func (hs *Homeserver) deleteDevice(c *call) (any, error) {
	if c.who.service == nil {
		return interactiveAuth()
	}
	hs.dropDevice(c.who.account, c.vars["device"])
	return struct{}{}, nil
}

func (hs *Homeserver) postDeleteDevices(c *call) (any, error) {
	var req struct {
		Devices []string `json:"devices"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	if c.who.service == nil {
		return interactiveAuth()
	}
	for _, d := range req.Devices {
		hs.dropDevice(c.who.account, d)
	}
	return struct{}{}, nil
}

// interactiveAuth asks a user, who is no appservice, for the password.
func interactiveAuth() (any, error) {
	return answerWithStatus{http.StatusUnauthorized, map[string]any{
		"session": randomLetters(24, letters), "flows": []any{map[string]any{"stages": []string{"m.login.password"}}}, "params": struct{}{},
	}}, nil
}
