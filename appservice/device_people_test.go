package appservice_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestB11_PasswordLogin_GetsNothingFromTheASToken_AndTheBridgeMakesNone(t *testing.T) {
	s := loginSite(t)
	b := s.bodies()
	login := func(password string) int {
		status, _ := s.raw("POST", "/_matrix/client/v3/login", fmt.Sprintf(
			`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":%q}`, password))
		return status
	}
	if right, wrong := login("alice"), login("guessed"); right != http.StatusOK || wrong != http.StatusForbidden {
		t.Errorf("with the as_token in the header the right password gets %d, a wrong one %d", right, wrong)
	}
	ours := len(b.of("POST", "/login"))
	s.mustSay("1")
	logins := b.of("POST", "/login")[ours:]
	if len(logins) == 0 {
		t.Error("the bridge did not log in")
	}
	for _, l := range logins {
		var body struct{ Type string }
		if err := json.Unmarshal([]byte(l.body), &body); err != nil || body.Type != "m.login.application_service" {
			t.Errorf("the bridge logged in with %s, %v", l.body, err)
		}
	}
}

func TestB16_GhostsInARoomWithoutTheBot_HaveADeviceOfTheirOwnEach(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	owner := map[id.DeviceID]id.UserID{}
	for _, user := range []id.UserID{"@irc_ann:hs.test", "@irc_ben:hs.test", "@irc_cem:hs.test"} {
		if _, err := s.as.Ghost(user).SendMessage(t.Context(), s.room, event.EventMessage, map[string]string{"msgtype": "m.text", "body": "hi"}, "txn "+string(user)); err != nil {
			t.Fatal(err)
		}
		devices := s.hs.Devices(user)
		if len(devices) != 1 || owner[devices[0]] != "" {
			t.Fatalf("%s has devices %q", user, devices)
		}
		owner[devices[0]] = user
	}
	sends := s.requests("PUT", "/send/")
	for _, r := range sends {
		if user, device := id.UserID(r.Query.Get("user_id")), id.DeviceID(r.Query.Get("device_id")); owner[device] != user {
			t.Errorf("%s sent as device %s of %s", user, device, owner[device])
		}
	}
	if len(sends) != 3 || len(s.hs.Devices("@ircbot:hs.test")) != 0 {
		t.Errorf("%d messages; the bot, who is not in the room, has devices %q", len(sends), s.hs.Devices("@ircbot:hs.test"))
	}
}

// What the bridge will do with cross-signing keys rests on this: nobody asks an appservice who it is, not even for new ones.
func TestC10_CrossSigningKeysOfAGhost_AreReplacedWithoutAuthentication(t *testing.T) {
	for _, kind := range []bridgetest.Personality{bridgetest.Synapse, bridgetest.SynapseOAuth} {
		s := newSite(t, kind)
		s.mustSay("1")
		for _, key := range []string{"UkYhSE/SOphAk78h6RvgN09or7cxgm8uDsGbXyvliP0", "kS6TsVNncXgqbOB/5//tRr6a+hj6BzFL3H1F4cS5vZk"} {
			body := fmt.Sprintf(`{"master_key":{"user_id":%q,"usage":["master"],"keys":{"ed25519:%s":%q}}}`, ghost, key, key)
			if status, answer := s.raw("POST", "/_matrix/client/v3/keys/device_signing/upload?user_id="+url.QueryEscape(string(ghost)), body); status != http.StatusOK {
				t.Errorf("%s: %d %v", kind, status, answer)
			}
			if _, answer := s.raw("POST", "/_matrix/client/v3/keys/query?user_id="+url.QueryEscape(string(ghost)), fmt.Sprintf(`{"device_keys":{%q:[]}}`, ghost)); !strings.Contains(fmt.Sprint(answer["master_keys"]), key) {
				t.Errorf("%s: the master key is %v, want %s", kind, answer["master_keys"], key)
			}
		}
	}
}
