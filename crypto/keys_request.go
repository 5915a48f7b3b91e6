//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

const (
	// requestEvery is how often the same key is asked for.
	requestEvery = 10 * time.Minute
	// askEvery is how often the devices of a user whose messages are not trusted are asked for.
	askEvery = time.Minute
	// whoseAtOnce is how many senders are asked for at once while other to-device messages wait, and whoseEvery how often one after that.
	whoseAtOnce, whoseEvery = 3, time.Minute
	// whoseTries is how often a message is tried again, which takes a minute, whose sender nobody can be asked about; then the first device counts.
	whoseTries = 6
)

// RequestKey asks the device that has sent an event, or all of its user's when it is not named, for the event's key: the homeserver drops to-device messages
// when it cannot reach the bridge for a while. The answer, if there is one, comes as a to-device message. The same key is asked for only once in ten minutes.
func (c *Crypto) RequestKey(ctx context.Context, ev *appservice.Event, reader id.UserID) error {
	var content struct {
		Content wantedKey `json:"content"`
	}
	if err := json.Unmarshal(ev.Raw, &content); err != nil || !isKey(content.Content.Session) || content.Content.Algorithm != id.AlgorithmMegolmV1 {
		return appservice.Permanent(fmt.Errorf("ask for the key of %s: %w: it does not name its session", ev.ID, ErrCorrupt))
	}
	wanted := content.Content
	if c.as.Owns(ev.Sender) {
		return nil // the bridge's own devices keep nothing back
	}
	if wanted.Device == "" {
		wanted.Device = "*"
	}
	device, err := c.as.Ghost(reader).KeyDevice(ctx)
	if err != nil {
		return fmt.Errorf("ask for the key of %s: %w", ev.ID, err)
	}
	keys, err := c.standIns(ctx, ev.RoomID, reader)
	for _, key := range keys { // one that cannot ask keeps the reader from nothing
		if err := c.requestKey(ctx, ev, key, wanted); err != nil {
			c.log.Debug().Err(c.as.Explain(err)).Stringer("user_id", key.user).Stringer("event_id", ev.ID).Msg("A ghost that reads in the bot's place could not ask for a key")
		}
	}
	if err == nil {
		err = c.requestKey(ctx, ev, deviceKey{reader, device}, wanted)
	}
	if err != nil {
		return fmt.Errorf("ask for the key of %s: %w", ev.ID, c.as.Explain(err))
	}
	return nil
}

// wantedKey is how an event names its key.
type wantedKey struct {
	Algorithm id.Algorithm `json:"algorithm"`
	Device    id.DeviceID  `json:"device_id"`
	Sender    id.SenderKey `json:"sender_key"`
	Session   id.SessionID `json:"session_id"`
}

// requestKey asks for a key as one of the bridge's devices.
func (c *Crypto) requestKey(ctx context.Context, ev *appservice.Event, key deviceKey, wanted wantedKey) error {
	m, release := c.use(key)
	defer release()
	what := m.account() + " " + string(wanted.Session)
	if !c.requests.may(what, requestEvery, time.Now()) {
		return nil
	}
	l, err := m.load(ctx)
	if err != nil {
		return err
	}
	// The same ID each time: who has several requests of one ID answers one.
	requestID := "trestle." + string(wanted.Session)
	err = l.SendRoomKeyRequest(ctx, ev.RoomID, wanted.Sender, wanted.Session, requestID, map[id.UserID][]id.DeviceID{ev.Sender: {wanted.Device}})
	if err != nil {
		c.requests.forget(what)
	}
	return err
}

// errUnanswered is why a user's devices are not asked for now.
var errUnanswered = errors.New("the homeserver could not say which devices the user has, and was asked a moment ago")

