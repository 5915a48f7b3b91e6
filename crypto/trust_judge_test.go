//go:build goolm

package crypto_test

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
)

// In each of many rooms somebody says the first word at the same time: one asks for the device, and the others must not judge before the answer.
func TestTrust_ManyFirstMessagesAtOnce_NoneIsRefusedWhileTheDeviceIsAskedFor(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.signs()
	const many = 20
	var events [many]*appservice.Event
	for n := range events {
		w.alice.say(room, fmt.Sprint(n), ghost)
		events[n] = w.next()
	}
	w.settle()
	w.hs.Fault(bridgetest.Fault{Path: regexp.MustCompile("/keys/query"), Delay: 300 * time.Millisecond, Times: -1})
	before := w.requests("/keys/query")
	var all sync.WaitGroup
	for n, ev := range events {
		all.Go(func() {
			if opened, err := w.crypto.Open(t.Context(), ev, ghost); err != nil || text(opened) != fmt.Sprint(n) {
				t.Errorf("message %d: %q, %v", n, text(opened), err)
			}
		})
	}
	all.Wait()
	if asked := w.requests("/keys/query") - before; asked != 1 {
		t.Errorf("the device was asked for %d times", asked)
	}
}

func TestTrust_DeviceThatIsSignedAfterARefusal_IsReadAtOnce(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	w.alice.say(room, "who am I?", ghost)
	ev := w.next()
	w.no(w.crypto.Await(t.Context(), ghost, ev))
	if _, err := w.crypto.Open(t.Context(), ev, ghost); !errors.Is(err, crypto.ErrUntrusted) {
		t.Fatal(err)
	}
	w.alice.signs()
	w.settle()
	w.alice.say(room, "I am alice", ghost)
	if opened, err := w.crypto.Open(t.Context(), w.next(), ghost); err != nil || text(opened) != "I am alice" {
		t.Errorf("%q, %v", text(opened), err)
	}
}

// The key of a session comes with an ed25519 key that its sender claims, and nobody knows his device yet. What the homeserver says then decides.
func TestJudge_SessionWithAnotherEd25519KeyThanItsDevice_IsRefused(t *testing.T) {
	for _, least := range []crypto.Trust{crypto.TrustAny, crypto.TrustCrossSigned} {
		w := newWorld(t)
		w.with(func(o *crypto.Options) { o.Receive = least })
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		room := w.room(bot)
		w.alice.signs()
		h := w.hand(w.alice, bot)
		key := w.roomKey(room)
		p := h.payload(key)
		delete(p, "sender_device_keys")
		p["keys"] = fields{"ed25519": w.alice.again().olm.GetAccount().SigningKey()}
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(p)))
		if _, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$1", "one"), bot); !errors.Is(err, crypto.ErrMismatch) {
			t.Errorf("%s: got %v, want ErrMismatch", least, err)
		}
		good := w.roomKey(room)
		w.takes(w.hand(w.alice, bot), good, nil)
		w.readsAs(w.alice.sealedWith(good, "$2", "two"), bot, "two")
	}
}

// What the bridge has said comes back under somebody's name.
func TestJudge_SessionOfTheBridgesOwnUnderAnothersName_IsRefused(t *testing.T) {
	w, bot, room, _, _ := members(t)
	sealed, err := w.seal(bot, room, "x")
	w.no(err)
	if opened, err := w.crypto.Open(t.Context(), w.alice.encryptedEvent(room, "$1", object(sealed)), bot); err == nil {
		t.Errorf("%q is taken as %s's", text(opened), w.alice.ID())
	}
}
