package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// joinTimeout bounds how long a command waits for the network to let the bridge into a channel.
const joinTimeout = 30 * time.Second

// checkPlumb says whether a room may be connected to a channel, and gives the channel's name as the network writes it.
func (b *Bridge) checkPlumb(ctx context.Context, room id.RoomID, channel string) (name string, err error) {
	if name, err = b.channelName(channel); err != nil {
		return "", refuse("%v.", err)
	}
	// The bot may have been out of the room since it was last asked.
	if err := b.guard.Forget(ctx, room); err != nil {
		return "", err
	}
	if err := b.guard.Check(ctx, room); isEncrypted(err) {
		if b.modes.of(room, name) == modeOff {
			return "", refuse("This room is encrypted, and I cannot take part in encrypted rooms.")
		}
	} else if err != nil {
		return "", err
	}
	return name, nil
}

func (b *Bridge) channelName(name string) (string, error) {
	if v, ok := b.network.(ChannelValidator); ok {
		return v.Channel(name)
	}
	if name == "" {
		return "", errors.New("the channel has no name")
	}
	return name, nil
}

// joinChannel enters a portal's channel.
func (b *Bridge) joinChannel(ctx context.Context, p *portal) error {
	if joiner, ok := b.session().(ChannelJoiner); ok {
		return joiner.JoinChannel(ctx, p.Channel)
	}
	return nil
}

func (b *Bridge) leaveChannel(ctx context.Context, p *portal) error {
	joiner, ok := b.session().(ChannelJoiner)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := joiner.LeaveChannel(ctx, p.Channel); err != nil && !IsPermanent(err) && !errors.Is(err, ErrOffline) {
		return fmt.Errorf("leaving %s: %w", p.Channel, err)
	}
	return nil
}

// plumb is the effect that makes a portal last.
func (b *Bridge) plumb(p *portal) appservice.Effect {
	return func(tx *store.Tx) error {
		tx.AfterCommit(b.logins.look)
		return tx.PutPortal(p.row())
	}
}

// unplumb takes a portal away, and its ghosts out of the room.
func (b *Bridge) unplumb(p *portal) []appservice.Effect {
	return []appservice.Effect{func(tx *store.Tx) error {
		tx.AfterCommit(func() {
			b.portals.remove(p)
			b.logins.look()
		})
		if err := tx.DeletePortal(p.Channel); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return b.enqueue(tx, onlyMembers(p, nil, "the room is no longer connected")[0])
	}}
}

// loadPortals reads the portals that the store has. Those of a configuration that no longer lists them are taken away;
// what still waits for them becomes dead letters, and is told of in the room.
func (b *Bridge) loadPortals(ctx context.Context) error {
	rows, err := b.store.Portals(ctx)
	if err != nil {
		return fmt.Errorf("reading the portals: %w", err)
	}
	for _, row := range rows {
		p := &portal{Channel: row.Channel, Room: id.RoomID(row.Room), Source: row.Source, Created: row.Created, topic: row.Topic}
		if p.Room == "" {
			if err := b.loadUnmade(ctx, p); err != nil {
				return err
			}
			continue
		}
		if p.Source == sourceConfig && !b.configured(p) {
			if err := b.apply(ctx, b.unplumb(p)...); err != nil {
				return err
			}
			b.abandoned[p.Room] = p.Channel
			b.log.Info().Str("channel", p.Channel).Stringer("room", p.Room).Msg("Disconnected: the configuration no longer connects them")
			continue
		}
		if _, _, err := b.portals.claim(p); err != nil {
			return fmt.Errorf("the store has two portals of %s or %s: %w", p.Room, p.Channel, err)
		}
	}
	return nil
}

// configured says whether the configuration connects these two, as far as that can be seen without asking what an alias
// stands for.
func (b *Bridge) configured(p *portal) bool {
	for _, plumb := range b.cfg.Bridge.Plumb {
		if name, err := b.channelName(plumb.Channel); err == nil && name == p.Channel {
			return plumb.Room == string(p.Room) || plumb.Room == "" || plumb.Room[0] == '#'
		}
	}
	return false
}

// configuredChannel says whether the configuration decides about a channel, so that nobody else may.
func (b *Bridge) configuredChannel(channel string) bool {
	for _, plumb := range b.cfg.Bridge.Plumb {
		if name, err := b.channelName(plumb.Channel); err == nil && name == channel {
			return true
		}
	}
	return false
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