// mayAsk says whether the devices of a user may be asked for once more: not again within a minute, unless the homeserver says that they have changed, and did
// not leave that question unanswered: what is read waits for the answer, and whose server is silent could send something each time, or have another of its users send it ([mutes]). When the question itself failed, as
// while the homeserver is away, nothing is known: within that time it is errUnanswered, and what it is about is tried again as after the failure.
func (c *Crypto) mayAsk(ctx context.Context, user id.UserID) (bool, error) {
	if c.unanswered.lately(devicesOf(user), c.silentAgain, time.Now()) {
		return false, errUnanswered
	}
	if c.mutes.mute(user.Homeserver(), time.Now()) {
		return false, nil
	}
	if c.requests.may(devicesOf(user), askEvery, time.Now()) {
		return true, nil
	}
	if _, silent := c.isSilent(user); silent {
		return false, nil
	}
	outdated, err := c.store.OutdatedUsers(ctx)
	return slices.Contains(outdated, string(user)), err
}

func devicesOf(user id.UserID) string { return "devices of " + string(user) }

// ask asks for the devices of a user who may be asked for. The caller holds the user's lock of [Crypto.asking].
func (m *machine) ask(ctx context.Context, user id.UserID) error {
	err := m.deviceWork(ctx, func(ctx context.Context, l *loaded) error {
		a := &answer{}
		err := m.c.askForIn(ctx, l, []id.UserID{user}, a)
		if a.hasFailed(user) {
			m.c.mutes.note(user.Homeserver(), time.Now())
		}
		return err
	})
	if err != nil {
		m.c.requests.forget(devicesOf(user))
		if ctx.Err() == nil { // or it is the bridge that ends
			m.c.unanswered.may(devicesOf(user), 0, time.Now())
		}
	}
	return err
}

// askWhose asks for the devices of a to-device message's sender, unless that was done a moment ago. All that was sent to the same device waits meanwhile, and a silent
// server may have any number of users: of all senders together some are asked for at once, and then one in a while.
func (m *machine) askWhose(ctx context.Context, user id.UserID) error {
	unlock, err := m.c.asking.Lock(ctx, string(user))
	if err != nil {
		return err
	}
	defer unlock()
	if may, err := m.c.mayAsk(ctx, user); err != nil || !may {
		return err
	}
	if !m.c.whose.may(time.Now()) {
		m.c.requests.forget(devicesOf(user))
		return nil
	}
	return m.ask(ctx, user)
}

// plainToDevice takes in a to-device message that is not encrypted: somebody asks for a key, or says why there will be none.
func (m *machine) plainToDevice(ctx context.Context, ev *appservice.Event) error {
	var envelope struct {
		Content json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(ev.Raw, &envelope); err != nil {
		return fmt.Errorf("%s from %s: %w: %w", ev.Type, ev.Sender, ErrCorrupt, err)
	}
	switch ev.Type {
	case event.ToDeviceRoomKeyRequest.Type:
		return m.keyRequested(ctx, ev.Sender, envelope.Content)
	case event.ToDeviceRoomKeyWithheld.Type, event.ToDeviceOrgMatrixRoomKeyWithheld.Type:
		return m.keyWithheld(ctx, ev.Sender, envelope.Content)
	}
	return nil
}

// keyRequested answers to devices of the same user that its self-signing key has signed, and to nobody else: who was to have a key was given it when it was
// made, and who comes later reads no old messages by the bridge's help (MSC3061, security considerations).
func (m *machine) keyRequested(ctx context.Context, sender id.UserID, raw json.RawMessage) error {
	if sender != m.user {
		return nil
	}
	content := new(event.RoomKeyRequestEventContent)
	if err := json.Unmarshal(raw, content); err != nil {
		return fmt.Errorf("a key request from %s: %w: %w", sender, ErrCorrupt, err)
	}
	return m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		l.ShareKeysMinTrust = id.TrustStateCrossSignedVerified
		l.HandleRoomKeyRequest(ctx, sender, content)
		return nil
	})
}

