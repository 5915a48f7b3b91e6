package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// joinTimeout bounds how long a command waits for the network to let the bridge into a channel.
const joinTimeout = 30 * time.Second

// plumbRefusal is why a room and a channel cannot be connected, in words for the person who asked.
type plumbRefusal struct{ text string }

func (e *plumbRefusal) Error() string { return e.text }

func refuse(format string, args ...any) error { return &plumbRefusal{fmt.Sprintf(format, args...)} }

// checkPlumb says whether a room can be connected to a channel, and returns the portal that it would be.
func (b *Bridge) checkPlumb(ctx context.Context, room id.RoomID, channel, source string) (*portal, error) {
	name, err := b.channelName(channel)
	if err != nil {
		return nil, refuse("%q is not a channel: %v.", stripControl(channel), err)
	}
	if p := b.portals.room(room); p != nil && p.Channel != name {
		return nil, refuse("This room is connected to %s already.", p.Channel)
	}
	if p := b.portals.channel(name); p != nil && p.Room != room {
		return nil, refuse("%s is connected to another room already.", name)
	}
	if err := b.guard.Check(ctx, room); errors.Is(err, crypto.ErrEncrypted) {
		return nil, refuse("This room is encrypted, and I cannot take part in encrypted rooms.")
	} else if err != nil {
		return nil, err
	}
	if p := b.portals.room(room); p != nil {
		return p, nil
	}
	return &portal{Channel: name, Room: room, Source: source}, nil
}

func (b *Bridge) channelName(name string) (string, error) {
	if v, ok := b.network.(ChannelValidator); ok {
		return v.Channel(name)
	}
	if name == "" {
		return "", errors.New("it is empty")
	}
	return name, nil
}

// joinChannel makes the portal known, so that what the network says of the channel's members finds it, and enters the
// channel. If that fails, and the portal was not there before, it is unknown again.
func (b *Bridge) joinChannel(ctx context.Context, p *portal) error {
	joiner, ok := b.session().(ChannelJoiner)
	known := b.portals.channel(p.Channel) != nil
	b.portals.add(p)
	if !ok {
		return nil
	}
	err := joiner.JoinChannel(ctx, p.Channel)
	if err != nil && !known {
		b.portals.remove(p)
	}
	return err
}

func (b *Bridge) leaveChannel(ctx context.Context, p *portal) error {
	joiner, ok := b.session().(ChannelJoiner)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := joiner.LeaveChannel(ctx, p.Channel); err != nil && !IsPermanent(err) {
		return fmt.Errorf("leaving %s: %w", p.Channel, err)
	}
	return nil
}

// plumb is the effect that makes a portal last.
func (b *Bridge) plumb(p *portal) appservice.Effect {
	return func(tx *store.Tx) error { return tx.PutPortal(p.row()) }
}

// unplumb takes a portal away, and its ghosts out of the room.
func (b *Bridge) unplumb(p *portal) []appservice.Effect {
	return []appservice.Effect{func(tx *store.Tx) error {
		tx.AfterCommit(func() { b.portals.remove(p) })
		if err := tx.DeletePortal(p.Channel); err != nil {
			return err
		}
		return b.enqueue(tx, onlyMembers(p, nil, "the room is no longer connected")[0])
	}}
}

// loadPortals reads the portals that the store has. Those of a configuration that no longer lists them are taken away.
func (b *Bridge) loadPortals(ctx context.Context) error {
	rows, err := b.store.Portals(ctx)
	if err != nil {
		return fmt.Errorf("reading the portals: %w", err)
	}
	configured := map[string]bool{}
	for _, plumb := range b.cfg.Bridge.Plumb {
		if name, err := b.channelName(plumb.Channel); err == nil {
			configured[name] = true
		}
	}
	for _, row := range rows {
		p := &portal{Channel: row.Channel, Room: id.RoomID(row.Room), Source: row.Source, topic: row.Topic}
		if p.Source == sourceConfig && !configured[p.Channel] {
			if err := b.apply(ctx, b.unplumb(p)...); err != nil {
				return err
			}
			b.log.Info().Str("channel", p.Channel).Stringer("room", p.Room).Msg("Disconnected: the configuration no longer lists it")
			continue
		}
		b.portals.add(p)
	}
	return nil
}

// apply commits effects that no event asked for.
func (b *Bridge) apply(ctx context.Context, effects ...appservice.Effect) error {
	return b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		for _, effect := range effects {
			if err := effect(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

// plumbConfigured connects what the configuration lists, and enters the channels of every portal; each in a goroutine of
// its own, because one that is refused must not hold up another.
func (b *Bridge) plumbConfigured(ctx context.Context) {
	started := map[string]bool{}
	for _, plumb := range b.cfg.Bridge.Plumb {
		name, err := b.channelName(plumb.Channel)
		if err != nil {
			b.log.Error().Err(err).Str("channel", plumb.Channel).Msg("The configuration plumbs something that is not a channel")
			continue
		}
		started[name] = true
		b.goroutine(func() {
			b.untilDone(ctx, "connecting "+plumb.Room+" to "+name, func() error { return b.plumbOne(ctx, plumb.Room, name) })
		})
	}
	for _, p := range b.portals.all() {
		if !started[p.Channel] {
			b.goroutine(func() {
				b.untilDone(ctx, "entering "+p.Channel, func() error { return b.enter(ctx, p) })
			})
		}
	}
}

// plumbOne connects one room of the configuration.
func (b *Bridge) plumbOne(ctx context.Context, roomOrAlias, channel string) error {
	room, err := b.as.Bot().JoinByIDOrAlias(ctx, roomOrAlias)
	if err != nil {
		return fmt.Errorf("joining %s: %w", roomOrAlias, err)
	}
	p, err := b.checkPlumb(ctx, room, channel, sourceConfig)
	if err != nil {
		return err
	}
	if p.Source != sourceConfig { // a command connected it before the configuration did
		p = &portal{Channel: p.Channel, Room: p.Room, Source: sourceConfig, topic: p.row().Topic}
	}
	if err := b.apply(ctx, b.plumb(p)); err != nil {
		return err
	}
	return b.enter(ctx, p)
}

// enter joins the channel of a portal that is there to stay: a refusal is shown in the room.
func (b *Bridge) enter(ctx context.Context, p *portal) error {
	b.portals.add(p)
	joiner, ok := b.session().(ChannelJoiner)
	if !ok {
		return nil
	}
	err := joiner.JoinChannel(ctx, p.Channel)
	if IsPermanent(err) {
		b.warnRoom(p, fmt.Sprintf("%s does not let me into %s: %v", b.info.Name, p.Channel, err))
	}
	return err
}

// untilDone tries again, with growing pauses, until it works, is refused for good, or the bridge stops.
func (b *Bridge) untilDone(ctx context.Context, what string, try func() error) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := try()
		if err == nil {
			b.log.Info().Msg("Done: " + what)
			return
		}
		refusal := (*plumbRefusal)(nil)
		if ctx.Err() != nil {
			return
		}
		if errors.As(err, &refusal) || IsPermanent(err) {
			b.log.Error().Err(err).Msg("Refused: " + what)
			return
		}
		hint := ""
		if errors.Is(err, mautrix.MForbidden) {
			hint = "; invite " + string(b.as.Bot().UserID()) + " to the room"
		}
		wait := retryDelay(attempt)
		b.log.Warn().Err(err).Dur("wait", wait).Msg("Failed, trying again: " + what + hint)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}
