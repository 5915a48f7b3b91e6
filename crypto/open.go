//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"math"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// Open decrypts an event of a room with the keys of reader, a user of the bridge; for a bot that cannot ask for its keys ghosts of the room stand in. That the
// event was read is remembered in the store when Open returns: the same event can be opened again, and its message under another event ID is [ErrReplayed].
//
// [ErrNoKey] may pass when the key comes; see [Crypto.RequestKey]. All others that are named in this package stay.
func (c *Crypto) Open(ctx context.Context, ev *appservice.Event, reader id.UserID) (*event.Event, error) {
	device, err := c.as.Ghost(reader).KeyDevice(ctx)
	if err != nil {
		return nil, fmt.Errorf("decrypt %s as %s: %w", ev.ID, reader, err)
	}
	c.hears(ev.Sender)
	opened, err := c.openAs(ctx, ev, deviceKey{reader, device})
	if isMissing(err) {
		opened, err = c.openInstead(ctx, ev, reader, err)
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt %s of %s in %s: %w", ev.ID, ev.Sender, ev.RoomID, err)
	}
	return opened, nil
}

func (m *machine) open(ctx context.Context, ev *appservice.Event) (*event.Event, error) {
	decoded, err := ev.Decode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if content, ok := decoded.Content.Parsed.(*event.EncryptedEventContent); ok && content.Algorithm == id.AlgorithmMegolmV1 {
		if err := checkMegolm(content); err != nil {
			return nil, err
		}
	}
	o := &opening{}
	var opened *event.Event
	var refusal error
	err = m.c.commit(ctx, func(ctx context.Context, tx *store.Tx) error {
		l, err := m.load(ctx)
		if err != nil {
			return err
		}
		*o = opening{sender: decoded.Sender}
		// A refusal is no error of the job: others that share the commit need not run again. mautrix panics over some of what anybody may have encrypted.
		refusal = m.c.survive(func() (err error) {
			opened, err = l.DecryptMegolmEvent(context.WithValue(ctx, openingKey{}, o), decoded)
			return err
		})
		if o.session == nil {
			return nil
		}
		// Also when it is refused now: it may be read later.
		return tx.RenewRoomKey(string(o.session.ID()), o.session.ReceivedAt, o.account, m.account())
	})
	if err = unstorable(err); err == nil {
		err = openError(refusal)
	}
	if err == nil {
		err = m.judge(ctx, opened, o)
	}
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// checkMegolm refuses what the store could not be asked for.
func checkMegolm(content *event.EncryptedEventContent) error {
	if !isKey(content.SessionID) {
		return fmt.Errorf("%w: the session that it names is none", ErrCorrupt)
	}
	if n, err := crypto.ParseMegolmMessageIndex(content.MegolmCiphertext); err == nil && n > math.MaxInt32 {
		return fmt.Errorf("%w: no session has %d messages", ErrCorrupt, n)
	}
	return nil
}

// opening is what mautrix's machine came across while it decrypted an event.
type opening struct {
	sender  id.UserID // of the event
	session *crypto.InboundGroupSession
	account string     // by which its row is found
	device  *id.Device // the sender's; nil when it is not known
}

type openingKey struct{}

func openingOf(ctx context.Context) *opening {
	o, _ := ctx.Value(openingKey{}).(*opening)
	return o
}

func openError(err error) error {
	var broken *storeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken):
		return err
	case errors.Is(err, crypto.ErrNoSessionFound), errors.Is(err, olm.ErrUnknownMessageIndex), errors.Is(err, crypto.ErrGroupSessionWithheld):
		return fmt.Errorf("%w: %w", ErrNoKey, err)
	case errors.Is(err, crypto.ErrDuplicateMessageIndex):
		return fmt.Errorf("%w: %w", ErrReplayed, err)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
