package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

func (i *Intent) setMember(ctx context.Context, room id.RoomID, user id.UserID, membership string) error {
	err := i.as.store.Commit(ctx, i.as.epoch, func(tx *store.Tx) error {
		return i.as.setMember(tx, string(room), string(user), membership)
	})
	if err != nil {
		return fmt.Errorf("write the membership of %s in %s: %w", user, room, err)
	}
	return nil
}

func (i *Intent) isMember(ctx context.Context, room id.RoomID) (bool, error) {
	membership, err := i.as.store.Member(ctx, string(room), string(i.user))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, fmt.Errorf("read the membership of %s in %s: %w", i.user, room, i.as.explain(err))
	}
	return membership == "join", nil
}

// needsInvitation says whether the user can come into a room only when the bot invites it, as far as the room's state tells.
func (i *Intent) needsInvitation(ctx context.Context, room id.RoomID) (bool, error) {
	bot := i.as.Bot()
	if i == bot {
		return false, nil
	}
	membership, err := i.as.store.Member(ctx, string(room), string(i.user))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, fmt.Errorf("read the membership of %s in %s: %w", i.user, room, err)
	}
	if in, err := bot.isMember(ctx, room); err != nil || !in || membership == "invite" {
		return false, err
	}
	content, err := bot.knownState(ctx, room, event.StateJoinRules)
	if errorStatus(err) == http.StatusForbidden { // the bot is not in the room: who wants to come in will find out
		return false, nil
	}
	var rules event.JoinRulesEventContent
	if err == nil && content != nil {
		err = json.Unmarshal(content, &rules, lenient)
	}
	return rules.JoinRule == event.JoinRuleInvite, err
}

// EnsureJoined brings the user into a room: directly where the room's state allows that, else by an invitation from the bot,
// and so too where joining turns out to be forbidden. A room that the bridge did not know is read: see [Intent.PowerLevels].
func (i *Intent) EnsureJoined(ctx context.Context, room id.RoomID) error {
	if in, err := i.isMember(ctx, room); err != nil || in {
		return err
	}
	unlock, err := i.as.locks.Lock(ctx, string(i.user)+" "+string(room))
	if err != nil {
		return err
	}
	defer unlock()
	if in, err := i.isMember(ctx, room); err != nil || in {
		return err
	}
	invite, err := i.needsInvitation(ctx, room)
	if err != nil {
		return err
	}
	if invite {
		if err := i.EnsureRegistered(ctx); err != nil {
			return err
		}
		// Forbidden is what the bot may not, and an invitation for who is in the room; the join tells.
		if err := i.as.Bot().Invite(ctx, room, i.user); err != nil && errorStatus(err) != http.StatusForbidden {
			return err
		}
	}
	err = i.registered(ctx, func() error {
		_, err := i.client("").JoinRoom(withRepeat(ctx), room.String(), nil)
		return err
	})
	if errorStatus(err) == http.StatusForbidden && !isRefusal(err) && i.user != i.as.botID && !invite {
		if inviteErr := i.as.Bot().Invite(ctx, room, i.user); inviteErr != nil {
			return fmt.Errorf("join %s as %s: %w, and the bot cannot invite: %w", room, i.user, i.as.explain(err), inviteErr)
		}
		_, err = i.client("").JoinRoom(withRepeat(ctx), room.String(), nil)
	}
	if err != nil {
		return fmt.Errorf("join %s as %s: %w", room, i.user, i.as.explain(err))
	}
	return i.joined(ctx, room)
}

// joined reads a room that the user has just come into, if the bridge does not know it, and writes down that the user is
// in: in this order, so that after a crash between the two it is read. The bot always reads it: nobody may have been there
// whose events the bridge got.
func (i *Intent) joined(ctx context.Context, room id.RoomID) error {
	if err := i.readRoom(ctx, room, i.user == i.as.botID); err != nil {
		return err
	}
	return i.setMember(ctx, room, i.user, "join")
}

