package bridge_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

var sendsMessage = regexp.MustCompile(`/send/m\.room\.message/`)

// bobSends gives the requests with which bob's ghost sent messages.
func (c *crossing) bobSends() []bridgetest.Request {
	return c.hs.Requests(func(r bridgetest.Request) bool { return sendsMessage.MatchString(r.Path) && r.User == c.bob() })
}

func TestD4_SuspendedGhost_ItsMessageIsADeadLetter_AndPeopleAndTheAdminAreTold(t *testing.T) {
	logFile := filepath.Join(t.TempDir(), "log")
	c := newCrossing(t, func(cfg *bridge.Config) { cfg.Log.File = logFile })
	c.ok(c.net.Say(c.ctx, lobby, "bob", "before"))
	c.sees(bridgetest.Message(c.bob(), "before"))
	c.ok(c.hs.Moderate(c.bob(), bridgetest.Suspended))
	before := len(c.bobSends())
	c.ok(c.net.Say(c.ctx, lobby, "bob", "while suspended"))
	c.arrives("A message of bob did not reach Matrix: the homeserver has suspended the Matrix user that stands for them.")
	if dead := must(c.b.DeadLetters(c.ctx, 1))(t); !strings.Contains(dead[0].Cause, "M_USER_SUSPENDED") {
		t.Errorf("the dead letter says %q", dead[0].Cause)
	}
	if n := len(c.bobSends()) - before; n != 1 {
		t.Errorf("the message was sent %d times, want once", n)
	}
	c.ok(c.net.Say(c.ctx, lobby, "carol", "nobody else is held up"))
	c.sees(func(e bridgetest.Event) bool { return e.Body() == "nobody else is held up" })
	devices := c.hs.Devices(c.bob())
	c.ok(c.hs.Moderate(c.bob(), bridgetest.Unmoderated))
	c.ok(c.net.Say(c.ctx, lobby, "bob", "after"))
	c.sees(bridgetest.Message(c.bob(), "after"))
	if now := c.hs.Devices(c.bob()); len(devices) != 1 || len(now) != 1 || now[0] != devices[0] {
		t.Errorf("the ghost had devices %v and has %v, want the same one", devices, now)
	}
	c.b.Stop()
	text := string(must(os.ReadFile(logFile))(t))
	for _, want := range []string{string(c.bob()), "its administrator can take that back", "A homeserver's refusal has ended"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

func TestD3_LockedGhost_ItsMessageIsADeadLetter_AndOthersGoOn(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "before"))
	c.sees(bridgetest.Message(c.bob(), "before"))
	c.hs.Fault(bridgetest.Fault{Path: sendsMessage, Status: http.StatusUnauthorized, ErrCode: "M_USER_LOCKED"})
	before := len(c.bobSends())
	for range 3 { // the first is refused by the homeserver, the others by what it said
		c.ok(c.net.Say(c.ctx, lobby, "bob", "while locked"))
	}
	c.arrives("A message of bob did not reach Matrix: the homeserver has locked the Matrix user that stands for them.")
	must(c.b.DeadLetters(c.ctx, 3))(t)
	if n := len(c.bobSends()) - before; n != 0 { // the one that met the fault is not among them
		t.Errorf("a user that is known to be locked was tried %d times", n)
	}
	c.ok(c.net.Say(c.ctx, lobby, "carol", "nobody else is held up"))
	c.sees(func(e bridgetest.Event) bool { return e.Body() == "nobody else is held up" })
}

func TestHomeserverOverItsLimit_MessagesWaitForIt(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "before"))
	c.sees(bridgetest.Message(c.bob(), "before"))
	c.hs.Fault(bridgetest.Fault{Path: sendsMessage, Status: http.StatusForbidden, ErrCode: "M_RESOURCE_LIMIT_EXCEEDED"})
	c.ok(c.net.Say(c.ctx, lobby, "bob", "over the limit"))
	c.sees(bridgetest.Message(c.bob(), "over the limit"))
	if n := len(c.bobSends()); n != 2 { // the one that met the fault is not among them
		t.Errorf("%d requests, want the first and the repetition", n)
	}
}

// A ghost whose requests are limited waits in the store, and whoever works for it works for others.
func TestMatrixRateLimit_OfAGhost_HoldsNobodyElse(t *testing.T) {
	c := newCrossing(t)
	other := c.anotherRoom()
	must(c.alice.SendText(c.ctx, other, "!test plumb elsewhere"))(t)
	c.fromBot(other)
	for _, who := range []string{"bob", "carol"} {
		c.ok(c.net.Say(c.ctx, lobby, who, "hello of "+who))
		c.sees(func(e bridgetest.Event) bool { return e.Body() == "hello of "+who })
	}
	remove := c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("user_id") != string(c.bob()) {
			return false
		}
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(`{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests"}`))
		return true
	})
	defer remove()
	before := len(c.bobSends())
	for range 20 {
		c.ok(c.net.Say(c.ctx, lobby, "bob", "limited"))
	}
	c.ok(c.net.Say(c.ctx, "elsewhere", "carol", "not limited"))
	must(c.alice.WaitFor(c.ctx, other, func(e bridgetest.Event) bool { return e.Body() == "not limited" }))(t)
	if n := len(c.bobSends()) - before; n > 1 {
		t.Errorf("%d requests of a ghost that is known to be limited for an hour", n)
	}
}
