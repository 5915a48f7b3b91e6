package bridgetest_test

import (
	"bytes"
	"image"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestGhost_WithMautrixClient_SpeaksInARoom(t *testing.T) {
	w := start(t)
	alice := w.hs.User("alice")
	ghost := w.ghost("demo_bob")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Name: "Lobby", Topic: "tea", Invite: []id.UserID{ghost.UserID}}))(w)

	w.no(ghost.SetDisplayName(w.ctx, "Bob"))
	must(ghost.JoinRoomByID(w.ctx, room))(w)
	// The invite and the join are in the timeline, with the name at that time.
	joined := must(alice.WaitFor(w.ctx, room, bridgetest.Member(ghost.UserID, "join")))(w)
	w.is(joined.Content["displayname"], "Bob")

	sent := must(ghost.SendMessageEvent(w.ctx, room, event.EventMessage, &event.MessageEventContent{MsgType: event.MsgText, Body: "hello"}))(w)
	got := must(alice.WaitFor(w.ctx, room, bridgetest.Message(ghost.UserID, "hello")))(w)
	w.is(got.ID, sent.EventID)

	must(ghost.UserTyping(w.ctx, room, true, 10*time.Second))(w)
	typing := must(alice.WaitFor(w.ctx, room, bridgetest.OfType("m.typing")))(w)
	w.is(typing.TypingUsers(), []id.UserID{ghost.UserID})
	w.no(ghost.MarkRead(w.ctx, room, sent.EventID))
	must(alice.WaitFor(w.ctx, room, bridgetest.OfType("m.receipt")))(w)

	members := must(ghost.JoinedMembers(w.ctx, room))(w)
	if len(members.Joined) != 2 {
		t.Fatalf("joined members: %v", members.Joined)
	}
	var name event.RoomNameEventContent
	w.no(ghost.StateEvent(w.ctx, room, event.StateRoomName, "", &name))
	w.is(name.Name, "Lobby")

	redacted := must(ghost.RedactEvent(w.ctx, room, sent.EventID))(w)
	seen := must(alice.WaitFor(w.ctx, room, bridgetest.OfType("m.room.redaction")))(w)
	w.is(seen.ID, redacted.EventID)
	w.is(seen.Redacts, sent.EventID)
	timeline := must(alice.Timeline(w.ctx, room))(w)
	for _, ev := range timeline {
		if ev.ID == sent.EventID && len(ev.Content) != 0 {
			t.Fatalf("the redacted event still has content %v", ev.Content)
		}
	}
}

func TestSync_WithMautrixSyncer_DeliversTimeline(t *testing.T) {
	w := start(t)
	alice, bob := w.hs.User("alice"), w.hs.User("bob")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat"}))(w)
	client, err := mautrix.NewClient(w.hs.URL(), bob.ID(), bob.Token())
	w.no(err)
	client.Client = &http.Client{Transport: &http.Transport{}}
	defer client.Client.CloseIdleConnections()
	first := must(client.SyncRequest(w.ctx, 0, "", "", false, ""))(w)
	must(client.JoinRoomByID(w.ctx, room))(w)
	must(alice.SendText(w.ctx, room, "hi bob"))(w)
	second := must(client.SyncRequest(w.ctx, 1000, first.NextBatch, "", false, ""))(w)
	events := second.Rooms.Join[room].Timeline.Events
	last := events[len(events)-1]
	w.no(last.Content.ParseRaw(last.Type))
	w.is(last.Content.AsMessage().Body, "hi bob")
	third := must(client.SyncRequest(w.ctx, 0, second.NextBatch, "", false, ""))(w)
	w.is(len(third.Rooms.Join), 0)
}

