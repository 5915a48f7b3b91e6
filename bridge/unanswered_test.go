package bridge_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// forgetful are the homeservers that forget transaction IDs when they are restarted: those without devices, and those whose
// ghosts have none.
func forgetful(t *testing.T, test func(t *testing.T, c *crossing)) {
	for name, of := range map[string]struct {
		personality bridgetest.Personality
		change      func(*bridge.Config)
	}{
		"Dendrite":      {bridgetest.Dendrite, func(*bridge.Config) {}},
		"GhostsWithout": {bridgetest.Synapse, func(cfg *bridge.Config) { cfg.Appservice.GhostDevices = "encrypted" }},
		"ModeNone":      {bridgetest.Synapse, func(cfg *bridge.Config) { cfg.Appservice.DeviceMode = "none" }},
	} {
		t.Run(name, func(t *testing.T) {
			c := unplumbedOn(t, bridgetest.NewHomeserver(t, of.personality), of.change)
			c.plumb()
			c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
			c.sees(bridgetest.Message(c.bob(), "hi"))
			test(t, c)
		})
	}
}

var sends = regexp.MustCompile(`/send/m\.room\.message/`)

// textsOfBob are the texts that are there of bob.
func (c *crossing) textsOfBob() string {
	c.Helper()
	var texts []string
	for _, e := range must(c.alice.Timeline(c.ctx, c.room))(c.T) {
		if e.Sender == c.bob() && e.Type == "m.room.message" {
			texts = append(texts, e.Body())
		}
	}
	return strings.Join(texts, ", ")
}

// looked is how often the room's history was asked for.
func (c *crossing) looked() int {
	return len(c.hs.Requests(func(r bridgetest.Request) bool {
		return strings.HasSuffix(r.Path, "/messages") && r.User != c.alice.ID()
	}))
}

func (c *crossing) wantOnce() {
	c.Helper()
	c.ok(c.net.Say(c.ctx, lobby, "bob", "end"))
	c.sees(bridgetest.Message(c.bob(), "end"))
	if got := c.textsOfBob(); got != "hi, perhaps, end" {
		c.Errorf("the room has: %s", got)
	}
}

// nudge has alice say something in a transaction that fails at first. A restarted Synapse sends the transaction that the restart
// cut off only after that.
func (c *crossing) nudge() {
	c.Helper()
	c.hs.PushFault(bridgetest.PushFault{CutRequest: true})
	c.says("anybody?")
}

// holdPushes keeps echoes from coming back for as long as the test takes.
func (c *crossing) holdPushes() {
	c.hs.PushFault(bridgetest.PushFault{Times: -1, CutRequest: true})
}

func TestInDoubt_AnswerLostWithoutADevice_TheEchoSettlesIt(t *testing.T) {
	forgetful(t, func(t *testing.T, c *crossing) {
		c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool { // the history tells nobody but alice
			if !strings.HasSuffix(r.URL.Path, "/messages") || r.URL.Query().Get("user_id") == "" {
				return false
			}
			w.WriteHeader(http.StatusBadGateway)
			return true
		})
		c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: sends, DropAfter: true})
		c.ok(c.net.Say(c.ctx, lobby, "bob", "perhaps"))
		c.sees(bridgetest.Message(c.bob(), "perhaps"))
		c.hs.Restart()
		c.nudge()
		c.wantOnce()
	})
}

func TestInDoubt_AnswerLostWithoutADeviceAndNoEcho_TheHistorySettlesIt(t *testing.T) {
	forgetful(t, func(t *testing.T, c *crossing) {
		c.holdPushes()
		c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: sends, DropAfter: true})
		c.ok(c.net.Say(c.ctx, lobby, "bob", "perhaps"))
		c.sees(bridgetest.Message(c.bob(), "perhaps"))
		c.hs.Restart()
		c.wantOnce()
	})
}

func TestInDoubt_RequestLostWithoutADevice_IsSentAgain(t *testing.T) {
	forgetful(t, func(t *testing.T, c *crossing) {
		before := c.looked()
		c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: sends, Drop: true})
		c.ok(c.net.Say(c.ctx, lobby, "bob", "perhaps"))
		c.wantOnce()
		if c.looked() == before {
			t.Error("it was sent again without a look at what is there")
		}
	})
}

func TestInDoubt_KilledBeforeTheAnswerWithoutADevice_IsThereOnceAndCanBeAnswered(t *testing.T) {
	forgetful(t, func(t *testing.T, c *crossing) {
		c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: sends, Times: 1, Status: http.StatusBadGateway})
		c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
			Channel: lobby, ID: "m1", Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Body: "perhaps"},
		}))
		c.b.Stop()
		c.holdPushes()
		c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: sends, DropAfter: true})
		child := c.child()
		perhaps := c.sees(bridgetest.Message(c.bob(), "perhaps"))
		child.kill()
		c.hs.Restart()
		c.b.Start()
		c.ok(c.net.Deliver(c.ctx, &bridge.Incoming{
			Channel: lobby, ID: "m2", Sender: bridge.RemoteUser{ID: "bob"}, Text: &bridge.Text{Body: "end", ReplyTo: "m1"},
		}))
		end := c.sees(bridgetest.Message(c.bob(), "end"))
		if got := c.textsOfBob(); got != "hi, perhaps, end" {
			t.Errorf("the room has: %s", got)
		}
		if end.ReplyTo() != perhaps.ID {
			t.Errorf("the answer points at %q, want %q", end.ReplyTo(), perhaps.ID)
		}
	})
}

// bridgeChild is a bridge in a process of its own.
type bridgeChild struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	over chan error
}

// child starts the bridge in a process of its own, while the one here is stopped.
func (c *crossing) child(env ...string) *bridgeChild {
	c.Helper()
	cmd := exec.Command(must(os.Executable())(c.T))
	cmd.Env = append(append(os.Environ(), childVariable+"="+string(must(json.Marshal(settingsOf(c.b.Config)))(c.T))), env...)
	cmd.Stderr = os.Stderr
	in := must(cmd.StdinPipe())(c.T) // whose end would stop it
	c.ok(cmd.Start())
	child := &bridgeChild{cmd, in, make(chan error, 1)}
	go func() { child.over <- cmd.Wait() }()
	c.Cleanup(child.kill)
	return child
}

func (b *bridgeChild) kill() {
	_ = b.cmd.Process.Kill()
	b.over <- <-b.over
}
