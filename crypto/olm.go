//go:build goolm

package crypto

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// mautrix's machine decrypts Olm as well, but tells nobody what came of it, does not read the unstable name of
// sender_device_keys, and mends sessions in goroutines of its own. Here all is said, and done in one commit.

// olmPayload is what an Olm message holds.
type olmPayload struct {
	Sender    id.UserID           `json:"sender"`
	Keys      crypto.OlmEventKeys `json:"keys"`
	Recipient id.UserID           `json:"recipient"`
	For       crypto.OlmEventKeys `json:"recipient_keys"`
	Type      string              `json:"type"`
	Content   json.RawMessage     `json:"content"`
	// DeviceKeys are the sender's device keys (MSC4147), or nil.
	DeviceKeys json.RawMessage `json:"sender_device_keys"`
	Unstable   json.RawMessage `json:"org.matrix.msc4147.device_keys"`

	senderKey id.SenderKey
	device    *mautrix.DeviceKeys // of DeviceKeys
}

// decryptOlm decrypts a message for this device, moves the session and remembers the message, in the job of ctx. The payload
// is nil when the message was taken in before. wedged says that the session with the sender is of no more use.
func (l *loaded) decryptOlm(ctx context.Context, sender id.UserID, content *event.EncryptedEventContent) (p *olmPayload, wedged bool, err error) {
	own, ok := content.OlmCiphertext[l.GetAccount().IdentityKey()]
	if !ok {
		return nil, false, ErrNotForMe
	}
	raw, err := base64.RawStdEncoding.DecodeString(own.Body)
	if err != nil || len(raw) == 0 || own.Type != id.OlmMsgTypePreKey && own.Type != id.OlmMsgTypeMsg {
		return nil, false, fmt.Errorf("%w: not an Olm message", ErrCorrupt)
	}
	hash := sha256.Sum256(raw)
	if seen, err := l.store.GetOlmHash(ctx, hash); err != nil {
		return nil, false, inStore(err)
	} else if !seen.IsZero() {
		return nil, false, nil
	}
	l.sender()
	plaintext, err := l.decryptWithSessions(ctx, content.SenderKey, own.Type, own.Body)
	if err == nil && plaintext == nil {
		plaintext, err = l.decryptWithNewSession(ctx, sender, content.SenderKey, own.Type, own.Body)
	}
	if err != nil {
		return nil, true, err
	}
	if err := l.store.PutOlmHash(ctx, hash, time.Now()); err != nil {
		return nil, false, inStore(err)
	}
	p, err = l.checkPayload(ctx, sender, content.SenderKey, plaintext)
	return p, false, err
}

// maxSessions is how many Olm sessions are kept with a device.
const maxSessions = 5

