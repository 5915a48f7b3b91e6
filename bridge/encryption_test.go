//go:build goolm

package bridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/olmclient"
	"github.com/trestle-bridge/trestle/store"
)

// sealed is an encrypted room with the bot and alice, who has keys, and which is connected to the lobby.
type sealed struct {
	*crossing
	keys *olmclient.Client
}

func person(t *testing.T, hs *bridgetest.Homeserver, name string, change ...func(*olmclient.Options)) *olmclient.Client {
	t.Helper()
	o := olmclient.Options{URL: hs.URL(), User: hs.User(name).ID(), Password: name, HTTP: hs.Client()}
	for _, f := range change {
		f(&o)
	}
	return olmclient.Start(t, o)
}

func newSealed(t *testing.T, mode string, change ...func(*bridge.Config)) *sealed {
	t.Helper()
	net := bridgetest.NewNetwork()
	return newSealedOn(t, net, net, mode, change...)
}

// newSealedOn is that on a network of a test's own, which is built on net.
func newSealedOn(t *testing.T, network bridge.Network, net *bridgetest.Network, mode string, change ...func(*bridge.Config)) *sealed {
	t.Helper()
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	c := &crossing{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t), net: net}
	c.alice = c.hs.User("alice")
	change = append([]func(*bridge.Config){func(cfg *bridge.Config) { cfg.Encryption.Mode = mode }}, change...)
	c.b = bridgetest.StartBridge(t, c.hs, network, change...)
	s := &sealed{c, person(t, c.hs, "alice")}
	c.room = s.keys.CreateRoom("secret", c.b.BotID())
	s.keys.WaitFor("the bot", olmclient.Joined(c.room, c.b.BotID()))
	s.keys.Say(c.room, "!test plumb "+lobby)
	s.reads(c.b.BotID(), "This room is now connected to lobby on Scripted.")
	return s
}

// reads waits until alice has decrypted text of sender's, and accepts it. What the bot's device encrypts for ghosts she does not.
func (s *sealed) reads(sender id.UserID, text string) *olmclient.Event {
	s.Helper()
	var refused error
	if s.b.Config.Encryption.Mode == "bot" && sender != s.b.BotID() {
		refused = olmclient.ErrUntrusted
	}
	ev := s.keys.WaitFor(text, func(ev *olmclient.Event) bool {
		body, _ := ev.Content["body"].(string)
		return ev.Room == s.room && ev.Sender == sender && strings.Contains(body, text) && errors.Is(ev.Err, refused)
	})
	if !ev.Encrypted {
		s.Errorf("%q of %s was not encrypted", text, sender)
	}
	return ev
}

func (s *sealed) networkSays(text string) { s.Helper(); s.ok(s.net.Say(s.ctx, lobby, "bob", text)) }

// nothingPlain looks at all that the bridge's users have put into the room since it was encrypted.
func (s *sealed) nothingPlain() {
	s.Helper()
	for _, ev := range s.keys.InTheClear(s.room) {
		s.Errorf("in the clear: %s %v by %s", ev.Type, ev.Content, ev.Sender)
	}
}

func TestEncryption_InEachMode_MessagesCrossBothWays(t *testing.T) {
	for _, mode := range []string{"bot", "ghosts"} {
		t.Run(mode, func(t *testing.T) {
			s := newSealed(t, mode)
			event := s.keys.Say(s.room, "hello")
			if got := s.arrives("hello"); got.ID != event || got.Sender.ID != s.keys.User {
				t.Errorf("the network got %+v", got)
			}
			s.networkSays("hi")
			s.reads(s.bob(), "hi")
			s.nothingPlain()
			for _, r := range s.hs.Requests(func(r bridgetest.Request) bool { return strings.Contains(r.Path, "/send/m.room.message/") }) {
				if r.User != s.keys.User {
					t.Errorf("%s sent in the clear: %s", r.User, r.Path)
				}
			}
		})
	}
}

