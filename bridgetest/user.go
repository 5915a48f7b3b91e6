package bridgetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"
)

// User is a person with a client: its methods speak the client-server API over HTTP. They may be called from several
// goroutines at once.
type User struct {
	hs     *Homeserver
	id     id.UserID
	device id.DeviceID
	token  string
	http   *http.Client
	txn    atomic.Int64
	inbox  inbox
	cipher Cipher // nil: none
}

// Error is a refusal by the homeserver.
type Error struct {
	Status  int
	ErrCode string `json:"errcode"`
	Message string `json:"error"`
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.ErrCode, e.Message) }

// User returns the user with this localpart, registered and logged in with one device when this is the first call.
func (hs *Homeserver) User(localpart string) *User {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if u := hs.people[localpart]; u != nil {
		return u
	}
	acc := hs.ensureAccount("@"+localpart+":"+hs.opts.ServerName, nil)
	acc.password = localpart
	s := hs.newSession(acc, "")
	u := &User{
		hs: hs, id: id.UserID(acc.id), device: id.DeviceID(s.device), token: s.token,
		http: hs.Client(),
	}
	u.inbox.init()
	hs.people[localpart] = u
	return u
}

// ID is the full user ID.
func (u *User) ID() id.UserID { return u.id }

// DeviceID is the device of the user's client.
func (u *User) DeviceID() id.DeviceID { return u.device }

// Token is the access token of the user's client, for driving a client of another kind.
func (u *User) Token() string { return u.token }

// Do makes a request: path below /_matrix/client/v3 unless it begins with /_matrix, in as JSON (nil: no body), the
// answer into out (nil: not wanted). A refusal is an *Error.
func (u *User) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	data, _, err := u.raw(ctx, method, path, "application/json", body)
	if err != nil {
		return err
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			return fmt.Errorf("%s %s: reading the answer: %w", method, path, err)
		}
	}
	return nil
}

func (u *User) raw(ctx context.Context, method, path, mime string, body io.Reader) ([]byte, http.Header, error) {
	if !strings.HasPrefix(path, "/_matrix") {
		path = "/_matrix/client/v3/" + path
	}
	req, err := http.NewRequestWithContext(ctx, method, u.hs.url+path, body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+u.token)
	if body != nil {
		req.Header.Set("Content-Type", mime)
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%s as %s: %w", method, u.id, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s as %s: reading the answer: %w", method, path, u.id, err)
	}
	if resp.StatusCode >= 300 {
		e := &Error{Status: resp.StatusCode}
		_ = json.Unmarshal(data, e)
		return nil, nil, fmt.Errorf("%s %s as %s: %w", method, path, u.id, e)
	}
	return data, resp.Header, nil
}

// roomPath escapes its parts into a path below a room.
func roomPath(room id.RoomID, parts ...string) string {
	p := "rooms/" + url.PathEscape(string(room))
	for _, part := range parts {
		p += "/" + url.PathEscape(part)
	}
	return p
}

// RoomOptions say what a new room is like.
type RoomOptions struct {
	Preset  string // "private_chat" (when empty), "trusted_private_chat", "public_chat"
	Name    string
	Topic   string
	Alias   string // localpart of an alias
	Invite  []id.UserID
	Direct  bool
	Encrypt bool
}

// CreateRoom creates a room.
func (u *User) CreateRoom(ctx context.Context, opts RoomOptions) (id.RoomID, error) {
	req := map[string]any{"preset": opts.Preset, "name": opts.Name, "topic": opts.Topic, "room_alias_name": opts.Alias}
	for k, v := range req {
		if v == "" {
			delete(req, k)
		}
	}
	if len(opts.Invite) > 0 {
		req["invite"] = opts.Invite
	}
	if opts.Direct {
		req["is_direct"] = true
	}
	if opts.Encrypt {
		req["initial_state"] = []any{map[string]any{"type": "m.room.encryption", "state_key": "", "content": encryptionContent}}
	}
	var resp struct {
		RoomID id.RoomID `json:"room_id"`
	}
	err := u.Do(ctx, http.MethodPost, "createRoom", req, &resp)
	return resp.RoomID, err
}

var encryptionContent = map[string]any{"algorithm": "m.megolm.v1.aes-sha2"}

// EnableEncryption switches a room's encryption on. The user's own messages stay plain: a User has no keys.
func (u *User) EnableEncryption(ctx context.Context, room id.RoomID) error {
	_, err := u.SendState(ctx, room, "m.room.encryption", "", encryptionContent)
	return err
}

// Join joins a room by its ID or alias.
func (u *User) Join(ctx context.Context, roomIDOrAlias string) (id.RoomID, error) {
	var resp struct {
		RoomID id.RoomID `json:"room_id"`
	}
	err := u.Do(ctx, http.MethodPost, "join/"+url.PathEscape(roomIDOrAlias), struct{}{}, &resp)
	return resp.RoomID, err
}

