package appservice_test

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/tally"
)

// crowdSize is how many ghosts a join storm has.
const crowdSize = 1000

// crowd is a site with many ghosts, and what they cost in requests. It lives in a bubble, where the hours of a rate limit
// take no time.
type crowd struct {
	*site
	counted *tally.Transport
	mode    string
}

func newCrowd(t *testing.T, mode string, limits bridgetest.Limits, change ...func(*appservice.Registration)) *crowd {
	t.Helper()
	limited := func(reg *appservice.Registration) { reg.RateLimited = true }
	s := newSite(t, bridgetest.Options{InMemory: true, Limits: limits}, append(change, limited)...)
	c := &crowd{site: s, mode: mode}
	c.restart()
	return c
}

// restart is another process on the same store.
func (c *crowd) restart() {
	c.t.Helper()
	client := c.hs.Client()
	c.counted = tally.Over(client.Transport)
	client.Transport = c.counted
	c.site.restart(func(cfg *appservice.Config) { cfg.HTTPClient, cfg.DeviceMode = client, c.mode })
}

func member(n int) id.UserID { return id.UserID(fmt.Sprintf("@irc_%d:hs.test", n)) }

// speak lets everybody say something in a room, all at once. Who is asked to wait comes again when told to, as the rows of
// the bridge's outbox do.
func (c *crowd) speak(room id.RoomID, what string) {
	c.t.Helper()
	var all sync.WaitGroup
	for n := range crowdSize {
		all.Go(func() {
			content := map[string]string{"msgtype": "m.text", "body": what}
			for {
				_, err := c.as.Ghost(member(n)).SendMessage(context.Background(), room, event.EventMessage, content, fmt.Sprint(what, n))
				wait := appservice.RetryAfter(err)
				if err == nil || wait == 0 {
					if err != nil {
						c.t.Errorf("ghost %d says %q: %v", n, what, err)
					}
					return
				}
				time.Sleep(wait)
			}
		})
	}
	all.Wait()
}

// cost fails the test unless exactly these requests were made, beside at most so many that were refused, and none blindly.
func (c *crowd) cost(when string, refused int, want map[string]int) {
	c.t.Helper()
	got, total, ofGhosts, no := c.counted.Counts(), 0, 0, 0
	for what, n := range c.counted.Refused() {
		no += n
		got[what] -= n
	}
	for _, n := range got {
		if total += n; n >= crowdSize {
			ofGhosts += n
		}
	}
	c.t.Logf("%s, %d ghosts: %.3f requests for each, and %d for all of them: %v; refused: %d", when, crowdSize,
		float64(ofGhosts)/crowdSize, total-ofGhosts, got, no)
	if !maps.Equal(got, want) {
		c.t.Errorf("%s: want %v", when, want)
	}
	if no > refused {
		c.t.Errorf("%s: %d requests were refused, and %d would have told of the limit", when, no, refused)
	}
	if blind := c.counted.Blind(); len(blind) > 0 {
		c.t.Errorf("%s: %d requests were made that were known to be refused, such as %q", when, len(blind), blind[0])
	}
	c.counted.Reset()
}

// heard fails the test unless each of the crowd has said each of these once, with one device.
func (c *crowd) heard(room id.RoomID, what ...string) {
	c.t.Helper()
	for n := range crowdSize {
		if devices := c.hs.Devices(member(n)); len(devices) != 1 {
			c.t.Errorf("%s has devices %q", member(n), devices)
		}
	}
	said := map[string]int{}
	for _, r := range c.requests("PUT", `/send/m\.room\.message/`) {
		if r.Status == 200 {
			said[string(r.User)]++
		}
	}
	if len(said) != crowdSize {
		c.t.Errorf("%d ghosts have spoken", len(said))
	}
	for _, user := range slices.Sorted(maps.Keys(said)) {
		if said[user] != len(what) {
			c.t.Errorf("%s has spoken %d times, not %d", user, said[user], len(what))
		}
	}
}

