package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// Whoever wrote something that cannot be delivered sees that, and why; but not once for every line of a busy channel.
const (
	tellEvery   = 10 * time.Minute
	tellTimeout = 30 * time.Second
	maxTold     = 1000
)

// tellNetwork says on the network that a message of a user there did not reach Matrix. It is best effort: the message
// itself is in the dead letters.
func (b *Bridge) tellNetwork(o *outgoing, cause error) {
	if !b.firstTelling("network", o.Channel, cause.Error()) {
		return
	}
	msg := &Message{
		ID: id.EventID("$undelivered-" + o.RemoteID), Channel: o.Channel, Room: o.Room, Kind: KindNotice, Time: time.Now(),
		Sender: Sender{ID: b.as.Bot().UserID(), Name: b.cfg.Appservice.BotDisplayName},
		Text:   fmt.Sprintf("A message of %s did not reach Matrix: %s.", o.User.displayName(), shortCause(cause)),
	}
	b.goroutine(func() {
		ctx, cancel := context.WithTimeout(b.running, tellTimeout)
		defer cancel()
		if _, err := b.session().Send(ctx, msg); err != nil {
			b.log.Warn().Err(err).Str("channel", o.Channel).Msg("Cannot tell the network that a message was not delivered")
		}
	})
}

// Warn shows an operator's problem in a channel's room, or in every room.
func (s *sink) Warn(channel, text string) {
	if s.user != "" {
		s.b.log.Warn().Str("channel", channel).Stringer("user", s.user).Msg(text) // the room has the relay, which speaks for them meanwhile
		return
	}
	s.b.log.Warn().Str("channel", channel).Msg(text)
	if p := s.b.portals.channel(channel); p != nil {
		s.b.warnRoom(p, text)
		return
	}
	if channel == "" {
		for _, p := range s.b.portals.all() {
			s.b.warnRoom(p, text)
		}
	}
}

func (b *Bridge) warnRoom(p *portal, text string) {
	if !b.firstTelling("room", string(p.Room), text) {
		return
	}
	if err := b.apply(b.running, b.effect(b.notice(p.Room, text, ""))); err != nil {
		b.log.Error().Err(err).Stringer("room", p.Room).Msg("Cannot store a notice")
	}
}

// firstTelling is true if this was not said in the last ten minutes.
func (b *Bridge) firstTelling(what ...string) bool {
	key := deriveTxnID(what...)
	b.toldMu.Lock()
	defer b.toldMu.Unlock()
	if at, ok := b.told[key]; ok && time.Since(at) < tellEvery {
		return false
	}
	if len(b.told) >= maxTold {
		clear(b.told)
	}
	b.told[key] = time.Now()
	return true
}

// forgetTold makes everything be said again: something works that did not.
func (b *Bridge) forgetTold() {
	b.toldMu.Lock()
	defer b.toldMu.Unlock()
	clear(b.told)
}

// Online wakes what waited for the session.
func (s *sink) Online() {
	if s.user == "" {
		s.b.setOffline(false)
		s.b.forgetTold()
	}
	s.b.as.Wake()
}

// Log is the bridge's log.
func (s *sink) Log() *zerolog.Logger { return &s.b.log }

// checkEncryption gives an encrypted room its sentence, where the bridge does not read it.
func (b *Bridge) checkEncryption(ctx context.Context, room id.RoomID) error {
	err := b.admits(ctx, room)
	if !isEncrypted(err) {
		return err
	}
	if b.modes.later && b.portals.room(room) == nil {
		return nil // perhaps it is the one that has another mode; if not, it gets its sentence with its first message
	}
	return b.apply(ctx, b.sentence(room)...)
}

// shortCause says why in words for people on the network: no URL, no identifier, nothing that is the operator's business.
func shortCause(err error) string {
	var http mautrix.HTTPError
	switch {
	case isEncrypted(err):
		return "the Matrix room is encrypted, and this bridge takes no part in it"
	case errors.Is(err, appservice.ErrSuspended):
		return "the homeserver has suspended the Matrix user that stands for them"
	case errors.Is(err, appservice.ErrLocked):
		return "the homeserver has locked the Matrix user that stands for them"
	case errors.Is(err, appservice.ErrDeactivated):
		return "the homeserver has deactivated the Matrix user that stands for them"
	case errors.Is(err, appservice.ErrServerLimit):
		return "the homeserver is over its limit of users"
	case errors.As(err, &http) && http.RespError != nil:
		return "the homeserver refused it (" + http.RespError.ErrCode + ")"
	}
	return "it could not be delivered"
}
