package bridge_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// What somebody from the network costs in requests who is new to a room for the invited: docs/operating.md has the table.
func TestGhosts_InABridge_CostSixRequestsWithTheirName_AndOneForWhatTheySayThen(t *testing.T) {
	const ghosts = 20
	c := newCrossing(t)
	for _, round := range []struct {
		words string
		want  map[string]int
	}{
		{"first", map[string]int{"register": ghosts, "profile": ghosts, "invite": ghosts, "join": ghosts, "devices": ghosts, "send": ghosts}},
		{"again", map[string]int{"send": ghosts}},
	} {
		before := len(c.hs.Requests(nil))
		for n := range ghosts {
			c.ok(c.net.Say(c.ctx, lobby, fmt.Sprintf("user%d", n), round.words))
		}
		for n := range ghosts {
			c.sees(bridgetest.Message(id.NewUserID(fmt.Sprintf("test_user%d", n), c.hs.Domain()), round.words))
		}
		got := c.asked(before)
		for ; got["send"] < ghosts && c.ctx.Err() == nil; got = c.asked(before) { // what alice sees may not be answered yet
			time.Sleep(time.Millisecond)
		}
		if !maps.Equal(got, round.want) {
			t.Errorf("%d ghosts who said %q cost %v, want %v", ghosts, round.words, got, round.want)
		}
	}
	if n := len(c.hs.Requests(func(r bridgetest.Request) bool { return strings.Contains(r.Path, "/state/m.room.encryption") })); n > 2 {
		t.Errorf("the homeserver was asked %d times whether the room is encrypted, want once, and once when it was connected", n)
	}
}

// asked counts what ghosts asked of the homeserver after so many requests, and the invitations.
func (c *crossing) asked(after int) map[string]int {
	got := map[string]int{}
	for _, r := range c.hs.Requests(nil)[after:] {
		parts := strings.Split(r.Path, "/")
		if len(parts) < 5 {
			continue
		}
		what := parts[4]
		if what == "rooms" {
			what = parts[6]
		}
		if strings.HasPrefix(string(r.User), "@test_") || what == "invite" {
			got[what]++
		}
	}
	return got
}
