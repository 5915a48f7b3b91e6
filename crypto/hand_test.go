//go:build goolm

package crypto_test

import (
	"encoding/json"
	"time"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	mautrixolm "maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// hand writes Olm messages by hand to one device of the bridge, so that anything may be wrong with them. It has the person's
// account, and a session with the device that the person's client does not know of.
type hand struct {
	p       *person
	to      id.UserID
	device  id.Device
	session mautrixolm.Session
}

func (w *world) hand(p *person, to id.UserID) *hand {
	w.t.Helper()
	ctx := w.t.Context()
	devices, err := p.olm.FetchKeys(ctx, []id.UserID{to}, true)
	w.no(err)
	h := &hand{p: p, to: to}
	for _, device := range devices[to] {
		h.device = *device
	}
	claimed, err := p.client.ClaimKeys(ctx, &mautrix.ReqClaimKeys{OneTimeKeys: mautrix.OneTimeKeysRequest{to: {h.device.DeviceID: id.KeyAlgorithmSignedCurve25519}}})
	w.no(err)
	for _, key := range claimed.OneTimeKeys[to][h.device.DeviceID] {
		h.session, err = p.olm.GetAccount().Internal.NewOutboundSession(h.device.IdentityKey, key.Key)
		w.no(err)
	}
	if h.session == nil {
		w.t.Fatal("no one-time key was claimed")
	}
	return h
}

// payload is a sound one with a room's key.
func (h *hand) payload(key *olm.OutboundGroupSession) map[string]any {
	p, w := h.p, h.p.w
	keys, err := p.client.QueryKeys(w.t.Context(), &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{p.ID(): {}}})
	w.no(err)
	return map[string]any{
		"type": "m.room_key", "sender": p.ID(), "recipient": h.to,
		"keys":               map[string]any{"ed25519": p.olm.GetAccount().SigningKey()},
		"recipient_keys":     map[string]any{"ed25519": h.device.SigningKey},
		"sender_device_keys": object(keys.DeviceKeys[p.ID()][p.DeviceID()]),
		"content": map[string]any{
			"algorithm": id.AlgorithmMegolmV1, "room_id": key.RoomID, "session_id": key.ID(), "session_key": key.ShareContent().Parsed.(*event.RoomKeyEventContent).SessionKey,
		},
	}
}

// object is what a value is as JSON.
func object(v any) (out map[string]any) {
	raw, _ := json.Marshal(v)
	_ = json.Unmarshal(raw, &out)
	return out
}

// encrypt makes the to-device message.
func (h *hand) encrypt(payload any) *appservice.Event {
	h.p.w.t.Helper()
	raw, err := json.Marshal(payload)
	h.p.w.no(err)
	typ, body, err := h.session.Encrypt(raw)
	h.p.w.no(err)
	return h.message(map[string]any{
		"algorithm": id.AlgorithmOlmV1, "sender_key": h.p.olm.GetAccount().IdentityKey(),
		"ciphertext": map[string]any{string(h.device.IdentityKey): map[string]any{"type": typ, "body": string(body)}},
	})
}

func (h *hand) message(content map[string]any) *appservice.Event {
	raw, _ := json.Marshal(map[string]any{
		"type": "m.room.encrypted", "sender": h.p.ID(), "to_user_id": h.to, "to_device_id": h.device.DeviceID, "content": content,
	})
	return &appservice.Event{
		Kind: store.KindToDevice, Type: "m.room.encrypted", Sender: h.p.ID(), ToUserID: h.to, ToDeviceID: h.device.DeviceID, Raw: raw,
	}
}

// roomKey is a key of a room that nobody was given.
func (w *world) roomKey(room id.RoomID) *olm.OutboundGroupSession {
	w.t.Helper()
	key, err := olm.NewOutboundGroupSession(room, nil, nil)
	w.no(err)
	key.Shared = true
	key.ShareContent() // keeps what it is before the first message
	return key
}

// sealedWith is an event of the room, encrypted with the key, as the bridge is sent it.
func (p *person) sealedWith(key *olm.OutboundGroupSession, eventID, body string) *appservice.Event {
	p.w.t.Helper()
	plain, _ := json.Marshal(map[string]any{"room_id": key.RoomID, "type": "m.room.message", "content": json.RawMessage(message(body))})
	ciphertext, err := key.Encrypt(plain)
	p.w.no(err)
	return p.encryptedEvent(key.RoomID, eventID, map[string]any{
		"algorithm": id.AlgorithmMegolmV1, "session_id": key.ID(), "ciphertext": string(ciphertext),
		"sender_key": p.olm.GetAccount().IdentityKey(), "device_id": p.DeviceID(),
	})
}

func (p *person) encryptedEvent(room id.RoomID, eventID string, content map[string]any) *appservice.Event {
	raw, _ := json.Marshal(map[string]any{
		"type": event.EventEncrypted.Type, "sender": p.ID(), "room_id": room, "event_id": eventID, "origin_server_ts": time.Now().UnixMilli(), "content": content,
	})
	return &appservice.Event{
		Kind: store.KindPDU, Type: event.EventEncrypted.Type, Sender: p.ID(), RoomID: room, ID: id.EventID(eventID), Raw: raw,
	}
}

// olmIndex is the number of a Megolm message.
func olmIndex(ciphertext []byte) (uint, error) { return olm.ParseMegolmMessageIndex(ciphertext) }
