package bridge

import (
	"context"
	"strings"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// handleMember looks at who comes and goes on Matrix: names are learned, an invitation to the bot is accepted, the rest is
// told to the network.
func (b *Bridge) handleMember(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if ev.StateKey == nil {
		return nil, nil
	}
	decoded, err := ev.Decode()
	if err != nil {
		return nil, appservice.Permanent(err)
	}
	member := decoded.Content.AsMember()
	user := id.UserID(*ev.StateKey)
	if user == b.as.Bot().UserID() {
		return b.botMember(ctx, ev, member)
	}
	b.names.learn(ev.RoomID, user, member.Displayname)
	p := b.portals.room(ev.RoomID)
	if p == nil || b.as.IsGhost(user) {
		return nil, nil
	}
	before := event.MembershipLeave
	if prev := decoded.Unsigned.PrevContent; prev != nil {
		if err := prev.ParseRaw(event.StateMember); err == nil {
			before = prev.AsMember().Membership
		}
	}
	change := &Membership{Channel: p.Channel, Reason: member.Reason}
	switch {
	case member.Membership == event.MembershipJoin && before != event.MembershipJoin:
		change.Joined = true
	case before == event.MembershipJoin && (member.Membership == event.MembershipLeave || member.Membership == event.MembershipBan):
	default:
		return nil, nil
	}
	if own := b.logins.get(user); own != nil {
		return []appservice.Effect{func(tx *store.Tx) error { // everybody there sees them come and go
			tx.AfterCommit(own.wake)
			return nil
		}}, nil
	}
	teller, ok := b.session().(MembershipSender)
	if !ok || !b.cfg.Bridge.Membership.ToNetwork {
		return nil, nil
	}
	name := member.Displayname
	if name == "" {
		name = user.Localpart()
	}
	change.User = Sender{ID: user, Name: name}
	if ev.Attempts > 0 {
		return nil, nil // it may have been told; a joining told twice is worse than one not told
	}
	if err := teller.SendMembership(ctx, change); err != nil {
		// Who comes and goes is not worth holding up a room's messages for.
		b.log.Debug().Err(err).Str("channel", p.Channel).Msg("A coming or going was not told to the network")
	}
	return nil, nil
}

// botMember accepts invitations of people on the bridge's own homeserver (a bot that follows strangers' invitations can be
// led into any number of rooms), and gives a portal up when the bot is taken out of its room.
func (b *Bridge) botMember(ctx context.Context, ev *appservice.Event, member *event.MemberEventContent) ([]appservice.Effect, error) {
	switch member.Membership {
	case event.MembershipInvite:
		if ev.Sender.Homeserver() != b.cfg.Homeserver.Domain {
			b.log.Info().Stringer("room", ev.RoomID).Stringer("inviter", ev.Sender).Msg("Declining an invitation from another homeserver")
			return []appservice.Effect{b.effect(&outgoing{
				Op: opBotLeave, Room: ev.RoomID, RemoteID: string(ev.ID),
				Reason: "I follow invitations only from users of " + b.cfg.Homeserver.Domain,
			})}, nil
		}
		return []appservice.Effect{b.effect(&outgoing{Op: opBotJoin, Room: ev.RoomID, RemoteID: string(ev.ID)})}, nil
	case event.MembershipLeave, event.MembershipBan:
		p := b.portals.room(ev.RoomID)
		if p == nil {
			return nil, nil
		}
		b.log.Warn().Stringer("room", ev.RoomID).Str("channel", p.Channel).Stringer("by", ev.Sender).Msg("The bot was taken out of a room; its channel is disconnected")
		if err := b.leaveChannel(ctx, p); err != nil {
			return nil, err
		}
		return b.unplumb(p), nil
	}
	return nil, nil
}

// greet looks at a room that the bot has just joined, and whose state was read then: an encrypted one gets its sentence at
// once, and one that the configuration connects is connected.
func (b *Bridge) greet(ctx context.Context, room id.RoomID) error {
	if err := b.checkEncryption(ctx, room); err != nil {
		return err
	}
	b.plumbConfigured(b.running)
	return nil
}

// stripControl keeps a name or a reason in one line, whatever its writer put into it.
func stripControl(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
