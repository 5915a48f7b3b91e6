//go:build goolm

package crypto_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

// silent has the homeserver wait for the server of a user when the bridge asks for the user's devices, until it is let go. asked tells of each question.
func (w *world) silent(user id.UserID) (asked chan struct{}, letGo func()) {
	asked = make(chan struct{}, 100)
	quit := make(chan struct{})
	w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.Header.Get("Authorization") != "Bearer "+w.registration.ASToken {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte(user)) {
			return false
		}
		asked <- struct{}{}
		select {
		case <-quit:
		case <-r.Context().Done():
		}
		_, _ = rw.Write([]byte(`{"device_keys":{},"failures":{"silent.test":{}}}`))
		return true
	})
	return asked, func() { close(quit) }
}

// speaksUnsigned is a message of a device that nobody has signed, whose key the bridge has taken in.
func (w *world) speaksUnsigned(h *hand, room id.RoomID, n int) *appservice.Event {
	w.t.Helper()
	key := w.roomKey(room)
	p := h.payload(key)
	delete(p, "sender_device_keys")
	w.no(w.crypto.HandleKeys(w.t.Context(), h.encrypt(p)))
	return h.p.sealedWith(key, fmt.Sprintf("$unsigned%d", n), "x")
}

func TestJudge_UserWhoseServerIsSilent_IsAskedForOnceAndNotWithEachEvent(t *testing.T) {
	w, bot, room, _, bob := members(t)
	asked, letGo := w.silent(bob.p.ID())
	letGo()
	h := w.hand(bob.p.again(), bot)
	w.settle()
	for n := range 5 {
		ev := w.speaksUnsigned(h, room, n)
		if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrUntrusted) {
			t.Errorf("what a device says that nobody knows: %v", err)
		}
	}
	if len(asked) != 1 {
		t.Errorf("five events have waited %d times for the sender's server", len(asked))
	}
}

// The homeserver fails at the question itself: what a device says that nobody knows is tried again and again, and not refused, since nothing is known.
func TestJudge_QuestionThatFails_IsNotAskedWithEachEvent_AndRefusesNothing(t *testing.T) {
	w, bot, room, _, bob := members(t)
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustAny })
	crypto.AskSilentAfter(w.crypto, 2*time.Second)
	_, err := bob.p.Join(t.Context(), string(room))
	w.no(err)
	h := w.hand(bob.p.again(), bot)
	w.settle()
	var fails atomic.Bool
	var asked atomic.Int32
	w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.Header.Get("Authorization") != "Bearer "+w.registration.ASToken {
			return false
		}
		asked.Add(1)
		if fails.Load() {
			rw.WriteHeader(http.StatusInternalServerError)
			_, _ = rw.Write([]byte(`{"errcode":"M_UNKNOWN","error":"no"}`))
		}
		return fails.Load()
	})
	var events []*appservice.Event
	for n := range 5 {
		events = append(events, w.speaksUnsigned(h, room, n))
	}
	for _, outdated := range []bool{false, true} {
		if outdated {
			w.outdated(bob.p.ID())
		}
		time.Sleep(2100 * time.Millisecond)
		asked.Store(0)
		fails.Store(true)
		for _, ev := range events {
			if _, err := w.crypto.Open(t.Context(), ev, bot); err == nil || appservice.IsPermanent(err) || errors.Is(err, crypto.ErrUntrusted) {
				t.Errorf("outdated %t: nobody could be asked: %v", outdated, err)
			}
		}
		first := asked.Load()
		time.Sleep(2100 * time.Millisecond)
		_, _ = w.crypto.Open(t.Context(), events[0], bot)
		if again := asked.Load() - first; first == 0 || first != again {
			t.Errorf("outdated %t: five events have caused %d requests, and one later %d", outdated, first, again)
		}
	}
	time.Sleep(2100 * time.Millisecond)
	fails.Store(false)
	for n, ev := range events {
		if opened, err := w.crypto.Open(t.Context(), ev, bot); err != nil || text(opened) != "x" {
			t.Errorf("%d, when the homeserver answers again: %v", n, err)
		}
	}
}

// Somebody's server is silent, and has any number of users of whom two devices each give one session: all that comes for the bot waits for each question.
func TestRoomKey_OfTwoUnknownDevicesOfManyUsers_WaitsForASilentServerSomeTimesOnly(t *testing.T) {
	w, bot, room, _, _ := members(t)
	asked, letGo := w.silent(id.UserID("@many"))
	letGo()
	for n := range 3 * crypto.WhoseAtOnce {
		p := newPerson(w, fmt.Sprint("many", n))
		key := w.roomKey(room)
		w.settle()
		for _, device := range []*person{p.again(), p} {
			h := w.hand(device, bot)
			payload := h.payload(key)
			delete(payload, "sender_device_keys")
			if err := w.crypto.HandleKeys(t.Context(), h.encrypt(payload)); (err == nil) != (device != p) || err != nil && !errors.Is(err, crypto.ErrMismatch) {
				t.Errorf("%d: %v", n, err)
			}
		}
	}
	if len(asked) != crypto.WhoseAtOnce {
		t.Errorf("to-device messages have waited %d times for a silent server, want %d", len(asked), crypto.WhoseAtOnce)
	}
}

