package bridge_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// inBubble is a crossing whose homeserver and bridge are in memory, and take the bubble's time.
func inBubble(t *testing.T, test func(c *crossing)) {
	synctest.Test(t, func(t *testing.T) {
		c := unplumbedOn(t, bridgetest.NewHomeserver(t, bridgetest.Options{InMemory: true}))
		c.ctx = t.Context() // the other one ends after two minutes
		c.plumb()
		test(c)
	})
}

func (c *crossing) ghost(name string) id.UserID { return id.NewUserID("test_"+name, c.hs.Domain()) }

func remote(name string) bridge.RemoteUser { return bridge.RemoteUser{ID: name, Name: name} }

func (c *crossing) deliver(in *bridge.Incoming) {
	c.Helper()
	in.Channel = lobby
	c.ok(c.net.Deliver(c.ctx, in))
}

func (c *crossing) joins(who string) {
	c.Helper()
	c.deliver(&bridge.Incoming{Sender: remote(who), Join: &bridge.Join{}})
}

func (c *crossing) leaves(who string) {
	c.Helper()
	c.deliver(&bridge.Incoming{Sender: remote(who), Leave: &bridge.Leave{Reason: "*.net *.split"}})
}

func (c *crossing) lists(who ...string) {
	c.Helper()
	list := &bridge.Members{}
	for _, one := range who {
		list.Users = append(list.Users, remote(one))
	}
	c.deliver(&bridge.Incoming{Members: list})
}

func (c *crossing) speaks(who, text string) {
	c.Helper()
	c.ok(c.net.Say(c.ctx, lobby, who, text))
}

// story is what alice has seen of some ghosts: who came, went and said what.
func (c *crossing) story(who ...string) string {
	c.Helper()
	var told []string
	in := map[id.UserID]string{}
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(c.T) {
		for _, one := range who {
			switch {
			case e.Membership() == "invite":
			case e.Type == "m.room.member" && e.Target() == c.ghost(one) && in[e.Target()] != e.Membership():
				in[e.Target()] = e.Membership()
				told = append(told, one+" "+e.Membership())
			case e.Type == "m.room.message" && e.Sender == c.ghost(one):
				told = append(told, one+": "+e.Body())
			}
		}
	}
	return strings.Join(told, ", ")
}

// settled waits, in the bubble, until all that was stored was done or is to be tried again.
func settled() { time.Sleep(time.Minute) }

func (c *crossing) wantStory(want string, who ...string) {
	c.Helper()
	settled()
	if got := c.story(who...); got != want {
		c.Errorf("it went so: %s\nand not so: %s", got, want)
	}
}

// failing has a step go wrong.
func (c *crossing) failing(step string, f bridgetest.Fault) {
	f.Path = regexp.MustCompile(step)
	c.hs.Fault(f)
}

var refused = bridgetest.Fault{Status: http.StatusBadGateway}

func TestComings_StormAndSplit_WhatIsSaidInTheMiddleDoesNotWaitForIt(t *testing.T) {
	inBubble(t, func(c *crossing) {
		c.speaks("bob", "hello")
		c.sees(bridgetest.Message(c.bob(), "hello"))
		c.failing(`/(join|leave)`, bridgetest.Fault{Times: -1, Delay: 40 * time.Millisecond}) // a large room of Synapse
		const crowd = 200
		for _, storm := range []string{"join", "leave", "join"} {
			for n := range crowd {
				guest := fmt.Sprint("guest", n)
				if storm == "join" {
					c.joins(guest)
				} else {
					c.leaves(guest)
				}
				if n == crowd/2 {
					began := time.Now()
					c.speaks("bob", "I was here all the time")
					c.sees(bridgetest.Message(c.bob(), "I was here all the time"))
					if storm == "join" {
						c.speaks(guest, "I came just now")
						c.sees(bridgetest.Message(c.ghost(guest), "I came just now"))
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("what was said in the middle of the %ss waited for %v", storm, took)
					}
				}
			}
			settled()
			members := must(c.alice.Members(c.ctx, c.room))(t)
			for n := range crowd {
				if ghost := c.ghost(fmt.Sprint("guest", n)); members[ghost] != storm && (storm == "join" || members[ghost] == "join") {
					t.Fatalf("after the %ss %s is %q", storm, ghost, members[ghost])
				}
			}
		}
	})
}

