package appservice

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// The answers to every combination of a token in the header with tokens in the query, and whether the query is looked at.
func TestA22_HSToken_EveryCombinationOfHeaderAndQuery(t *testing.T) {
	queries := []string{"", "access_token=" + testHSToken, "access_token=nope", "access_token=", "access_token=" + testHSToken + "&access_token=nope"}
	for _, c := range []struct {
		auth              string
		headerOnly, query [5]int // by query
	}{
		{"", [5]int{401, 401, 401, 401, 401}, [5]int{401, 200, 403, 403, 403}},
		{"Bearer " + testHSToken, [5]int{200, 200, 200, 200, 200}, [5]int{200, 200, 403, 403, 403}},
		{"bearer  " + testHSToken, [5]int{200, 200, 200, 200, 200}, [5]int{200, 200, 403, 403, 403}},
		{"Bearer nope", [5]int{403, 403, 403, 403, 403}, [5]int{403, 403, 403, 403, 403}},
		{"Bearer " + testASToken, [5]int{403, 403, 403, 403, 403}, [5]int{403, 403, 403, 403, 403}},
		{"Bearer " + testHSToken[1:], [5]int{403, 403, 403, 403, 403}, [5]int{403, 403, 403, 403, 403}},
		{"Bearer ", [5]int{403, 403, 403, 403, 403}, [5]int{403, 403, 403, 403, 403}},
		{"Basic " + testHSToken, [5]int{401, 401, 401, 401, 401}, [5]int{401, 200, 403, 403, 403}},
		{testHSToken, [5]int{401, 401, 401, 401, 401}, [5]int{401, 200, 403, 403, 403}},
	} {
		for _, mode := range []struct {
			query bool
			want  [5]int
		}{{false, c.headerOnly}, {true, c.query}} {
			t.Run(fmt.Sprintf("%q query %v", c.auth, mode.query), func(t *testing.T) {
				f := newFixture(t, nil, func(cfg *Config) { cfg.AllowQueryToken = mode.query; cfg.LegacyPaths = true })
				for i, query := range queries {
					for _, path := range []string{"/_matrix/app/v1/transactions/1", "/transactions/1"} {
						code, body := f.do(http.MethodPut, path+"?"+query, `{"events":[]}`, c.auth)
						want := map[int]string{200: "{}", 401: "M_MISSING_TOKEN", 403: "M_FORBIDDEN"}[mode.want[i]]
						if code != mode.want[i] || !strings.Contains(body, want) {
							t.Errorf("%s with query %q: %d %s, want %d %s", path, query, code, body, mode.want[i], want)
						}
					}
				}
			})
		}
	}
}

func TestA22_HSToken_GuardsEveryEndpointAndNothingIsTakenInWithoutIt(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.LegacyPaths = true })
	for _, c := range [][2]string{
		{"PUT", "/_matrix/app/v1/transactions/1"}, {"PUT", "/transactions/1"}, {"POST", "/_matrix/app/v1/ping"},
		{"GET", "/_matrix/app/v1/users/@irc_a:hs.test"}, {"GET", "/users/@irc_a:hs.test"},
		{"GET", "/_matrix/app/v1/rooms/%23irc_a:hs.test"}, {"GET", "/rooms/%23irc_a:hs.test"},
		{"GET", "/_matrix/app/v1/thirdparty/protocol/irc"}, {"GET", "/_matrix/app/v1/thirdparty/user"}, {"GET", "/_matrix/app/v1/thirdparty/user/irc"},
		{"GET", "/_matrix/app/v1/thirdparty/location"}, {"GET", "/_matrix/app/v1/thirdparty/location/irc"},
	} {
		for auth, want := range map[string]int{"": 401, "Bearer nope": 403} {
			if code, body := f.do(c[0], c[1], events(message("$1"), "poison"), auth); code != want {
				t.Errorf("%s %s with %q: %d %s, want %d", c[0], c[1], auth, code, body, want)
			}
		}
	}
	f.idle()
	if f.rec.ids() != "" || f.rows() != 0 || len(f.deadLetters()) != 0 {
		t.Errorf("handled %q, %d rows, dead letters %v", f.rec.ids(), f.rows(), f.deadLetters())
	}
}

func TestA22_Token_IsInNoAnswer(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.AllowQueryToken = true })
	for _, query := range []string{"", "?access_token=" + testHSToken, "?access_token=guessed"} {
		for _, auth := range []string{"", "Bearer guessed", "Bearer " + testHSToken} {
			_, body := f.do("PUT", "/_matrix/app/v1/transactions/1"+query, "", auth)
			if strings.Contains(body, testHSToken) || strings.Contains(body, "guessed") {
				t.Errorf("the answer to %q with %q is %s", auth, query, body)
			}
		}
	}
}
