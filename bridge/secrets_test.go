package bridge_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// userToken is what the access tokens of devices and users look like on the test's homeserver, and those that renew them.
var userToken = regexp.MustCompile(`sy[tr]_[A-Za-z]{24}`)

// A homeserver, or a proxy before it, that repeats what it was sent: the bridge must not write that down.
func TestF2_WholeBridgeAtTraceLevelWithFaults_WritesNoTokenAnywhere(t *testing.T) {
	for _, personality := range []bridgetest.Personality{bridgetest.Synapse, bridgetest.Dendrite} {
		t.Run(personality.String(), func(t *testing.T) {
			logFile := filepath.Join(t.TempDir(), "log")
			ctx, cancel := bridgetest.Timeout()
			t.Cleanup(cancel)
			c := &crossing{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t, personality), net: bridgetest.NewNetwork()}
			c.alice = c.hs.User("alice")
			c.room = must(c.alice.CreateRoom(ctx, bridgetest.RoomOptions{}))(t)
			c.b = bridgetest.StartBridge(t, c.hs, c.net, func(cfg *bridge.Config) { cfg.Log.File, cfg.Log.Level = logFile, "trace" })
			c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
			c.sees(bridgetest.Member(c.b.BotID(), "join"))
			c.plumb()
			reg := must(appservice.LoadRegistration(c.b.Config.Appservice.Registration))(t)
			c.says("to the network")
			c.arrives("to the network")
			for n, answer := range []func(w http.ResponseWriter, r *http.Request){
				func(w http.ResponseWriter, r *http.Request) { // what it was sent, in words
					w.WriteHeader(http.StatusBadGateway)
					fmt.Fprintf(w, "<h1>Bad gateway</h1>%v %v", r.Header, r.URL)
				},
				func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusInternalServerError)
					fmt.Fprintf(w, `{"errcode":"M_UNKNOWN","error":"no luck with %s"}`, r.Header.Get("Authorization"))
				},
				func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusUnauthorized)
					fmt.Fprintf(w, `{"errcode":"M_UNKNOWN_TOKEN","error":"%s is no token"}`, r.Header.Get("Authorization"))
				},
				func(w http.ResponseWriter, r *http.Request) {
					_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
					http.Redirect(w, r, "http://elsewhere.test/?access_token="+token, http.StatusTemporaryRedirect)
				},
				func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusTooManyRequests)
					fmt.Fprintf(w, `{"errcode":"M_LIMIT_EXCEEDED","error":"%s is too fast","retry_after_ms":1}`, r.Header.Get("Authorization"))
				},
				func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			} {
				met := make(chan struct{}, 1)
				remove := c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Query().Get("user_id") != string(c.bob()) || !strings.Contains(r.URL.Path, "/send/") && n > 0 {
						return false
					}
					select {
					case met <- struct{}{}:
						answer(w, r)
						return true
					default:
						return false
					}
				})
				text := fmt.Sprint("from the network ", n)
				c.ok(c.net.Say(c.ctx, lobby, "bob", text))
				c.sees(bridgetest.Message(c.bob(), text))
				remove()
			}
			for _, auth := range []string{"Bearer " + reg.ASToken, "Basic " + reg.HSToken, ""} { // somebody knocks with what it must not have
				req := must(http.NewRequestWithContext(ctx, http.MethodPut, reg.URL+"/_matrix/app/v1/transactions/1?access_token="+reg.HSToken+"x", strings.NewReader(`{"events":[]}`)))(t)
				if auth != "" {
					req.Header.Set("Authorization", auth)
				}
				resp := must(http.DefaultClient.Do(req))(t)
				_ = resp.Body.Close()
			}
			http.DefaultClient.CloseIdleConnections()
			c.ok(c.hs.Moderate(c.bob(), bridgetest.Suspended))
			c.ok(c.net.Say(c.ctx, lobby, "bob", "never"))
			letters := must(c.b.DeadLetters(c.ctx, 1))(t)
			c.b.Stop()
			written := string(must(os.ReadFile(logFile))(t)) + fmt.Sprintf("%+v", letters)
			for _, m := range c.net.Sent() {
				written += fmt.Sprintf("%+v", m)
			}
			if !strings.Contains(written, "no luck with") || !strings.Contains(written, `"level":"debug"`) {
				t.Error("what the homeserver answered is not in the log, so the test shows nothing")
			}
			for name, secret := range map[string]string{"as_token": reg.ASToken, "hs_token": reg.HSToken} {
				if at := strings.Index(written, secret); at >= 0 {
					t.Errorf("the %s was written: …%s…", name, written[max(0, at-300):at])
				}
			}
			if at := userToken.FindStringIndex(written); at != nil {
				t.Errorf("a user's token was written: …%s…", written[max(0, at[0]-300):at[0]])
			}
		})
	}
}