// Leave leaves a room or declines an invite. The reason may be empty.
func (u *User) Leave(ctx context.Context, room id.RoomID, reason string) error {
	return u.member(ctx, room, "leave", "", reason)
}

// Invite invites a user.
func (u *User) Invite(ctx context.Context, room id.RoomID, user id.UserID) error {
	return u.member(ctx, room, "invite", user, "")
}

// Kick removes a user from a room.
func (u *User) Kick(ctx context.Context, room id.RoomID, user id.UserID, reason string) error {
	return u.member(ctx, room, "kick", user, reason)
}

// Ban bans a user from a room.
func (u *User) Ban(ctx context.Context, room id.RoomID, user id.UserID, reason string) error {
	return u.member(ctx, room, "ban", user, reason)
}

// Unban ends a ban.
func (u *User) Unban(ctx context.Context, room id.RoomID, user id.UserID) error {
	return u.member(ctx, room, "unban", user, "")
}

func (u *User) member(ctx context.Context, room id.RoomID, what string, user id.UserID, reason string) error {
	req := map[string]any{}
	if user != "" {
		req["user_id"] = user
	}
	if reason != "" {
		req["reason"] = reason
	}
	return u.Do(ctx, http.MethodPost, roomPath(room, what), req, nil)
}

// Send sends an event of any type.
func (u *User) Send(ctx context.Context, room id.RoomID, eventType string, content any) (id.EventID, error) {
	if u.cipher != nil {
		var err error
		if eventType, content, err = u.cipher.Seal(ctx, room, eventType, content); err != nil {
			return "", fmt.Errorf("encrypting for %s: %w", room, err)
		}
	}
	return u.put(ctx, roomPath(room, "send", eventType, u.nextTxn()), content)
}

// SendState sends a state event.
func (u *User) SendState(ctx context.Context, room id.RoomID, eventType, stateKey string, content any) (id.EventID, error) {
	return u.put(ctx, roomPath(room, "state", eventType, stateKey), content)
}

func (u *User) put(ctx context.Context, path string, content any) (id.EventID, error) {
	var resp struct {
		EventID id.EventID `json:"event_id"`
	}
	err := u.Do(ctx, http.MethodPut, path, content, &resp)
	return resp.EventID, err
}

func (u *User) nextTxn() string {
	return "m" + strconv.FormatInt(time.Now().UnixMilli(), 10) + "." + strconv.FormatInt(u.txn.Add(1), 10)
}

// SendText sends a message.
func (u *User) SendText(ctx context.Context, room id.RoomID, text string) (id.EventID, error) {
	return u.message(ctx, room, "m.text", text)
}

// SendEmote sends what people write with /me.
func (u *User) SendEmote(ctx context.Context, room id.RoomID, text string) (id.EventID, error) {
	return u.message(ctx, room, "m.emote", text)
}

// SendNotice sends a notice, as bots do.
func (u *User) SendNotice(ctx context.Context, room id.RoomID, text string) (id.EventID, error) {
	return u.message(ctx, room, "m.notice", text)
}

func (u *User) message(ctx context.Context, room id.RoomID, msgType, text string) (id.EventID, error) {
	return u.Send(ctx, room, "m.room.message", map[string]any{"msgtype": msgType, "body": text})
}

// SendReply sends a message that replies to another, without the quoted fallback that clients no longer send.
func (u *User) SendReply(ctx context.Context, room id.RoomID, to id.EventID, text string) (id.EventID, error) {
	return u.Send(ctx, room, "m.room.message", map[string]any{
		"msgtype": "m.text", "body": text,
		"m.relates_to": map[string]any{"m.in_reply_to": map[string]any{"event_id": to}},
	})
}

// SendEdit replaces the text of the user's own message.
func (u *User) SendEdit(ctx context.Context, room id.RoomID, edited id.EventID, text string) (id.EventID, error) {
	return u.Send(ctx, room, "m.room.message", map[string]any{
		"msgtype": "m.text", "body": "* " + text,
		"m.new_content": map[string]any{"msgtype": "m.text", "body": text},
		"m.relates_to":  map[string]any{"rel_type": "m.replace", "event_id": edited},
	})
}

// SendImage uploads an image and sends it.
func (u *User) SendImage(ctx context.Context, room id.RoomID, name, mime string, data []byte) (id.EventID, error) {
	return u.sendMedia(ctx, room, "m.image", name, mime, data)
}

// SendFile uploads a file and sends it.
func (u *User) SendFile(ctx context.Context, room id.RoomID, name, mime string, data []byte) (id.EventID, error) {
	return u.sendMedia(ctx, room, "m.file", name, mime, data)
}

func (u *User) sendMedia(ctx context.Context, room id.RoomID, msgType, name, mime string, data []byte) (id.EventID, error) {
	uri, err := u.Upload(ctx, name, mime, data)
	if err != nil {
		return "", err
	}
	return u.Send(ctx, room, "m.room.message", map[string]any{
		"msgtype": msgType, "body": name, "filename": name, "url": uri.String(),
		"info": map[string]any{"mimetype": mime, "size": len(data)},
	})
}

