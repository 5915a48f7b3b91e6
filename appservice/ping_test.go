package appservice

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// pingHS is a homeserver that does with a ping what answer does; call calls the appservice back.
func pingHS(t *testing.T, answer func(w http.ResponseWriter, txnID string, call func(body string) int)) *fixture {
	t.Helper()
	var f *fixture
	ready := make(chan struct{})
	f = newFixture(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-ready
		if !strings.HasSuffix(r.URL.Path, "/v1/appservice/irc/ping") {
			_, _ = w.Write([]byte(`{}`))
			return
		}
		var body struct {
			TransactionID string `json:"transaction_id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.TransactionID == "" {
			t.Errorf("the ping has no transaction ID: %v", err)
		}
		answer(w, body.TransactionID, func(body string) int {
			code, _ := f.do("POST", "/_matrix/app/v1/ping", body, "Bearer "+testHSToken)
			return code
		})
	}))
	close(ready)
	return f
}

func TestPing_HomeserverCallsBack(t *testing.T) {
	for _, body := range []string{`{"transaction_id":"%s"}`, `{}`, ``} {
		f := pingHS(t, func(w http.ResponseWriter, txnID string, call func(string) int) {
			if strings.Contains(body, "%s") {
				fmt.Fprintf(w, `{"duration_ms":%d}`, call(fmt.Sprintf(body, txnID)))
			} else {
				fmt.Fprintf(w, `{"duration_ms":%d}`, call(body))
			}
		})
		if took, err := f.as.Ping(t.Context()); err != nil || took != 200*time.Millisecond {
			t.Errorf("%s: %v %v", body, took, err)
		}
		if err := f.as.Reached(); err != nil {
			t.Error(err)
		}
	}
}

func TestPing_SomebodyElseAnswered_IsSaid(t *testing.T) {
	for name, answer := range map[string]func(call func(string) int){
		"nobody called":              func(func(string) int) {},
		"called with another's ping": func(call func(string) int) { call(`{"transaction_id":"check-1"}`) },
	} {
		f := pingHS(t, func(w http.ResponseWriter, _ string, call func(string) int) {
			answer(call)
			_, _ = w.Write([]byte(`{"duration_ms":1}`))
		})
		_, err := f.as.Ping(t.Context())
		if !errors.Is(err, ErrPingElsewhere) || !strings.Contains(err.Error(), "http://localhost:1") || !errors.Is(f.as.Reached(), ErrPingElsewhere) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPing_WhatFails_IsSaidWithTheMend(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, mend string
	}{
		{502, "M_CONNECTION_FAILED", "does not reach http://localhost:1; write in the registration's url"},
		{504, "M_CONNECTION_TIMEOUT", "does not reach http://localhost:1; write in the registration's url"},
		{502, "M_BAD_STATUS", "what answers at http://localhost:1 is not this bridge"},
		{400, "M_URL_NOT_SET", "has no url"},
		{403, "M_FORBIDDEN", "under another id than irc"},
		{401, "M_UNKNOWN_TOKEN", "does not take the as_token"},
	} {
		f := pingHS(t, func(w http.ResponseWriter, _ string, _ func(string) int) { answerError(w, c.status, c.code, "x") })
		_, err := f.as.Ping(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.mend) || !strings.Contains(err.Error(), c.code) || strings.Contains(err.Error(), testASToken) {
			t.Errorf("%s: %v", c.code, err)
		}
		if reached := f.as.Reached(); reached == nil {
			t.Errorf("%s: it counts as reached", c.code)
		}
	}
}

func TestPing_HomeserverWithoutPing_IsTolerated(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	if _, err := f.as.Ping(t.Context()); !errors.Is(err, ErrPingUnsupported) || !errors.Is(f.as.Reached(), ErrPingUnsupported) {
		t.Error(err, f.as.Reached())
	}
}

func TestPing_FromTheHomeserver_IsAnsweredWhateverItsBody(t *testing.T) {
	f := newFixture(t, nil)
	for _, body := range []string{`{"transaction_id":"x"}`, `{}`, ``, `[]`, `nonsense`, `{"transaction_id":5}`, `"` + strings.Repeat("x", 1<<20)} {
		if code, answer := f.do("POST", "/_matrix/app/v1/ping", body, "Bearer "+testHSToken); code != 200 || answer != "{}" {
			t.Errorf("%.20s: %d %s", body, code, answer)
		}
	}
}