// The homeserver fails at each question about a user, and all that comes for the bot waits behind the message.
func TestRoomKey_OfTwoUnknownDevices_QuestionFailsAgainAndAgain_TheFirstCounts(t *testing.T) {
	w, bot, room, _, bob := members(t)
	key := w.roomKey(room)
	w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.Header.Get("Authorization") != "Bearer "+w.registration.ASToken {
			return false
		}
		rw.WriteHeader(http.StatusInternalServerError)
		_, _ = rw.Write([]byte(`{"errcode":"M_UNKNOWN","error":"no"}`))
		return true
	})
	gives := func(device *person, attempts int) error {
		h := w.hand(device, bot)
		payload := h.payload(key)
		delete(payload, "sender_device_keys")
		ev := h.encrypt(payload)
		ev.Attempts = attempts
		return w.crypto.HandleKeys(t.Context(), ev)
	}
	w.no(gives(bob.p.again(), 0))
	if err := gives(bob.p, 0); err == nil || appservice.IsPermanent(err) {
		t.Errorf("nobody could be asked: %v", err)
	}
	if err := gives(bob.p, 6); !errors.Is(err, crypto.ErrMismatch) || !appservice.IsPermanent(err) {
		t.Errorf("nobody can be asked: %v", err)
	}
}

// What waits for a silent server must not keep the reader from others' keys.
func TestOlmLock_WhileASilentServerIsAskedForDevices_IsFreeForOthersKeys(t *testing.T) {
	for name, asks := range map[string]func(w *world, bot id.UserID, room id.RoomID, h *hand){
		"a message is judged": func(w *world, bot id.UserID, room id.RoomID, h *hand) {
			if _, err := w.crypto.Open(w.t.Context(), w.speaksUnsigned(h, room, 1), bot); !errors.Is(err, crypto.ErrUntrusted) {
				w.t.Errorf("what a device says that nobody knows: %v", err)
			}
		},
		"a room key is given for the first time": func(w *world, bot id.UserID, room id.RoomID, _ *hand) { w.session(bot, room) },
		"a room key is used again":               func(w *world, bot id.UserID, room id.RoomID, _ *hand) { w.session(bot, room) },
	} {
		t.Run(name, func(t *testing.T) {
			w, bot, room, alice, bob := members(t)
			_, err := bob.p.Join(t.Context(), string(room))
			w.no(err)
			w.settle()
			if strings.Contains(name, "again") {
				w.session(bot, room)
			}
			more := bob.p.again()
			more.publishes(func(*mautrix.DeviceKeys) {})
			h := w.hand(more, bot)
			w.settle()
			asked, letGo := w.silent(bob.p.ID())
			done := make(chan struct{})
			go func() {
				defer close(done)
				asks(w, bot, room, h)
			}()
			select {
			case <-asked:
			case <-time.After(20 * time.Second):
				t.Fatal("nobody asks for the devices")
			}
			taken := make(chan struct{})
			go func() {
				defer close(taken)
				w.takes(alice, w.roomKey(room), nil)
			}()
			select {
			case <-taken:
			case <-time.After(20 * time.Second):
				t.Error("Alice's key waits for Bob's server")
			}
			letGo()
			<-taken
			<-done
		})
	}
}

// A server has any number of users in a room, each of whom would have the room wait for it.
func TestJudge_ManyUsersOfASilentServer_HoldUpTheRoomSomeTimesOnly(t *testing.T) {
	w, bot, room, _, _ := members(t)
	var asked atomic.Int32
	failures := `{"hs.test":{"errcode":"M_UNKNOWN"}}`
	var answers atomic.Value
	answers.Store(failures)
	w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.Header.Get("Authorization") != "Bearer "+w.registration.ASToken {
			return false
		}
		asked.Add(1)
		_, _ = fmt.Fprintf(rw, `{"device_keys":{},"failures":%s}`, answers.Load())
		return true
	})
	speaks := func(name string, users int) {
		for n := range users {
			p := newPerson(w, fmt.Sprint(name, n))
			_, err := p.Join(t.Context(), string(room))
			w.no(err)
			h := w.hand(p.again(), bot)
			w.settle()
			if _, err := w.crypto.Open(t.Context(), w.speaksUnsigned(h, room, n), bot); !errors.Is(err, crypto.ErrUntrusted) {
				t.Errorf("what a device says that nobody knows: %v", err)
			}
		}
	}
	answers.Store(`{"other.test":{}}`) // it is another one that is silent
	speaks("heard", 2*crypto.WhoseAtOnce)
	if n := asked.Load(); n != 2*crypto.WhoseAtOnce {
		t.Errorf("users of a server that answers are asked for %d times", n)
	}
	asked.Store(0)
	answers.Store(failures)
	speaks("many", 2*crypto.WhoseAtOnce)
	if n := asked.Load(); n != crypto.WhoseAtOnce {
		t.Errorf("for %d users of a silent server the room has waited %d times, want %d", 2*crypto.WhoseAtOnce, n, crypto.WhoseAtOnce)
	}
}
