package bridgetest

import "net/http"

func (hs *Homeserver) describeDevice(acc *account, d *device) map[string]any {
	out := map[string]any{"device_id": d.id, "display_name": d.name, "last_seen_ts": nil, "last_seen_ip": nil}
	if hs.traits.family == synapse {
		out["user_id"] = acc.id
	} else if d.name == nil {
		out["display_name"] = ""
	}
	return out
}

func (hs *Homeserver) getDevices(c *call) (any, error) {
	list := []any{}
	for _, d := range c.who.account.deviceIDs() {
		list = append(list, hs.describeDevice(c.who.account, c.who.account.devices[d]))
	}
	return map[string]any{"devices": list}, nil
}

func (hs *Homeserver) getDevice(c *call) (any, error) {
	d := c.who.account.devices[c.vars["device"]]
	if d == nil {
		return nil, notFound("No device found")
	}
	return hs.describeDevice(c.who.account, d), nil
}

// putDevice renames a device; for an appservice it makes it too (MSC4190), where the server can.
func (hs *Homeserver) putDevice(c *call) (any, error) {
	var req struct {
		Name *string `json:"display_name"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	acc, deviceID := c.who.account, c.vars["device"]
	status := http.StatusOK
	if acc.devices[deviceID] == nil {
		made, err := hs.makeDevice(c, deviceID)
		if err != nil {
			return nil, err
		}
		if made {
			status = hs.traits.createdStatus
		}
	}
	if d := acc.devices[deviceID]; d != nil && req.Name != nil && (d.name == nil || *d.name != *req.Name) {
		d.name = req.Name
		hs.deviceListChanged(acc)
	}
	return answerWithStatus{status, struct{}{}}, nil
}

func (hs *Homeserver) makeDevice(c *call, deviceID string) (made bool, err error) {
	as := c.who.service
	switch {
	case hs.traits.createdStatus == 0:
		return false, refuse(http.StatusNotFound, "M_FORBIDDEN", "device does not exist")
	case hs.traits.family == conduit && (as == nil || hs.opts.Personality == Tuwunel && !as.reg.DeviceManagement):
		return false, notFound("Device not found.")
	case hs.traits.family == conduit && !c.who.account.registered && c.who.account != as.sender:
		return false, badRequest("M_INVALID_PARAM", "Called create_device for non-existent user %s", c.user())
	case as == nil:
		return false, nil // a user's is not made, and that is no error
	}
	_, made = hs.ensureDevice(c.who.account, deviceID)
	return made, nil
}

// mayDelete tells whether devices go without the password.
func (hs *Homeserver) mayDelete(c *call) bool {
	as := c.who.service
	return as != nil && hs.traits.family != dendrite && (hs.opts.Personality != Tuwunel || as.reg.DeviceManagement)
}

func (hs *Homeserver) deleteDevice(c *call) (any, error) {
	if !hs.mayDelete(c) {
		return hs.interactiveAuth()
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
	if !hs.mayDelete(c) {
		return hs.interactiveAuth()
	}
	for _, d := range req.Devices {
		hs.dropDevice(c.who.account, d)
	}
	return struct{}{}, nil
}

// interactiveAuth asks for the password, which appservices have none of.
func (hs *Homeserver) interactiveAuth() (any, error) {
	out := map[string]any{
		"session": randomLetters(24, letters), "flows": []any{map[string]any{"stages": []string{"m.login.password"}}}, "params": struct{}{},
	}
	if hs.traits.family == dendrite {
		out["completed"] = []string{}
	}
	return answerWithStatus{http.StatusUnauthorized, out}, nil
}
