package e2e

import (
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

// After uninstall the homeserver has of the bridge only what an appservice cannot remove.
func TestCrossing_Uninstall_LeavesNoDeviceAndNoRoom(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	nicks := []string{"bob", "carol", "dave"}
	for _, nick := range nicks[1:] {
		user := c.IRC.User(nick)
		user.Join(c.Channel)
		words := c.Words("hello from " + nick)
		user.Say(c.Channel, words)
		c.ToMatrix(nick, "m.text", words)
	}
	words := c.Words("hello from bob")
	c.Bob.Say(c.Channel, words)
	c.ToMatrix("bob", "m.text", words)
	users := []id.UserID{c.Bridge.Bot}
	for _, nick := range nicks {
		users = append(users, c.Bridge.Ghost(nick))
	}
	c.oneDeviceEachOf(t, nicks...)

	if status, out := c.Bridge.Ask("uninstall", "-yes"); status != 1 || !strings.Contains(out, "the bridge runs") {
		t.Errorf("beside the running bridge it ended with status %d:\n%s", status, out)
	}
	if code := c.Bridge.Stop(); code != 0 {
		t.Errorf("SIGTERM ended the bridge with status %d", code)
	}
	if status, out := c.Bridge.Ask("uninstall"); status != 0 || !strings.Contains(out, "Nothing was done.") {
		t.Errorf("the dry run ended with status %d:\n%s", status, out)
	} else {
		t.Logf("\n%s", out)
	}
	c.oneDeviceEachOf(t, nicks...)
	status, out := c.Bridge.Ask("uninstall", "-yes", "-drop-store")
	t.Logf("\n%s", out)
	if status != 0 || !strings.Contains(out, "out of app_service_config_files in homeserver.yaml") {
		t.Errorf("it ended with status %d", status)
	}
	for _, user := range users {
		if devices := c.DevicesOf(user); len(devices) != 0 {
			t.Errorf("%s still has the devices %v", user, devices)
		}
		var joined struct {
			Rooms []id.RoomID `json:"joined_rooms"`
		}
		if c.Synapse.GetAs(c.Bridge.Token(), user, "/_matrix/client/v3/joined_rooms", &joined); len(joined.Rooms) != 0 {
			t.Errorf("%s is still in %v", user, joined.Rooms)
		}
	}
	if joined := c.Alice.Members(c.Room); len(joined) != 1 {
		t.Errorf("in the room are %v", joined)
	}
}