func TestSync_MoreEventsThanTheLimit_SaysLimitedAndGivesTheStateBetween(t *testing.T) {
	w := start(t)
	alice := w.hs.User("alice")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{}))(w)
	_, first := w.request(alice.Token(), "GET", "sync", "")
	must(alice.SetTopic(w.ctx, room, "lost in the gap"))(w)
	for range 12 {
		must(alice.SendText(w.ctx, room, "x"))(w)
	}
	since, _ := first["next_batch"].(string)
	var answer struct {
		Rooms struct {
			Join map[id.RoomID]mautrix.SyncJoinedRoom
		}
	}
	w.no(alice.Do(w.ctx, "GET", "sync?since="+since, nil, &answer))
	got := answer.Rooms.Join[room]
	if !got.Timeline.Limited || len(got.Timeline.Events) != 10 || len(got.State.Events) != 1 || got.State.Events[0].Type.Type != "m.room.topic" {
		t.Fatalf("limited %v, %d events, state %v", got.Timeline.Limited, len(got.Timeline.Events), got.State.Events)
	}
	// What is missing can be read backwards from prev_batch.
	before := must(must(mautrix.NewClient(w.hs.URL(), alice.ID(), alice.Token()))(w).Messages(w.ctx, room, got.Timeline.PrevBatch, "", mautrix.DirectionBackward, nil, 3))(w)
	w.is(len(before.Chunk), 3)
	w.is(before.Chunk[2].Type.Type, "m.room.topic")
	http.DefaultClient.CloseIdleConnections()
}

func TestMessages_PagesBothWays_MeetEveryEventOnce(t *testing.T) {
	w := start(t)
	ghost := w.ghost("demo_bob")
	room := must(ghost.CreateRoom(w.ctx, &mautrix.ReqCreateRoom{}))(w).RoomID
	for range 25 {
		must(ghost.SendText(w.ctx, room, "x"))(w)
	}
	for _, dir := range []mautrix.Direction{mautrix.DirectionForward, mautrix.DirectionBackward} {
		seen := make(map[id.EventID]bool)
		for from := ""; ; {
			page := must(ghost.Messages(w.ctx, room, from, "", dir, nil, 7))(w)
			for _, ev := range page.Chunk {
				if seen[ev.ID] {
					t.Fatalf("%c: %s came twice", dir, ev.ID)
				}
				seen[ev.ID] = true
			}
			if from = page.End; from == "" {
				break
			}
		}
		w.is(len(seen), 25+6) // create, join, power levels, join rules, history visibility, guest access
	}
	only := must(ghost.Messages(w.ctx, room, "", "", mautrix.DirectionBackward, &mautrix.FilterPart{
		Types: []event.Type{event.StateCreate}, Senders: []id.UserID{ghost.UserID},
	}, 50))(w)
	w.is(len(only.Chunk), 1)
}

func TestMedia_UploadAndDownload_AreTheSameBytes(t *testing.T) {
	w := start(t)
	ghost := w.ghost("demo_bob")
	var picture bytes.Buffer
	w.no(png.Encode(&picture, image.NewRGBA(image.Rect(0, 0, 60, 40))))
	up := must(ghost.UploadMedia(w.ctx, mautrix.ReqUploadMedia{ContentBytes: picture.Bytes(), ContentType: "image/png", FileName: "a.png"}))(w)
	w.is(must(ghost.DownloadBytes(w.ctx, up.ContentURI))(w), picture.Bytes())
	data, mime, err := w.hs.User("alice").Download(w.ctx, up.ContentURI)
	w.no(err)
	w.is(mime, "image/png")
	w.is(data, picture.Bytes())

	path := w.hs.URL() + "/_matrix/client/v1/media/download/" + up.ContentURI.Homeserver + "/" + up.ContentURI.FileID
	get := func(method, url string, header ...string) *http.Response {
		req, err := http.NewRequestWithContext(w.ctx, method, url, nil)
		w.no(err)
		req.Header.Set("Authorization", "Bearer as-token")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		w.no(err)
		t.Cleanup(func() { _ = resp.Body.Close(); http.DefaultClient.CloseIdleConnections() })
		return resp
	}
	ranged := get("GET", path, "Range", "bytes=0-9")
	all, err := io.ReadAll(ranged.Body)
	w.no(err)
	w.is([]any{ranged.StatusCode, len(all), ranged.Header.Get("ETag"), ranged.Header.Get("Content-Disposition")}, []any{200, picture.Len(), "1", "inline; filename=a.png"})
	w.is(get("GET", path, "If-None-Match", "1").StatusCode, 304)
	head := get("HEAD", path)
	w.is([]any{head.StatusCode, head.ContentLength}, []any{200, picture.Len()})

	thumb := get("GET", w.hs.URL()+"/_matrix/client/v1/media/thumbnail/"+up.ContentURI.Homeserver+"/"+up.ContentURI.FileID+"?width=30&height=30")
	small, err := png.Decode(thumb.Body)
	w.no(err)
	w.is(small.Bounds().Max, image.Pt(30, 20))

	w.expect("GET", "/_matrix/client/v1/media/download/hs.test/nosuch", "", 404, "M_NOT_FOUND")
	w.expect("GET", "/_matrix/media/v3/download/hs.test/"+up.ContentURI.FileID, "", 404, "M_NOT_FOUND")
	w.expect("GET", "/_matrix/client/v1/media/download/other.test/x", "", 403, "M_FORBIDDEN")
	status, answer := w.request("", "GET", "/_matrix/client/v1/media/download/hs.test/"+up.ContentURI.FileID, "")
	w.is([]any{status, answer["errcode"]}, []any{401, "M_MISSING_TOKEN"})
}

