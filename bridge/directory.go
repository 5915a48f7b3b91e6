package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// UserFinder is a Session that knows who is on the network. The homeserver asks for somebody before it hands on the first
// invitation to their ghost; with a UserFinder the ghost is then registered and has its name. Without it, those are known
// who have a ghost already, because they were seen in a channel.
type UserFinder interface {
	// FindUser finds somebody by their ID, or by what they are called. ok is false when there is nobody, as far as the
	// session knows. It has a few seconds: the homeserver waits, and so may everybody's events. A session that cannot know
	// at the moment returns an error that wraps [ErrOffline], so that nobody is said not to exist who does.
	FindUser(ctx context.Context, name string) (user RemoteUser, ok bool, err error)
}

// Directory is a Network that can be searched from Matrix, in clients that offer that: which Matrix user somebody on the
// network is, and which room a channel (client-server API, "Third-party Lookups"). Without it there is nothing to search,
// and the registration lists no protocol. It works with the network's names only; who is there the [UserFinder] knows, or
// the ghosts that there are, and rooms are found by their portals. Only rooms that anybody may join are told of, by their
// main address.
type Directory interface {
	// Protocol describes what is searched, and by which fields. Its name is [Info].ID.
	Protocol() appservice.Protocol
	// UserBy gives the ID or the name that a search for somebody means; ok is false when it means nobody here.
	UserBy(fields map[string]string) (name string, ok bool)
	// UserFields is the reverse: what a search finds somebody by.
	UserFields(user RemoteUser) map[string]string
	// ChannelBy gives the channel that a search means, as portals have it.
	ChannelBy(fields map[string]string) (channel string, ok bool)
	// ChannelFields is the reverse.
	ChannelFields(channel string) map[string]string
}

var (
	_ appservice.UserQuerier       = (*Bridge)(nil)
	_ appservice.ThirdPartyHandler = (*Bridge)(nil)
)

// QueryUser says whether a ghost stands for somebody on the network, and gives it that name.
func (b *Bridge) QueryUser(ctx context.Context, user id.UserID) (bool, error) {
	remote, ok, err := b.remoteOf(ctx, user)
	if err != nil || !ok {
		return false, err
	}
	return true, b.as.Ghost(user).SetDisplayName(ctx, remote.displayName())
}

// remoteOf finds whom a ghost stands for.
func (b *Bridge) remoteOf(ctx context.Context, user id.UserID) (RemoteUser, bool, error) {
	localpart, ok := strings.CutPrefix(user.Localpart(), b.cfg.Appservice.Ghosts)
	if !ok || !b.as.IsGhost(user) {
		return RemoteUser{}, false, nil
	}
	name, err := appservice.UnescapeLocalpart(localpart)
	if err != nil || name == "" {
		return RemoteUser{}, false, nil // nobody's ghost is called that
	}
	remote, ok, err := b.findUser(ctx, name)
	// Another spelling of somebody's name would be a second ghost of theirs.
	return remote, ok && b.ghostID(remote) == user, err
}

// findUser asks the session, or remembers a ghost.
func (b *Bridge) findUser(ctx context.Context, name string) (RemoteUser, bool, error) {
	if finder, ok := b.session().(UserFinder); ok {
		user, ok, err := finder.FindUser(ctx, name)
		if err != nil {
			return RemoteUser{}, false, fmt.Errorf("looking for %q on %s: %w", name, b.info.Name, err)
		}
		return user, ok, nil
	}
	user := RemoteUser{ID: name}
	ghost, err := b.store.Ghost(ctx, string(b.ghostID(user)))
	if errors.Is(err, store.ErrNotFound) {
		return RemoteUser{}, false, nil
	} else if err != nil {
		return RemoteUser{}, false, fmt.Errorf("looking for the ghost of %q: %w", name, err)
	}
	user.Name = ghost.DisplayName
	return user, true, nil
}

