//go:build goolm

package crypto

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Anybody can name the curve25519 key of somebody else's device as that of his own: nothing proves that he has it. mautrix finds Olm sessions by that key alone. So
// what is for the one would go over a session that was begun with a one-time key of the other, and neither could read it. But a one-time key is signed by its device's
// ed25519 key: with whose the bridge has begun a session is noted, and the session serves that device alone. Sessions that the others have begun are of who has the key.

// addressees are the devices that an operation writes to.
type addressees struct {
	by     map[id.IdentityKey]*id.Device // to whom what is for a curve25519 key goes now
	others []*id.Device                  // name a key that another one has named: they come after it, each by itself
	left   map[id.SigningKey]bool        // were left out, because nothing could be written to them
	passed []*id.Device                  // are passed over: they had no one-time key a moment ago
	asked  map[id.SigningKey]bool        // are asked for one-time keys
}

func (a *addressees) add(device *id.Device) {
	if a.by == nil {
		a.by = map[id.IdentityKey]*id.Device{}
	}
	if first := a.by[device.IdentityKey]; first == nil {
		a.by[device.IdentityKey] = device
	} else if first.SigningKey != device.SigningKey {
		a.others = append(a.others, device)
	}
}

func (a *addressees) leaveOut(device *id.Device) {
	if a.left == nil {
		a.left = map[id.SigningKey]bool{}
	}
	a.left[device.SigningKey] = true
}

func (a *addressees) ask(keys []id.SigningKey) {
	a.asked = map[id.SigningKey]bool{}
	for _, key := range keys {
		a.asked[key] = true
	}
}

// without leaves those out that come by themselves, or are passed over.
func (a *addressees) without(devices map[id.DeviceID]*id.Device) map[id.DeviceID]*id.Device {
	for _, other := range slices.Concat(a.others, a.passed) {
		if found := devices[other.DeviceID]; found != nil && found.UserID == other.UserID {
			delete(devices, other.DeviceID)
		}
	}
	return devices
}

// giveToOthers gives a room key to those who come by themselves: what they cost is one request for one-time keys and one message, whatever their number. Who has no
// one-time key left has to wait as others have to.
func (l *loaded) giveToOthers(ctx context.Context, op *operation, key *crypto.OutboundGroupSession) error {
	others := op.to.others
	op.to.others = nil
	if len(others) == 0 {
		return nil
	}
	with, err := l.beginWithOthers(ctx, others)
	if err != nil {
		return fmt.Errorf("begin Olm sessions with devices that name the same key: %w", err)
	}
	messages := map[id.UserID]map[id.DeviceID]*event.Content{}
	content := key.ShareContent()
	for _, device := range with {
		sealed, err := l.EncryptToDevices(toAlone(ctx, device), event.ToDeviceRoomKey, &mautrix.ReqSendToDevice{
			Messages: map[id.UserID]map[id.DeviceID]*event.Content{device.UserID: {device.DeviceID: &content}},
		})
		if err != nil {
			return fmt.Errorf("give a room key to device %s of %s: %w", device.DeviceID, device.UserID, err)
		}
		if messages[device.UserID] == nil {
			messages[device.UserID] = map[id.DeviceID]*event.Content{}
		}
		maps.Copy(messages[device.UserID], sealed.Messages[device.UserID])
	}
	if len(messages) == 0 {
		return nil
	}
	if _, err := l.Client.SendToDevice(ctx, event.ToDeviceEncrypted, &mautrix.ReqSendToDevice{Messages: messages}); err != nil {
		return fmt.Errorf("give a room key to devices that name the same key: %w", err)
	}
	return nil
}

