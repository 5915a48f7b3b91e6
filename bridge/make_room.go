package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// Rooms that the bridge makes have an address in the namespace of its ghosts: "#irc_#channel:your.domain". What is to be made is
// in the store before: a portal without a room. So it is found at the next start, whatever ended the process, and the homeserver
// is asked for the room that there may be before it is asked for another ([appservice.Intent.CreateRoomOnce]).

// maxAlias is the longest alias, in bytes (specification, "Size limits").
const maxAlias = 255

// aliasLocalpart is what the address of a channel's room has between # and the domain; ok is false where there can be none.
func aliasLocalpart(cfg *Config, channel string) (localpart string, ok bool) {
	localpart = cfg.Appservice.Ghosts + channel
	ok = !strings.ContainsAny(channel, ":\x00") && len(id.NewRoomAlias(localpart, cfg.Homeserver.Domain)) <= maxAlias
	return localpart, ok
}

func (b *Bridge) alias(channel string) id.RoomAlias {
	localpart, _ := aliasLocalpart(b.cfg, channel)
	return id.NewRoomAlias(localpart, b.cfg.Homeserver.Domain)
}

// makePortal connects a channel to a room that the bridge makes, unless it is connected.
func (b *Bridge) makePortal(ctx context.Context, channel, source string) (*portal, error) {
	unlock, err := b.making.Lock(ctx, channel)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if known := b.portals.channel(channel); known != nil {
		return known, nil
	}
	localpart, ok := aliasLocalpart(b.cfg, channel)
	if !ok {
		return nil, refuse("The room of %s can have no address: plumb a room of your own.", channel)
	}
	again, err := b.intend(ctx, channel, source)
	if err != nil {
		return nil, err
	}
	room, err := b.as.Bot().CreateRoomOnce(ctx, &appservice.Creation{
		Purpose: b.info.ID + "/" + channel, Again: again,
		Known:   func(room id.RoomID) bool { return b.portals.room(room) != nil },
		Request: mautrix.ReqCreateRoom{Preset: "public_chat", Name: channel, RoomAliasName: localpart},
	})
	if err != nil {
		return nil, fmt.Errorf("making a room for %s: %w", channel, err)
	}
	p, fresh, err := b.portals.claim(&portal{Channel: channel, Room: room, Source: source, Created: time.Now()})
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := b.apply(ctx, b.plumb(p)); err != nil {
			b.portals.remove(p)
			return nil, err
		}
	}
	b.unmadeMu.Lock()
	delete(b.unmade, channel)
	b.unmadeMu.Unlock()
	b.log.Info().Str("channel", channel).Stringer("room", room).Msg("Made a room")
	return p, nil
}

// intend writes down that a room is about to be made. again: it was before.
func (b *Bridge) intend(ctx context.Context, channel, source string) (again bool, err error) {
	b.unmadeMu.Lock()
	_, again = b.unmade[channel]
	b.unmadeMu.Unlock()
	if again {
		return true, nil
	}
	p := &portal{Channel: channel, Source: source, Created: time.Now()}
	if err := b.apply(ctx, b.plumb(p)); err != nil {
		return false, fmt.Errorf("writing down that %s gets a room: %w", channel, err)
	}
	b.unmadeMu.Lock()
	defer b.unmadeMu.Unlock()
	b.unmade[channel] = p
	return false, nil
}

// loadUnmade takes up what an earlier process has not finished, unless the configuration that asked for it no longer does.
func (b *Bridge) loadUnmade(ctx context.Context, p *portal) error {
	if p.Source == sourceConfig && !b.configuredChannel(p.Channel) {
		return b.apply(ctx, func(tx *store.Tx) error { return tx.DeletePortal(p.Channel) })
	}
	b.unmade[p.Channel] = p
	return nil
}

// makeUnmade makes the rooms that were intended and do not exist yet, as far as the store knows.
func (b *Bridge) makeUnmade(ctx context.Context) {
	b.unmadeMu.Lock()
	defer b.unmadeMu.Unlock()
	for channel, p := range b.unmade {
		if b.configuredChannel(channel) {
			continue // plumbConfigured sees to it
		}
		b.makeLater(ctx, channel, p.Source)
	}
}