// decryptWithSessions tries the sessions that are there, newest first; nil when none fits.
func (l *loaded) decryptWithSessions(ctx context.Context, key id.SenderKey, typ id.OlmMsgType, body string) ([]byte, error) {
	sessions, err := l.store.GetSessions(ctx, key)
	if err != nil {
		return nil, inStore(err)
	}
	for len(sessions) > 2*maxSessions {
		last := len(sessions) - 1
		if err := l.store.DeleteSession(ctx, key, sessions[last]); err != nil {
			return nil, inStore(err)
		}
		sessions = sessions[:last]
	}
	for _, session := range sessions {
		if typ == id.OlmMsgTypePreKey {
			fits, err := session.Internal.MatchesInboundSession(body)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
			} else if !fits {
				continue
			}
		}
		plaintext, err := session.Decrypt(body, typ)
		if err == nil {
			return plaintext, inStore(l.store.UpdateSession(ctx, key, session))
		}
		l.spoilt = true
		if typ == id.OlmMsgTypePreKey {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return nil, nil
}

func (l *loaded) decryptWithNewSession(ctx context.Context, sender id.UserID, key id.SenderKey, typ id.OlmMsgType, body string) ([]byte, error) {
	if typ != id.OlmMsgTypePreKey {
		return nil, fmt.Errorf("%w: no session with the sender opens it", ErrCorrupt)
	}
	account := l.GetAccount()
	session, err := account.NewInboundSessionFrom(key, body)
	if err != nil {
		return nil, fmt.Errorf("%w: no session can be made of it: %w", ErrCorrupt, err)
	}
	plaintext, err := session.Decrypt(body, typ)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := canWrite(session.Internal); err != nil {
		return nil, fmt.Errorf("%w: nothing could be written with the session that it begins: %w", ErrCorrupt, err)
	}
	if err := l.addBegun(ctx, sender, key, session); err != nil {
		return nil, inStore(err)
	}
	if err := account.Internal.RemoveOneTimeKeys(session.Internal); err != nil {
		return nil, inStore(err)
	}
	return plaintext, inStore(l.store.PutAccount(ctx, account))
}

// checkPayload refuses what was not meant for this device or does not come from the one that it names (MSC4147).
func (l *loaded) checkPayload(ctx context.Context, sender id.UserID, key id.SenderKey, plaintext []byte) (*olmPayload, error) {
	p := &olmPayload{senderKey: key}
	if err := json.Unmarshal(plaintext, p); err != nil {
		return nil, fmt.Errorf("%w: what was encrypted is not an event: %w", ErrCorrupt, err)
	}
	switch {
	case p.Sender != sender:
		return nil, fmt.Errorf("%w: it says that it is from %s", ErrMismatch, p.Sender)
	case p.Recipient != l.Client.UserID:
		return nil, fmt.Errorf("%w: it says that it is for %s", ErrNotForMe, p.Recipient)
	case p.For.Ed25519 != l.GetAccount().SigningKey():
		return nil, fmt.Errorf("%w: it is for another key of %s", ErrNotForMe, p.Recipient)
	case p.Keys.Ed25519 == "":
		return nil, fmt.Errorf("%w: it does not say who has signed it", ErrMismatch)
	case !isKey(p.Keys.Ed25519):
		return nil, fmt.Errorf("%w: the ed25519 key that it says is none", ErrCorrupt)
	}
	if len(p.DeviceKeys) == 0 {
		p.DeviceKeys = p.Unstable
	}
	var named *id.Device
	if len(p.DeviceKeys) > 0 && string(p.DeviceKeys) != "null" {
		if err := p.checkDeviceKeys(); err != nil {
			return nil, err
		}
		known, err := l.store.GetDevice(ctx, sender, p.device.DeviceID)
		if err != nil {
			return nil, inStore(err)
		}
		named = known
	}
	known, err := l.store.deviceWith(ctx, sender, key, p.Keys.Ed25519)
	if err != nil {
		return nil, inStore(err)
	}
	if named != nil && known != nil && string(known.DeviceID) == store.DeviceBefore(string(named.DeviceID), string(p.Keys.Ed25519)) {
		return p, nil // written before somebody logged in again under its ID
	}
	for _, device := range []*id.Device{named, known} {
		if device == nil || device.Deleted || device.SigningKey == p.Keys.Ed25519 {
			continue
		}
		// What is known may be of the day before yesterday, and the device one that was logged in again. Then it is judged when its first event is read, by what
		// the homeserver says ([machine.judge]), as a device is of which nothing is known.
		if outdated, err := l.store.outdated(ctx, sender); err != nil {
			return nil, inStore(err)
		} else if !outdated {
			return nil, fmt.Errorf("%w: device %s of %s is known with another ed25519 key", ErrMismatch, device.DeviceID, sender)
		}
	}
	return p, nil
}

func (p *olmPayload) checkDeviceKeys() error {
	if len(p.DeviceKeys) > mostSaid || isDeep(p.DeviceKeys) { // it runs in a job
		return fmt.Errorf("%w: sender_device_keys are too long or too deep", ErrCorrupt)
	}
	p.device = &mautrix.DeviceKeys{}
	if err := json.Unmarshal(p.DeviceKeys, p.device); err != nil {
		return fmt.Errorf("%w: sender_device_keys: %w", ErrCorrupt, err)
	}
	device := p.device.DeviceID
	switch {
	case !isName(device):
		return fmt.Errorf("%w: sender_device_keys of a device whose ID is none", ErrCorrupt)
	case p.device.UserID != p.Sender:
		return fmt.Errorf("%w: sender_device_keys are those of %s", ErrMismatch, p.device.UserID)
	case p.device.Keys.GetEd25519(device) != p.Keys.Ed25519:
		return fmt.Errorf("%w: sender_device_keys have another ed25519 key", ErrMismatch)
	case p.device.Keys.GetCurve25519(device) != p.senderKey:
		return fmt.Errorf("%w: sender_device_keys have another curve25519 key", ErrMismatch)
	}
	if ok, err := signatures.VerifySignatureJSON(p.DeviceKeys, p.Sender, string(device), p.Keys.Ed25519); err != nil || !ok {
		return fmt.Errorf("%w: sender_device_keys are not signed by their device", ErrMismatch)
	}
	return nil
}
