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
