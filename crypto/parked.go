//go:build goolm

package crypto

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// Watch notes what reader has of the key of an event's session now. changed says in a job whether that is another or more by then: a key that comes between the
// attempt to open an event and the commit that parks it must not be missed.
func (c *Crypto) Watch(ctx context.Context, ev *appservice.Event, session id.SessionID, reader id.UserID) (changed func(tx *store.Tx) (bool, error), err error) {
	room := ev.RoomID
	device, err := c.as.Ghost(reader).KeyDevice(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the key of %s: %w", room, err)
	}
	keys, err := c.standIns(ctx, room, reader)
	if err != nil {
		return nil, fmt.Errorf("look for the key of %s: %w", room, err)
	}
	var accounts []string
	for _, key := range append(keys, deviceKey{reader, device}) {
		accounts = append(accounts, key.account(), copyFrom(key.account(), ev.Sender), copyFrom(key.account(), ""))
	}
	read := func(ctx context.Context) (known string, err error) {
		for _, account := range accounts {
			var key string
			err = c.keys.QueryRow(ctx, `SELECT COALESCE(session, '') FROM crypto_megolm_inbound_session WHERE room_id = $1 AND session_id = $2 AND account_id = $3`,
				room, session, account).Scan(&key)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return "", err
			}
			known += key + "\n"
		}
		return known, nil
	}
	before, err := read(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the key of %s: %w", room, err)
	}
	return func(tx *store.Tx) (bool, error) {
		now, err := read(tx.Context(ctx))
		return now != before, err
	}, nil
}
