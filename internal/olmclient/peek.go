//go:build goolm

package olmclient

import (
	"encoding/json"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// peek opens the first message of an Olm session with a copy of the account, to see what the sender says of its device in
// it (MSC4147): mautrix checks that and tells nobody.
func (c *Client) peek(ev *event.Event) {
	ev.Type.Class = event.ToDeviceEventType
	parsed := event.Content{VeryRaw: ev.Content.VeryRaw} // mautrix refuses what is parsed already
	if ev.Type != event.ToDeviceEncrypted || parsed.ParseRaw(ev.Type) != nil {
		return
	}
	content, ok := parsed.Parsed.(*event.EncryptedEventContent)
	if !ok {
		return
	}
	message, ok := content.OlmCiphertext[c.machine.OwnIdentity().IdentityKey]
	if !ok || message.Type != id.OlmMsgTypePreKey {
		return
	}
	key := []byte("a copy")
	pickled, err := c.machine.GetAccount().Internal.Pickle(key)
	if err != nil {
		return
	}
	account, err := olm.AccountFromPickled(pickled, key)
	if err != nil {
		return
	}
	session, err := account.NewInboundSessionFrom(&content.SenderKey, message.Body)
	if err != nil {
		return // not the first one: its one-time key is used up
	}
	plain, err := session.Decrypt(message.Body, message.Type)
	if err != nil {
		return
	}
	var payload struct {
		Keys *mautrix.DeviceKeys `json:"sender_device_keys"`
	}
	if json.Unmarshal(plain, &payload) != nil || payload.Keys == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deviceKeys[ev.Sender] = append(c.deviceKeys[ev.Sender], *payload.Keys)
}

// SenderKeys is what a user's devices said of themselves in the first messages of their Olm sessions (MSC4147).
func (c *Client) SenderKeys(user id.UserID) []mautrix.DeviceKeys {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]mautrix.DeviceKeys(nil), c.deviceKeys[user]...)
}
