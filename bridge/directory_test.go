package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// village is a network that can be searched. Its people are found in any spelling.
type village struct {
	*bridgetest.Network

	mu     sync.Mutex
	people map[string]bridge.RemoteUser // by ID
	away   bool
}

var _ bridge.Directory = (*village)(nil)

func (v *village) Protocol() appservice.Protocol {
	return appservice.Protocol{
		UserFields: []string{"name"}, LocationFields: []string{"place"},
		FieldTypes: map[string]appservice.FieldType{"name": {Regexp: `.+`, Placeholder: "Bob"}, "place": {Regexp: `[a-z]+`, Placeholder: "market"}},
		Instances:  []appservice.ProtocolInstance{{Desc: "The village", NetworkID: "village"}},
	}
}

func (v *village) UserBy(fields map[string]string) (string, bool) {
	return fields["name"], fields["name"] != ""
}

func (v *village) UserFields(user bridge.RemoteUser) map[string]string {
	return map[string]string{"name": user.Name}
}

func (v *village) ChannelBy(fields map[string]string) (string, bool) {
	return strings.ToLower(fields["place"]), fields["place"] != ""
}

func (v *village) ChannelFields(channel string) map[string]string {
	return map[string]string{"place": channel}
}

func (v *village) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	s, err := v.Network.Open(ctx, login, sink)
	return villager{s, v}, err
}

type villager struct {
	bridge.Session
	*village
}

var _ bridge.UserFinder = villager{}

func (v villager) FindUser(_ context.Context, name string) (bridge.RemoteUser, bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away {
		return bridge.RemoteUser{}, false, fmt.Errorf("the road is blocked: %w", bridge.ErrOffline)
	}
	user, ok := v.people[strings.ToLower(name)]
	return user, ok, nil
}

func newVillage() *village {
	return &village{Network: bridgetest.NewNetwork(), people: map[string]bridge.RemoteUser{"bob": {ID: "bob", Name: "Bob"}, "eve x": {ID: "eve x", Name: "Eve X"}}}
}

// homeserverAsks asks the bridge what a homeserver asks.
func homeserverAsks(t *testing.T, b *bridgetest.Bridge, path string) (status int, body string) {
	t.Helper()
	registration, err := appservice.LoadRegistration(b.Config.Appservice.Registration)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", b.Config.Appservice.Address+"/_matrix/app/v1/"+path, nil)
	r.Header.Set("Authorization", "Bearer "+registration.HSToken)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(text))
}