// JoinByIDOrAlias joins a room by its ID or an alias, through the servers of via if there are any, and returns its ID.
func (i *Intent) JoinByIDOrAlias(ctx context.Context, roomOrAlias string, via ...string) (id.RoomID, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return "", err
	}
	resp, err := i.client("").JoinRoom(withRepeat(ctx), roomOrAlias, &mautrix.ReqJoinRoom{Via: via})
	if err != nil {
		return "", fmt.Errorf("join %s as %s: %w", roomOrAlias, i.user, i.as.explain(err))
	}
	if in, err := i.isMember(ctx, resp.RoomID); err != nil || in {
		return resp.RoomID, err
	}
	return resp.RoomID, i.joined(ctx, resp.RoomID)
}

// ResolveAlias gives the room that an alias leads to. The error is M_NOT_FOUND when it leads nowhere.
func (i *Intent) ResolveAlias(ctx context.Context, alias id.RoomAlias) (id.RoomID, error) {
	resp, err := i.client("").ResolveAlias(ctx, alias)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", alias, i.as.explain(err))
	}
	return resp.RoomID, nil
}

// Leave leaves a room. reason may be empty.
func (i *Intent) Leave(ctx context.Context, room id.RoomID, reason string) error {
	if err := i.EnsureRegistered(ctx); err != nil {
		return err
	}
	if _, err := i.client("").LeaveRoom(withRepeat(ctx), room, &mautrix.ReqLeave{Reason: reason}); err != nil {
		return fmt.Errorf("leave %s as %s: %w", room, i.user, i.as.explain(err))
	}
	return i.setMember(ctx, room, i.user, "leave")
}

// CreateRoom creates a room with the user in it. It is not idempotent: after an error the room may be there. [Intent.CreateRoomOnce] is.
func (i *Intent) CreateRoom(ctx context.Context, req *mautrix.ReqCreateRoom) (id.RoomID, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return "", err
	}
	resp, err := i.client("").CreateRoom(ctx, req)
	if err != nil {
		return "", fmt.Errorf("create a room as %s: %w", i.user, i.as.explain(err))
	}
	return resp.RoomID, i.setMember(ctx, resp.RoomID, i.user, "join")
}

// Invite invites somebody to a room that the user is in, or comes into first.
func (i *Intent) Invite(ctx context.Context, room id.RoomID, user id.UserID) error {
	if err := i.EnsureJoined(ctx, room); err != nil {
		return err
	}
	if _, err := i.client("").InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: user}); err != nil {
		return fmt.Errorf("invite %s to %s as %s: %w", user, room, i.user, i.as.explain(err))
	}
	return nil
}

// Kick removes somebody from a room. reason may be empty.
func (i *Intent) Kick(ctx context.Context, room id.RoomID, user id.UserID, reason string) error {
	if err := i.EnsureJoined(ctx, room); err != nil {
		return err
	}
	if _, err := i.client("").KickUser(ctx, room, &mautrix.ReqKickUser{UserID: user, Reason: reason}); err != nil {
		return fmt.Errorf("kick %s from %s as %s: %w", user, room, i.user, i.as.explain(err))
	}
	return nil
}

// Typing says that the user types, for timeout at most, or no longer does.
func (i *Intent) Typing(ctx context.Context, room id.RoomID, typing bool, timeout time.Duration) error {
	if err := i.EnsureJoined(ctx, room); err != nil {
		return err
	}
	if _, err := i.client("").UserTyping(ctx, room, typing, timeout); err != nil {
		return fmt.Errorf("typing in %s as %s: %w", room, i.user, i.as.explain(err))
	}
	return nil
}

// State reads one piece of a room's state into out. When there is none, errors.Is(err, mautrix.MNotFound).
func (i *Intent) State(ctx context.Context, room id.RoomID, evType event.Type, stateKey string, out any) error {
	if err := i.EnsureRegistered(ctx); err != nil {
		return err
	}
	if err := i.client("").StateEvent(ctx, room, evType, stateKey, out); err != nil {
		return fmt.Errorf("read %s of %s as %s: %w", evType.Type, room, i.user, i.as.explain(err))
	}
	return nil
}

// Members asks the homeserver who is in a room that the user is in.
func (i *Intent) Members(ctx context.Context, room id.RoomID) (map[id.UserID]mautrix.JoinedMember, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	resp, err := i.client("").JoinedMembers(ctx, room)
	if err != nil {
		return nil, fmt.Errorf("read the members of %s as %s: %w", room, i.user, i.as.explain(err))
	}
	return resp.Joined, nil
}