func TestAThousandGhosts_AtOnce_UnderTheLimitOfLogins_CostFourRequestsEach_AndOneAfterARestart(t *testing.T) {
	for name, is := range map[string]struct {
		mode    string
		limits  bridgetest.Limits
		refused int
		change  func(*appservice.Registration)
		want    map[string]int
	}{
		// Devices that are put meet no limit of logins, however tight that is.
		"devices by PUT": {
			appservice.DeviceAuto, bridgetest.TightLimits(), 0, func(*appservice.Registration) {},
			map[string]int{
				"POST register": crowdSize, "PUT devices": crowdSize, "POST join": crowdSize, "PUT send": crowdSize,
				"GET whoami": 1, "GET versions": 1, "GET federation version": 1, "GET state": 1,
			},
		},
		"devices by login": {
			appservice.DeviceLogin, bridgetest.Limits{LoginsByAddress: bridgetest.Rate{PerSecond: 100, Burst: 500}}, crowdSize / 25, withoutLoginRefusal,
			map[string]int{
				"POST register": crowdSize, "POST login": crowdSize, "POST join": crowdSize, "PUT send": crowdSize,
				"GET login": 1, "GET whoami": 1, "GET versions": 1, "GET federation version": 1, "GET state": 1,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, is.mode, is.limits, is.change)
				before := runtime.NumGoroutine()
				c.speak(c.room, "first")
				c.cost("the first time", is.refused, is.want)
				synctest.Wait()
				// A kept connection has three: two of the client's, one of the homeserver's.
				if n := runtime.NumGoroutine() - before; n > 3*64+20 {
					t.Errorf("%d goroutines are left for %d ghosts", n, crowdSize)
				}
				c.restart()
				c.speak(c.room, "again")
				c.cost("after a restart", 0, map[string]int{"PUT send": crowdSize})
				c.heard(c.room, "first", "again")
			})
		})
	}
}

// Synapse limits how many come into one room, and its answer is the same as to a ghost that has joined too many rooms.
func TestAThousandGhosts_AtOnce_UnderTheLimitOfJoinsIntoARoom_DoNotEachRunIntoIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := bridgetest.Limits{ // as Synapse has them unless it is told otherwise, but for fifty times as many into a room
			Joins: bridgetest.Rate{PerSecond: 0.1, Burst: 10}, JoinsByRoom: bridgetest.Rate{PerSecond: 50, Burst: 500},
			Messages: bridgetest.Rate{PerSecond: 0.2, Burst: 10},
		}
		c := newCrowd(t, appservice.DeviceAuto, limits)
		begin := time.Now()
		c.speak(c.room, "first")
		c.cost("the first time", crowdSize/25, map[string]int{
			"POST register": crowdSize, "PUT devices": crowdSize, "POST join": crowdSize, "PUT send": crowdSize,
			"GET whoami": 1, "GET versions": 1, "GET federation version": 1, "GET state": 1,
		})
		// In a bubble time is what was waited, and no measure of speed.
		if least, took := (crowdSize-500)*time.Second/50, time.Since(begin); took > least*5/4 {
			t.Errorf("it took %v, where the limit asks for %v", took, least)
		}
		c.heard(c.room, "first")
	})
}

// A room into which one has to be invited costs one request more, and none that is bound to be refused.
func TestAThousandGhosts_AtOnce_IntoARoomForTheInvited_CostFiveRequestsEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, appservice.DeviceAuto, bridgetest.TightLimits())
		if err := c.as.Bot().EnsureRegistered(t.Context()); err != nil {
			t.Fatal(err)
		}
		room, err := c.as.Bot().CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat"})
		if err != nil {
			t.Fatal(err)
		}
		c.counted.Reset()
		c.speak(room, "first")
		c.cost("the first time", 0, map[string]int{
			"POST register": crowdSize, "PUT devices": crowdSize, "POST invite": crowdSize, "POST join": crowdSize, "PUT send": crowdSize,
			"GET whoami": 1, "GET versions": 1, "GET federation version": 1, "GET state": 1,
		})
		c.restart()
		c.speak(room, "again")
		c.cost("after a restart", 0, map[string]int{"PUT send": crowdSize})
		c.heard(room, "first", "again")
	})
}