func TestEncryption_EditsRepliesAndRedactions_FindTheirEvents(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.net.MessageIDs = true
	first := s.keys.Say(s.room, "frist")
	s.arrives("frist")
	s.keys.Send(s.room, event.EventMessage, map[string]any{
		"msgtype": "m.text", "body": "* first", "m.new_content": map[string]any{"msgtype": "m.text", "body": "first"},
		"m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": first},
	})
	s.arrives("* first")
	s.ok(s.net.Deliver(s.ctx, &bridge.Incoming{
		Channel: lobby, ID: "r1", Sender: bridge.RemoteUser{ID: "bob", Name: "Bob"}, Text: &bridge.Text{Body: "answer", ReplyTo: "remote-1"},
	}))
	answer := s.reads(s.bob(), "answer")
	if relation, _ := answer.Content["m.relates_to"].(map[string]any); relation == nil || relation["m.in_reply_to"].(map[string]any)["event_id"] != string(first) {
		t.Errorf("the answer points at %v", answer.Content)
	}
	s.keys.Send(s.room, event.EventMessage, map[string]any{
		"msgtype": "m.text", "body": "thanks", "m.relates_to": map[string]any{"m.in_reply_to": map[string]any{"event_id": answer.ID}},
	})
	if got := s.arrives("thanks"); got.ReplyTo == nil || got.ReplyTo.RemoteID != "r1" || !got.ReplyTo.Remote {
		t.Errorf("the reply is to %+v", got.ReplyTo)
	}
	s.nothingPlain()
}

func TestEncryption_FilesBothWays_AreEncryptedOnTheHomeserver(t *testing.T) {
	s := newSealed(t, "ghosts")
	photo := bytes.Repeat([]byte("photo"), 10_000)
	s.ok(s.net.Deliver(s.ctx, &bridge.Incoming{
		Channel: lobby, ID: "f1", Sender: bridge.RemoteUser{ID: "bob"},
		File: &bridge.File{Name: "cat.jpg", MIME: "image/jpeg", Size: int64(len(photo)), Content: bytes.NewReader(photo)},
	}))
	got := s.reads(s.bob(), "cat.jpg")
	content := &event.Content{VeryRaw: must(json.Marshal(got.Content))(t)}
	s.ok(content.ParseRaw(event.EventMessage))
	file := content.AsMessage().File
	if file == nil || content.AsMessage().URL != "" {
		t.Fatalf("the file arrived as %v", got.Content)
	}
	data, mime, err := s.alice.Download(s.ctx, must(file.URL.Parse())(t))
	if err != nil || mime != "application/octet-stream" || bytes.Contains(data, []byte("photophoto")) {
		t.Fatalf("on the homeserver are %d bytes of %s: %v", len(data), mime, err)
	}
	if err := file.DecryptInPlace(data); err != nil || !bytes.Equal(data, photo) {
		t.Errorf("it does not open: %v", err)
	}

	s.keys.Send(s.room, event.EventMessage, map[string]any{"msgtype": "m.image", "body": "photo.png", "file": s.crossing.sealed(photo)})
	s.ok(s.net.Wait(s.ctx, "the photo", func() bool {
		sent := s.net.Sent()
		return len(sent) > 0 && sent[len(sent)-1].Media != nil
	}))
	sent := s.net.Sent()
	if status, body := get(t, sent[len(sent)-1].Media.URL); status != http.StatusOK || !bytes.Equal(body, photo) {
		t.Errorf("the link answers %d with %d bytes", status, len(body))
	}
	s.nothingPlain()
}

