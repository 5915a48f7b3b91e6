package bridge

import (
	"context"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// Typing is never stored: it may be lost in a crash, and is dropped when the other side is slow.
const (
	typingQueue   = 64
	typingTimeout = 30 * time.Second // how long a homeserver shows a typing notice that nobody takes back
)

type typingNotice struct {
	room   id.RoomID
	ghost  id.UserID
	typing bool
}

// HandleEphemeral passes on who is typing in a room.
func (b *Bridge) HandleEphemeral(ctx context.Context, e *appservice.Ephemeral) {
	if e.Typing == nil {
		return
	}
	p := b.portals.room(e.RoomID)
	sender, ok := b.session().(TypingSender)
	if p == nil || !ok || b.admits(ctx, e.RoomID) != nil {
		return
	}
	b.typersMu.Lock()
	typers := b.typers[e.RoomID]
	for _, user := range e.Typing.Started {
		if !slices.Contains(typers, user) {
			typers = append(typers, user)
		}
	}
	typers = slices.DeleteFunc(typers, func(user id.UserID) bool { return slices.Contains(e.Typing.Stopped, user) })
	if len(typers) == 0 {
		delete(b.typers, e.RoomID)
	} else {
		b.typers[e.RoomID] = typers
	}
	typers = slices.Clone(typers)
	b.typersMu.Unlock()

	users := make([]Sender, 0, len(typers))
	for _, user := range typers {
		name, err := b.names.of(ctx, e.RoomID, user)
		if err != nil {
			name = user.Localpart()
		}
		users = append(users, Sender{ID: user, Name: name})
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := sender.SendTyping(ctx, p.Channel, users); err != nil {
		b.log.Debug().Err(err).Str("channel", p.Channel).Msg("Cannot pass typing on")
	}
}

// Typing shows that a remote user is typing.
func (s *sink) Typing(channel string, user RemoteUser, typing bool) {
	p := s.b.portals.channel(channel)
	if p == nil {
		return
	}
	select {
	case s.b.typing <- typingNotice{p.Room, s.b.ghostID(user), typing}:
	default:
	}
}

// sendTyping runs until the bridge stops.
func (b *Bridge) sendTyping(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-b.typing:
			if membership, err := b.store.Member(ctx, string(n.room), string(n.ghost)); err != nil || membership != "join" {
				continue // a ghost that has said nothing yet is not in the room, and need not join to type
			}
			if b.admits(ctx, n.room) != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			if err := b.as.Ghost(n.ghost).Typing(ctx, n.room, n.typing, typingTimeout); err != nil {
				b.log.Debug().Err(err).Stringer("ghost", n.ghost).Msg("Cannot show typing")
			}
			cancel()
		}
	}
}
