package bridge_test

import (
	"slices"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestGap_RestartOfSynapseCutsATransactionOff_ItComesBeforeTheNext(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi")) // a ghost has its device, so the homeserver was asked what it is
	c.says("before")
	c.arrives("before")
	c.ok(c.hs.Settle(c.ctx))

	c.hs.PushFault(bridgetest.PushFault{Delay: time.Hour})
	c.says("cut off")
	id := "test"
	for c.hs.AppServiceState(id).Pending == 0 {
		time.Sleep(time.Millisecond)
	}
	c.hs.Restart()
	c.says("after")
	c.arrives("after")
	var texts []string
	for _, m := range c.net.Sent() {
		texts = append(texts, m.Text)
	}
	if want := []string{"before", "cut off", "after"}; !slices.Equal(texts, want) {
		t.Errorf("to the network went %v, want %v", texts, want)
	}
	if failed := c.hs.AppServiceState(id).Failed; failed != 1 {
		t.Errorf("%d transactions failed, want 1", failed)
	}
}
