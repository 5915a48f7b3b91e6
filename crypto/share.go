//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// sharesAtOnce is how often a key is made anew because others read in the room by the time that it is given.
const sharesAtOnce = 3

// errOvertaken is why a key that was given is not used.
var errOvertaken = errors.New("who may read has changed while the key was given")

// giving is a room key on its way to others. Whoever comes, goes or changes devices takes the room's keys away in the commit that says so; of this one there is
// nothing to take away yet.
type giving struct {
	by      *loaded
	room    id.RoomID
	members uint64 // the [store.Store.KeyDrops] before the users were read
	users   []id.UserID
	devices uint64 // the same before their devices were
}

// overtaken says whether a room key was to be taken away that is only now to be stored.
func (g *giving) overtaken(tx *store.Tx) bool {
	return g != nil && (tx.KeysDropped(g.members, string(g.room)) ||
		slices.ContainsFunc(g.users, func(user id.UserID) bool { return tx.KeysDropped(g.devices, string(user)) }))
}

// share makes a new key of a room, and gives it to whoever may read there. The caller holds the room's lock.
func (c *Crypto) share(ctx context.Context, m *machine, room id.RoomID) (err error) {
	for range sharesAtOnce {
		if err = c.shareOnce(ctx, m, room); !errors.Is(err, errOvertaken) {
			return err
		}
	}
	return appservice.Later(fmt.Errorf("a key for %s: %w, %d times in a row", room, err, sharesAtOnce))
}

func (c *Crypto) shareOnce(ctx context.Context, m *machine, room id.RoomID) error {
	users, drops, err := c.readers(ctx, m, room)
	if err != nil {
		return err
	}
	if err := c.askUnknown(ctx, m, room, users); err != nil {
		return err
	}
	return m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		devices := c.store.KeyDrops()
		if err := c.beforeShare(ctx, l, users); err != nil {
			return err
		}
		operationOf(ctx).giving = &giving{by: l, room: room, members: drops, users: users, devices: devices}
		if err := l.ShareGroupSession(ctx, room, users); err != nil {
			return err
		}
		operationOf(ctx).to.passed = nil // they are looked at as well
		return c.noteShort(ctx, m, l, room, users)
	})
}

// readers gives who is given the keys of a room: who is in it, and who is invited where the history visibility is known to let them read. Of the bridge's own users
// that is one, the reader of the room: nobody needs the same key twice. The drops are the [store.Store.KeyDrops] from before that was read.
func (c *Crypto) readers(ctx context.Context, m *machine, room id.RoomID) (users []id.UserID, drops uint64, err error) {
	asks := c.as.Ghost(m.user)
	bot := c.as.Bot()
	if membership, err := c.store.Member(ctx, string(room), string(bot.UserID())); err != nil {
		return nil, 0, err
	} else if membership == "join" {
		asks = bot
	}
	if err := asks.KnowRoom(ctx, room); err != nil {
		return nil, 0, err
	}
	drops = c.store.KeyDrops() // to know the room may drop its keys
	visibility, err := stateStore{c.store}.GetHistoryVisibility(ctx, room)
	if err != nil {
		return nil, 0, fmt.Errorf("read the history visibility of %s: %w", room, err)
	}
	invited := visibility != nil && visibility.HistoryVisibility != event.HistoryVisibilityJoined
	members, err := c.store.Members(ctx, string(room))
	if err != nil {
		return nil, 0, err
	}
	var own []id.UserID
	for name, membership := range members {
		user := id.UserID(name)
		switch {
		case membership != "join" && (membership != "invite" || !invited):
		case !c.as.Owns(user):
			users = append(users, user)
		case membership == "join":
			own = append(own, user)
		}
	}
	if reader := readerOf(own, bot.UserID()); reader != "" && reader != m.user {
		users = append(users, reader)
	}
	slices.Sort(users)
	return users, drops, nil
}

// readerOf chooses who of the bridge's users in a room reads it: the bot if it is there, else the first by name.
func readerOf(own []id.UserID, bot id.UserID) id.UserID {
	switch {
	case len(own) == 0:
		return ""
	case slices.Contains(own, bot):
		return bot
	}
	return slices.Min(own)
}
