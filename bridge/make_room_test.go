package bridge_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

const market = "market"

func onAlias(cfg *bridge.Config) { cfg.Bridge.Rooms.OnAlias = true }

func configuredMarket(cfg *bridge.Config) {
	cfg.Bridge.Plumb = append(cfg.Bridge.Plumb, bridge.Plumb{Channel: market})
	cfg.Bridge.Admins = []id.UserID{id.NewUserID("alice", cfg.Homeserver.Domain)} // the room is the bot's
}

func (c *crossing) address(channel string) id.RoomAlias {
	return id.NewRoomAlias("test_"+channel, c.hs.Domain())
}

// enters waits until alice can enter the room of a channel, and gives it.
func (c *crossing) enters(channel string) id.RoomID {
	c.Helper()
	for {
		room, err := c.alice.Join(c.ctx, string(c.address(channel)))
		if err == nil {
			return room
		}
		if c.ctx.Err() != nil {
			c.Fatalf("entering the room of %s: %v", channel, err)
		}
	}
}

// carries says whether a room and a channel are connected, and fails the test if not.
func (c *crossing) carries(room id.RoomID, channel string) {
	c.Helper()
	must(c.alice.SendText(c.ctx, room, "from the room of "+channel))(c.T)
	must(c.net.WaitSent(c.ctx, "from the room of "+channel))(c.T)
	c.ok(c.net.Say(c.ctx, channel, "bob", "from "+channel))
	must(c.alice.WaitFor(c.ctx, room, bridgetest.Message(c.bob(), "from "+channel)))(c.T)
}

// botsRooms are the rooms that the bot is in, but for the one that alice made.
func (c *crossing) botsRooms() (rooms []id.RoomID) {
	c.Helper()
	registration := must(appservice.LoadRegistration(c.b.Config.Appservice.Registration))(c.T)
	req, _ := http.NewRequestWithContext(c.ctx, "GET", c.hs.URL()+"/_matrix/client/v3/joined_rooms?user_id="+url.QueryEscape(string(c.b.BotID())), nil)
	req.Header.Set("Authorization", "Bearer "+registration.ASToken)
	defer http.DefaultClient.CloseIdleConnections()
	resp := must(http.DefaultClient.Do(req))(c.T)
	defer resp.Body.Close()
	var answer struct {
		Rooms []id.RoomID `json:"joined_rooms"`
	}
	c.ok(json.NewDecoder(resp.Body).Decode(&answer))
	for _, room := range answer.Rooms {
		if room != c.room {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

func TestMakeRoom_ByCommand_InvitesAndConnects(t *testing.T) {
	c := unplumbed(t)
	for range 2 { // again, it is the same room
		must(c.alice.SendText(c.ctx, c.room, "!test create "+market))(t)
		c.sees(bridgetest.Message(c.b.BotID(), fmt.Sprintf("The room of %s on Scripted is %s.", market, c.address(market))))
	}
	room := must(c.alice.WaitForInvite(c.ctx))(t)
	if entered := must(c.alice.Join(c.ctx, string(c.address(market))))(t); entered != room {
		t.Errorf("alice is invited to %s, and the address leads to %s", room, entered)
	}
	c.carries(room, market)
	if rooms := c.botsRooms(); len(rooms) != 1 {
		t.Errorf("there are the rooms %v", rooms)
	}
}

func TestMakeRoom_ChannelOfAnotherRoom_IsLeftThere(t *testing.T) {
	c := newCrossing(t, onAlias, configuredMarket)
	must(c.alice.SendText(c.ctx, c.room, "!test create "+lobby))(t)
	c.sees(bridgetest.Message(c.b.BotID(), lobby+" is connected to another room already."))
	must(c.alice.SendText(c.ctx, c.room, "!test create "+market))(t)
	c.sees(bridgetest.Message(c.b.BotID(), "The bridge's configuration says what market is connected to."))
	for _, channel := range []string{lobby, market + "s:x"} {
		if code, body := homeserverAsks(t, c.b, "rooms/"+url.PathEscape(string(c.address(channel)))); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", channel, code, body)
		}
	}
}

func TestMakeRoom_ByItsAddress_OnlyWhereTheConfigurationSaysSo(t *testing.T) {
	c := unplumbed(t)
	if _, err := c.alice.Join(c.ctx, string(c.address(market))); !bridgetest.IsErrCode(err, "M_NOT_FOUND") {
		t.Errorf("without on_alias: %v", err)
	}
	c = unplumbed(t, onAlias)
	c.carries(must(c.alice.Join(c.ctx, string(c.address(market))))(t), market)
}

func TestMakeRoom_Configured_IsThereOnceAcrossRestarts(t *testing.T) {
	c := unplumbed(t, configuredMarket)
	room := c.enters(market)
	c.carries(room, market)
	c.b.Stop()
	c.b.Start()
	must(c.alice.SendText(c.ctx, room, "!test unplumb"))(t)
	must(c.alice.WaitFor(c.ctx, room, bridgetest.Message(c.b.BotID(), "This room is connected by the bridge's configuration; its administrator has to take it out there.")))(t)
	if rooms := c.botsRooms(); len(rooms) != 1 || rooms[0] != room {
		t.Errorf("there are the rooms %v, and alice is in %s", rooms, room)
	}
}

// Synapse has the alias before the room, Dendrite the room before the alias.
func TestMakeRoom_AnswerIsLost_TheFirstRoomIsFound(t *testing.T) {
	for _, personality := range []bridgetest.Personality{bridgetest.Synapse, bridgetest.Dendrite} {
		for _, withoutAlias := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, alias forgotten: %t", personality, withoutAlias), func(t *testing.T) {
				c := unplumbedOn(t, bridgetest.NewHomeserver(t, bridgetest.Options{Personality: personality}), onAlias)
				if withoutAlias {
					c.withoutAlias()
				}
				c.hs.Fault(bridgetest.Fault{Method: "POST", Path: regexp.MustCompile("/createRoom$"), DropAfter: true})
				if code, _ := homeserverAsks(t, c.b, "rooms/"+url.PathEscape(string(c.address(market)))); code == http.StatusNotFound {
					t.Error("the homeserver was told that there is no such channel")
				}
				for len(c.madeOrAsked()) < 2 && c.ctx.Err() == nil {
					must(c.alice.SendText(c.ctx, c.room, "!test status"))(t) // something to wait for
				}
				c.b.Stop()
				c.b.Start()
				must(c.alice.SendText(c.ctx, c.room, "!test create "+market))(t)
				room := must(c.alice.WaitForInvite(c.ctx))(t)
				must(c.alice.Join(c.ctx, string(room)))(t)
				c.carries(room, market)
				if rooms := c.botsRooms(); len(rooms) != 1 {
					t.Errorf("there are the rooms %v", rooms)
				}
			})
		}
	}
}

