//go:build goolm

package olmclient

import (
	"context"
	"fmt"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// CreateRoom makes a room that is encrypted from the start and that whoever knows its ID can join.
func (c *Client) CreateRoom(name string, invite ...id.UserID) (room id.RoomID) {
	c.tb.Helper()
	c.act("creating a room", func(ctx context.Context) error {
		answer, err := c.Matrix.CreateRoom(ctx, &mautrix.ReqCreateRoom{
			Name: name, Preset: "public_chat", Invite: invite,
			InitialState: []*event.Event{{Type: event.StateEncryption, Content: event.Content{Raw: map[string]any{"algorithm": id.AlgorithmMegolmV1}}}},
		})
		if err == nil {
			room = answer.RoomID
		}
		return err
	})
	c.WaitUntil("its own room", func() bool { return c.in(room) })
	return room
}

// Encrypt switches a room's encryption on, and waits until the client has seen it.
func (c *Client) Encrypt(room id.RoomID) {
	c.tb.Helper()
	c.act("switching encryption on", func(ctx context.Context) error {
		_, err := c.Matrix.SendStateEvent(ctx, room, event.StateEncryption, "", map[string]any{"algorithm": id.AlgorithmMegolmV1})
		return err
	})
	c.WaitFor("the room's encryption", func(ev *Event) bool { return ev.Room == room && ev.Type == event.StateEncryption.Type })
}

// Join enters a room, and waits until the client has seen it.
func (c *Client) Join(room id.RoomID) {
	c.tb.Helper()
	c.act("joining "+string(room), func(ctx context.Context) error {
		_, err := c.Matrix.JoinRoom(ctx, string(room), nil)
		return err
	})
	c.WaitUntil("the room it joined", func() bool { return c.in(room) })
}

// Leave leaves a room.
func (c *Client) Leave(room id.RoomID) {
	c.tb.Helper()
	c.act("leaving "+string(room), func(ctx context.Context) error {
		_, err := c.Matrix.LeaveRoom(ctx, room)
		return err
	})
}

// Invite invites somebody.
func (c *Client) Invite(room id.RoomID, user id.UserID) {
	c.tb.Helper()
	c.act("inviting "+string(user), func(ctx context.Context) error {
		_, err := c.Matrix.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: user})
		return err
	})
}

// Say sends text, encrypted where the room is.
func (c *Client) Say(room id.RoomID, text string) id.EventID {
	c.tb.Helper()
	return c.Send(room, event.EventMessage, map[string]any{"msgtype": "m.text", "body": text})
}

// Send sends an event, encrypted where the room is. Reactions stay in the clear, as everywhere.
func (c *Client) Send(room id.RoomID, kind event.Type, content map[string]any) (sent id.EventID) {
	c.tb.Helper()
	c.act("sending to "+string(room), func(ctx context.Context) (err error) {
		sent, err = c.send(ctx, room, kind, content)
		return err
	})
	return sent
}

func (c *Client) send(ctx context.Context, room id.RoomID, kind event.Type, content any) (id.EventID, error) {
	kind, content, err := c.Seal(ctx, room, kind, content)
	if err != nil {
		return "", err
	}
	answer, err := c.Matrix.SendMessageEvent(ctx, room, kind, content, mautrix.ReqSendEvent{DontEncrypt: true})
	if err != nil {
		return "", err
	}
	return answer.EventID, nil
}

// Seal encrypts an event where the room is, unless it is one that never is, and gives what to send.
func (c *Client) Seal(ctx context.Context, room id.RoomID, kind event.Type, content any) (event.Type, any, error) {
	encrypted, err := c.state.IsEncrypted(ctx, room)
	if err != nil || !encrypted || kind == event.EventReaction || kind == event.EventRedaction {
		return kind, content, err
	}
	sealed, err := c.encrypt(ctx, room, kind, content)
	if err != nil {
		return kind, nil, fmt.Errorf("encrypting: %w", err)
	}
	return event.EventEncrypted, sealed, nil
}

// encrypt gives the members the key first, when there is none that they have.
func (c *Client) encrypt(ctx context.Context, room id.RoomID, kind event.Type, content any) (*event.EncryptedEventContent, error) {
	c.using.Lock()
	defer c.using.Unlock()
	sealed, err := c.machine.EncryptMegolmEvent(ctx, room, kind, content)
	if err == nil {
		return sealed, nil
	}
	users, err := c.state.GetRoomJoinedOrInvitedMembers(ctx, room)
	if err != nil {
		return nil, err
	}
	if err := c.machine.ShareGroupSession(ctx, room, users); err != nil {
		return nil, err
	}
	return c.machine.EncryptMegolmEvent(ctx, room, kind, content)
}

// Verify signs users' cross-signing keys, as after a comparison of emoji: their devices are trusted from then on as verified ones.
func (c *Client) Verify(users ...id.UserID) {
	c.tb.Helper()
	c.act("verifying", func(ctx context.Context) error {
		c.using.Lock()
		defer c.using.Unlock()
		if _, err := c.machine.FetchKeys(ctx, users, true); err != nil {
			return err
		}
		for _, user := range users {
			keys, err := c.machine.GetCrossSigningPublicKeys(ctx, user)
			if err != nil {
				return err
			}
			if keys == nil {
				return fmt.Errorf("%s has no cross-signing keys", user)
			}
			if err := c.machine.SignUser(ctx, user, keys.MasterKey); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forget makes the next message begin with a new room key.
func (c *Client) Forget(room id.RoomID) {
	c.tb.Helper()
	c.act("forgetting the key of "+string(room), func(ctx context.Context) error {
		c.using.Lock()
		defer c.using.Unlock()
		return c.machine.CryptoStore.RemoveOutboundGroupSession(ctx, room)
	})
}

// OneTimeKeys asks how many one-time keys the homeserver holds for the device.
func (c *Client) OneTimeKeys(ctx context.Context) (int, error) {
	answer, err := c.Matrix.UploadKeys(ctx, &mautrix.ReqUploadKeys{})
	if err != nil {
		return 0, err
	}
	return answer.OneTimeKeyCounts.SignedCurve25519, nil
}
