package irc

import (
	"slices"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
)

func pair() (c *crew, a, b *session, w *watch) {
	out := newOutlet(newSink())
	out.close()
	a = &session{config: *testConfig("x:1"), login: bridge.RelayLogin, out: out}
	b = &session{config: *testConfig("x:1"), login: "@b:x", out: out}
	c = newCrew(out)
	c.enters(a, "#c", "a")
	c.enters(b, "#c", "b")
	return c, a, b, c.channels["#c"]
}

func said(text string) sight {
	return sightOf(&bridge.Incoming{Channel: "#c", Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Kind: bridge.KindText, Body: text}})
}

func (w *watch) texts() (texts []string) {
	for _, in := range slices.Concat(w.ready, w.pending) {
		texts = append(texts, in.Text.Body)
	}
	return texts
}

// No server's lists say so; if one's do, what is said is not held for ever.
func TestCrew_EachListSaysThatTheOtherWasThereBefore_LinesGoOnAllTheSame(t *testing.T) {
	c, a, b, w := pair()
	c.counts(a, "#c", []*session{b})
	c.counts(b, "#c", []*session{a})
	for _, text := range numbered(3) {
		c.sees(b, "#c", said(text))
		c.sees(a, "#c", said(text))
	}
	if got := w.texts(); !slices.Equal(got, numbered(3)) {
		t.Errorf("delivered were %q", got)
	}
}

func TestCrew_MoreIsSaidThanIsHeldForAHistory_GoesOnWithoutIt(t *testing.T) {
	c, a, _, w := pair()
	c.counts(a, "#c", nil)
	if !c.missing(a, "#c") {
		t.Fatal("nobody looks for what was said before")
	}
	for _, text := range numbered(heldMost) {
		if n := len(w.ready); n > 0 {
			t.Fatalf("%d were delivered before the history", n)
		}
		c.sees(a, "#c", said(text))
	}
	c.sees(a, "#c", said("after"))
	if got := w.texts(); !slices.Equal(got, append(numbered(heldMost), "after")) || len(w.ready) != len(got) || len(w.pending) > 0 {
		t.Errorf("%d are delivered and %d held", len(w.ready), len(w.pending))
	}
	if c.fetching(a, "#c") {
		t.Error("it is fetched still")
	}
}

// One that shows nothing, and the server has not given up: what is kept for it has a bound, and it is the newest.
func TestCrew_OneReadsNothing_WhatItIsToStrikeOffHasABound(t *testing.T) {
	c, a, b, w := pair()
	c.counts(a, "#c", nil)
	w.goOn()
	c.counts(b, "#c", []*session{a})
	c.sees(a, "#c", sightOfOurs(b, "b", true))
	for _, text := range numbered(heldMost + 7) {
		c.sees(a, "#c", said(text))
	}
	w.ready = nil
	if n := len(w.seat(b).ahead); n != heldMost {
		t.Fatalf("%d are kept, want %d", n, heldMost)
	}
	for _, text := range numbered(heldMost + 7)[7:] {
		c.sees(b, "#c", said(text))
	}
	if len(w.ready) > 0 {
		t.Errorf("%q were delivered twice", w.texts())
	}
}

// The login is on the other side of a split, and is not shown the KICK.
func TestCrew_RelayIsKickedWhileTheNetworkIsSplit_NobodyListensInItsPlace(t *testing.T) {
	c, a, b, w := pair()
	c.counts(a, "#c", nil)
	w.goOn()
	c.counts(b, "#c", []*session{a})
	c.sees(a, "#c", sightOfOurs(b, "b", true))
	c.sees(b, "#c", sightOfOurs(a, "a", false))
	c.sees(a, "#c", sightOfOurs(b, "b", false))
	kick := sightOfOurs(a, "a", false)
	kick.barred = true
	c.leaves(a, "#c", leaving{read: &kick, barred: true})
	if c.sees(b, "#c", said("unheard")); len(w.ready) > 0 {
		t.Errorf("delivered were %q", w.texts())
	}
}
