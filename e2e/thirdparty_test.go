package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// asks makes a GET request as a user and decodes the answer, or gives the status that was none of success.
func (s *Synapse) asks(t *testing.T, user *MatrixUser, path string, answer any) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+user.Client.AccessToken)
	resp, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return resp.StatusCode
}

// found is what Synapse gives as the result of a search.
type found []struct {
	UserID   id.UserID    `json:"userid"`
	Alias    id.RoomAlias `json:"alias"`
	Protocol string       `json:"protocol"`
	Fields   map[string]string
}

func TestThirdParty_ASearchOnSynapse_IsAnsweredByTheBridge(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	const base = "/_matrix/client/v3/thirdparty/"
	var protocols map[string]struct {
		UserFields []string `json:"user_fields"`
		Instances  []struct {
			NetworkID  string `json:"network_id"`
			InstanceID string `json:"instance_id"`
			Fields     map[string]string
		}
	}
	if status := c.Synapse.asks(t, c.Alice, base+"protocols", &protocols); status != http.StatusOK || len(protocols["irc"].Instances) != 1 {
		t.Fatalf("protocols: %d %+v", status, protocols)
	}
	irc := protocols["irc"]
	if i := irc.Instances[0]; i.NetworkID != "127.0.0.1" || i.InstanceID == "" || i.Fields["network"] != "127.0.0.1" || len(irc.UserFields) != 2 {
		t.Errorf("irc: %+v", irc)
	}
	if status := c.Synapse.asks(t, c.Alice, base+"protocol/irc", &irc); status != http.StatusOK {
		t.Errorf("protocol/irc: %d", status)
	}
	if status := c.Synapse.asks(t, c.Alice, base+"protocol/xmpp", &irc); status != http.StatusNotFound {
		t.Errorf("protocol/xmpp: %d", status)
	}

	search := func(path string) (got found) {
		t.Helper()
		if status := c.Synapse.asks(t, c.Alice, base+path, &got); status != http.StatusOK {
			t.Errorf("%s: %d", path, status)
		}
		return got
	}
	if got := search("user/irc?nick=BOB&network=127.0.0.1"); len(got) != 1 || got[0].UserID != c.Bridge.Ghost("bob") || got[0].Protocol != "irc" || got[0].Fields["nick"] != "bob" {
		t.Errorf("bob: %+v", got)
	}
	if got := search("user/irc?nick=nobody"); len(got) != 0 {
		t.Errorf("nobody: %+v", got)
	}
	channel := "location/irc?channel=" + url.QueryEscape(c.Channel)
	if got := search(channel); len(got) != 0 {
		t.Errorf("the channel of a room without an address: %+v", got)
	}
	alias := id.NewRoomAlias("crossing", c.Synapse.Domain)
	if _, err := c.Alice.Client.CreateAlias(t.Context(), alias, c.Room); err != nil {
		t.Fatal(err)
	}
	c.Alice.SetState(c.Room, event.StateCanonicalAlias, "", map[string]any{"alias": alias})
	if got := search(channel); len(got) != 1 || got[0].Alias != alias || got[0].Fields["channel"] != c.Channel {
		t.Errorf("the channel of a public room: %+v", got)
	}
	c.Alice.SetState(c.Room, event.StateJoinRules, "", map[string]any{"join_rule": "invite"})
	if got := search(channel); len(got) != 0 {
		t.Errorf("the channel of a private room: %+v", got)
	}
	if got := search("location/irc?channel=%23nowhere"); len(got) != 0 {
		t.Errorf("a channel without a room: %+v", got)
	}
}

// Nobody's ghost is there before they speak, where comings are not shown; an invitation calls it into being.
func TestQueryUser_InvitedOnSynapse_HasAGhostWithTheirNick(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	if code := c.Bridge.Stop(); code != 0 {
		t.Fatalf("the bridge ended with %d", code)
	}
	c.Bridge.config["bridge"].(map[string]any)["membership"] = map[string]any{"to_matrix": false}
	c.Bridge.write()
	joins := c.Bob.Count(c.bridgeJoins(c.Channel))
	c.Bridge.Start()
	c.Bob.WaitFor("the bridge's return", c.again(c.bridgeJoins(c.Channel), joins))
	carol := c.IRC.User("Carol")
	carol.Join(c.Channel)
	words := c.Words("carol is here")
	c.Bob.Say(c.Channel, words) // the bridge reads this after it has seen her come
	c.ToMatrix("bob", "m.text", words)

	ghost := c.Bridge.Ghost("carol")
	profile := "/_matrix/client/v3/profile/" + url.PathEscape(ghost.String())
	var named struct{ Displayname string }
	if status := c.Synapse.asks(t, c.Alice, profile, &named); status != http.StatusNotFound {
		t.Fatalf("her ghost is there before: %d %+v", status, named)
	}
	room := c.Alice.CreateRoom("a room of two", c.Bridge.Bot)
	c.Alice.WaitFor("the bot", Membership(room, c.Bridge.Bot, "join"))
	c.Alice.Invite(room, ghost)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		status := c.Synapse.asks(t, c.Alice, profile, &named)
		if status == http.StatusOK && named.Displayname == "Carol" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Sprint("her ghost: ", status, named))
		}
	}
}
