package appservice_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestE1_E4_E10_ActingAsADevice_NamesItUnderBothNamesBesideTheUser(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	var mu sync.Mutex
	s.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		q := r.URL.Query()
		open := strings.Contains(r.URL.Path, "/version")
		if r.Header.Get("User-Agent") == "Trestle" && !open && (q.Get("user_id") == "" || q.Get("device_id") != q.Get("org.matrix.msc3202.device_id")) {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		return false
	})
	s.mustSay("1")
	if _, err := s.as.Bot().EnsureDevice(t.Context()); err != nil {
		t.Fatal(err)
	}
	sends := s.requests("PUT", "/send/")
	if s.known().DeviceID == "" {
		t.Error("the ghost has no device, although Synapse lets it act as one")
	}
	if len(sends) != 1 || string(sends[0].Device) != s.known().DeviceID || sends[0].User != ghost || sends[0].AppService != "irc" {
		t.Errorf("%+v", sends)
	}
}

func TestE3_KeysOfARequest_BelongToTheDeviceThatItNames(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.mustSay("1")
	device := s.known().DeviceID
	as := "?user_id=" + url.QueryEscape(string(ghost)) + "&device_id="
	body := fmt.Sprintf(`{"device_keys":{"user_id":%q,"device_id":%q,"algorithms":[],"keys":{"ed25519:%s":"abc"},"signatures":{}}}`, ghost, device, device)
	if status, answer := s.raw("POST", "/_matrix/client/v3/keys/upload"+as+device, body); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	_, answer := s.raw("POST", "/_matrix/client/v3/keys/query"+as+device, fmt.Sprintf(`{"device_keys":{%q:[]}}`, ghost))
	if got := fmt.Sprint(answer["device_keys"]); !strings.Contains(got, device) {
		t.Errorf("keys %s are not of device %s", got, device)
	}
}

func TestE5_DeviceThatIsNotThere_IsRefusedAsEachHomeserverDoes(t *testing.T) {
	for kind, want := range map[bridgetest.Personality]string{
		bridgetest.Synapse: "400 ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE", bridgetest.SynapseOAuth: "400 ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE",
		bridgetest.Dendrite: "200 <nil>", bridgetest.Continuwuity: "403 M_FORBIDDEN", bridgetest.Tuwunel: "400 M_INVALID_PARAM",
	} {
		s := newSite(t, kind)
		s.mustSay("1")
		status, answer := s.raw("GET", "/_matrix/client/v3/account/whoami?user_id="+url.QueryEscape(string(ghost))+"&device_id=NOTTHERE123", "")
		if got := fmt.Sprint(status, " ", answer["errcode"]); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
}

func TestE9_Whoami_AnswersForTheBotAUserAndADeviceOfEither(t *testing.T) {
	s := newSite(t, bridgetest.Synapse)
	s.mustSay("1")
	device, err := s.as.Bot().EnsureDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	user := url.QueryEscape(string(ghost))
	for query, want := range map[string]string{
		"":                 "200 @ircbot:hs.test <nil>",
		"?user_id=" + user: "200 @irc_ann:hs.test <nil>",
		"?user_id=" + user + "&device_id=" + s.known().DeviceID:    "200 @irc_ann:hs.test " + s.known().DeviceID,
		"?user_id=%40ircbot%3Ahs.test&device_id=" + string(device): "200 @ircbot:hs.test " + string(device),
		"?device_id=" + string(device):                             "500 <nil> <nil>", // Synapse does not know whose it is: both are always sent
	} {
		status, answer := s.raw("GET", "/_matrix/client/v3/account/whoami"+query, "")
		if got := fmt.Sprint(status, " ", answer["user_id"], " ", answer["device_id"]); got != want {
			t.Errorf("whoami%s: %s, want %s", query, got, want)
		}
	}
}
