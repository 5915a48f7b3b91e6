package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/internal/tally"
	"github.com/trestle-bridge/trestle/store"
)

// crowdSize is how many ghosts come at once.
const crowdSize = 200

// crowd is the framework's Matrix side with many ghosts on a real Synapse, and what they cost in requests.
type crowd struct {
	t       *testing.T
	synapse *Synapse
	reg     *appservice.Registration
	path    string
	counted *tally.Transport
	as      *appservice.AppService
	stop    func()
}

// nobody handles what comes in: the crowd only speaks.
type nobody struct{}

func (nobody) HandleEvent(context.Context, *appservice.Event) ([]appservice.Effect, error) {
	return nil, nil
}
func (nobody) HandleEphemeral(context.Context, *appservice.Ephemeral)               {}
func (nobody) Buried(context.Context, *appservice.Event, error) []appservice.Effect { return nil }

func newCrowd(t *testing.T, limited bool, config string) *crowd {
	t.Helper()
	dir := t.TempDir()
	c := &crowd{t: t, path: filepath.Join(dir, "bridge.db"), reg: &appservice.Registration{
		ID: "crowd", URL: "http://127.0.0.1:9", ASToken: "as_crowd", HSToken: "hs_crowd", SenderLocalpart: "crowdbot", RateLimited: limited, MSC4190: true,
		Namespaces: appservice.Namespaces{Users: []appservice.Namespace{{Exclusive: true, Regex: `^@crowd_.*:hs\.test$`}}},
	}}
	file := filepath.Join(dir, "registration.yaml")
	if err := c.reg.Save(file); err != nil {
		t.Fatal(err)
	}
	c.synapse = StartSynapse(t, SynapseOptions{Registrations: []string{file}, Config: config})
	c.start()
	return c
}

// start makes the appservice, as another process would on the same store.
func (c *crowd) start() {
	c.t.Helper()
	db, err := store.Open(c.t.Context(), "sqlite:"+c.path, store.Options{Log: zerolog.Nop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.counted = tally.Over(&http.Transport{MaxIdleConnsPerHost: 48, MaxConnsPerHost: 48} /* as without an HTTPClient */)
	c.as, err = appservice.New(appservice.Config{
		Registration: c.reg, HomeserverURL: c.synapse.URL, ServerName: c.synapse.Domain, Store: db, Handler: nobody{},
		HTTPClient: &http.Client{Transport: c.counted}, Log: zerolog.Nop(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.as.Stop(ctx); err != nil {
			c.t.Error(err)
		}
		if err := db.Close(); err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(c.stop)
}

func (c *crowd) ghost(n int) id.UserID {
	return id.NewUserID(fmt.Sprintf("crowd_%d", n), c.synapse.Domain)
}

// speak lets everybody say something, all at once, and gives the events by ghost. Who is asked to wait comes again when told
// to.
func (c *crowd) speak(room id.RoomID, what string) map[id.UserID]id.EventID {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	var mu sync.Mutex
	said := map[id.UserID]id.EventID{}
	var all sync.WaitGroup
	for n := range crowdSize {
		all.Go(func() {
			content := map[string]string{"msgtype": "m.text", "body": what}
			for {
				ev, err := c.as.Ghost(c.ghost(n)).SendMessage(ctx, room, event.EventMessage, content, fmt.Sprint(what, n))
				if wait := appservice.RetryAfter(err); wait > 0 && ctx.Err() == nil {
					time.Sleep(wait)
					continue
				}
				if err != nil {
					c.t.Errorf("%s says %q: %v", c.ghost(n), what, err)
				}
				mu.Lock()
				defer mu.Unlock()
				said[c.ghost(n)] = ev
				return
			}
		})
	}
	all.Wait()
	return said
}

// cost fails the test unless exactly these requests were made, beside at most so many that were refused, and none blindly.
func (c *crowd) cost(when string, refused int, want map[string]int) {
	c.t.Helper()
	got, total, no := c.counted.Counts(), 0, 0
	for what, n := range c.counted.Refused() {
		no += n
		got[what] -= n
	}
	for _, n := range got {
		total += n
	}
	c.t.Logf("%s, %d ghosts on Synapse: %d requests, which are %.3f for each: %v; refused: %d", when, crowdSize, total,
		float64(total)/crowdSize, got, no)
	if !maps.Equal(got, want) {
		c.t.Errorf("%s: want %v", when, want)
	}
	if refused > 0 && no == 0 {
		c.t.Logf("%s: the machine was too slow to meet the limit, and so this shows nothing of it", when)
	}
	if no > refused {
		c.t.Errorf("%s: %d requests were refused, and %d would have told of the limit", when, no, refused)
	}
	if blind := c.counted.Blind(); len(blind) > 0 {
		c.t.Errorf("%s: %d requests were made that were known to be refused, such as %q", when, len(blind), blind[0])
	}
	c.counted.Reset()
}

// crowdLimits are those of Synapse, but for the joins into one room, of which it lets through ten, and one in a second.
const crowdLimits = `rc_message: {per_second: 0.2, burst_count: 10}
rc_registration: {per_second: 0.17, burst_count: 3}
rc_login: {address: {per_second: 0.003, burst_count: 5}, account: {per_second: 0.003, burst_count: 5}, failed_attempts: {per_second: 0.17, burst_count: 3}}
rc_joins: {local: {per_second: 0.1, burst_count: 10}, remote: {per_second: 0.01, burst_count: 10}}
rc_joins_per_room: {per_second: 2.5, burst_count: 20}
`

func TestCrowd_OnSynapse_CostsFourRequestsEach_AndOneAfterARestartOfEither(t *testing.T) {
	for name, is := range map[string]struct {
		limited bool
		config  string
		refused int
	}{
		"unlimited": {false, "", 0}, "rate_limited": {true, crowdLimits, crowdSize / 10},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, is.limited, is.config)
			alice := c.synapse.User("alice")
			room := alice.CreateRoom("a crowded room")
			first := c.speak(room, "first")
			c.cost("the first time", is.refused, map[string]int{
				"POST register": crowdSize, "PUT devices": crowdSize, "POST join": crowdSize, "PUT send": crowdSize,
				"GET whoami": 1, "GET versions": 1, "GET federation version": 1, "GET state": 1,
			})
			c.stop()
			c.start()
			second := c.speak(room, "second")
			c.cost("after a restart of the bridge", 0, map[string]int{"PUT send": crowdSize})
			c.synapse.Stop()
			c.synapse.Start()
			c.speak(room, "third")
			c.cost("after a restart of Synapse", 0, map[string]int{"PUT send": crowdSize})

			// What was sent before both restarts is known still, because the ghosts have devices: no second event.
			if again := c.speak(room, "first"); !maps.Equal(again, first) {
				t.Error("what was sent again is another event")
			}
			if events := slices.Compact(slices.Sorted(maps.Values(first))); len(events) != crowdSize || maps.Equal(first, second) {
				t.Errorf("%d ghosts have made %d events", crowdSize, len(events))
			}
		})
	}
}