func TestEncryption_SwitchedOnInALiveRoom_TakesEffectWithTheMessageUnderWay(t *testing.T) {
	s := newSealed(t, "ghosts")
	room := s.switchedUnderWay(func() { s.ok(s.net.Say(s.ctx, "den", "carl", "under way")) }, func() {})
	if ev := s.keys.WaitFor("the message", olmclient.Text(room, "under way")); !ev.Encrypted {
		t.Error("the message that was under way entered an encrypted room in the clear")
	}
	s.ok(s.net.Say(s.ctx, "den", "carl", "the next"))
	s.keys.WaitFor("the next", olmclient.Text(room, "the next"))
	for _, ev := range s.keys.InTheClear(room) {
		t.Errorf("in the clear: %v", ev.Content)
	}
}

// switchedUnderWay has encryption switched on in a den after something was said there on the network, and before that leaves for Matrix.
func (s *sealed) switchedUnderWay(say, meanwhile func()) id.RoomID {
	s.Helper()
	room := s.den()
	asked, encrypted := make(chan struct{}), make(chan struct{})
	remove := s.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/devices/") {
			close(asked)
			<-encrypted
		}
		return false
	})
	defer remove()
	say()
	<-asked
	s.keys.Encrypt(room)
	s.ok(s.hs.Settle(s.ctx))
	meanwhile()
	close(encrypted)
	return room
}

// den is a plain room that is connected to the channel den, where carl has spoken.
func (s *sealed) den() id.RoomID {
	s.Helper()
	room := must(s.alice.CreateRoom(s.ctx, bridgetest.RoomOptions{Preset: "public_chat", Invite: []id.UserID{s.b.BotID()}}))(s.T)
	s.keys.WaitFor("the bot", olmclient.Joined(room, s.b.BotID()))
	must(s.alice.SendText(s.ctx, room, "!test plumb den"))(s.T)
	s.keys.WaitFor("the answer", olmclient.Text(room, "This room is now connected to den on Scripted."))
	return room
}

// The homeserver tells of it late, or never.
func TestEncryption_SwitchedOnWhileTheBridgeIsStopped_TakesEffectBeforeItIsTold(t *testing.T) {
	s := newSealed(t, "ghosts")
	room := s.den()
	s.ok(s.net.Say(s.ctx, "den", "carl", "first"))
	s.keys.WaitFor("first", olmclient.Text(room, "first"))
	s.b.Stop()
	s.hs.PushFault(bridgetest.PushFault{Times: -1, CutRequest: true})
	s.keys.Encrypt(room)
	s.b.Start()
	s.hs.Fault(bridgetest.Fault{Method: http.MethodGet, Path: regexp.MustCompile(`/state/m\.room\.encryption`), Times: 1, Status: http.StatusInternalServerError})
	s.ok(s.net.Say(s.ctx, "den", "carl", "secret")) // waits until it can be asked
	if ev := s.keys.WaitFor("secret", olmclient.Text(room, "secret")); !ev.Encrypted {
		t.Error("plain text in an encrypted room after a start")
	}
	for _, ev := range s.keys.InTheClear(room) {
		t.Errorf("in the clear: %v", ev.Content)
	}
}

func TestEncryption_SentAgainAfterALostAnswer_IsTheSameCiphertext(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.networkSays("first")
	s.reads(s.bob(), "first")
	var mu sync.Mutex
	var bodies []string
	failed := make(chan struct{})
	remove := s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/send/m.room.encrypted/") || r.URL.Query().Get("user_id") != string(s.bob()) {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		defer mu.Unlock()
		if bodies = append(bodies, r.URL.Path+" "+string(body)); len(bodies) > 1 {
			return false
		}
		close(failed)
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	defer remove()
	s.networkSays("again")
	<-failed
	s.b.Stop()
	s.b.Start()
	s.reads(s.bob(), "again")
	mu.Lock()
	defer mu.Unlock()
	if len(bodies) < 2 || bodies[0] != bodies[1] {
		t.Errorf("the second request differs from the first: %q", bodies)
	}
	if n := len(s.keys.Seen(olmclient.Text(s.room, "again"))); n != 1 {
		t.Errorf("alice sees it %d times", n)
	}
}

