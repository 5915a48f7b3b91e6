package bridge_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestOffline_MessageWaitsWithoutAnAttempt_AndGoesOutWhenTheSessionIsBack(t *testing.T) {
	c := newCrossing(t, func(cfg *bridge.Config) { cfg.Appservice.Workers = 1 })
	other := c.anotherRoom()
	c.net.FailSends(bridge.ErrOffline)
	c.says("as soon as you can")
	must(c.alice.SendText(c.ctx, other, "!test status"))(t) // with one worker, this shows that it is not held
	c.fromBot(other)
	if sent := c.net.Sent(); len(sent) != 0 {
		t.Fatalf("the network got %+v while it was away", sent)
	}
	c.net.Sink().Online()
	if got := c.arrives("as soon as you can"); got.Attempt != 0 {
		t.Errorf("waiting counted as %d attempts", got.Attempt)
	}
}

func TestOffline_CleanStop_LosesAndDoubtsNothing(t *testing.T) {
	c := newCrossing(t)
	c.net.FailSends(bridge.ErrOffline)
	c.says("first")
	c.says("second")
	c.ok(c.net.Wait(c.ctx, "the first try", func() bool { return c.net.FaultsLeft() == 0 }))
	c.b.Stop()
	c.b.Start()
	c.arrives("second")
	sent := c.net.Sent()
	if len(sent) != 2 || sent[0].Text != "first" {
		t.Errorf("the network got %+v", sent)
	}
	if dead := must(c.b.DeadLetters(c.ctx, 0))(t); len(dead) != 0 {
		t.Errorf("dead letters: %+v", dead)
	}
}

func TestRestart_WhatWaitsForMatrix_ComesBeforeWhatTheSessionDelivers(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	away := c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/send/m.room.message/") {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	c.ok(c.net.Say(c.ctx, lobby, "bob", "old 1"))
	c.ok(c.net.Say(c.ctx, lobby, "bob", "old 2"))
	c.b.Stop()
	away()
	c.net.OnOpen = func(sink bridge.Sink) {
		c.ok(sink.Deliver(c.ctx, &bridge.Incoming{
			Channel: lobby, Sender: bridge.RemoteUser{ID: "bob", Name: "bob"}, Text: &bridge.Text{Body: "new"},
		}))
	}
	c.b.Start()
	c.sees(bridgetest.Message(c.bob(), "new"))
	var texts []string
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(t) {
		if e.Sender == c.bob() && e.Type == "m.room.message" {
			texts = append(texts, e.Body())
		}
	}
	if got := strings.Join(texts, ", "); got != "hi, old 1, old 2, new" {
		t.Errorf("the room has: %s", got)
	}
}
