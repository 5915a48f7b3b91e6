package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// plumbConfigured connects what the configuration lists and is not connected yet; each in a goroutine of its own, because
// one that is refused must not hold up another. It is called at start, and when the bot has come into a room.
func (b *Bridge) plumbConfigured(ctx context.Context) {
	for _, plumb := range b.cfg.Bridge.Plumb {
		name, err := b.channelName(plumb.Channel)
		if err != nil {
			b.log.Error().Err(err).Str("channel", plumb.Channel).Msg("The configuration plumbs something that is not a channel")
			continue
		}
		b.once("plumb "+name, func() {
			b.untilDone(ctx, "connecting "+cmp.Or(plumb.Room, "a room of the bridge's")+" to "+name, func() error { return b.plumbOne(ctx, plumb.Room, name) })
		})
	}
}

// enterStored enters the channels of the portals that the store has.
func (b *Bridge) enterStored(ctx context.Context) {
	for _, p := range b.portals.all() {
		b.once("enter "+p.Channel, func() {
			b.untilDone(ctx, "entering "+p.Channel, func() error { return b.enter(ctx, p) })
		})
	}
}

// once runs f in a goroutine, unless one of this name runs already.
func (b *Bridge) once(name string, f func()) {
	b.tasksMu.Lock()
	defer b.tasksMu.Unlock()
	if b.tasks[name] {
		return
	}
	b.tasks[name] = true
	started := b.goroutine(func() {
		f()
		b.tasksMu.Lock()
		defer b.tasksMu.Unlock()
		delete(b.tasks, name)
	})
	if !started {
		delete(b.tasks, name)
	}
}

// plumbOne connects one room of the configuration, which has the last word: a portal that stands in the way is taken away.
func (b *Bridge) plumbOne(ctx context.Context, roomOrAlias, channel string) error {
	if roomOrAlias == "" {
		p, err := b.makePortal(ctx, channel, sourceConfig)
		if err != nil {
			return err
		}
		return b.enter(ctx, p)
	}
	room, err := b.as.Bot().JoinByIDOrAlias(ctx, roomOrAlias)
	if err != nil {
		return fmt.Errorf("joining %s: %w", roomOrAlias, err)
	}
	if known := b.portals.channel(channel); known != nil && known.Room == room && known.Source == sourceConfig {
		return b.enter(ctx, known)
	}
	if _, err := b.checkPlumb(ctx, room, channel); err != nil {
		return err
	}
	for _, other := range []*portal{b.portals.channel(channel), b.portals.room(room)} {
		if other == nil {
			continue
		}
		b.log.Warn().Str("channel", other.Channel).Stringer("room", other.Room).Msg("Disconnected: the configuration has other plans for the one or the other")
		b.warnRoom(other, fmt.Sprintf("This room is no longer connected to %s: the bridge's configuration connects it elsewhere.", other.Channel))
		if other.Channel != channel {
			if err := b.leaveChannel(ctx, other); err != nil {
				return err
			}
		}
		if err := b.apply(ctx, b.unplumb(other)...); err != nil {
			return err
		}
	}
	p, fresh, err := b.portals.claim(&portal{Channel: channel, Room: room, Source: sourceConfig, Created: time.Now()})
	if err != nil {
		return err
	}
	if fresh {
		if err := b.apply(ctx, b.plumb(p)); err != nil {
			b.portals.remove(p)
			return err
		}
	}
	return b.enter(ctx, p)
}

// enter joins the channel of a portal that is there to stay, for as long as it is: a refusal is shown in the room.
func (b *Bridge) enter(ctx context.Context, p *portal) error {
	if !b.portals.has(p) {
		return nil
	}
	err := b.joinChannel(ctx, p)
	if IsPermanent(err) && b.portals.has(p) {
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

// abandonedChannel is the channel that a room was connected to until this start, or empty.
func (b *Bridge) abandonedChannel(room id.RoomID, written time.Time) string {
	if written.Before(b.started) {
		return b.abandoned[room]
	}
	return ""
}