// makeLater makes a room in the background, and tries until it is there.
func (b *Bridge) makeLater(ctx context.Context, channel, source string) {
	b.once("make "+channel, func() {
		b.untilDone(ctx, "making a room for "+channel, func() error {
			p, err := b.makePortal(ctx, channel, source)
			if err != nil {
				return err
			}
			return b.enter(ctx, p)
		})
	})
}

var _ appservice.AliasQuerier = (*Bridge)(nil)

// QueryAlias makes the room of a channel that somebody asks for by its address, such as "#irc_#channel:your.domain" (the ghosts' prefix,
// and the channel as the network writes it), if the configuration allows that (`bridge.rooms.on_alias`). A channel that has a room
// of another address gets no other.
func (b *Bridge) QueryAlias(ctx context.Context, alias id.RoomAlias) (bool, error) {
	if !b.cfg.Bridge.Rooms.OnAlias {
		return false, nil
	}
	localpart, _, _ := strings.Cut(strings.TrimPrefix(string(alias), "#"), ":")
	name, ok := strings.CutPrefix(localpart, b.cfg.Appservice.Ghosts)
	if !ok {
		return false, nil
	}
	channel, err := b.channelName(name)
	if err != nil || b.alias(channel) != alias {
		return false, nil // another spelling would be another room
	}
	if known := b.portals.channel(channel); known != nil || b.configuredChannel(channel) {
		return false, nil
	}
	p, err := b.makePortal(ctx, channel, sourceAlias)
	if err != nil {
		b.makeLater(b.running, channel, sourceAlias)
		return false, err
	}
	b.once("enter "+channel, func() {
		b.untilDone(b.running, "entering "+channel, func() error { return b.enter(b.running, p) })
	})
	return true, nil
}

// commandCreate may be carried out again after a crash: it then finds what it has made.
func (b *Bridge) commandCreate(ctx context.Context, call *call) (string, []appservice.Effect, error) {
	if len(call.args) != 1 {
		return fmt.Sprintf("Write: %s create CHANNEL", b.command), nil, nil
	}
	channel, err := b.channelName(call.args[0])
	if err != nil {
		return clip(err.Error()) + ".", nil, nil
	}
	if b.configuredChannel(channel) {
		return fmt.Sprintf("The bridge's configuration says what %s is connected to.", channel), nil, nil
	}
	p, err := b.makePortal(ctx, channel, sourceCommand)
	refusal := (*plumbRefusal)(nil)
	switch {
	case errors.As(err, &refusal):
		return clip(refusal.text), nil, nil
	case isRefusal(err):
		return fmt.Sprintf("The homeserver does not let me make a room for %s; its administrator finds the reason in the bridge's log.", channel), nil, b.refused(channel, err)
	case err != nil:
		return "", nil, err
	}
	address, err := b.publicAlias(ctx, p.Room)
	if err != nil {
		return "", nil, err
	}
	if address != b.alias(channel) {
		return fmt.Sprintf("%s is connected to another room already.", channel), nil, nil
	}
	if err := b.invite(ctx, p.Room, call.sender); err != nil {
		return "", nil, err
	}
	b.once("enter "+channel, func() {
		b.untilDone(b.running, "entering "+channel, func() error { return b.enter(b.running, p) })
	})
	return fmt.Sprintf("The room of %s on %s is %s.", channel, b.info.Name, address), nil, nil
}

// refused logs why the homeserver makes no room.
func (b *Bridge) refused(channel string, err error) error {
	b.log.Error().Err(err).Str("channel", channel).Msg("The homeserver makes no room")
	return nil
}

// invite invites somebody who is neither in a room nor invited.
func (b *Bridge) invite(ctx context.Context, room id.RoomID, user id.UserID) error {
	var member event.MemberEventContent
	err := b.as.Bot().State(ctx, room, event.StateMember, user.String(), &member)
	if err != nil && !errors.Is(err, mautrix.MNotFound) {
		return err
	}
	if member.Membership == event.MembershipJoin || member.Membership == event.MembershipInvite {
		return nil
	}
	return b.as.Bot().Invite(ctx, room, user)
}