// LookUpProtocol describes the network, if that is what the protocol is called.
func (b *Bridge) LookUpProtocol(_ context.Context, protocol string) (*appservice.Protocol, error) {
	directory, ok := b.network.(Directory)
	if !ok || protocol != b.info.ID {
		return nil, nil
	}
	p := directory.Protocol()
	return &p, nil
}

// LookUpUsers finds the ghost of somebody on the network.
func (b *Bridge) LookUpUsers(ctx context.Context, _ string, fields map[string]string) ([]appservice.ThirdPartyUser, error) {
	directory, ok := b.network.(Directory)
	if !ok {
		return nil, nil
	}
	name, ok := directory.UserBy(fields)
	if !ok {
		return nil, nil
	}
	user, ok, err := b.findUser(ctx, name)
	if err != nil || !ok {
		return nil, err
	}
	return b.thirdPartyUser(directory, user), nil
}

// LookUpUser says whom a ghost stands for.
func (b *Bridge) LookUpUser(ctx context.Context, user id.UserID) ([]appservice.ThirdPartyUser, error) {
	directory, ok := b.network.(Directory)
	if !ok {
		return nil, nil
	}
	remote, ok, err := b.remoteOf(ctx, user)
	if err != nil || !ok {
		return nil, err
	}
	return b.thirdPartyUser(directory, remote), nil
}

func (b *Bridge) thirdPartyUser(directory Directory, user RemoteUser) []appservice.ThirdPartyUser {
	return []appservice.ThirdPartyUser{{UserID: b.ghostID(user), Protocol: b.info.ID, Fields: directory.UserFields(user)}}
}

// LookUpLocations finds the room of a channel.
func (b *Bridge) LookUpLocations(ctx context.Context, _ string, fields map[string]string) ([]appservice.ThirdPartyLocation, error) {
	directory, ok := b.network.(Directory)
	if !ok {
		return nil, nil
	}
	channel, ok := directory.ChannelBy(fields)
	if !ok {
		return nil, nil
	}
	return b.location(ctx, directory, b.portals.channel(channel))
}

// LookUpLocation says which channel a room is.
func (b *Bridge) LookUpLocation(ctx context.Context, alias id.RoomAlias) ([]appservice.ThirdPartyLocation, error) {
	directory, ok := b.network.(Directory)
	if !ok {
		return nil, nil
	}
	room, err := b.as.Bot().ResolveAlias(ctx, alias)
	if errors.Is(err, mautrix.MNotFound) || isRefusal(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return b.location(ctx, directory, b.portals.room(room))
}

func (b *Bridge) location(ctx context.Context, directory Directory, p *portal) ([]appservice.ThirdPartyLocation, error) {
	if p == nil {
		return nil, nil
	}
	alias, err := b.publicAlias(ctx, p.Room)
	if err != nil || alias == "" {
		return nil, err
	}
	return []appservice.ThirdPartyLocation{{Alias: alias, Protocol: b.info.ID, Fields: directory.ChannelFields(p.Channel)}}, nil
}

// publicAlias gives a room's main address, if it has one and anybody may join: which channel a private room is connected
// to is the business of those who are in it.
func (b *Bridge) publicAlias(ctx context.Context, room id.RoomID) (id.RoomAlias, error) {
	var rules event.JoinRulesEventContent
	var canonical event.CanonicalAliasEventContent
	for _, state := range []struct {
		kind event.Type
		into any
	}{{event.StateJoinRules, &rules}, {event.StateCanonicalAlias, &canonical}} {
		err := b.as.Bot().State(ctx, room, state.kind, "", state.into)
		if errors.Is(err, mautrix.MNotFound) || errors.Is(err, mautrix.MForbidden) {
			return "", nil // it is not set, or the bot is not there
		} else if err != nil {
			return "", err
		}
	}
	if rules.JoinRule != event.JoinRulePublic {
		return "", nil
	}
	return canonical.Alias, nil
}

// protocols are what the registration has to list.
func protocols(n Network) []string {
	if _, ok := n.(Directory); ok {
		return []string{n.Info().ID}
	}
	return nil
}
