package bridgetest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// An appservice that says back what it hears, and a person who talks to it: all in one process.
func ExampleStartHomeserver() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	hs, err := bridgetest.StartHomeserver(bridgetest.Options{ServerName: "example.test"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = hs.Close() }()

	post := func(method, path, body string) {
		req, _ := http.NewRequestWithContext(ctx, method, hs.URL()+"/_matrix/client/v3/"+path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer as-secret")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}
	bridge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var txn struct {
			Events []struct {
				Type    string
				RoomID  string `json:"room_id"`
				EventID string `json:"event_id"`
				Sender  id.UserID
				Content struct{ Membership, Body string }
			}
		}
		_ = json.NewDecoder(r.Body).Decode(&txn)
		for _, ev := range txn.Events {
			switch room := url.PathEscape(ev.RoomID); {
			case ev.Content.Membership == "invite":
				post("POST", "rooms/"+room+"/join", `{}`)
			case ev.Content.Body != "" && ev.Sender != "@echo:example.test":
				post("PUT", "rooms/"+room+"/send/m.room.message/"+url.PathEscape(ev.EventID), `{"msgtype":"m.text","body":"You said: `+ev.Content.Body+`"}`)
			}
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer bridge.Close()
	defer http.DefaultClient.CloseIdleConnections()
	err = hs.AddRegistration(&bridgetest.Registration{
		ID: "echo", URL: bridge.URL, ASToken: "as-secret", HSToken: "hs-secret", SenderLocalpart: "echo",
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	alice := hs.User("alice")
	room, err := alice.CreateRoom(ctx, bridgetest.RoomOptions{Invite: []id.UserID{"@echo:example.test"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := alice.WaitFor(ctx, room, bridgetest.Member("@echo:example.test", "join")); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := alice.SendText(ctx, room, "Is anybody there?"); err != nil {
		fmt.Println(err)
		return
	}
	reply, err := alice.WaitFor(ctx, room, bridgetest.Text("You said: Is anybody there?"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %s\n", reply.Sender, reply.Body())
	// Output: @echo:example.test: You said: Is anybody there?
}