func TestEncryption_WhyTheyLeave_StaysOutOfTheClear(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.networkSays("hello")
	s.reads(s.bob(), "hello")
	s.ok(s.net.Deliver(s.ctx, &bridge.Incoming{
		Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Leave: &bridge.Leave{Reason: "a word of the channel"},
	}))
	left := s.sees(bridgetest.Member(s.bob(), "leave"))
	if why := left.Content["reason"]; why != nil {
		t.Errorf("the homeserver reads %v", why)
	}
}

func TestEncryption_WhyAMessageIsTakenBack_StaysOutOfTheClear(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.ok(s.net.Deliver(s.ctx, &bridge.Incoming{Channel: lobby, ID: "r1", Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Body: "a slip"}}))
	said := s.reads(s.bob(), "a slip")
	s.ok(s.net.Deliver(s.ctx, &bridge.Incoming{
		Channel: lobby, Sender: bridge.RemoteUser{ID: "bob"}, Redact: &bridge.Redact{ID: "r1", Reason: "a word of the channel"},
	}))
	redaction := s.sees(func(e bridgetest.Event) bool { return e.Type == "m.room.redaction" && e.Sender == s.bob() })
	if why := redaction.Content["reason"]; why != nil || redaction.Content["redacts"] != string(said.ID) {
		t.Errorf("the homeserver reads %v", redaction.Content)
	}
}

// Clients do not encrypt reactions; one that does is read as well.
func TestEncryption_Reactions_CrossWhereMessagesDo(t *testing.T) {
	n := &reacting{Network: bridgetest.NewNetwork(), has: true}
	n.MessageIDs = true
	s := newSealedOn(t, n, n.Network, "ghosts")
	said := s.keys.Say(s.room, "what do you think?")
	s.arrives("what do you think?")
	about := func(key string) map[string]any {
		return map[string]any{"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": said, "key": key}}
	}
	s.keys.Send(s.room, event.EventReaction, about("encrypted"))
	must(s.alice.Send(s.ctx, s.room, "m.reaction", about("plain")))(t)
	s.keys.Say(s.room, "end")
	s.arrives("end")
	n.want(t, "encrypted", "plain")
	s.b.Stop()
	s.b.Config.Encryption.Mode = "off"
	s.b.Start()
	must(s.alice.Send(s.ctx, s.room, "m.reaction", about("not read")))(t)
	s.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
	n.want(t, "encrypted", "plain")
}

// A direct chat: the bot is not in the room, and the ghost alone reads and speaks there.
func TestEncryption_RoomWithAGhostAlone_IsReadAndWrittenByTheGhost(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.networkSays("hello")
	s.reads(s.bob(), "hello")
	s.b.Stop()
	direct := s.keys.CreateRoom("bob", s.bob())
	db := must(store.Open(s.ctx, s.b.Config.Database, store.Options{}))(t)
	s.ok(db.Commit(s.ctx, db.Epoch(), func(tx *store.Tx) error {
		return tx.PutPortal(&store.Portal{Channel: "bob", Room: string(direct), Source: "command"})
	}))
	s.ok(db.Close())
	s.b.Start()
	s.ok(s.net.Say(s.ctx, "bob", "bob", "between us"))
	if ev := s.keys.WaitFor("the ghost's message", olmclient.Text(direct, "between us")); !ev.Encrypted || ev.Sender != s.bob() {
		t.Errorf("got %+v", ev)
	}
	s.keys.Say(direct, "so be it")
	if got := s.arrives("so be it"); got.Channel != "bob" {
		t.Errorf("the network got %+v", got)
	}
	s.keys.Say(direct, "!test status")
	if ev := s.keys.WaitFor("the answer", olmclient.Text(direct, "This room is connected to bob on Scripted.")); !ev.Encrypted || ev.Sender != s.bob() {
		t.Errorf("got %+v", ev)
	}
	for _, ev := range s.keys.InTheClear(direct) {
		t.Errorf("in the clear: %v", ev.Content)
	}
}
