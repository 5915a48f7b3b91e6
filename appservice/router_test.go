package appservice

import (
	"context"
	"testing"

	"maunium.net/go/mautrix/id"
)

type querier struct {
	*recorder
	exists map[string]bool
}

func (q querier) QueryUser(_ context.Context, user id.UserID) (bool, error) {
	return q.exists[string(user)], nil
}

func (q querier) QueryAlias(_ context.Context, alias id.RoomAlias) (bool, error) {
	if alias == "#irc_err:hs.test" {
		return false, errTest
	}
	return q.exists[string(alias)], nil
}

func TestQueries_AreAnsweredByTheHandler(t *testing.T) {
	q := querier{newRecorder(), map[string]bool{"@irc_a:hs.test": true, "@alice:hs.test": true, "#irc_a/b:hs.test": true}}
	f := newFixture(t, nil, func(c *Config) { c.Handler = q })
	for path, want := range map[string]int{
		"users/%40irc_a%3Ahs.test": 200, "users/@irc_a:hs.test": 200, "users/%40irc_b%3Ahs.test": 404, "users/%40alice%3Ahs.test": 404,
		"rooms/%23irc_a%2Fb%3Ahs.test": 200, "rooms/%23irc_c%3Ahs.test": 404, "rooms/%23irc_err%3Ahs.test": 500,
	} {
		if code, body := f.do("GET", "/_matrix/app/v1/"+path, "", "Bearer "+testHSToken); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