func TestMedia_OverTheLimit_IsRefused_AndOverWhatSynapseReadsGetsNoAnswer(t *testing.T) {
	w := startWith(t, bridgetest.Options{MaxUpload: 1000})
	if _, err := w.hs.User("alice").Upload(w.ctx, "big", "image/png", make([]byte, 1001)); !bridgetest.IsErrCode(err, "M_TOO_LARGE") {
		t.Fatalf("got %v, want M_TOO_LARGE", err)
	}
	if _, err := w.hs.User("alice").Upload(w.ctx, "huge", "image/png", make([]byte, 200*65536+1)); err == nil || bridgetest.IsErrCode(err, "M_TOO_LARGE") {
		t.Fatalf("got %v, want a broken connection", err)
	}
	must(w.hs.User("alice").Upload(w.ctx, "small", "image/png", make([]byte, 1000)))(w)
}

func TestMedia_CreatedBeforeUploaded_WaitsForIt(t *testing.T) {
	w := start(t)
	ghost := w.ghost("demo_bob")
	made := must(ghost.CreateMXC(w.ctx))(w)
	path := "/_matrix/client/v1/media/download/hs.test/" + made.ContentURI.FileID
	w.expect("GET", path+"?timeout_ms=1", "", 504, "M_NOT_YET_UPLOADED")
	put := "/_matrix/media/v3/upload/hs.test/" + made.ContentURI.FileID
	w.expect("PUT", put, "{}", 403, "M_FORBIDDEN") // by the bot, who did not create it
	w.expect("PUT", put+"?user_id=@demo_bob:hs.test", "{}", 200, "")
	w.expect("PUT", put+"?user_id=@demo_bob:hs.test", "{}", 409, "M_CANNOT_OVERWRITE_MEDIA")
	w.expect("GET", path, "", 200, "")
}

func TestWaitFor_SameTextTwice_FindsBothAndWaitersHelpEachOther(t *testing.T) {
	w := start(t)
	alice, bob := w.hs.User("alice"), w.hs.User("bob")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat", Alias: "tea"}))(w)
	w.is(must(bob.Join(w.ctx, "#tea:hs.test"))(w), room)
	one := must(alice.SendText(w.ctx, room, "again"))(w)
	two := must(alice.SendText(w.ctx, room, "again"))(w)
	w.is(must(bob.WaitFor(w.ctx, room, bridgetest.Text("again")))(w).ID, one)
	w.is(must(bob.WaitFor(w.ctx, room, bridgetest.Text("again")))(w).ID, two)

	first := make(chan error, 1)
	go func() {
		_, err := bob.WaitFor(w.ctx, room, bridgetest.Text("last"))
		first <- err
	}()
	must(alice.SendText(w.ctx, room, "middle"))(w)
	must(bob.WaitFor(w.ctx, room, bridgetest.Text("middle")))(w)
	must(alice.SendText(w.ctx, room, "last"))(w)
	w.no(<-first)
}

func TestInvite_IsSeenOnce_AndCanBeDeclined(t *testing.T) {
	w := start(t)
	alice, bob := w.hs.User("alice"), w.hs.User("bob")
	one := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Invite: []id.UserID{bob.ID()}}))(w)
	w.is(must(bob.WaitForInvite(w.ctx))(w), one)
	must(bob.Join(w.ctx, string(one)))(w)
	// With the join comes the room's history, the old invite in it.
	must(bob.WaitFor(w.ctx, one, bridgetest.Member(bob.ID(), "join")))(w)
	two := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Invite: []id.UserID{bob.ID()}, Direct: true}))(w)
	w.is(must(bob.WaitForInvite(w.ctx))(w), two)
	w.no(bob.Leave(w.ctx, two, "no thanks"))
	must(alice.WaitFor(w.ctx, two, bridgetest.Member(bob.ID(), "leave")))(w)
}

