package irc

import (
	"slices"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
)

// three is a channel in which the relay is, and its logins are not.
func three() (c *crew, r, a, b *session, w *watch) {
	c, r, a, w = pair()
	w.rise(w.seat(a))
	c.counts(r, "#c", nil)
	w.goOn()
	return c, r, a, &session{config: *testConfig("x:1"), login: "@c:x", out: r.out}, w
}

// The list is of before that, and is read after it.
func TestCrew_WhoWasThereLeavesAndComesAgainBeforeTheListIsRead_WhatWasSaidMeanwhileIsDelivered(t *testing.T) {
	c, r, a, b, _ := three()
	c.leaves(r, "#c", leaving{})
	c.enters(a, "#c", "a")
	c.counts(a, "#c", nil)
	w := c.channels["#c"]
	w.goOn()
	c.awaits(b, "#c")
	c.leaves(a, "#c", leaving{})
	c.awaits(r, "#c")
	c.enters(b, "#c", "b")
	c.awaits(a, "#c")
	c.enters(a, "#c", "a")
	c.counts(b, "#c", []*session{a})
	c.sees(b, "#c", said("before it came again"))
	c.leaves(b, "#c", leaving{})
	c.enters(r, "#c", "r")
	c.counts(r, "#c", nil)
	c.sees(r, "#c", sightOfOurs(a, "a", true))
	c.sees(r, "#c", said("since"))
	if got, want := w.texts(), []string{"before it came again", "since"}; !slices.Equal(got, want) {
		t.Errorf("delivered were %q, want %q", got, want)
	}
}

// As when a server of the network goes: one session is on it, or behind it, and the other connects again on the other side.
func TestCrew_ComesWhileTheOtherIsOnAnotherSideOfASplit_BothSidesAreDelivered(t *testing.T) {
	c, r, a, _, w := three()
	c.awaits(a, "#c")
	c.enters(a, "#c", "a")
	if !c.counts(a, "#c", nil) {
		t.Error("it is not known that the relay may be on another side")
	}
	c.sees(a, "#c", said("here"))
	c.sees(r, "#c", said("there"))
	if c.aside("#c"); w.waits || w.seat(a).placed {
		t.Error("that is taken for sure at once")
	}
	w.seat(a).since = w.seat(a).since.Add(-asideAfter)
	c.aside("#c")
	if !c.missing(a, "#c") {
		t.Error("nobody looks for who is there, and for what was said there before")
	}
	c.goesOn(a, bridge.Incoming{Channel: "#c"})
	c.sees(a, "#c", said("still here"))
	c.sees(a, "#c", sightOfOurs(r, "a", true)) // the end of the split, which each reads of the other
	c.sees(r, "#c", sightOfOurs(a, "a", true))
	c.sees(r, "#c", said("everywhere"))
	c.sees(a, "#c", said("everywhere"))
	var got []string
	for _, in := range w.ready {
		if in.Text != nil {
			got = append(got, in.Text.Body)
		}
	}
	if want := []string{"there", "here", "still here", "everywhere"}; !slices.Equal(got, want) {
		t.Errorf("delivered were %q, want %q", got, want)
	}
}

// It has gone again before that: what it has read is delivered all the same.
func TestCrew_ComesAndGoesWhileTheOtherIsOnAnotherSideOfASplit_WhatItHasReadIsDelivered(t *testing.T) {
	c, _, a, _, w := three()
	c.awaits(a, "#c")
	c.enters(a, "#c", "a")
	c.counts(a, "#c", nil)
	c.sees(a, "#c", said("here"))
	st := w.seat(a)
	c.leaves(a, "#c", leaving{})
	st.since = st.since.Add(-asideAfter)
	if c.aside("#c"); !slices.Equal(w.texts(), []string{"here"}) {
		t.Errorf("delivered were %q", w.texts())
	}
}

// A login that is listed, and has not read the JOIN, is waited for.
func TestCrew_TheOtherIsListedAndSlow_ItIsWaitedFor(t *testing.T) {
	c, r, a, _, w := three()
	c.awaits(a, "#c")
	c.enters(a, "#c", "a")
	if c.counts(a, "#c", []*session{r}) {
		t.Error("who is listed is taken for on another side")
	}
	w.seat(a).since = w.seat(a).since.Add(-asideAfter)
	c.sees(a, "#c", said("after"))
	if c.aside("#c"); len(w.texts()) > 0 {
		t.Errorf("delivered were %q before what was said before", w.texts())
	}
	c.sees(r, "#c", said("before"))
	c.sees(r, "#c", sightOfOurs(a, "a", true))
	if got, want := w.texts(), []string{"before", "after"}; !slices.Equal(got, want) {
		t.Errorf("delivered were %q, want %q", got, want)
	}
}