// keyWithheld remembers that a key will not come, and why. A key that is there, or comes all the same, holds.
func (m *machine) keyWithheld(ctx context.Context, sender id.UserID, raw json.RawMessage) error {
	var content event.RoomKeyWithheldEventContent
	if err := json.Unmarshal(raw, &content); err != nil {
		return fmt.Errorf("a withheld key from %s: %w: %w", sender, ErrCorrupt, err)
	}
	if content.Algorithm != id.AlgorithmMegolmV1 || content.SessionID == "" || content.RoomID == "" {
		return nil // m.no_olm is about no session: the sender's next message mends that
	}
	if !isKey(content.SessionID) || content.SenderKey != "" && !isKey(content.SenderKey) || !isName(content.RoomID) || !isText(content.Code, mostName) || !isText(content.Reason, mostText) {
		return fmt.Errorf("a withheld key from %s: %w: its session, key, room, code or reason is none", sender, ErrCorrupt)
	}
	return m.olmJob(ctx, func(ctx context.Context, tx *store.Tx, l *loaded) error {
		err := l.store.PutWithheldGroupSession(ctx, content)
		if err == nil {
			err = tx.RoomKeyWithheldBy(m.account(), string(content.SessionID), string(sender))
		}
		if err == nil {
			err = m.boundUnread(tx, sender)
		}
		return inStore(err)
	})
}

// receivedForwardedKey takes a key from the device that has made it, as an answer to [Crypto.RequestKey], or from another device of the same user that its
// self-signing key has signed. Others could say whose it is as they like. It runs in a job.
func (m *machine) receivedForwardedKey(ctx context.Context, tx *store.Tx, l *loaded, p *olmPayload) error {
	var content event.ForwardedRoomKeyEventContent
	if err := json.Unmarshal(p.Content, &content); err != nil {
		return fmt.Errorf("%w: the forwarded key: %w", ErrCorrupt, err)
	}
	source := p.Sender
	switch {
	case content.SenderKey == p.senderKey && content.SenderClaimedKey == p.Keys.Ed25519:
	case p.Sender == m.user:
		device, err := l.store.deviceWith(ctx, p.Sender, p.senderKey, p.Keys.Ed25519)
		if err != nil {
			return inStore(err)
		}
		if device == nil || device.SigningKey != p.Keys.Ed25519 {
			return fmt.Errorf("%w: a forwarded key from a device that nobody knows", ErrUntrusted)
		}
		if trust, err := l.ResolveTrustContext(ctx, device); err != nil {
			return inStore(err)
		} else if trust < id.TrustStateCrossSignedVerified {
			return fmt.Errorf("%w: a forwarded key from device %s, which is not signed", ErrUntrusted, device.DeviceID)
		}
		source = ""
	default:
		return fmt.Errorf("%w: a forwarded key from %s, who has not made it", ErrUntrusted, p.Sender)
	}
	if content.Algorithm != id.AlgorithmMegolmV1 || !isName(content.RoomID) || content.MaxMessages != int(int32(content.MaxMessages)) {
		return fmt.Errorf("%w: a forwarded key for %.100q in room %.300q", ErrCorrupt, content.Algorithm, content.RoomID)
	}
	if !isKey(content.SenderKey) || !isKey(content.SenderClaimedKey) || len(content.ForwardingKeyChain) > mostChain || slices.ContainsFunc(content.ForwardingKeyChain, func(key string) bool { return !isKey(key) }) {
		return fmt.Errorf("%w: the forwarded key for %s names keys that are none", ErrCorrupt, content.RoomID)
	}
	internal, err := olm.InboundGroupSessionImport([]byte(content.SessionKey))
	if err != nil {
		return fmt.Errorf("%w: the forwarded key for %s: %w", ErrCorrupt, content.RoomID, err)
	}
	if internal.ID() != content.SessionID {
		return fmt.Errorf("%w: the forwarded key for %s is of another session than it says", ErrCorrupt, content.RoomID)
	}
	session := &crypto.InboundGroupSession{
		Internal: internal, SigningKey: content.SenderClaimedKey, SenderKey: content.SenderKey, RoomID: content.RoomID,
		ForwardingChains: append(content.ForwardingKeyChain, p.senderKey.String()), SharedHistory: content.SharedHistory,
		ReceivedAt: time.Now().UTC(), MaxAge: content.MaxAge, MaxMessages: content.MaxMessages, KeySource: id.KeySourceForward, SourceUser: source,
	}
	return m.takeRoomKey(ctx, tx, l, p, session)
}
