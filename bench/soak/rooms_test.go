package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
)

// Rooms that the bridge makes: one that the configuration asks for, one by a command, one by its address. The process ends while it makes
// them, and so does every next one, a step further or at the same; in the end there is each room once, connected.
func TestBridge_KilledWhileItMakesRooms_MakesEachOnce(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "trestle-irc")
	buildBridge(t, binary, "goolm,failpoints")
	seed := numberOf(t, "SOAK_SEED", time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	for _, personality := range []bridgetest.Personality{bridgetest.Synapse, bridgetest.Dendrite} {
		for _, points := range [][]string{
			{"before POST createRoom:1"}, {"after POST createRoom:1"},
			{"after POST createRoom:1", "after POST createRoom:1", "after POST createRoom:1", "before POST createRoom:1"},
			{commitBy(rng), commitBy(rng), commitBy(rng)},
		} {
			t.Run(personality.String()+" "+strings.Join(points, ", "), func(t *testing.T) { makeRooms(t, binary, personality, points) })
		}
	}
}

// commitBy is a commit of the first that a process makes, in which the rooms are among much else.
func commitBy(rng *rand.Rand) string {
	return fmt.Sprintf("%s commit:%d", [...]string{"before", "after"}[rng.IntN(2)], 1+rng.IntN(40))
}

func makeRooms(t *testing.T, binary string, personality bridgetest.Personality, points []string) {
	hs := bridgetest.NewHomeserver(t, bridgetest.Options{Personality: personality})
	opts := testWorld(t, binary, atMostOnce, 1, sqliteFile)
	opts.Homeserver, opts.Rooms = homeserver{hs}, 1
	s := newSoak(t, opts)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the bridge's log:\n%s", tail(s.log, 40))
		}
	})
	config, err := os.ReadFile(s.config)
	s.ok(err)
	s.ok(os.WriteFile(s.config, []byte(strings.Replace(string(config), "  plumb:", "  rooms: {on_alias: true}\n  plumb:\n    - {channel: \"#configured\"}", 1)), 0o600))
	alice := hs.User("alice")
	asks := func(ctx context.Context) { // as clients do, who do not know whether somebody has asked before
		_, _ = alice.Join(ctx, "#irc_#asked:"+hs.Domain())
	}
	_, err = alice.SendText(s.ctx, s.rooms[0], "!irc create #created")
	s.ok(err)
	for _, point := range points {
		s.begin(point)
		ctx, cancel := context.WithCancel(s.ctx)
		timer := time.AfterFunc(3*time.Second, s.process.kill)
		ended := s.process.ended
		go func() {
			<-ended
			cancel()
		}()
		for ctx.Err() == nil {
			asks(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		timer.Stop()
		s.dead()
	}
	s.begin("")
	rooms := map[string]id.RoomID{}
	for _, channel := range []string{"#configured", "#created", "#asked"} {
		s.until(func() string {
			room, err := alice.Join(s.ctx, "#irc_"+channel+":"+hs.Domain())
			if err != nil {
				return fmt.Sprintf("alice cannot enter the room of %s: %v", channel, err)
			}
			rooms[channel] = room
			return ""
		})
		s.ok(s.wire.wait(s.ctx, s.process.ended, "the bridge is in "+channel, func() bool { return s.wire.links[len(s.wire.links)-1].entered[channel] }))
	}
	s.calm()
	s.stop()
	made := botsRooms(t, hs, filepath.Join(s.dir, "registration.yaml"))
	if len(made) != 1+len(rooms) { // the first is alice's own
		t.Errorf("the bot is in the rooms %v, and alice was let into %v", made, rooms)
	}
	db, err := store.Open(s.ctx, "sqlite:"+filepath.Join(s.dir, "bridge.db"), store.Options{Log: zerolog.Nop()})
	s.ok(err)
	defer db.Close()
	portals, err := db.Portals(s.ctx)
	s.ok(err)
	if len(portals) != 1+len(rooms) {
		t.Errorf("the store has the portals %+v", portals)
	}
	for _, p := range portals {
		if room := rooms[p.Channel]; room != "" && p.Room != string(room) {
			t.Errorf("%s has the room %s in the store, and alice was let into %s", p.Channel, p.Room, room)
		}
	}
}

// botsRooms asks the homeserver, as the bridge.
func botsRooms(t *testing.T, hs *bridgetest.Homeserver, path string) (rooms []id.RoomID) {
	registration, err := appservice.LoadRegistration(path)
	if err != nil {
		t.Fatal(err)
	}
	bot := id.NewUserID("ircbot", hs.Domain())
	req, _ := http.NewRequestWithContext(t.Context(), "GET", hs.URL()+"/_matrix/client/v3/joined_rooms?user_id="+url.QueryEscape(string(bot)), nil)
	req.Header.Set("Authorization", "Bearer "+registration.ASToken)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Rooms []id.RoomID `json:"joined_rooms"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.Rooms
}
