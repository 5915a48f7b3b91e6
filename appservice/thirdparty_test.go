package appservice

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

// searcher is a handler that knows the protocol irc, with one user and one channel.
type searcher struct{ *recorder }

var _ ThirdPartyHandler = searcher{}

func (searcher) LookUpProtocol(_ context.Context, protocol string) (*Protocol, error) {
	switch protocol {
	case "irc":
		return &Protocol{UserFields: []string{"nick"}, Instances: []ProtocolInstance{{Desc: "a/b", NetworkID: "ab"}}}, nil
	case "a/b":
		return &Protocol{}, nil
	case "broken":
		return nil, errTest
	case "panics":
		panic("over a protocol")
	}
	return nil, nil
}

func (searcher) LookUpUsers(_ context.Context, protocol string, fields map[string]string) ([]ThirdPartyUser, error) {
	switch fields["nick"] {
	case "bob":
		return []ThirdPartyUser{{UserID: "@irc_bob:hs.test", Protocol: protocol, Fields: fields}}, nil
	case "broken":
		return nil, errTest
	case "panics":
		panic("over a user")
	}
	return nil, nil
}

func (s searcher) LookUpUser(ctx context.Context, user id.UserID) ([]ThirdPartyUser, error) {
	nick, _ := strings.CutPrefix(strings.TrimSuffix(string(user), ":hs.test"), "@irc_")
	return s.LookUpUsers(ctx, "irc", map[string]string{"nick": nick})
}

func (searcher) LookUpLocations(_ context.Context, protocol string, fields map[string]string) ([]ThirdPartyLocation, error) {
	if fields["channel"] == "#a b" {
		return []ThirdPartyLocation{{Alias: "#room:hs.test", Protocol: protocol, Fields: fields}}, nil
	}
	return nil, nil
}

func (s searcher) LookUpLocation(ctx context.Context, alias id.RoomAlias) ([]ThirdPartyLocation, error) {
	if alias == "#broken:hs.test" {
		return nil, errTest
	}
	return s.LookUpLocations(ctx, "irc", map[string]string{"channel": strings.TrimSuffix(string(alias), ":hs.test")})
}

func TestThirdParty_AnswersHaveTheShapeOfTheSpecification(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Handler = searcher{newRecorder()} })
	const notFound, unknown, missing = `"M_NOT_FOUND"`, `"M_UNKNOWN"`, `"M_MISSING_PARAM"`
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"protocol/irc", 200, `{"user_fields":["nick"],"location_fields":[],"icon":"","field_types":{},"instances":[{"desc":"a/b","fields":{},"network_id":"ab"}]}`},
		{"protocol/a%2Fb", 200, `{"user_fields":[],"location_fields":[],"icon":"","field_types":{},"instances":[]}`},
		{"protocol/xmpp", 404, notFound}, {"protocol/%00", 404, notFound}, {"protocol/broken", 500, unknown}, {"protocol/panics", 500, unknown},
		{"user/irc?nick=bob", 200, `[{"userid":"@irc_bob:hs.test","protocol":"irc","fields":{"nick":"bob"}}]`},
		{"user/irc?nick=bob&nick=eve&access_token=" + testHSToken, 200, `[{"userid":"@irc_bob:hs.test","protocol":"irc","fields":{"nick":"bob"}}]`},
		{"user/irc?nick=eve", 200, `[]`}, {"user/irc", 200, `[]`}, {"user/irc?nick=%zz", 200, `[]`},
		{"user/xmpp?nick=bob", 404, notFound}, {"user/irc?nick=broken", 500, unknown}, {"user/irc?nick=panics", 500, unknown}, {"user/broken?nick=bob", 500, unknown},
		{"user?userid=%40irc_bob%3Ahs.test", 200, `[{"userid":"@irc_bob:hs.test","protocol":"irc","fields":{"nick":"bob"}}]`},
		{"user?userid=@irc_eve:hs.test", 200, `[]`}, {"user", 400, missing}, {"user?userid=", 400, missing}, {"user?userid=%ff", 400, missing},
		{"location/irc?channel=%23a+b", 200, `[{"alias":"#room:hs.test","protocol":"irc","fields":{"channel":"#a b"}}]`},
		{"location/irc?channel=b", 200, `[]`}, {"location/xmpp", 404, notFound},
		{"location?alias=%23a%20b%3Ahs.test", 200, `[{"alias":"#room:hs.test","protocol":"irc","fields":{"channel":"#a b"}}]`},
		{"location?alias=%23x%3Ahs.test", 200, `[]`}, {"location", 400, missing}, {"location?alias=%23broken%3Ahs.test", 500, unknown},
	} {
		code, body := f.get("thirdparty/" + c.path)
		if code != c.status || body != c.body && !(code != 200 && strings.Contains(body, c.body)) {
			t.Errorf("%s: %d %s, want %d %s", c.path, code, body, c.status, c.body)
		}
	}
}

func TestThirdParty_TheToken_IsNoField(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Handler, c.AllowQueryToken = searcher{newRecorder()}, true })
	code, body := f.do("GET", "/_matrix/app/v1/thirdparty/location/irc?channel=%23a%20b&access_token="+testHSToken, "", "")
	if code != 200 || strings.Contains(body, testHSToken) || !strings.Contains(body, "#room") {
		t.Error(code, body)
	}
}

func ExampleThirdPartyHandler() {
	// The homeserver asks: GET /_matrix/app/v1/thirdparty/user/irc?nick=bob
	found, err := searcher{}.LookUpUsers(context.Background(), "irc", map[string]string{"nick": "bob"})
	fmt.Println(found[0].UserID, found[0].Fields, err)
	// Output: @irc_bob:hs.test map[nick:bob] <nil>
}
