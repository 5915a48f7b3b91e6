package bridge_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// ghostTypes lets bob of the network type, and returns when the homeserver knows.
func (c *crossing) ghostTypes() {
	c.Helper()
	typing := make(chan struct{}, 1)
	remove := c.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/typing/"+string(c.bob())) {
			select {
			case typing <- struct{}{}:
			default:
			}
		}
		return false
	})
	defer remove()
	c.net.Sink().Typing(lobby, bridge.RemoteUser{ID: "bob"}, true)
	select {
	case <-typing:
	case <-c.ctx.Done():
		c.Fatal("the ghost never typed")
	}
}

func TestA13_WhatGhostsAndTheBotDo_DoesNotComeBackToTheNetwork(t *testing.T) {
	c := newCrossing(t, func(cfg *bridge.Config) { cfg.Bridge.Membership.ToNetwork = true })
	c.ok(c.net.Say(c.ctx, lobby, "bob", "from the network")) // the ghost joins and speaks
	said := c.sees(bridgetest.Message(c.bob(), "from the network"))
	must(c.alice.SendText(c.ctx, c.room, "!test status"))(t) // the bot speaks
	c.fromBot(c.room)
	c.ghostTypes()
	c.ok(c.hs.Settle(c.ctx)) // all of it came back to the bridge

	c.ok(c.alice.MarkRead(c.ctx, c.room, said.ID))
	c.ok(c.alice.Typing(c.ctx, c.room, true))
	c.ok(c.net.Wait(c.ctx, "alice, who types", func() bool { return len(c.net.Typing(lobby)) > 0 }))
	if typing := c.net.Typing(lobby); len(typing) != 1 || typing[0] != "alice" {
		t.Errorf("on the network, %q type", typing)
	}
	c.says("the end")
	c.arrives("the end")
	if sent := c.net.Sent(); len(sent) != 1 {
		t.Errorf("the network got %+v", sent)
	}
	for _, m := range c.net.Memberships() {
		if m.User.ID != c.alice.ID() {
			t.Errorf("the network was told of %+v", m)
		}
	}
}

func TestA15_A18_PrivateReceiptsAndPresence_ReachNobodyAndMakeNothing(t *testing.T) {
	c := newCrossing(t)
	stranger := c.hs.User("stranger")
	c.ok(c.net.Say(c.ctx, lobby, "bob", "read me"))
	said := c.sees(bridgetest.Message(c.bob(), "read me"))
	requests := len(c.hs.Requests(byBridge))
	for _, kind := range []string{"m.read.private", "m.read"} {
		c.ok(c.alice.Do(c.ctx, http.MethodPost, fmt.Sprintf("rooms/%s/receipt/%s/%s", c.room, kind, said.ID), map[string]any{}, nil))
	}
	c.ok(c.alice.Invite(c.ctx, c.room, stranger.ID()))
	must(stranger.Join(c.ctx, string(c.room)))(t)
	c.ok(stranger.Do(c.ctx, http.MethodPut, "presence/"+string(stranger.ID())+"/status", map[string]any{"presence": "online"}, nil))
	c.ok(c.hs.Settle(c.ctx))
	c.ok(c.alice.Typing(c.ctx, c.room, true)) // is handled after them
	c.ok(c.net.Wait(c.ctx, "alice, who types", func() bool { return len(c.net.Typing(lobby)) > 0 }))
	if sent := c.net.Sent(); len(sent) != 0 {
		t.Errorf("the network got %+v", sent)
	}
	for _, r := range c.hs.Requests(byBridge)[requests:] {
		if r.Method != http.MethodGet {
			t.Errorf("the bridge did %s %s as %s", r.Method, r.Path, r.User)
		}
	}
}

func byBridge(r bridgetest.Request) bool { return r.AppService != "" }
