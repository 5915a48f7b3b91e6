package bridge

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What would be lost if it were taken stays with the homeserver; what tells something is heard in either case.
func TestCheckListener_TakesOnlyWhatNobodyWouldMiss(t *testing.T) {
	const own, other = `{"type":"probe","sender":"@bot:x"}`, `{"type":"m.room_key","sender":"@alice:x"}`
	for body, want := range map[string]struct {
		status int
		heard  heard
	}{
		`{"events":[]}`:                                                                         {200, heard{}},
		`{"events":[{"type":"m.room.topic"}]}`:                                                  {503, heard{foreign: true}},
		`{"events":[],"ephemeral":[{"type":"m.typing"}]}`:                                       {503, heard{foreign: true}},
		`{"events":[],"ephemeral":[{"type":"m.presence","sender":"@bot:x"}]}`:                   {200, heard{}},
		`{"events":[],"de.sorunome.msc2409.ephemeral":[{"type":"m.presence","sender":"@a:x"}]}`: {503, heard{foreign: true}},
		`{"events":[],"to_device":[` + own + `]}`:                                               {200, heard{toDevice: true}},
		`{"events":[],"de.sorunome.msc2409.to_device":[` + own + `]}`:                           {200, heard{toDevice: true}},
		`{"events":[],"de.sorunome.msc2409.to_device":[]}`:                                      {200, heard{}},
		`{"events":[],"to_device":[` + own + `,` + other + `]}`:                                 {503, heard{toDevice: true, foreign: true}},
		`{"events":[],"org.matrix.msc3202.device_lists":{"changed":["@bot:x"],"left":[]}}`:      {200, heard{extensions: true, lists: 1}},
		`{"events":[],"device_lists":{"changed":["@alice:x"]}}`:                                 {503, heard{extensions: true, foreign: true}},
		`{"events":[],"org.matrix.msc3202.device_lists":{"changed":[]}}`:                        {200, heard{}},
		`{"events":[],"org.matrix.msc3202.device_one_time_key_counts":{"@bot:x":{"D":{}}}}`:     {200, heard{extensions: true}},
		`{"events":[],"org.matrix.msc3202.device_one_time_keys_count":{}}`:                      {200, heard{extensions: true}},
		`{"events":[{}],"to_device":[` + own + `],"device_one_time_keys_count":{}}`:             {503, heard{toDevice: true, extensions: true, foreign: true}},
		`not JSON`: {503, heard{foreign: true}},
		`{"events":[],"x":"` + strings.Repeat("x", maxChecked) + `"}`: {503, heard{foreign: true}},
	} {
		l := newCheckListener("secret", "@bot:x", "probe")
		request := httptest.NewRequest(http.MethodPut, "/_matrix/app/v1/transactions/1", strings.NewReader(body))
		request.Header.Set("Authorization", "Bearer secret")
		answer := httptest.NewRecorder()
		l.ServeHTTP(answer, request)
		if got, _ := l.state(); answer.Code != want.status || got != want.heard {
			t.Errorf("%.90s: got %d and %+v, want %d and %+v", body, answer.Code, got, want.status, want.heard)
		}
	}
}

func TestCheckListener_OtherRequests_AreAnsweredOnlyWithTheToken(t *testing.T) {
	for _, c := range []struct {
		method, path, token string
		status              int
		heard               heard
	}{
		{"POST", "/_matrix/app/v1/ping", "Bearer secret", 200, heard{ping: true}},
		{"POST", "/_matrix/app/v1/ping?access_token=secret", "", 200, heard{ping: true}},
		{"POST", "/_matrix/app/v1/ping", "Bearer old", 403, heard{wrongToken: true}},
		{"POST", "/_matrix/app/v1/ping", "", 403, heard{wrongToken: true}},
		{"GET", "/favicon.ico", "", 403, heard{}},
		{"GET", "/_matrix/app/v1/rooms/%23x_probe:x", "Bearer secret", 404, heard{alias: true}},
		{"GET", "/_matrix/app/v1/rooms/%23x_other:x", "Bearer secret", 503, heard{}},
		{"GET", "/_matrix/app/v1/users/@x_probe:x", "Bearer secret", 503, heard{}},
	} {
		l := newCheckListener("secret", "@bot:x", "probe")
		request := httptest.NewRequest(c.method, c.path, strings.NewReader("{}"))
		if c.token != "" {
			request.Header.Set("Authorization", c.token)
		}
		answer := httptest.NewRecorder()
		l.ServeHTTP(answer, request)
		if got, _ := l.state(); answer.Code != c.status || got != c.heard {
			t.Errorf("%s %s: got %d and %+v, want %d and %+v", c.method, c.path, answer.Code, got, c.status, c.heard)
		}
	}
}
