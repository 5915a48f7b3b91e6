//go:build goolm

package crypto

import (
	"context"
	"fmt"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// sharesAtOnce is how often a key is made anew because others read in the room by the time that it is given.
const sharesAtOnce = 3

// share makes a new key of a room, and gives it to whoever may read there. The caller holds the room's lock. Who comes or goes takes the room's key away
// in the commit that says so; of a key that is still on its way to others there is nothing to take away yet, so who reads is looked at once more behind it.
func (c *Crypto) share(ctx context.Context, m *machine, room id.RoomID) error {
	users, err := c.readers(ctx, m, room)
	for try := 1; err == nil; try++ {
		if err = c.shareWith(ctx, m, room, users); err != nil {
			return err
		}
		var now []id.UserID
		if now, err = c.readers(ctx, m, room); err != nil || slices.Equal(now, users) {
			return err
		}
		err = m.olmWork(ctx, func(ctx context.Context, l *loaded) error { return l.store.RemoveOutboundGroupSession(ctx, room) })
		if try == sharesAtOnce && err == nil {
			return appservice.Later(fmt.Errorf("so many come and go in %s that no key is given to all of them", room))
		}
		users = now
	}
	return err
}

func (c *Crypto) shareWith(ctx context.Context, m *machine, room id.RoomID, users []id.UserID) error {
	return m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		if err := c.beforeShare(ctx, m, l, room, users); err != nil {
			return err
		}
		if err := l.ShareGroupSession(ctx, room, users); err != nil {
			return err
		}
		return c.noteShort(ctx, l, m.account()+" "+string(room), users)
	})
}

// readers gives who is given the keys of a room: who is in it and who is invited. Of the bridge's own users that is one, the
// reader of the room: nobody needs the same key twice.
func (c *Crypto) readers(ctx context.Context, m *machine, room id.RoomID) ([]id.UserID, error) {
	asks := c.as.Ghost(m.user)
	bot := c.as.Bot()
	if membership, err := c.store.Member(ctx, string(room), string(bot.UserID())); err != nil {
		return nil, err
	} else if membership == "join" {
		asks = bot
	}
	if err := asks.KnowRoom(ctx, room); err != nil {
		return nil, err
	}
	members, err := c.store.Members(ctx, string(room))
	if err != nil {
		return nil, err
	}
	users, own := make([]id.UserID, 0, len(members)), []id.UserID{}
	for name, membership := range members {
		user := id.UserID(name)
		switch {
		case membership != "join" && membership != "invite":
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
	return users, nil
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
