package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// maxNames bounds the display names kept in memory; beyond it the memory starts again empty.
const maxNames = 20_000

// names knows what Matrix users are called in a room: first from the member events that come in, else from the
// homeserver.
type names struct {
	bot *appservice.Intent
	mu  sync.Mutex
	by  map[nameKey]string
}

type nameKey struct {
	room id.RoomID
	user id.UserID
}

func newNames(bot *appservice.Intent) *names {
	return &names{bot: bot, by: map[nameKey]string{}}
}

func (n *names) learn(room id.RoomID, user id.UserID, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.by) >= maxNames {
		clear(n.by)
	}
	n.by[nameKey{room, user}] = name
}

// of returns the user's display name in the room, or the localpart where there is none.
func (n *names) of(ctx context.Context, room id.RoomID, user id.UserID) (string, error) {
	n.mu.Lock()
	name, known := n.by[nameKey{room, user}]
	n.mu.Unlock()
	if !known {
		var member event.MemberEventContent
		err := n.bot.State(ctx, room, event.StateMember, string(user), &member)
		switch {
		case err == nil:
			name = member.Displayname
		case errors.Is(err, mautrix.MNotFound), errors.Is(err, mautrix.MForbidden):
			// Not a member any more, or the bot is not: the localpart will do.
		default:
			return "", fmt.Errorf("asking what %s is called in %s: %w", user, room, err)
		}
		n.learn(room, user, name)
	}
	if name == "" {
		name = user.Localpart()
	}
	return name, nil
}