// beginWithOthers makes Olm sessions with those that have none, and gives those that have one then. mautrix does it for one device of a curve25519 key at once.
func (l *loaded) beginWithOthers(ctx context.Context, others []*id.Device) (with []*id.Device, err error) {
	var without []*id.Device
	claim := mautrix.OneTimeKeysRequest{}
	for _, device := range others {
		session, err := l.store.sessionWith(ctx, device)
		if err != nil {
			return nil, err
		} else if session != nil {
			with = append(with, device)
			continue
		}
		without = append(without, device)
		if claim[device.UserID] == nil {
			claim[device.UserID] = map[id.DeviceID]id.KeyAlgorithm{}
		}
		claim[device.UserID][device.DeviceID] = id.KeyAlgorithmSignedCurve25519
	}
	if len(without) == 0 {
		return with, nil
	}
	claimed, err := l.Client.ClaimKeys(ctx, &mautrix.ReqClaimKeys{OneTimeKeys: claim, Timeout: claimPatience})
	if err != nil {
		return nil, err
	}
	for _, device := range without {
		for name, key := range claimed.OneTimeKeys[device.UserID][device.DeviceID] {
			if algorithm, _ := name.Parse(); algorithm != id.KeyAlgorithmSignedCurve25519 {
				continue
			}
			if ok, err := signatures.VerifySignatureJSON(key.RawData, device.UserID, string(device.DeviceID), device.SigningKey); err != nil || !ok {
				continue
			}
			session, err := l.GetAccount().Internal.NewOutboundSession(device.IdentityKey, key.Key)
			if err != nil {
				continue
			}
			now := time.Now()
			made := &crypto.OlmSession{Internal: session, ExpirationMixin: crypto.ExpirationMixin{TimeMixin: crypto.TimeMixin{CreationTime: now, LastEncryptedTime: now, LastDecryptedTime: now}}}
			if err := l.store.AddSession(toAlone(ctx, device), device.IdentityKey, made); err != nil {
				return nil, err
			}
			with = append(with, device)
			break
		}
	}
	return with, l.store.settle(ctx)
}

// claimPatience is for how many milliseconds a homeserver waits for another for one-time keys, as mautrix has it.
const claimPatience = 10_000

type aloneKey struct{}

// toAlone is for what is written to one device alone, whoever else names its key.
func toAlone(ctx context.Context, device *id.Device) context.Context {
	return context.WithValue(ctx, aloneKey{}, device)
}

// addressee is to whom what is for a curve25519 key goes in this operation, or nil.
func addressee(ctx context.Context, key id.IdentityKey) *id.Device {
	if alone, ok := ctx.Value(aloneKey{}).(*id.Device); ok && alone.IdentityKey == key {
		return alone
	}
	if op := operationOf(ctx); op != nil && store.TxOf(ctx) == nil {
		return op.to.by[key]
	}
	return nil
}

// sessionWith is the Olm session with a device that was used last; nil when there is none.
func (s *keyStore) sessionWith(ctx context.Context, device *id.Device) (*crypto.OlmSession, error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	return s.latestWith(ctx, device.IdentityKey, device.SigningKey)
}

// latestWith is the one with who has a key and has signed with the other; whoever it is when that is empty. It gives none that was retired ([Crypto.retireKeys]).
func (s *keyStore) latestWith(ctx context.Context, key id.IdentityKey, signing id.SigningKey) (*crypto.OlmSession, error) {
	latest, err := s.SQLCryptoStore.GetLatestSession(ctx, key)
	if err != nil || latest == nil {
		return nil, err
	}
	if serves, err := s.serves(ctx, latest, signing); err != nil || serves {
		return latest, err
	}
	sessions, err := s.SQLCryptoStore.GetSessions(ctx, key) // one of another may have been used last, or a retired one, to read with
	for _, session := range sessions {
		if serves, err := s.serves(ctx, session, signing); err != nil || serves {
			return session, err
		}
	}
	return nil, err
}

// serves says whether a session may be written with to who has signed with a key, or to whoever it is with when that is empty.
func (s *keyStore) serves(ctx context.Context, session *crypto.OlmSession, signing id.SigningKey) (bool, error) {
	if store.IsRetired(session.CreationTime) {
		return false, nil
	}
	var claimed id.SigningKey
	err := s.DB.QueryRow(ctx, `SELECT signing_key FROM olm_claimed WHERE account = $1 AND session = $2`, s.AccountID, session.ID()).Scan(&claimed)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	s.claimed.Store(session.ID(), claimed)
	return signing == "" || claimed == signing, nil
}

// deviceWith is [keyStore.FindDeviceByKey] for a device of which both keys are known, where a user names several with one of them.
func (s *keyStore) deviceWith(ctx context.Context, user id.UserID, key id.IdentityKey, signing id.SigningKey) (*id.Device, error) {
	device, err := s.SQLCryptoStore.FindDeviceByKey(ctx, user, key)
	if err != nil || device == nil || device.SigningKey == signing {
		return device, err
	}
	var exact id.DeviceID
	err = s.DB.QueryRow(ctx, `SELECT device_id FROM crypto_device WHERE user_id = $1 AND identity_key = $2 AND signing_key = $3`, user, key, signing).Scan(&exact)
	if errors.Is(err, sql.ErrNoRows) {
		return device, nil
	} else if err != nil {
		return nil, err
	}
	return s.GetDevice(ctx, user, exact)
}
