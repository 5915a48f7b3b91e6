//go:build goolm

package crypto

import (
	"context"
	"errors"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// Synapse answers /sync to ghosts, and to the bot never: it raises NotImplementedError for the user of a registration's sender_localpart
// (generate_sync_result in synapse/handlers/sync.py). What its transactions have not brought the bot can ask for nowhere. But people give a room's
// key to all devices in it, and so to those of ghosts that have keys. They stand in for the bot: they ask with /sync, and what it cannot read they may.

// mostStandIns is how many are asked. One is enough, unless its own key was lost.
const mostStandIns = 2

// standIns are the devices with which a room can be read besides the reader's: none, but for a bot that cannot ask for its keys.
func (c *Crypto) standIns(ctx context.Context, room id.RoomID, reader id.UserID) ([]deviceKey, error) {
	if reader != c.as.Bot().UserID() || c.as.BotSyncs() {
		return nil, nil
	}
	rows, err := c.keys.Query(ctx, `SELECT m.user_id FROM (SELECT DISTINCT substr(account_id, 1, length(account_id) - length(device_id) - 1) AS user_id FROM crypto_account) own
		JOIN member m ON m.room = $1 AND m.user_id = own.user_id AND m.membership = 'join' WHERE own.user_id <> $2 ORDER BY m.user_id LIMIT $3`, room, reader, mostStandIns)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var users []id.UserID
	for rows.Next() {
		var user id.UserID
		if err := rows.Scan(&user); err != nil {
			return nil, err
		}
		users = append(users, user)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	var keys []deviceKey
	for _, user := range users {
		device, err := c.as.Ghost(user).KeyDevice(ctx)
		if err != nil { // an administrator has deactivated it, say: that is nothing to what somebody else has written
			if ctx.Err() != nil {
				return nil, err
			}
			c.log.Debug().Err(c.as.Explain(err)).Stringer("user_id", user).Msg("A ghost has no device to read with in the bot's place")
			continue
		}
		keys = append(keys, deviceKey{user, device})
	}
	return keys, nil
}

// openAs opens an event with the keys of a device, which asks for the key when it has not got it.
func (c *Crypto) openAs(ctx context.Context, ev *appservice.Event, key deviceKey) (*event.Event, error) {
	c.syncs.need(key)
	m, release := c.use(key)
	defer release()
	opened, err := m.open(ctx, ev)
	if errors.Is(err, ErrNoKey) {
		c.syncs.missing(key)
	}
	return opened, err
}

// openInstead opens it with those who stand in for the reader, if one of them has the key.
func (c *Crypto) openInstead(ctx context.Context, ev *appservice.Event, reader id.UserID, missing error) (*event.Event, error) {
	keys, err := c.standIns(ctx, ev.RoomID, reader)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if opened, err := c.openAs(ctx, ev, key); !isMissing(err) {
			return opened, err
		}
	}
	return nil, missing
}

func isMissing(err error) bool { return errors.Is(err, ErrNoKey) || errors.Is(err, ErrNoMachine) }
