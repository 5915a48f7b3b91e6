package crypto_test

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type nobody struct{}

func (nobody) HandleEvent(context.Context, *appservice.Event) ([]appservice.Effect, error) {
	return nil, nil
}
func (nobody) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

// stage is a homeserver and an appservice that is told nothing, so that the guard has to ask.
type stage struct {
	hs    *bridgetest.Homeserver
	store *store.Store
	as    *appservice.AppService
	guard *crypto.Guard
	alice *bridgetest.User
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{hs: bridgetest.NewHomeserver(t), store: storetest.New(t)}
	s.alice = s.hs.User("alice")
	file := t.TempDir() + "/registration.yaml"
	registration, err := appservice.Generate(appservice.GenerateOptions{
		ID: "test", URL: "http://127.0.0.1:9", Domain: s.hs.Domain(), SenderLocalpart: "testbot", GhostPrefix: "test_",
	})
	if err == nil {
		err = registration.Save(file)
	}
	if err == nil {
		err = s.hs.AddAppService(file)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.as, err = appservice.New(appservice.Config{
		Registration: registration, HomeserverURL: s.hs.URL(), ServerName: s.hs.Domain(), Store: s.store, Handler: nobody{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.as.Stop(context.Background()) })
	s.guard = crypto.NewGuard(s.store, func(context.Context, id.RoomID) (*appservice.Intent, error) { return s.as.Bot(), nil })
	return s
}

// room is one that the bot is in.
func (s *stage) room(t *testing.T, encrypted bool) id.RoomID {
	t.Helper()
	room, err := s.alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Encrypt: encrypted, Preset: "public_chat"})
	if err == nil {
		_, err = s.as.Bot().JoinByIDOrAlias(t.Context(), string(room))
	}
	if err != nil {
		t.Fatal(err)
	}
	return room
}

func (s *stage) questions() int {
	return len(s.hs.Requests(func(r bridgetest.Request) bool {
		return strings.Contains(r.Path, "/state/m.room.encryption")
	}))
}

func TestGuard_RoomThatTheBotJoined_IsKnownAlready(t *testing.T) {
	s := newStage(t)
	plain, encrypted := s.room(t, false), s.room(t, true)
	if err := s.guard.Check(t.Context(), plain); err != nil {
		t.Error(err)
	}
	if err := s.guard.Check(t.Context(), encrypted); !errors.Is(err, crypto.ErrEncrypted) {
		t.Errorf("got %v, want ErrEncrypted", err)
	}
	if n := s.questions(); n != 0 {
		t.Errorf("the homeserver was asked %d times", n)
	}
}

func TestGuard_PlainRoom_MayBeWrittenTo_AndIsAskedAboutOnce(t *testing.T) {
	s := newStage(t)
	room := s.room(t, false)
	if err := s.guard.Forget(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.guard.Check(t.Context(), room); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.questions(); n != 1 {
		t.Errorf("the homeserver was asked %d times, want once", n)
	}
}

func TestGuard_EncryptedRoom_IsRefused(t *testing.T) {
	s := newStage(t)
	if err := s.guard.Check(t.Context(), s.room(t, true)); !errors.Is(err, crypto.ErrEncrypted) {
		t.Errorf("got %v, want ErrEncrypted", err)
	}
}

func TestGuard_HomeserverThatDoesNotAnswer_MeansNothingMayBeSent(t *testing.T) {
	s := newStage(t)
	room := s.room(t, false)
	if err := s.guard.Forget(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	s.hs.Fault(bridgetest.Fault{Method: http.MethodGet, Path: regexp.MustCompile(`/state/m\.room\.encryption`), Times: 1, Status: 502})
	err := s.guard.Check(t.Context(), room)
	if err == nil || errors.Is(err, crypto.ErrEncrypted) {
		t.Errorf("got %v, want an error that is not ErrEncrypted", err)
	}
	if err := s.guard.Check(t.Context(), room); err != nil {
		t.Errorf("once it answers: %v", err)
	}
}

func TestGuard_RoomThatWasEncryptedMeanwhile_StaysEncrypted(t *testing.T) {
	s := newStage(t)
	room := s.room(t, false)
	if err := s.guard.Check(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	storetest.Commit(t, s.store, func(tx *store.Tx) error { return tx.SetEncrypted(string(room), true) })
	storetest.Commit(t, s.store, func(tx *store.Tx) error { return tx.SetEncrypted(string(room), false) })
	if err := s.guard.Check(t.Context(), room); !errors.Is(err, crypto.ErrEncrypted) {
		t.Errorf("got %v, want ErrEncrypted", err)
	}
}

func TestSentence_IsSaidOncePerRoom(t *testing.T) {
	s := newStage(t)
	for i, want := range []bool{true, false} {
		storetest.Commit(t, s.store, func(tx *store.Tx) error {
			first, err := crypto.SentenceOnce(tx, "!a:hs.test")
			if first != want {
				t.Errorf("time %d: first is %v", i, first)
			}
			return err
		})
	}
}

func TestPrepareBot_TwiceIsOneDevice(t *testing.T) {
	s := newStage(t)
	for range 2 {
		if err := crypto.PrepareBot(t.Context(), s.as.Bot()); err != nil {
			t.Fatal(err)
		}
	}
	if devices := s.hs.Devices(s.as.Bot().UserID()); len(devices) != 1 {
		t.Errorf("the bot has devices %v, want one", devices)
	}
}