func TestComings_LastWordsThatHaveToWait_ComeBeforeTheLeaving(t *testing.T) {
	inBubble(t, func(c *crossing) {
		c.joins("bob")
		settled()
		c.failing(`/send/m\.room\.message/`, bridgetest.Fault{Status: http.StatusBadGateway, Times: 3})
		c.speaks("bob", "bye")
		c.leaves("bob")
		c.wantStory("bob join, bob: bye, bob leave", "bob")
	})
}

func TestComings_LeavingThatHasToWait_ComesBeforeTheNextWords(t *testing.T) {
	inBubble(t, func(c *crossing) {
		c.joins("bob")
		settled()
		c.joins("carl")
		settled()
		c.failing(`/leave`, bridgetest.Fault{Status: http.StatusBadGateway, Times: 3})
		c.leaves("bob")
		c.joins("bob")
		c.speaks("carl", "bob?")
		c.speaks("bob", "I am back")
		c.wantStory("bob join, carl join, carl: bob?, bob leave, bob join, bob: I am back", "bob", "carl")
	})
}

func TestComings_JoiningThatHasToWait_IsUndoneByAListFromAfterIt(t *testing.T) {
	inBubble(t, func(c *crossing) {
		c.joins("carl")
		settled()
		c.failing(`/join/`, bridgetest.Fault{Status: http.StatusBadGateway, Times: 2})
		c.joins("bob")
		c.lists("carl")
		c.wantStory("carl join, bob join, bob leave", "bob", "carl")
	})
}

func TestComings_ListThatHasToWait_UndoesNothingFromAfterIt(t *testing.T) {
	inBubble(t, func(c *crossing) {
		c.joins("bob")
		settled()
		c.joins("carl")
		settled()
		c.failing(`/joined_members`, bridgetest.Fault{Status: http.StatusBadGateway, Times: 3})
		c.lists("dora")
		c.leaves("dora")
		c.joins("carl")
		c.wantStory("bob join, carl join, bob leave", "bob", "carl", "dora")
		if dead := must(c.b.DeadLetters(c.ctx, 0))(t); len(dead) != 0 {
			t.Errorf("dead letters: %+v", dead)
		}
	})
}

func TestComings_WordsFromAfterAList_BringBackWhomItTookOut(t *testing.T) {
	inBubble(t, func(c *crossing) {
		c.joins("bob")
		settled()
		c.failing(`/joined_members`, refused)
		c.lists()
		c.speaks("bob", "they forgot me")
		c.wantStory("bob join, bob leave, bob join, bob: they forgot me", "bob")
	})
}

func TestComings_RedactionOfWhoHasLeft_LeavesThemOutWhateverFails(t *testing.T) {
	for _, fault := range []bridgetest.Fault{{}, {Status: http.StatusBadGateway, Times: 2}, {DropAfter: true}} {
		inBubble(t, func(c *crossing) {
			c.deliver(&bridge.Incoming{ID: "m1", Sender: remote("bob"), Text: &bridge.Text{Body: "oops"}})
			c.leaves("bob")
			settled()
			if fault != (bridgetest.Fault{}) {
				c.failing(`/redact/`, fault)
			}
			c.deliver(&bridge.Incoming{Sender: remote("bob"), Redact: &bridge.Redact{ID: "m1"}})
			settled()
			c.sees(bridgetest.OfType("m.room.redaction"))
			if in := must(c.alice.Members(c.ctx, c.room))(t)[c.bob()]; in == "join" {
				t.Errorf("after %+v bob is in the room again, for good", fault)
			}
		})
	}
}

