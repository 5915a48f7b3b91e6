package crypto_test

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

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
	s.restart()
	return s
}

// restart makes the guard of a new process on the same store.
func (s *stage) restart() {
	s.guard = crypto.NewGuard(s.store, s.as, func(context.Context, id.RoomID) (*appservice.Intent, error) { return s.as.Bot(), nil })
}

// away makes the homeserver's requests come to nothing.
func (s *stage) away() (back func()) {
	return s.hs.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
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

func TestGuard_RoomThatTheBotJoinedEncrypted_IsKnownAlready(t *testing.T) {
	s := newStage(t)
	room := s.room(t, true)
	if err := s.guard.Check(t.Context(), room); !errors.Is(err, crypto.ErrEncrypted) {
		t.Errorf("got %v, want ErrEncrypted", err)
	}
	if n := s.questions(); n != 0 {
		t.Errorf("the homeserver was asked %d times", n)
	}
}

// Nobody tells the bridge what happens while it is stopped, and the homeserver may tell late.
func TestGuard_SwitchedOnWhileTheBridgeWasStopped_IsRefused(t *testing.T) {
	s := newStage(t)
	plain, switched := s.room(t, false), s.room(t, false)
	for _, room := range []id.RoomID{plain, switched} {
		if err := s.guard.Check(t.Context(), room); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.alice.EnableEncryption(t.Context(), switched); err != nil {
		t.Fatal(err)
	}
	s.restart()
	before := s.questions()
	for range 3 {
		if err := s.guard.Check(t.Context(), switched); !errors.Is(err, crypto.ErrEncrypted) {
			t.Errorf("got %v, want ErrEncrypted", err)
		}
		if err := s.guard.Check(t.Context(), plain); err != nil {
			t.Error(err)
		}
	}
	if n := s.questions() - before; n != 2 {
		t.Errorf("the homeserver was asked %d times about two rooms, want once about each", n)
	}
	s.restart()
	before = s.questions()
	if err := s.guard.Check(t.Context(), switched); !errors.Is(err, crypto.ErrEncrypted) || s.questions() != before {
		t.Errorf("got %v with %d questions, want ErrEncrypted with none", err, s.questions()-before)
	}
}

func TestGuard_SwitchedOnWhileTheHomeserverCouldNotBeReached_IsRefused(t *testing.T) {
	for name, others := range map[string]bool{"and nothing was asked since": false, "and something else was asked since": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			room := s.room(t, false)
			if err := s.guard.Check(t.Context(), room); err != nil {
				t.Fatal(err)
			}
			if err := s.alice.EnableEncryption(t.Context(), room); err != nil {
				t.Fatal(err)
			}
			back := s.away()
			if others {
				time.Sleep(3100 * time.Millisecond) // nothing answers for so long that it counts as a return
			}
			if _, err := s.as.Bot().Client("").JoinedRooms(t.Context()); err == nil {
				t.Fatal("it was not away")
			}
			if err := s.guard.Check(t.Context(), room); err == nil || errors.Is(err, crypto.ErrEncrypted) {
				t.Errorf("while it is away: %v", err)
			}
			back()
			if others {
				if _, err := s.as.Bot().Client("").JoinedRooms(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.guard.Check(t.Context(), room); !errors.Is(err, crypto.ErrEncrypted) {
				t.Errorf("got %v, want ErrEncrypted", err)
			}
		})
	}
}

func TestGuard_ManyAtOnce_AskOnce(t *testing.T) {
	s := newStage(t)
	room := s.room(t, false)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := s.guard.Check(t.Context(), room); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.questions(); n != 1 {
		t.Errorf("the homeserver was asked %d times, want once", n)
	}
}

func TestGuard_PlainRoom_MayBeWrittenTo_AndIsAskedAboutOnce(t *testing.T) {
	s := newStage(t)
	room := s.room(t, false)
	for range 3 {
		if err := s.guard.Check(t.Context(), room); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.questions(); n != 1 {
		t.Errorf("the homeserver was asked %d times, want once", n)
	}
	if err := s.guard.Forget(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	if err := s.guard.Check(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	if n := s.questions(); n != 2 {
		t.Errorf("the homeserver was asked %d times, want once more after it was forgotten", n)
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