func TestRules_OfMembershipAndPower_AreKept(t *testing.T) {
	w := start(t)
	alice, bob, eve := w.hs.User("alice"), w.hs.User("bob"), w.hs.User("eve")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{}))(w)
	forbidden := func(what string, err error) {
		t.Helper()
		if !bridgetest.IsErrCode(err, "M_FORBIDDEN") {
			t.Errorf("%s: got %v, want M_FORBIDDEN", what, err)
		}
	}
	_, err := bob.SendText(w.ctx, room, "x")
	forbidden("sending into a room one is not in", err)
	_, err = bob.Join(w.ctx, string(room))
	forbidden("joining without an invite", err)
	forbidden("inviting into a room one is not in", bob.Invite(w.ctx, room, eve.ID()))
	w.no(alice.Invite(w.ctx, room, bob.ID()))
	must(bob.Join(w.ctx, string(room)))(w)
	forbidden("inviting somebody who is there", alice.Invite(w.ctx, room, bob.ID()))
	_, err = bob.SetTopic(w.ctx, room, "mine")
	forbidden("state without power", err)
	forbidden("kicking without power", bob.Kick(w.ctx, room, alice.ID(), ""))
	mine := must(alice.SendText(w.ctx, room, "hers"))(w)
	_, err = bob.Redact(w.ctx, room, mine, "")
	forbidden("redacting another's message without power", err)
	_, err = bob.Send(w.ctx, room, "m.room.redaction", map[string]any{"redacts": mine})
	forbidden("the same as an event", err)
	_, err = bob.SendState(w.ctx, room, "m.room.power_levels", "", map[string]any{"users": map[string]any{string(bob.ID()): 100}})
	forbidden("taking power", err)
	levels := func(bobs int) map[string]any {
		return map[string]any{"users": map[string]any{string(alice.ID()): 100, string(bob.ID()): bobs}}
	}
	must(alice.SendState(w.ctx, room, "m.room.power_levels", "", levels(50)))(w)
	_, err = bob.SendState(w.ctx, room, "m.room.power_levels", "", levels(51))
	forbidden("giving oneself more power than one has", err)
	_, err = bob.SendState(w.ctx, room, "m.room.power_levels", "", map[string]any{"users": map[string]any{string(bob.ID()): 50}})
	forbidden("taking power from somebody with more", err)
	his := must(bob.SendText(w.ctx, room, "his"))(w)
	must(alice.Redact(w.ctx, room, his, "rude"))(w)
	w.no(alice.Ban(w.ctx, room, bob.ID(), "enough"))
	_, err = bob.SendText(w.ctx, room, "x")
	forbidden("sending when banned", err)
	if err := alice.Invite(w.ctx, room, bob.ID()); err == nil || !strings.Contains(err.Error(), "403 M_BAD_STATE") {
		t.Errorf("inviting the banned: got %v", err)
	}
	w.no(alice.Unban(w.ctx, room, bob.ID()))
	_, err = bob.Join(w.ctx, string(room))
	forbidden("joining after a ban without an invite", err)
	members := must(alice.Members(w.ctx, room))(w)
	w.is(members, map[id.UserID]string{alice.ID(): "join", bob.ID(): "leave"})
}

func TestDisplayName_Changed_ShowsInEveryRoom(t *testing.T) {
	w := start(t)
	alice := w.hs.User("alice")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Encrypt: true}))(w)
	w.no(alice.SetDisplayName(w.ctx, "Alice A."))
	must(alice.WaitFor(w.ctx, room, func(ev bridgetest.Event) bool {
		return ev.Target() == alice.ID() && ev.Content["displayname"] == "Alice A."
	}))(w)
	var encryption struct {
		Algorithm string `json:"algorithm"`
	}
	w.no(alice.State(w.ctx, room, "m.room.encryption", "", &encryption))
	w.is(encryption.Algorithm, "m.megolm.v1.aes-sha2")
}
