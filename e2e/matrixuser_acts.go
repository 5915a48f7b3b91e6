package e2e

import (
	"context"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// act runs a request with a time limit and fails the test when it fails.
func (u *MatrixUser) act(what string, request func(ctx context.Context) error) {
	u.tb.Helper()
	ctx, cancel := context.WithTimeout(u.tb.Context(), patience)
	defer cancel()
	if err := request(ctx); err != nil {
		u.tb.Fatalf("%s: %s: %v", u.ID, what, err)
	}
}

// CreateRoom makes a room that whoever knows its ID can join.
func (u *MatrixUser) CreateRoom(name string, invite ...id.UserID) (room id.RoomID) {
	u.tb.Helper()
	u.act("creating a room", func(ctx context.Context) error {
		resp, err := u.Client.CreateRoom(ctx, &mautrix.ReqCreateRoom{Name: name, Preset: "public_chat", Invite: invite})
		if err == nil {
			room = resp.RoomID
		}
		return err
	})
	return room
}

// CreateEncryptedRoom makes a room that is encrypted from the start.
func (u *MatrixUser) CreateEncryptedRoom(name string, invite ...id.UserID) (room id.RoomID) {
	u.tb.Helper()
	u.act("creating an encrypted room", func(ctx context.Context) error {
		resp, err := u.Client.CreateRoom(ctx, &mautrix.ReqCreateRoom{
			Name: name, Preset: "private_chat", Invite: invite,
			InitialState: []*event.Event{{
				Type:    event.StateEncryption,
				Content: event.Content{Raw: map[string]any{"algorithm": id.AlgorithmMegolmV1}},
			}},
		})
		if err == nil {
			room = resp.RoomID
		}
		return err
	})
	return room
}

// SendCiphertext sends an encrypted event that nobody has the key of.
func (u *MatrixUser) SendCiphertext(room id.RoomID) {
	u.tb.Helper()
	u.act("sending ciphertext", func(ctx context.Context) error {
		_, err := u.Client.SendMessageEvent(ctx, room, event.EventEncrypted, map[string]any{
			"algorithm": id.AlgorithmMegolmV1, "ciphertext": "AwgAEnACgAkLmt6qF84IK", "session_id": "none",
			"sender_key": "none", "device_id": u.Client.DeviceID,
		}, mautrix.ReqSendEvent{DontEncrypt: true})
		return err
	})
}

// Join enters a room by ID or alias.
func (u *MatrixUser) Join(room string) {
	u.tb.Helper()
	u.act("joining "+room, func(ctx context.Context) error {
		_, err := u.Client.JoinRoom(ctx, room, nil)
		return err
	})
}

// Leave leaves a room.
func (u *MatrixUser) Leave(room id.RoomID, reason string) {
	u.tb.Helper()
	u.act("leaving "+room.String(), func(ctx context.Context) error {
		_, err := u.Client.LeaveRoom(ctx, room, &mautrix.ReqLeave{Reason: reason})
		return err
	})
}

// Invite invites a user to a room.
func (u *MatrixUser) Invite(room id.RoomID, user id.UserID) {
	u.tb.Helper()
	u.act("inviting "+user.String(), func(ctx context.Context) error {
		_, err := u.Client.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: user})
		return err
	})
}

// Send sends a message event whose content is exactly as given.
func (u *MatrixUser) Send(room id.RoomID, content map[string]any) (sent id.EventID) {
	u.tb.Helper()
	u.act("sending to "+room.String(), func(ctx context.Context) error {
		resp, err := u.Client.SendMessageEvent(ctx, room, event.EventMessage, content)
		if err == nil {
			sent = resp.EventID
		}
		return err
	})
	return sent
}

// Say sends plain text.
func (u *MatrixUser) Say(room id.RoomID, text string) id.EventID {
	u.tb.Helper()
	return u.Send(room, map[string]any{"msgtype": "m.text", "body": text})
}

// Reply answers an event, as clients do now: without a quotation in the text.
func (u *MatrixUser) Reply(room id.RoomID, to id.EventID, text string) id.EventID {
	u.tb.Helper()
	return u.Send(room, map[string]any{
		"msgtype": "m.text", "body": text,
		"m.relates_to": map[string]any{"m.in_reply_to": map[string]any{"event_id": to}},
	})
}

// SetState sends a state event whose content is exactly as given.
func (u *MatrixUser) SetState(room id.RoomID, kind event.Type, key string, content map[string]any) {
	u.tb.Helper()
	u.act("setting "+kind.Type, func(ctx context.Context) error {
		_, err := u.Client.SendStateEvent(ctx, room, kind, key, content)
		return err
	})
}

// Upload puts a file on the homeserver.
func (u *MatrixUser) Upload(data []byte, mime, name string) (uri id.ContentURI) {
	u.tb.Helper()
	u.act("uploading "+name, func(ctx context.Context) error {
		resp, err := u.Client.UploadBytesWithName(ctx, data, mime, name)
		if err == nil {
			uri = resp.ContentURI
		}
		return err
	})
	return uri
}

// Topic asks the homeserver for a room's topic.
func (u *MatrixUser) Topic(room id.RoomID) string {
	u.tb.Helper()
	var content struct {
		Topic string `json:"topic"`
	}
	u.act("reading the topic", func(ctx context.Context) error {
		return u.Client.StateEvent(ctx, room, event.StateTopic, "", &content)
	})
	return content.Topic
}

// Members asks the homeserver who is in a room.
func (u *MatrixUser) Members(room id.RoomID) (joined map[id.UserID]string) {
	u.tb.Helper()
	u.act("reading the members", func(ctx context.Context) error {
		resp, err := u.Client.JoinedMembers(ctx, room)
		if err != nil {
			return err
		}
		joined = map[id.UserID]string{}
		for user, member := range resp.Joined {
			joined[user] = member.DisplayName
		}
		return nil
	})
	return joined
}
