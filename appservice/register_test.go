package appservice

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
)

func TestC15_UserInUse_IsOursWhenTheHomeserverLetsUsActAsIt(t *testing.T) {
	for name, c := range map[string]struct {
		status        int
		code          string
		user          string // that whoami answers, when status is 200
		ours, forGood bool
		says          string
	}{
		"it does":                  {200, "", string(ghostA), true, false, ""},
		"it acts as the bot":       {200, "", "@ircbot:hs.test", false, true, "ignores user_id"},
		"it does not":              {403, codeForbidden, "", false, true, "not the bridge's"},
		"it does not, as Tuwunel":  {400, "M_EXCLUSIVE", "", false, true, "not the bridge's"},
		"it has no such question":  {404, codeUnrecognized, "", true, false, ""},
		"it fails":                 {500, "M_UNKNOWN", "", false, false, "ask whether"},
		"the account is suspended": {403, "M_USER_SUSPENDED", "", false, true, "suspended"},
	} {
		t.Run(name, func(t *testing.T) {
			hs := newFakeHS(t)
			hs.registered["irc_a"] = true
			hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				if !strings.HasSuffix(r.URL.Path, "/whoami") {
					return false
				}
				if c.status == 200 {
					_, _ = w.Write([]byte(`{"user_id":"` + c.user + `"}`))
				} else {
					answerError(w, c.status, c.code, "no")
				}
				return true
			}
			f := newFixture(t, hs)
			err := f.as.Ghost(ghostA).EnsureRegistered(t.Context())
			if (err == nil) != c.ours || IsPermanent(err) != c.forGood || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
			if !c.ours && c.status != 500 && c.code != "M_USER_SUSPENDED" && !errors.Is(err, mautrix.MUserInUse) {
				t.Errorf("the error does not tell of the refusal: %v", err)
			}
			if g, _ := f.store.Ghost(t.Context(), string(ghostA)); (g != nil && g.Registered) != c.ours {
				t.Errorf("remembered as %+v", g)
			}
		})
	}
}

func TestRegister_RefusedAndStillMade_IsRecognised(t *testing.T) {
	for _, code := range []string{"IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED", "M_APPSERVICE_LOGIN_UNSUPPORTED"} {
		for _, made := range []bool{true, false} {
			hs := newFakeHS(t)
			hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				switch {
				case strings.HasSuffix(r.URL.Path, "/register"):
					answerError(w, 400, code, "no login")
				case strings.HasSuffix(r.URL.Path, "/whoami") && !made:
					answerError(w, 403, codeForbidden, "not registered")
				default:
					return false
				}
				return true
			}
			f := newFixture(t, hs)
			if err := f.as.Ghost(ghostA).EnsureRegistered(t.Context()); (err == nil) != made || !made && errorCode(err) != code {
				t.Errorf("%s, made %v: %v", code, made, err)
			}
		}
	}
}

func TestRegister_LostAnswer_IsOneUserAndOneMoreQuestion(t *testing.T) {
	hs := newFakeHS(t)
	hs.override = func(_ http.ResponseWriter, r *http.Request, body string) bool {
		if strings.HasSuffix(r.URL.Path, "/register") && strings.Contains(body, `"irc_a"`) && !hs.registered["irc_a"] {
			hs.registered["irc_a"] = true
			panic(http.ErrAbortHandler)
		}
		return false
	}
	f := newFixture(t, hs)
	a := f.as.Ghost(ghostA)
	if err := a.EnsureRegistered(t.Context()); err == nil {
		t.Fatal("no error although the answer was lost")
	}
	for range 3 {
		if err := a.EnsureRegistered(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if r, w := hs.count("POST /register user=@irc_a"), hs.count("GET /account/whoami user=@irc_a"); r != 2 || w != 1 {
		t.Errorf("%d registrations, %d questions", r, w)
	}
}

func TestRegister_TheBotIsRegisteredToo(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	if err := f.as.Bot().EnsureRegistered(t.Context()); err != nil {
		t.Error(err)
	}
	f.stop()
	if n := hs.count(`POST /register user=@ircbot:hs.test device= {"inhibit_login":true,"type":"m.login.application_service","username":"ircbot"}`); n != 1 {
		t.Errorf("%d registrations of the bot", n)
	}
}
