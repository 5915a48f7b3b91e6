//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// HandleKeys takes in a to-device message, device lists or key counts: what it does is durable when it returns. A message that
// comes again changes nothing. Errors that no repetition mends are marked with [appservice.Permanent].
//
// A to-device message goes to the device that it names, and to no other.
func (c *Crypto) HandleKeys(ctx context.Context, ev *appservice.Event) error {
	switch ev.Kind {
	case store.KindToDevice:
		return refused(c.toDevice(ctx, ev))
	case store.KindDeviceLists:
		return c.deviceLists(ctx, ev)
	case store.KindKeyCounts:
		return c.keyCounts(ctx, ev)
	}
	return appservice.Permanent(fmt.Errorf("%s: this is nothing about keys", ev.Type))
}

// refused marks what no repetition mends.
func refused(err error) error {
	err = unstorable(err)
	for _, permanent := range []error{ErrCorrupt, ErrNotForMe, ErrMismatch, ErrUntrusted, ErrNoMachine, errPanic} {
		if errors.Is(err, permanent) {
			return appservice.Permanent(err)
		}
	}
	return err
}

// unstorable names what the database does not take, because of what others have sent: a value that cannot be, or that is there already and may be there once. [isKey]
// and its like refuse it before; this is for what they miss.
func unstorable(err error) error {
	if store.IsData(err) || store.IsConstraint(err) {
		return fmt.Errorf("%w: the database does not take it: %w", ErrCorrupt, err)
	}
	return err
}

func (c *Crypto) toDevice(ctx context.Context, ev *appservice.Event) error {
	m, release := c.use(deviceKey{ev.ToUserID, ev.ToDeviceID})
	defer release()
	if ev.Type != event.ToDeviceEncrypted.Type {
		return m.plainToDevice(ctx, ev)
	}
	decoded, err := ev.Decode()
	if err != nil {
		return fmt.Errorf("%s from %s: %w: %w", ev.Type, ev.Sender, ErrCorrupt, err)
	}
	content, ok := decoded.Content.Parsed.(*event.EncryptedEventContent)
	if !ok || content.Algorithm != id.AlgorithmOlmV1 {
		return fmt.Errorf("%s from %s: %w: it is not encrypted with Olm", ev.Type, ev.Sender, ErrCorrupt)
	}
	if !isCurveKey(content.SenderKey) {
		return fmt.Errorf("%s from %s: %w: its sender_key is no key", ev.Type, ev.Sender, ErrCorrupt)
	}
	wedged, refusal, err := m.receive(ctx, ev.Sender, content)
	if errors.Is(err, errWhose) { // nothing of it has been done
		if err = m.askWhose(ctx, ev.Sender); err == nil || ctx.Err() == nil && ev.Attempts >= whoseTries { // a question that always fails is to hold up nobody's keys
			wedged, refusal, err = m.receive(context.WithValue(ctx, askedKey{}, true), ev.Sender, content)
		}
	}
	if err == nil {
		if err = refusal; wedged {
			c.mend(m, ev.Sender, content.SenderKey, refusal)
		}
	}
	if err != nil {
		return fmt.Errorf("%s from %s for %s: %w", ev.Type, ev.Sender, m.account(), err)
	}
	return nil
}

// receive decrypts a message and does what it is for. A refusal is no error of the job: what was read before it counts, and others that share the commit need not run
// again. Wedged says that the Olm session does not open it.
func (m *machine) receive(ctx context.Context, sender id.UserID, content *event.EncryptedEventContent) (wedged bool, refusal, err error) {
	err = m.olmJob(ctx, func(ctx context.Context, tx *store.Tx, l *loaded) error {
		var payload *olmPayload
		payload, wedged, refusal = l.decryptOlm(ctx, sender, content)
		var broken *storeError
		if errors.As(refusal, &broken) {
			return refusal
		}
		if refusal == nil && payload != nil {
			refusal = m.received(ctx, tx, l, payload)
			if errors.As(refusal, &broken) {
				return refusal
			}
		}
		if l.spoilt {
			tx.AfterCommit(m.discard)
		}
		return nil
	})
	return wedged, refusal, err
}

// storeError is an error of the store, after which the job is to be undone.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

func inStore(err error) error {
	if err == nil {
		return nil
	}
	return &storeError{pickleError(err)}
}

// received does what a decrypted message is for.
func (m *machine) received(ctx context.Context, tx *store.Tx, l *loaded, p *olmPayload) error {
	switch p.Type {
	case event.ToDeviceRoomKey.Type:
		return m.receivedRoomKey(ctx, tx, l, p)
	case event.ToDeviceForwardedRoomKey.Type:
		return m.receivedForwardedKey(ctx, tx, l, p)
	}
	return nil // m.dummy, or nothing that a bridge needs
}

func (m *machine) receivedRoomKey(ctx context.Context, tx *store.Tx, l *loaded, p *olmPayload) error {
	var content event.RoomKeyEventContent
	if err := json.Unmarshal(p.Content, &content); err != nil {
		return fmt.Errorf("%w: the room key: %w", ErrCorrupt, err)
	}
	if content.Algorithm != id.AlgorithmMegolmV1 || !isName(content.RoomID) || content.MaxMessages != int(int32(content.MaxMessages)) {
		return fmt.Errorf("%w: a room key for %.100q in room %.300q", ErrCorrupt, content.Algorithm, content.RoomID)
	}
	// Without the flag a key is one of a history that is not shared (MSC3061).
	session, err := crypto.NewInboundGroupSession(p.senderKey, p.Keys.Ed25519, content.RoomID, content.SessionKey,
		time.Duration(content.MaxAge)*time.Millisecond, content.MaxMessages, content.SharedHistory, content.IsScheduled)
	if err != nil {
		return fmt.Errorf("%w: the room key for %s: %w", ErrCorrupt, content.RoomID, err)
	}
	if session.ID() != content.SessionID {
		return fmt.Errorf("%w: the room key for %s is of another session than it says", ErrCorrupt, content.RoomID)
	}
	session.SourceUser = p.Sender
	if err := m.takeRoomKey(ctx, tx, l, p, session); err != nil {
		return err
	}
	return inStore(l.rememberSender(ctx, p))
}
