//go:build goolm

package bridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

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

// keyless keeps alice's room keys from the bridge until they are let through.
func (s *sealed) keyless() (let func()) {
	s.Helper()
	type request struct {
		path, auth string
		body       []byte
	}
	var mu sync.Mutex
	var held []request
	remove := s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/sendToDevice/m.room.encrypted/") || r.URL.Query().Get("user_id") != "" {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		held = append(held, request{r.URL.Path, r.Header.Get("Authorization"), body})
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}"))
		return true
	})
	s.keys.Forget(s.room) // so that the next message has a new key
	return func() {
		remove()
		mu.Lock()
		defer mu.Unlock()
		for _, h := range held {
			req := must(http.NewRequestWithContext(s.ctx, http.MethodPut, s.hs.URL()+h.path, bytes.NewReader(h.body)))(s.T)
			req.Header.Set("Authorization", h.auth)
			resp := must(s.hs.Client().Do(req))(s.T)
			_ = resp.Body.Close()
		}
	}
}

func TestEncryption_RedactedBeforeItCame_IsPassedOver(t *testing.T) {
	s := newSealed(t, "bot")
	s.keys.Say(s.room, "before")
	s.arrives("before")
	s.b.Stop()
	event := s.keys.Say(s.room, "a slip")
	must(s.alice.Redact(s.ctx, s.room, event, ""))(t)
	s.b.Start()
	s.keys.Say(s.room, "after")
	s.arrives("after")
	told := s.keys.Seen(func(ev *olmclient.Event) bool {
		body, _ := ev.Content["body"].(string)
		return ev.Sender == s.b.BotID() && strings.Contains(body, "cannot read")
	})
	if len(told) > 0 {
		t.Errorf("alice is told %v", told[0].Content)
	}
	if letters := must(s.b.DeadLetters(s.ctx, 0))(t); len(letters) > 0 {
		t.Errorf("dead letters: %v", letters)
	}
}

func TestEncryption_KeyComesLate_MessageIsDeliveredThenAndOnce(t *testing.T) {
	for name, hold := range map[string]time.Duration{"while the room is held up": time.Minute, "when it is parked": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = hold })
			let := s.keyless()
			s.keys.Say(s.room, "late")
			if hold < time.Second {
				must(s.alice.SetTopic(s.ctx, s.room, "those behind it go on"))(t)
				s.ok(s.net.Wait(s.ctx, "the topic", func() bool { return s.net.Topic(lobby) != "" }))
				s.b.Stop() // it waits in the store
				s.b.Start()
			}
			let()
			s.arrives("late")
			s.keys.Say(s.room, "end")
			s.arrives("end")
			n := 0
			for _, m := range s.net.Sent() {
				if m.Text == "late" {
					n++
				}
			}
			if n != 1 {
				t.Errorf("it was delivered %d times", n)
			}
		})
	}
}

// A member makes up sessions, one for each event.
func TestEncryption_OneSendersUnreadableEvents_HoldUpTheRoomOnce(t *testing.T) {
	const hold, events = 2 * time.Second, 30
	s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = hold })
	mallory := s.hs.User("mallory")
	s.keys.Invite(s.room, mallory.ID())
	must(mallory.Join(s.ctx, string(s.room)))(t)
	for n := range events {
		must(mallory.Send(s.ctx, s.room, "m.room.encrypted", map[string]any{
			"algorithm": "m.megolm.v1.aes-sha2", "session_id": fmt.Sprintf("%043d", n), "ciphertext": strings.Repeat("A", 200), "sender_key": "x", "device_id": "D",
		}))(t)
	}
	begun := time.Now()
	s.keys.Say(s.room, "hello")
	s.arrives("hello")
	if waited := time.Since(begun); waited > hold*events/2 {
		t.Errorf("what alice wrote waited %s: each of %d events of somebody else's has held up the room for %s", waited, events, hold)
	}
}

// What is parked at once is delivered once its key comes, as what was waited for.
func TestEncryption_MoreOfASenderWhoseKeyDidNotCome_IsParkedAtOnceAndDeliveredWithItsKey(t *testing.T) {
	s := newSealed(t, "bot", func(cfg *bridge.Config) { cfg.Encryption.Hold = 50 * time.Millisecond })
	let := s.keyless()
	s.keys.Say(s.room, "one")
	s.keys.Forget(s.room) // so that the next has a key of its own
	s.keys.Say(s.room, "two")
	must(s.alice.SetTopic(s.ctx, s.room, "those behind them go on"))(t)
	s.ok(s.net.Wait(s.ctx, "the topic", func() bool { return s.net.Topic(lobby) != "" }))
	let()
	s.arrives("one")
	s.arrives("two")
}