// madeOrAsked are the bridge's requests for rooms.
func (c *crossing) madeOrAsked() []bridgetest.Request {
	return c.hs.Requests(func(r bridgetest.Request) bool {
		return r.AppService != "" && (strings.HasSuffix(r.Path, "/createRoom") || strings.HasSuffix(r.Path, "/joined_rooms"))
	})
}

// withoutAlias has the homeserver end, the next time a room is made, before it has written down its alias.
func (c *crossing) withoutAlias() {
	var done atomic.Bool
	c.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/createRoom") && !done.Swap(true) {
			var body map[string]any
			_ = json.NewDecoder(r.Body).Decode(&body)
			delete(body, "room_alias_name")
			text, _ := json.Marshal(body)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(text))), int64(len(text))
		}
		return false
	})
}

func TestMakeRoom_AliasOfARoomThatNeverCameToBe_IsTakenBack(t *testing.T) {
	c := unplumbed(t)
	deleted := false
	c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/createRoom") && !deleted:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"errcode":"M_ROOM_IN_USE","error":"Room alias already taken"}`)
		case strings.Contains(r.URL.Path, "/directory/room/#test_market:") && r.Method == "GET" && !deleted:
			fmt.Fprintf(w, `{"room_id":"!gone:%s","servers":[]}`, c.hs.Domain())
		case strings.Contains(r.URL.Path, "/directory/room/#test_market:") && r.Method == "DELETE":
			deleted = true
			fmt.Fprint(w, `{}`)
		default:
			return false
		}
		return true
	})
	must(c.alice.SendText(c.ctx, c.room, "!test create "+market))(t)
	room := must(c.alice.WaitForInvite(c.ctx))(t)
	must(c.alice.Join(c.ctx, string(room)))(t)
	c.carries(room, market)
}
