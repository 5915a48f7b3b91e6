//go:build goolm

package crypto_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// world is a homeserver with a person that encrypts, and an appservice that hands what is about keys to its Crypto.
type world struct {
	t      *testing.T
	hs     *bridgetest.Homeserver
	store  *store.Store
	as     *appservice.AppService
	crypto *crypto.Crypto
	alice  *person
	events chan *appservice.Event // of rooms, encrypted ones only
	keys   chan error             // what became of what is about keys
	held   atomic.Bool            // to-device messages wait
	toward chan *appservice.Event // those that wait
	given  sync.Map               // users of the bridge who were sent to-device messages
	handed atomic.Int32           // how many of those were dealt with

	registration *appservice.Registration
	serve        atomic.Pointer[appservice.AppService]
	handles      atomic.Pointer[crypto.Crypto] // crypto, for the lanes
}

func newWorld(t *testing.T) *world { return newWorldOn(t, storetest.New(t)) }

func newWorldOn(t *testing.T, s *store.Store, options ...bridgetest.Option) *world {
	t.Helper()
	w := &world{t: t, hs: bridgetest.NewHomeserver(t, options...), store: s, events: make(chan *appservice.Event, 10_000), keys: make(chan error, 10_000),
		toward: make(chan *appservice.Event, 1000)}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve.Load().ServeHTTP(rw, r) }))
	t.Cleanup(server.Close)
	var err error
	w.registration, err = appservice.Generate(appservice.GenerateOptions{
		ID: "test", URL: server.URL, Domain: w.hs.Domain(), SenderLocalpart: "testbot", GhostPrefix: "test_",
	})
	w.no(err)
	file := t.TempDir() + "/registration.yaml"
	w.no(w.registration.Save(file))
	w.start()
	w.no(w.hs.AddAppService(file))
	w.alice = newPerson(w, "alice")
	return w
}

// start makes what works on the store.
func (w *world) start() {
	w.t.Helper()
	var err error
	w.as, err = appservice.New(appservice.Config{
		Registration: w.registration, HomeserverURL: w.hs.URL(), ServerName: w.hs.Domain(), Store: w.store, Handler: w,
	})
	w.no(err)
	w.serve.Store(w.as)
	w.reopen()
	as := w.as
	w.no(as.Start(w.t.Context()))
	w.t.Cleanup(func() { _ = as.Stop(context.Background()) })
}

var pickleKey = []byte("of the tests")

// reopen makes the bridge's Crypto as after a restart: with nothing in memory.
func (w *world) reopen() {
	w.t.Helper()
	c, err := crypto.New(w.t.Context(), crypto.Options{Store: w.store, AS: w.as, PickleKey: pickleKey})
	w.no(err)
	w.crypto = c
	w.handles.Store(c)
	w.t.Cleanup(func() { _ = c.Close() })
}

func (w *world) HandleEvent(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if ev.Kind == store.KindToDevice && ev.Type != appservice.KeyProbe { // which comes when it likes
		w.given.Store(ev.ToUserID, true)
	}
	switch {
	case ev.Kind == store.KindToDevice && w.held.Load():
		w.toward <- ev
	case ev.Kind != store.KindPDU:
		err := w.handles.Load().HandleKeys(ctx, ev)
		if ev.Kind == store.KindToDevice && ev.Type != appservice.KeyProbe {
			w.handed.Add(1)
		}
		w.keys <- err
		return nil, err
	case ev.Type == event.EventEncrypted.Type:
		w.events <- &appservice.Event{Kind: ev.Kind, Type: ev.Type, Sender: ev.Sender, RoomID: ev.RoomID, ID: ev.ID, Raw: ev.Raw} // ev is the lane's
	}
	return nil, nil
}

func (w *world) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

