//go:build goolm

package crypto_test

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// keysOf is what the homeserver says of a user's keys, to somebody.
func (w *world) keysOf(user id.UserID) *mautrix.RespQueryKeys {
	w.t.Helper()
	resp, err := w.alice.client.QueryKeys(w.t.Context(), &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: {}}})
	w.no(err)
	return resp
}

// device is the one that the store knows of a ghost.
func (w *world) device(user id.UserID) id.DeviceID {
	w.t.Helper()
	g, err := w.store.Ghost(w.t.Context(), string(user))
	w.no(err)
	return id.DeviceID(g.DeviceID)
}

// keysLeft is how many one-time keys the homeserver has of a ghost's device.
func (w *world) keysLeft(user id.UserID) int {
	w.t.Helper()
	resp, err := w.as.Ghost(user).Client(w.device(user)).UploadKeys(w.t.Context(), &mautrix.ReqUploadKeys{})
	w.no(err)
	return resp.OneTimeKeyCounts.SignedCurve25519
}

func (w *world) claim(user id.UserID, device id.DeviceID) (key mautrix.OneTimeKey) {
	w.t.Helper()
	resp, err := w.alice.client.ClaimKeys(w.t.Context(), &mautrix.ReqClaimKeys{
		OneTimeKeys: mautrix.OneTimeKeysRequest{user: {device: id.KeyAlgorithmSignedCurve25519}},
	})
	w.no(err)
	for _, key = range resp.OneTimeKeys[user][device] {
	}
	return key
}

// with gives the bridge's Crypto other options. Nothing but what the test does asks the homeserver then.
func (w *world) with(change func(o *crypto.Options)) {
	w.t.Helper()
	w.no(w.crypto.Close())
	o := crypto.Options{Store: w.store, AS: w.as, PickleKey: pickleKey, Sync: crypto.SyncNever}
	change(&o)
	c, err := crypto.New(w.t.Context(), o)
	w.no(err)
	w.crypto = c
	w.handles.Store(c)
	w.t.Cleanup(func() { _ = c.Close() })
}

// counts tells the bridge of key counts, as a transaction does.
func (w *world) counts(raw string) error {
	return w.crypto.HandleKeys(w.t.Context(), &appservice.Event{Kind: store.KindKeyCounts, Raw: json.RawMessage(raw)})
}

// signs gives the person cross-signing keys, and has the device signed by them.
func (p *person) signs() {
	p.w.t.Helper()
	keys, err := p.olm.GenerateCrossSigningKeys()
	p.w.no(err)
	p.w.no(p.olm.PublishCrossSigningKeys(p.w.t.Context(), keys, nil))
	p.w.no(p.olm.SignOwnDevice(p.w.t.Context(), p.olm.OwnIdentity()))
}

func (w *world) requests(path string) int {
	return len(w.hs.Requests(func(r bridgetest.Request) bool { return r.AppService != "" && strings.Contains(r.Path, path) }))
}

func (w *world) seal(user id.UserID, room id.RoomID, body string) (*event.EncryptedEventContent, error) {
	raw, err := w.crypto.Seal(w.t.Context(), crypto.Sealing{Room: room, Machine: user, Type: "m.room.message", Content: message(body)})
	if err != nil {
		return nil, err
	}
	content := new(event.EncryptedEventContent)
	return content, json.Unmarshal(raw, content)
}

// session is the ID of the session with which a ghost's next message is encrypted.
func (w *world) session(user id.UserID, room id.RoomID) id.SessionID {
	w.t.Helper()
	content, err := w.seal(user, room, "x")
	w.no(err)
	return content.SessionID
}

// settle waits until the bridge has worked on all that the homeserver had to send.
func (w *world) settle() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	w.no(w.hs.Settle(ctx))
	for {
		depth, err := w.store.Depth(ctx)
		w.no(err)
		if depth.OldestInbox.IsZero() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