func TestEncryption_KeyNeverComes_IsToldOnceAndADeadLetter(t *testing.T) {
	s := newSealed(t, "bot", func(cfg *bridge.Config) {
		cfg.Encryption.Hold, cfg.Encryption.Patience = 50*time.Millisecond, 300*time.Millisecond
	})
	let := s.keyless()
	s.keys.Say(s.room, "never one")
	s.keys.Say(s.room, "never two")
	letters := must(s.b.DeadLetters(s.ctx, 2))(t)
	for _, l := range letters {
		if l.Kind != "pdu" || !strings.Contains(l.Cause, "key") {
			t.Errorf("dead letter %+v", l)
		}
	}
	notice := s.reads(s.b.BotID(), "I cannot read this message")
	s.networkSays("end")
	s.reads(s.bob(), "end")
	if n := len(s.keys.Seen(func(ev *olmclient.Event) bool {
		body, _ := ev.Content["body"].(string)
		return ev.Sender == s.b.BotID() && strings.HasPrefix(body, "I cannot read")
	})); n != 1 {
		t.Errorf("alice was told %d times: %v", n, notice.Content)
	}
	let()
}

func TestEncryption_DeviceThatNobodyVouchesFor_IsNotBelieved(t *testing.T) {
	s := newSealed(t, "bot")
	mallory := person(t, s.hs, "mallory", func(o *olmclient.Options) { o.Unsigned, o.ShareWithAll = true, true })
	s.keys.Invite(s.room, mallory.User)
	mallory.Join(s.room)
	mallory.Say(s.room, "trust me")
	letters := must(s.b.DeadLetters(s.ctx, 1))(t)
	if !strings.Contains(letters[0].Cause, "trusted") {
		t.Errorf("dead letter %+v", letters[0])
	}
	s.reads(s.b.BotID(), "it comes from a device that its owner has not verified")
	must(s.hs.User("mallory").SendText(s.ctx, s.room, "in the clear"))(t)
	s.reads(s.b.BotID(), "it was not encrypted")
	for _, l := range must(s.b.DeadLetters(s.ctx, 2))(t) {
		if !strings.Contains(l.Cause, "encryption.receive") {
			t.Errorf("the setting is not named: %s", l.Cause)
		}
	}
	for _, m := range s.net.Sent() {
		t.Errorf("the network got %q", m.Text)
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

func TestEncryption_ModesChangedOnARunningStore_EveryMessageArrives(t *testing.T) {
	s := newSealed(t, "bot")
	for _, mode := range []string{"ghosts", "bot", "off", "ghosts"} {
		s.b.Stop()
		s.b.Config.Encryption.Mode = mode
		s.b.Start()
		if mode == "off" {
			s.networkSays("lost")
			must(s.b.DeadLetters(s.ctx, 1))(t)
			s.keys.Say(s.room, "unread")
			s.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
			continue
		}
		s.keys.Say(s.room, "to the network in "+mode)
		s.arrives("to the network in " + mode)
		s.networkSays("from the network in " + mode)
		s.reads(s.bob(), "from the network in "+mode)
	}
}

func TestEncryption_RoomsOwnMode_HasTheLastWord(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.b.Stop()
	s.b.Config.Bridge.Plumb = []bridge.Plumb{{Room: string(s.room), Channel: lobby, Encryption: "off"}}
	s.b.Start()
	s.networkSays("not here")
	must(s.b.DeadLetters(s.ctx, 1))(t)
	s.keys.Say(s.room, "unread")
	s.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
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

// The homeserver takes the sentence that the bridge cannot read once it can.
func TestEncryption_ModeChangedWhileTheSentenceWaits_ItIsNotSaid(t *testing.T) {
	s := newSealed(t, "bot")
	s.b.Stop()
	s.b.Config.Encryption.Mode = "off"
	tried := make(chan struct{}, 100)
	remove := s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/send/m.room.message/") {
			return false
		}
		tried <- struct{}{}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	s.b.Start()
	s.keys.Say(s.room, "unread")
	<-tried
	s.b.Stop()
	remove()
	s.b.Config.Encryption.Mode = "ghosts"
	s.b.Start()
	s.networkSays("said behind it")
	s.reads(s.bob(), "said behind it")
	s.nothingPlain()
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
