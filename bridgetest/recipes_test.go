package bridgetest_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// talk is a bridge whole: alice is in a room that is connected to the channel "lobby".
type talk struct {
	*testing.T
	ctx     context.Context
	hs      *bridgetest.Homeserver
	network *bridgetest.Network
	b       *bridgetest.Bridge
	alice   *bridgetest.User
	room    id.RoomID
	bob     id.UserID // the ghost of bob, who is on the network
}

func newTalk(t *testing.T, options ...bridgetest.Option) *talk {
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	hs, network := bridgetest.NewHomeserver(t, options...), bridgetest.NewNetwork()
	c := &talk{T: t, ctx: ctx, hs: hs, network: network, b: bridgetest.StartBridge(t, hs, network), alice: hs.User("alice")}
	c.bob = c.b.GhostID(bridge.RemoteUser{ID: "bob"})
	room, err := c.alice.CreateRoom(ctx, bridgetest.RoomOptions{Invite: []id.UserID{c.b.BotID()}})
	c.ok(err)
	c.room = room
	c.sees(bridgetest.Member(c.b.BotID(), "join"))
	c.says("!test plumb lobby")
	c.sees(bridgetest.Message(c.b.BotID(), "This room is now connected to lobby on Scripted."))
	return c
}

func (c *talk) ok(err error) { c.Helper(); check(c.T, err) }

// Matrix: alice says something, and sees something.
func (c *talk) says(text string) { _, err := c.alice.SendText(c.ctx, c.room, text); c.ok(err) }
func (c *talk) sees(match func(bridgetest.Event) bool) {
	_, err := c.alice.WaitFor(c.ctx, c.room, match)
	c.ok(err)
}

// The network: bob says something, and something arrives there.
func (c *talk) bobSays(text string) { c.ok(c.network.Say(c.ctx, "lobby", "bob", text)) }
func (c *talk) arrives(text string) { _, err := c.network.WaitSent(c.ctx, text); c.ok(err) }

// A homeserver that limits rates: what is refused comes later, in its order, and once.
func TestRecipe_RateLimits(t *testing.T) {
	clock := bridgetest.NewClock() // which stands still: the third message is refused, however slow the machine is
	limits := bridgetest.Limits{Messages: bridgetest.Rate{PerSecond: 20, Burst: 2}}
	c := newTalk(t, clock, bridgetest.Options{Limits: limits})
	texts := []string{"one", "two", "three", "four"}
	for _, text := range texts {
		c.bobSays(text)
	}
	refused := func(r bridgetest.Request) bool { return r.User == c.bob && r.Status == http.StatusTooManyRequests }
	for len(c.hs.Requests(refused)) == 0 && c.ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	clock.Advance(time.Minute)
	for _, text := range texts {
		c.sees(bridgetest.Message(c.bob, text))
	}
}

// An administrator suspends a ghost: its message is a dead letter, and the network is told.
func TestRecipe_SuspendedGhost(t *testing.T) {
	c := newTalk(t)
	c.bobSays("before")
	c.sees(bridgetest.Message(c.bob, "before"))
	c.ok(c.hs.Moderate(c.bob, bridgetest.Suspended))
	c.bobSays("while suspended")
	dead, err := c.b.DeadLetters(c.ctx, 1)
	c.ok(err)
	if !strings.Contains(dead[0].Cause, "M_USER_SUSPENDED") {
		t.Errorf("the dead letter says %q", dead[0].Cause)
	}
	c.arrives("A message of bob did not reach Matrix: the homeserver has suspended the Matrix user that stands for them.")
	c.ok(c.hs.Moderate(c.bob, bridgetest.Unmoderated))
	c.bobSays("after")
	c.sees(bridgetest.Message(c.bob, "after"))
}

// A Synapse that counts its transactions from 1 again after a restart: old IDs with new events are not taken for repetitions.
func TestRecipe_RestartsWithIDsFrom1(t *testing.T) {
	c := newTalk(t, bridgetest.Options{RestartSequence: true})
	last := func() int {
		c.ok(c.hs.Settle(c.ctx)) // nothing is pending
		n, err := strconv.Atoi(c.hs.AppServiceState(c.b.Config.Appservice.ID).LastID)
		c.ok(err)
		return n
	}
	before := last()
	c.hs.Restart()
	c.says("anew")
	c.arrives("anew")
	if after := last(); after >= before {
		t.Errorf("the transactions went from %d to %d", before, after)
	}
}

// A 200 is lost on its way: the homeserver sends the same again, and nothing is done twice.
func TestRecipe_LostAnswer(t *testing.T) {
	c := newTalk(t)
	c.hs.PushFault(bridgetest.PushFault{LoseAnswer: true})
	c.says("once")
	c.ok(c.hs.Settle(c.ctx)) // the repetition was answered
	c.says("and after it")
	c.arrives("and after it")
	if sent := c.network.Sent(); len(sent) != 2 || c.hs.AppServiceState(c.b.Config.Appservice.ID).Failed != 1 {
		t.Errorf("the network got %v", sent)
	}
}

// The bridge stops with an answer lost, and starts on the same database: the repetition finds what is known.
func TestRecipe_BridgeRestarts(t *testing.T) {
	c := newTalk(t)
	c.hs.PushFault(bridgetest.PushFault{LoseAnswer: true})
	c.says("once")
	c.arrives("once")
	c.b.Stop()
	c.says("while it is away") // the homeserver keeps it
	c.b.Start()
	c.arrives("while it is away")
	if sent := c.network.Sent(); len(sent) != 2 {
		t.Errorf("the network got %v", sent)
	}
}

// A Synapse is killed with a transaction under way, and what came after that is in none: it forgets it, and the bridge reads it in the room.
func TestRecipe_SynapseForgets(t *testing.T) {
	c := newTalk(t, bridgetest.Options{RestartForgets: true})
	c.says("known")
	c.arrives("known")
	c.b.Stop()
	c.hs.PushFault(bridgetest.PushFault{Delay: time.Minute})
	c.says("cut off")
	c.says("forgotten")
	c.hs.Restart()
	c.b.Start()
	c.arrives("forgotten")
	c.hs.PushFault(bridgetest.PushFault{LoseAnswer: true})
	c.says("later") // after which Synapse tries the one again that was cut off
	c.arrives("later")
	c.ok(c.hs.Settle(c.ctx))
	if sent := c.network.Sent(); len(sent) != 4 || sent[1].Text != "cut off" || sent[2].Text != "forgotten" {
		t.Errorf("the network got %v", sent)
	}
}

// A Synapse whose logins are an authentication service's (OAuth): a ghost has its device, and nobody has logged in.
func TestRecipe_OAuth(t *testing.T) {
	c := newTalk(t, bridgetest.SynapseOAuth)
	c.bobSays("hello")
	c.sees(bridgetest.Message(c.bob, "hello"))
	if devices, logins := c.hs.Devices(c.bob), c.hs.Logins(c.bob); len(devices) != 1 || logins != 0 {
		t.Errorf("bob's ghost has devices %v and %d logins", devices, logins)
	}
}

// The homeserver answers nothing for an hour. Everything is in memory and in a bubble, where it passes in no time.
func TestRecipe_HomeserverAwayForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTalk(t, bridgetest.Options{InMemory: true})
		c.ctx = t.Context() // the other one ends after two minutes
		back := c.hs.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		})
		c.bobSays("good day")
		time.Sleep(time.Hour)
		back()
		c.bobSays("good evening")
		c.sees(bridgetest.Message(c.bob, "good day"))
		c.sees(bridgetest.Message(c.bob, "good evening"))
	})
}