// Redact removes an event's content.
func (u *User) Redact(ctx context.Context, room id.RoomID, event id.EventID, reason string) (id.EventID, error) {
	content := map[string]any{}
	if reason != "" {
		content["reason"] = reason
	}
	return u.put(ctx, roomPath(room, "redact", string(event), u.nextTxn()), content)
}

// SetTopic sets a room's topic.
func (u *User) SetTopic(ctx context.Context, room id.RoomID, topic string) (id.EventID, error) {
	return u.SendState(ctx, room, "m.room.topic", "", map[string]any{"topic": topic})
}

// SetRoomName sets a room's name.
func (u *User) SetRoomName(ctx context.Context, room id.RoomID, name string) (id.EventID, error) {
	return u.SendState(ctx, room, "m.room.name", "", map[string]any{"name": name})
}

// Typing says that the user types, for at most 30 s, or no longer does.
func (u *User) Typing(ctx context.Context, room id.RoomID, typing bool) error {
	req := map[string]any{"typing": typing}
	if typing {
		req["timeout"] = 30000
	}
	return u.Do(ctx, http.MethodPut, roomPath(room, "typing", string(u.id)), req, nil)
}

// MarkRead sends a public read receipt.
func (u *User) MarkRead(ctx context.Context, room id.RoomID, event id.EventID) error {
	return u.Do(ctx, http.MethodPost, roomPath(room, "receipt", "m.read", string(event)), struct{}{}, nil)
}

// SetDisplayName changes the user's name, in every room.
func (u *User) SetDisplayName(ctx context.Context, name string) error {
	return u.Do(ctx, http.MethodPut, "profile/"+url.PathEscape(string(u.id))+"/displayname", map[string]any{"displayname": name}, nil)
}

// Upload uploads media.
func (u *User) Upload(ctx context.Context, name, mime string, data []byte) (id.ContentURI, error) {
	out, _, err := u.raw(ctx, http.MethodPost, "/_matrix/media/v3/upload?filename="+url.QueryEscape(name), mime, bytes.NewReader(data))
	if err != nil {
		return id.ContentURI{}, err
	}
	var resp struct {
		URI id.ContentURI `json:"content_uri"`
	}
	if err := json.Unmarshal(out, &resp); err != nil {
		return id.ContentURI{}, fmt.Errorf("uploading %s: %w", name, err)
	}
	return resp.URI, nil
}

// Download returns media and its type.
func (u *User) Download(ctx context.Context, uri id.ContentURI) (data []byte, mime string, err error) {
	data, header, err := u.raw(ctx, http.MethodGet, "/_matrix/client/v1/media/download/"+url.PathEscape(uri.Homeserver)+"/"+url.PathEscape(uri.FileID), "", nil)
	if err != nil {
		return nil, "", err
	}
	return data, header.Get("Content-Type"), nil
}

// State reads a state event's content into out.
func (u *User) State(ctx context.Context, room id.RoomID, eventType, stateKey string, out any) error {
	return u.Do(ctx, http.MethodGet, roomPath(room, "state", eventType, stateKey), nil, out)
}

// Members returns the membership of everyone who ever had one in the room.
func (u *User) Members(ctx context.Context, room id.RoomID) (map[id.UserID]string, error) {
	var resp struct {
		Chunk []json.RawMessage `json:"chunk"`
	}
	if err := u.Do(ctx, http.MethodGet, roomPath(room, "members"), nil, &resp); err != nil {
		return nil, err
	}
	out := make(map[id.UserID]string)
	for _, raw := range resp.Chunk {
		ev, err := parseEvent(raw, room)
		if err != nil {
			return nil, fmt.Errorf("members of %s: %w", room, err)
		}
		out[ev.Target()] = ev.Membership()
	}
	return out, nil
}

// Timeline returns all events of a room that the user may see, oldest first.
func (u *User) Timeline(ctx context.Context, room id.RoomID) ([]Event, error) {
	var out []Event
	from := ""
	for {
		var resp struct {
			Chunk []json.RawMessage `json:"chunk"`
			End   string            `json:"end"`
		}
		path := roomPath(room, "messages") + "?dir=f&limit=500"
		if from != "" {
			path += "&from=" + url.QueryEscape(from)
		}
		if err := u.Do(ctx, http.MethodGet, path, nil, &resp); err != nil {
			return nil, err
		}
		for _, raw := range resp.Chunk {
			ev, err := parseEvent(raw, room)
			if err != nil {
				return nil, fmt.Errorf("timeline of %s: %w", room, err)
			}
			out = append(out, u.open(ev))
		}
		if resp.End == "" || len(resp.Chunk) == 0 {
			return out, nil
		}
		from = resp.End
	}
}

// IsErrCode tells whether err is a refusal by the homeserver with this code, such as "M_FORBIDDEN".
func IsErrCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.ErrCode == code
}