func TestWatch_OneComesWhileTheOtherIsOnAnotherSideOfASplit_EachLineIsDeliveredOnce(t *testing.T) {
	for _, sc := range []story{
		{"Jr", "Sr", "Ja"}, {"Jr", "Sr", "Ja", "Hr"}, {"Ja", "Sa", "Jr", "o"}, {"Ja", "Sa", "Jr", "Pr"}, {"Ja", "Sa", "Jr", "Cr"}, {"Jr", "Sr", "Ja", "Cr"},
		{"Jr", "Sr", "Ja", "Hr", "o"}, {"Jr", "Sr", "Ja", "Hr", "Pa"}, {"Ja", "Sa", "Jr", "Ha", "Ca"},
	} {
		every(t, sc, 400, 1)
	}
}

// Servers of one network may differ in what they have: message-tags, say, while they are being upgraded.
func TestCrew_OnlyOneServerGivesIDs_EachLineIsDeliveredOnce(t *testing.T) {
	for _, first := range []string{"with", "without"} {
		t.Run(first, func(t *testing.T) {
			c, r, a, _, w := three()
			c.enters(a, "#c", "a")
			c.counts(a, "#c", []*session{r})
			c.sees(r, "#c", sightOfOurs(a, "a", true))
			named := func(text, id string) sight {
				in := said(text).in
				in.ID = id
				return sightOf(&in)
			}
			lines := []struct{ text, id string }{{"yes", "1"}, {"yes", "2"}, {"no", "3"}}
			for _, l := range lines {
				if first == "with" {
					c.sees(r, "#c", named(l.text, l.id))
				} else {
					c.sees(a, "#c", said(l.text))
				}
			}
			for _, l := range lines {
				if first == "with" {
					c.sees(a, "#c", said(l.text))
				} else {
					c.sees(r, "#c", named(l.text, l.id))
				}
			}
			c.sees(a, "#c", said("yes")) // which the other reads later
			c.sees(r, "#c", named("yes", "4"))
			if got, want := w.texts(), []string{"yes", "yes", "no", "yes"}; !slices.Equal(got, want) {
				t.Errorf("delivered were %q, want %q", got, want)
			}
			if st := w.seat(a); len(st.ahead)+len(w.seat(r).ahead) > 0 {
				t.Errorf("%v are still to be read", st.ahead)
			}
		})
	}
}

// Where everybody has the same host, and with our user name, somebody may look as one of ours did who has another nick by now.
func TestCrew_SomebodyLooksAsOneOfOursDidAndChangesTheNick_OursKeepsItsOwn(t *testing.T) {
	c, r, a, _, _ := three()
	c.bears(a, "alice_", "~mx", "hidden")
	c.bears(a, "alice", "~mx", "hidden")
	r.crew, r.channels = c, map[string]*channel{}
	l := &link{session: r, nick: "bridge", support: newISupport()}
	m, err := parse(":alice_!~mx@hidden NICK mallory")
	if err != nil {
		t.Fatal(err)
	}
	l.ofOurs(&m)
	if b := c.nicks["alice"]; b == nil || b.s != a || !b.gone.IsZero() {
		t.Error("ours is taken for gone: what it says would soon be taken for somebody else's")
	}
	if m, err = parse(":alice!~mx@hidden NICK alicia"); err != nil {
		t.Fatal(err)
	}
	l.ofOurs(&m)
	if b := c.nicks["alicia"]; b == nil || b.s != a || !b.gone.IsZero() {
		t.Error("ours is not known under its new nick before it has read that itself")
	}
}

// The one that is listed is gone before it has shown the JOIN, and the other is on another side: nobody shows it.
func TestCrew_TheListedOneGoesAndTheOtherIsOnAnotherSide_ItIsWaitedForNoLongerThanTheOtherAlone(t *testing.T) {
	c, r, a, b, w := three()
	c.enters(b, "#c", "b")
	c.counts(b, "#c", []*session{r})
	c.sees(r, "#c", sightOfOurs(b, "b", true))
	c.awaits(a, "#c")
	c.enters(a, "#c", "a")
	if !c.counts(a, "#c", []*session{r}) { // b is on another side
		t.Error("nobody looks later whether it is still waited for")
	}
	c.sees(a, "#c", said("here"))
	w.seat(a).since = w.seat(a).since.Add(-asideAfter)
	c.aside("#c")
	if w.seat(a).placed {
		t.Error("the one that is listed is not waited for")
	}
	c.leaves(r, "#c", leaving{})
	if !w.seat(a).placed {
		t.Error("it waits for who is on another side, as long as the split is")
	}
}