func (w *world) no(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// room is an encrypted one that the person has made, with the bridge's users in it.
func (w *world) room(users ...id.UserID) id.RoomID {
	w.t.Helper()
	room, err := w.alice.CreateRoom(w.t.Context(), bridgetest.RoomOptions{Encrypt: true, Preset: "public_chat"})
	w.no(err)
	for _, user := range users {
		w.no(w.as.Ghost(user).EnsureJoined(w.t.Context(), room))
	}
	return room
}

func (w *world) ghost(name string) id.UserID { return id.UserID("@test_" + name + ":" + w.hs.Domain()) }

// next is the next encrypted event that the bridge was sent.
func (w *world) next() *appservice.Event {
	w.t.Helper()
	select {
	case ev := <-w.events:
		return ev
	case <-time.After(20 * time.Second):
		w.t.Fatal("no event came")
		return nil
	}
}

// text is what an event says that the bridge has decrypted.
func text(ev *event.Event) string {
	if ev == nil {
		return ""
	}
	return ev.Content.AsMessage().Body
}

func message(body string) json.RawMessage {
	raw, _ := json.Marshal(map[string]any{"msgtype": "m.text", "body": body})
	return raw
}

// person encrypts as any client does, with mautrix's machine and what it keeps in memory.
type person struct {
	*bridgetest.User
	w      *world
	client *mautrix.Client
	olm    *olm.OlmMachine
	since  string
}

type everythingEncrypted struct{}

func (everythingEncrypted) IsEncrypted(context.Context, id.RoomID) (bool, error) { return true, nil }
func (everythingEncrypted) GetEncryptionEvent(context.Context, id.RoomID) (*event.EncryptionEventContent, error) {
	return &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}, nil
}
func (everythingEncrypted) GetHistoryVisibility(context.Context, id.RoomID) (*event.HistoryVisibilityEventContent, error) {
	return nil, nil
}
func (everythingEncrypted) FindSharedRooms(context.Context, id.UserID) ([]id.RoomID, error) {
	return nil, nil
}

func newPerson(w *world, name string) *person {
	w.t.Helper()
	p := &person{User: w.hs.User(name), w: w}
	var err error
	p.client, err = mautrix.NewClient(w.hs.URL(), p.ID(), p.Token())
	w.no(err)
	p.client.DeviceID, p.client.Client = p.DeviceID(), w.hs.Client()
	p.olm = olm.NewOlmMachine(p.client, nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	w.no(p.olm.Load(w.t.Context()))
	w.no(p.olm.ShareKeys(w.t.Context(), 0))
	return p
}

// encrypt gives the content of an encrypted event, after the key was shared with users where that is needed.
func (p *person) encrypt(room id.RoomID, body string, users ...id.UserID) *event.EncryptedEventContent {
	p.w.t.Helper()
	ctx := p.w.t.Context()
	sealed, err := p.olm.EncryptMegolmEvent(ctx, room, event.EventMessage, message(body))
	if olm.IsShareError(err) {
		p.w.no(p.olm.ShareGroupSession(ctx, room, users))
		sealed, err = p.olm.EncryptMegolmEvent(ctx, room, event.EventMessage, message(body))
	}
	p.w.no(err)
	return sealed
}

func (p *person) say(room id.RoomID, body string, users ...id.UserID) id.EventID {
	p.w.t.Helper()
	ev, err := p.Send(p.w.t.Context(), room, event.EventEncrypted.Type, p.encrypt(room, body, users...))
	p.w.no(err)
	return ev
}

// sync takes in what has come, and gives the encrypted events of a room.
func (p *person) sync(room id.RoomID) []*event.Event {
	p.w.t.Helper()
	resp, err := p.client.SyncRequest(p.w.t.Context(), 0, p.since, "", false, event.PresenceOffline)
	p.w.no(err)
	p.olm.ProcessSyncResponse(p.w.t.Context(), resp, p.since)
	p.since = resp.NextBatch
	var out []*event.Event
	if joined := resp.Rooms.Join[room]; joined != nil {
		for _, ev := range joined.Timeline.Events {
			if ev.Type.Type == event.EventEncrypted.Type {
				ev.RoomID, ev.Type.Class = room, event.MessageEventType
				p.w.no(ev.Content.ParseRaw(ev.Type))
				out = append(out, ev)
			}
		}
	}
	return out
}
