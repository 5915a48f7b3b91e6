package bridgetest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// Dendrite tries again after two seconds, which the program does not wait for: it turns the clock.
func ExampleClock() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	clock := bridgetest.NewClock()
	hs, err := bridgetest.StartHomeserver(bridgetest.Options{Personality: bridgetest.Dendrite, Clock: clock})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = hs.Close() }()
	bridge := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer bridge.Close()
	err = hs.AddRegistration(&bridgetest.Registration{ID: "x", URL: bridge.URL, ASToken: "as-secret", HSToken: "hs-secret", SenderLocalpart: "bot"})
	if err != nil {
		fmt.Println(err)
		return
	}
	hs.PushFault(bridgetest.PushFault{LoseAnswer: true})
	if _, err := hs.User("alice").CreateRoom(ctx, bridgetest.RoomOptions{Invite: []id.UserID{"@bot:hs.test"}}); err != nil {
		fmt.Println(err)
		return
	}
	state, err := hs.WaitAppService(ctx, "x", func(s bridgetest.AppServiceState) bool { return !s.Up })
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("again in", state.NextTry.Sub(clock.Now()))
	clock.Advance(2 * time.Second)
	fmt.Println(hs.Settle(ctx))
	// Output:
	// again in 2s
	// <nil>
}
