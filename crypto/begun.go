//go:build goolm

package crypto

import (
	"context"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Anybody can make up keys, and begin an Olm session from each with a device of the bridge: its fallback key is there for all. The session is kept also when what
// came with it is refused, for the other side's next message is one of it.

const (
	// usualBegun is how many Olm sessions a device of the bridge keeps that a user has begun from keys which are none of his known devices'.
	usualBegun = 100
	// usualSenders is after how many sender keys mautrix's machine is read anew: it remembers each of them.
	usualSenders = 10_000
)

// addBegun keeps a session that a user has begun. It runs in a job.
func (l *loaded) addBegun(ctx context.Context, user id.UserID, key id.SenderKey, session *crypto.OlmSession) error {
	if err := l.store.AddSession(ctx, key, session); err != nil {
		return err
	}
	if device, err := l.store.FindDeviceByKey(ctx, user, key); err != nil || device != nil && !device.Deleted {
		return err
	}
	tx, c, account := store.TxOf(ctx), l.store.c, l.store.AccountID
	if err := tx.OlmSessionBegun(account, string(user), string(session.ID())); err != nil {
		return err
	}
	if !many(c.mostBegun / 10) {
		return nil
	}
	l.spoilt = true // mautrix remembers them
	return tx.DeleteOlmSessionsBegun(account, string(user), c.mostBegun)
}

// sender notes that mautrix's machine was asked for the sessions with a key.
func (l *loaded) sender() {
	if l.senders++; l.senders > l.store.c.mostSenders {
		l.spoilt = true
	}
}
