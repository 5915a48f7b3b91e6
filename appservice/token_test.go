package appservice

import (
	"net/http"
	"strings"
	"testing"
)

func TestA22_HSToken_MissingIs401WrongIs403(t *testing.T) {
	f := newFixture(t, nil)
	path := "/_matrix/app/v1/transactions/1"
	for _, c := range []struct {
		name, path, auth string
		status           int
		code             string
	}{
		{"right", path, "Bearer " + testHSToken, 200, ""},
		{"scheme in lower case", path, "bearer " + testHSToken, 200, ""},
		{"missing", path, "", 401, "M_MISSING_TOKEN"},
		{"another scheme", path, "Basic " + testHSToken, 401, "M_MISSING_TOKEN"},
		{"wrong", path, "Bearer nope", 403, "M_FORBIDDEN"},
		{"empty", path, "Bearer ", 403, "M_FORBIDDEN"},
		{"only in the query, not configured", path + "?access_token=" + testHSToken, "", 401, "M_MISSING_TOKEN"},
		{"wrong in the query, not configured", path + "?access_token=nope", "Bearer " + testHSToken, 200, ""},
	} {
		code, body := f.do(http.MethodPut, c.path, `{"events":[]}`, c.auth)
		if code != c.status || !strings.Contains(body, c.code) {
			t.Errorf("%s: %d %s, want %d %s", c.name, code, body, c.status, c.code)
		}
	}
}

func TestA22_QueryToken_WhenConfiguredMustAgree(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.AllowQueryToken = true })
	path := "/_matrix/app/v1/transactions/1"
	for _, c := range []struct {
		path, auth string
		status     int
	}{
		{path + "?access_token=" + testHSToken, "", 200},
		{path + "?access_token=" + testHSToken, "Bearer " + testHSToken, 200},
		{path + "?access_token=nope", "Bearer " + testHSToken, 403},
		{path + "?access_token=" + testHSToken, "Bearer nope", 403},
		{path + "?access_token=nope", "", 403},
		{path, "", 401},
	} {
		if code, body := f.do(http.MethodPut, c.path, `{"events":[]}`, c.auth); code != c.status {
			t.Errorf("%s with %q: %d %s, want %d", c.path, c.auth, code, body, c.status)
		}
	}
}

func TestA22_Token_IsInNoAnswer(t *testing.T) {
	f := newFixture(t, nil)
	for _, auth := range []string{"", "Bearer wrong"} {
		if _, body := f.do("PUT", "/_matrix/app/v1/transactions/1", "", auth); strings.Contains(body, testHSToken) || strings.Contains(body, "Bearer wrong") {
			t.Errorf("the answer is %s", body)
		}
	}
}