func TestComings_BannedGhostInAList_IsNoDeadLetter(t *testing.T) {
	inBubble(t, func(c *crossing) {
		c.joins("bob")
		settled()
		c.ok(c.alice.Ban(c.ctx, c.room, c.bob(), "spam"))
		settled()
		c.lists("bob", "carl")
		c.wantStory("carl join", "carl")
		if dead := must(c.b.DeadLetters(c.ctx, 0))(t); len(dead) != 0 {
			t.Errorf("dead letters: %+v", dead)
		}
	})
}

// Everything at once: several people come, go, come again, are somebody else and say things, lists say who is there, requests fail
// before and after they took effect, and the bridge is stopped and started in between.
func TestComings_AllAtOnceWithFaultsAndRestarts_EverybodyKeepsTheirOrder(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(c *crossing) { c.everythingAtOnce(rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func (c *crossing) everythingAtOnce(r *rand.Rand) {
	people := []string{"bob", "carl", "dora", "eve", "fred", "gina"}
	in, want := map[string]bool{}, map[string][]string{} // of each what is seen of them
	note := func(who, what string) { want[who] = append(want[who], what) }
	comes := func(who string) {
		if !in[who] {
			in[who] = true
			note(who, who+" join")
		}
	}
	goes := func(who string) {
		if in[who] {
			in[who] = false
			note(who, who+" leave")
		}
	}
	steps := []string{`/join/`, `/leave$`, `/send/m\.room\.message/`, `/joined_members`, `/register`}
	faults := []bridgetest.Fault{{Status: http.StatusBadGateway}, {DropAfter: true}, {Drop: true}, {Delay: 3 * time.Second}, {Delay: 3 * time.Second, DropAfter: true}, {Status: http.StatusTooManyRequests, RetryAfter: 2 * time.Second}}
	for n := range 90 {
		who := people[r.IntN(len(people))]
		if r.IntN(4) == 0 {
			c.failing(steps[r.IntN(len(steps))], faults[r.IntN(len(faults))])
		}
		switch r.IntN(12) {
		case 0, 1, 2:
			if in[who] {
				goes(who)
				c.leaves(who)
			}
		case 3, 4, 5:
			if !in[who] {
				comes(who)
				c.joins(who)
			}
		case 6:
			to := people[r.IntN(len(people))]
			if in[who] && !in[to] {
				goes(who)
				comes(to)
				c.deliver(&bridge.Incoming{Sender: remote(to), Rename: &bridge.Rename{From: remote(who)}})
			}
		case 7:
			if n%3 > 0 {
				continue
			}
			time.Sleep(time.Hour) // a list that is overtaken by later words may leave out what they undo; see the simulation
			var now []string
			for _, one := range people {
				if r.IntN(2) == 0 {
					now = append(now, one)
					comes(one)
				} else {
					goes(one)
				}
			}
			c.lists(now...)
			time.Sleep(time.Hour)
		case 8:
			if n%5 == 0 {
				c.b.Stop()
				c.b.Start()
			}
		default:
			text := fmt.Sprint("word ", n)
			comes(who)
			note(who, who+": "+text)
			c.speaks(who, text)
		}
	}
	time.Sleep(2 * time.Hour)
	members := must(c.alice.Members(c.ctx, c.room))(c.T)
	for _, who := range people {
		if got, want := c.story(who), strings.Join(want[who], ", "); got != want {
			c.Errorf("%s:\n%s\nwant:\n%s", who, got, want)
		}
		if is := members[c.ghost(who)] == "join"; is != in[who] {
			c.Errorf("%s is in the room: %v, and in the channel: %v", who, is, in[who])
		}
	}
	if dead := must(c.b.DeadLetters(c.ctx, 0))(c.T); len(dead) != 0 {
		c.Errorf("dead letters: %+v", dead)
	}
}