func profileName(t *testing.T, hs *bridgetest.Homeserver, user id.UserID) string {
	t.Helper()
	response, err := http.Get(hs.URL() + "/_matrix/client/v3/profile/" + url.PathEscape(string(user)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var profile struct{ Displayname string }
	if err := json.NewDecoder(response.Body).Decode(&profile); err != nil {
		t.Fatal(err)
	}
	return profile.Displayname
}

func TestQueryUser_SomebodyOnTheNetwork_HasAGhostWithTheirName(t *testing.T) {
	hs, v := bridgetest.NewHomeserver(t), newVillage()
	b := bridgetest.StartBridge(t, hs, v)
	for _, c := range []struct {
		user   string
		status int
	}{
		{"test_bob", 200}, {"test_bob", 200}, {"test_eve=20x", 200}, {"test_nobody", 404},
		{"test_=42ob", 404}, // another spelling of bob, who has a ghost
		{"test_", 404}, {"test_=zz", 404}, {"alice", 404}, {"testbot", 200},
	} {
		if code, body := homeserverAsks(t, b, "users/"+url.PathEscape("@"+c.user+":"+hs.Domain())); code != c.status {
			t.Errorf("%s: %d %s", c.user, code, body)
		}
	}
	for user, name := range map[string]string{"test_bob": "Bob", "test_eve=20x": "Eve X"} {
		if got := profileName(t, hs, id.NewUserID(user, hs.Domain())); got != name {
			t.Errorf("%s is called %q", user, got)
		}
	}
	v.mu.Lock()
	v.away = true
	v.mu.Unlock()
	if code, body := homeserverAsks(t, b, "users/@test_new:"+hs.Domain()); code != 500 {
		t.Errorf("while the network is away: %d %s", code, body)
	}
}

func TestQueryUser_InvitedBeforeTheySpoke_IsThereWhenTheInvitationComes(t *testing.T) {
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	hs := bridgetest.NewHomeserver(t)
	b := bridgetest.StartBridge(t, hs, newVillage())
	alice := hs.User("alice")
	room := must(alice.CreateRoom(ctx, bridgetest.RoomOptions{Invite: []id.UserID{b.BotID()}}))(t)
	must(alice.WaitFor(ctx, room, bridgetest.Member(b.BotID(), "join")))(t)
	bob := id.NewUserID("test_bob", hs.Domain())
	if err := alice.Invite(ctx, room, bob); err != nil {
		t.Fatal(err)
	}
	if err := hs.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	if got := profileName(t, hs, bob); got != "Bob" {
		t.Errorf("bob is called %q", got)
	}
}

func TestQueryUser_NetworkThatKnowsNobody_KnowsWhoHasAGhost(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hello"))
	c.sees(bridgetest.Message(id.NewUserID("test_bob", c.hs.Domain()), "hello"))
	for user, want := range map[string]int{"test_bob": 200, "test_eve": 404} {
		if code, body := homeserverAsks(t, c.b, "users/@"+user+":"+c.hs.Domain()); code != want {
			t.Errorf("%s: %d %s", user, code, body)
		}
	}
	for path, want := range map[string]string{
		"thirdparty/protocol/test": "404", "thirdparty/user/test?name=bob": "404", "thirdparty/user?userid=@test_bob:" + c.hs.Domain(): "200 []",
	} {
		if code, body := homeserverAsks(t, c.b, path); !strings.HasPrefix(fmt.Sprint(code, " ", body), want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestDirectory_PeopleAndPublicRooms_AreFoundBothWays(t *testing.T) {
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	hs, v := bridgetest.NewHomeserver(t), newVillage()
	b := bridgetest.StartBridge(t, hs, v)
	registration, err := appservice.LoadRegistration(b.Config.Appservice.Registration)
	if err != nil || len(registration.Protocols) != 1 || registration.Protocols[0] != "test" {
		t.Errorf("the registration lists %v %v", registration.Protocols, err)
	}
	alice := hs.User("alice")
	for _, opts := range []bridgetest.RoomOptions{
		{Preset: "public_chat", Alias: "market", Invite: []id.UserID{b.BotID()}},
		{Preset: "public_chat", Name: "no alias", Invite: []id.UserID{b.BotID()}},
		{Preset: "private_chat", Alias: "inn", Invite: []id.UserID{b.BotID()}},
	} {
		room := must(alice.CreateRoom(ctx, opts))(t)
		must(alice.WaitFor(ctx, room, bridgetest.Member(b.BotID(), "join")))(t)
		channel := opts.Alias
		if channel == "" {
			channel = "church"
		}
		must(alice.SendText(ctx, room, "!test plumb "+channel))(t)
		must(alice.WaitFor(ctx, room, bridgetest.Message(b.BotID(), "This room is now connected to "+channel+" on Scripted.")))(t)
	}
	domain := hs.Domain()
	bob := `[{"userid":"@test_bob:` + domain + `","protocol":"test","fields":{"name":"Bob"}}]`
	market := `[{"alias":"#market:` + domain + `","protocol":"test","fields":{"place":"market"}}]`
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"protocol/test", 200, `"instances":[{"desc":"The village","fields":{},"network_id":"village"}]`},
		{"protocol/irc", 404, "M_NOT_FOUND"},
		{"user/test?name=BOB", 200, bob}, {"user?userid=%40test_bob%3A" + domain, 200, bob},
		{"user/test?name=nobody", 200, "[]"}, {"user/test", 200, "[]"}, {"user/irc?name=bob", 404, "M_NOT_FOUND"},
		{"user?userid=%40test_nobody%3A" + domain, 200, "[]"}, {"user?userid=%40alice%3A" + domain, 200, "[]"},
		{"location/test?place=Market", 200, market}, {"location?alias=%23market%3A" + domain, 200, market},
		{"location/test?place=church", 200, "[]"}, {"location/test?place=nowhere", 200, "[]"}, {"location/test", 200, "[]"},
		// Who is not in a private room is not told which channel it is.
		{"location/test?place=inn", 200, "[]"}, {"location?alias=%23inn%3A" + domain, 200, "[]"},
		{"location?alias=%23nothing%3A" + domain, 200, "[]"}, {"location?alias=nonsense", 200, "[]"},
	} {
		if code, body := homeserverAsks(t, b, "thirdparty/"+c.path); code != c.status || !strings.Contains(body, c.body) || c.body == "[]" && body != c.body {
			t.Errorf("%s: %d %s, want %d %s", c.path, code, body, c.status, c.body)
		}
	}
	v.mu.Lock()
	v.away = true
	v.mu.Unlock()
	if code, _ := homeserverAsks(t, b, "thirdparty/user/test?name=bob"); code != 500 {
		t.Errorf("while the network is away: %d", code)
	}
}

// A network that can be searched says by which fields, and reads them. Where its session is a UserFinder as well, people
// are found who have never spoken in a connected channel.
func ExampleDirectory() {
	var network bridge.Directory = newVillage()
	fmt.Println(network.Protocol().UserFields, network.Protocol().LocationFields)

	// A client searches for place=Market; the homeserver asks the bridge, and the bridge looks for the portal of:
	channel, ok := network.ChannelBy(map[string]string{"place": "Market"})
	fmt.Println(channel, ok)
	// Output:
	// [name] [place]
	// market true
}
