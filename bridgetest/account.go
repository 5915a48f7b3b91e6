package bridgetest

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// account is a user of this homeserver. The sender of an appservice has one before it is registered.
type account struct {
	id          string
	localpart   string
	registered  bool
	password    string
	service     *appService // who registered it, or whose sender it is
	profile     map[string]json.RawMessage
	devices     map[string]*device
	devicesAt   int64 // position at which the devices or keys last changed
	crossKeys   map[string]json.RawMessage
	signatures  map[string]map[string]map[string]string // by device ID or public key, signer and key ID: those added to the keys' own
	accountData map[string]stored                       // by room ID (empty: global) and type, with a NUL between
	moderation  Moderation
	presence    map[string]any
	presenceAt  int64
	presenceTS  int64
}

type stored struct {
	content json.RawMessage
	at      int64
}

type device struct {
	id       string
	name     *string
	keys     json.RawMessage
	oneTime  []oneTimeKey            // as they were uploaded
	fallback map[string]*fallbackKey // by algorithm
	inbox    []toDevice
}

type oneTimeKey struct {
	id  string // "algorithm:id"
	key json.RawMessage
}

type fallbackKey struct {
	id   string
	key  json.RawMessage
	used bool
}

type toDevice struct {
	at        int64
	eventType string
	sender    string
	content   json.RawMessage
}

// session is a login of a user.
type session struct {
	token   string
	account *account
	device  string
	expires time.Time // zero: never
	refresh string    // what a new token is had for; empty: none
}

func (a *account) deviceIDs() []string {
	ids := make([]string, 0, len(a.devices))
	for d := range a.devices {
		ids = append(ids, d)
	}
	slices.Sort(ids)
	return ids
}

func (a *account) displayName() string { return a.profileString("displayname") }

func (a *account) profileString(key string) string {
	var s string
	_ = json.Unmarshal(a.profile[key], &s)
	return s
}

func (a *account) setProfile(key string, value json.RawMessage) {
	a.profile[key] = value
}

func newAccount(id string) *account {
	localpart, _, _ := strings.Cut(strings.TrimPrefix(id, "@"), ":")
	return &account{
		id: id, localpart: localpart, profile: make(map[string]json.RawMessage), devices: make(map[string]*device),
		crossKeys: make(map[string]json.RawMessage), signatures: make(map[string]map[string]map[string]string),
		accountData: make(map[string]stored),
	}
}

// ensureAccount registers a user that is not registered yet. A new user is called by its localpart, as in Synapse.
func (hs *Homeserver) ensureAccount(id string, service *appService) *account {
	acc := hs.accounts[id]
	if acc == nil {
		acc = newAccount(id)
		hs.accounts[id] = acc
	}
	if !acc.registered {
		acc.registered = true
		acc.service = service
		acc.setProfile("displayname", mustJSON(acc.localpart))
	}
	return acc
}

// newSession logs a user in; an empty device is made up.
func (hs *Homeserver) newSession(acc *account, deviceID string) *session {
	if deviceID == "" {
		deviceID = randomLetters(10, upperLetters)
	}
	hs.ensureDevice(acc, deviceID)
	s := &session{token: "syt_" + randomLetters(24, letters), account: acc, device: deviceID}
	hs.tokens[s.token] = s
	return s
}

// ensureDevice returns a user's device, made when it is not there.
func (hs *Homeserver) ensureDevice(acc *account, deviceID string) (d *device, created bool) {
	if d = acc.devices[deviceID]; d != nil {
		return d, false
	}
	d = &device{id: deviceID, fallback: make(map[string]*fallbackKey)}
	acc.devices[deviceID] = d
	hs.deviceListChanged(acc)
	return d, true
}

// dropDevice deletes a user's device and its tokens.
func (hs *Homeserver) dropDevice(acc *account, deviceID string) {
	if acc.devices[deviceID] == nil {
		return
	}
	delete(acc.devices, deviceID)
	delete(acc.signatures, deviceID)
	for token, s := range hs.tokens {
		if s.account == acc && s.device == deviceID {
			delete(hs.tokens, token)
		}
	}
	hs.deviceListChanged(acc)
}

// deviceListChanged tells everybody who shares a room with the user.
func (hs *Homeserver) deviceListChanged(acc *account) {
	acc.devicesAt = hs.advance()
	for _, as := range hs.services {
		as.offerDeviceList(hs, acc.id)
	}
	hs.notify()
}
