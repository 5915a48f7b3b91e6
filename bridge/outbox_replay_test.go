package bridge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// childVariable makes the test binary be a bridge with these of the settings of another, until its standard input ends.
const childVariable = "TRESTLE_BRIDGE_TEST_CHILD"

type childSettings struct {
	Homeserver                                                     bridge.HomeserverConfig
	Listen, Address, Registration, Database, MediaURL, MediaListen string
	GhostDevices, DeviceMode                                       string
}

func settingsOf(cfg *bridge.Config) childSettings {
	return childSettings{
		Homeserver: cfg.Homeserver, Listen: cfg.Appservice.Listen, Address: cfg.Appservice.Address,
		Registration: cfg.Appservice.Registration, Database: cfg.Database, MediaURL: cfg.Media.PublicURL, MediaListen: cfg.Media.Listen,
		GhostDevices: cfg.Appservice.GhostDevices, DeviceMode: cfg.Appservice.DeviceMode,
	}
}

func runChild(settings string) error {
	var s childSettings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	network := bridgetest.NewNetwork()
	cfg := bridge.DefaultConfig(network.Info())
	cfg.Homeserver, cfg.Appservice.Listen, cfg.Appservice.Address = s.Homeserver, s.Listen, s.Address
	cfg.Appservice.Registration, cfg.Database, cfg.Media.PublicURL, cfg.Media.Listen = s.Registration, s.Database, s.MediaURL, s.MediaListen
	cfg.Appservice.GhostDevices, cfg.Appservice.DeviceMode = s.GhostDevices, s.DeviceMode
	b, err := bridge.New(cfg, network, zerolog.Nop())
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return b.Run(ctx)
}

// A row of the outbox ends every process that sends it, while rows of another room are under way as well. It becomes a
// dead letter, and everything else arrives once.
func TestOutbox_RowThatEndsTheProcess_BecomesADeadLetterAndAllOthersArrive(t *testing.T) {
	c := newCrossing(t)
	other := must(c.alice.CreateRoom(c.ctx, bridgetest.RoomOptions{}))(t)
	c.ok(c.alice.Invite(c.ctx, other, c.b.BotID()))
	must(c.alice.WaitFor(c.ctx, other, bridgetest.Member(c.b.BotID(), "join")))(t)
	must(c.alice.SendText(c.ctx, other, "!test plumb garden"))(t)
	must(c.alice.WaitFor(c.ctx, other, bridgetest.Message(c.b.BotID(), "This room is now connected to garden on Scripted.")))(t)
	for _, channel := range []string{lobby, "garden"} {
		c.ok(c.net.Say(c.ctx, channel, "bob", "hi in "+channel)) // the ghost is in both rooms
	}
	c.sees(bridgetest.Message(c.bob(), "hi in "+lobby))
	must(c.alice.WaitFor(c.ctx, other, bridgetest.Message(c.bob(), "hi in garden")))(t)

	var mu sync.Mutex
	away, child := true, (*os.Process)(nil)
	c.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/send/m.room.message/") {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusBadGateway)
		} else if bytes.Contains(body, []byte("deadly")) && child != nil {
			_ = child.Kill()
		} else {
			return false
		}
		return true
	})
	for _, text := range []string{"deadly", "after"} {
		c.ok(c.net.Say(c.ctx, lobby, "bob", text))
	}
	for _, text := range []string{"one", "two"} {
		c.ok(c.net.Say(c.ctx, "garden", "bob", text))
	}
	c.b.Stop()
	mu.Lock()
	away = false
	mu.Unlock()

	config := must(json.Marshal(settingsOf(c.b.Config)))(t)
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		for room, text := range map[string]string{string(c.room): "after", string(other): "two"} {
			if _, err := c.alice.WaitFor(c.ctx, id.RoomID(room), bridgetest.Message(c.bob(), text)); err != nil {
				t.Error(err)
			}
		}
	}()
	for ended := 0; ; ended++ {
		if ended == 20 {
			t.Fatal("the bridge has ended twenty times")
		}
		cmd := exec.Command(must(os.Executable())(t))
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s", childVariable, config))
		cmd.Stderr = os.Stderr
		in := must(cmd.StdinPipe())(t)
		mu.Lock()
		err := cmd.Start()
		child = cmd.Process
		mu.Unlock()
		c.ok(err)
		over := make(chan error, 1)
		go func() { over <- cmd.Wait() }()
		select {
		case <-over:
			continue
		case <-arrived:
		}
		c.ok(in.Close())
		c.ok(<-over)
		t.Logf("%d processes ended", ended)
		break
	}
	c.b.Start()
	dead := must(c.b.DeadLetters(c.ctx, 1))(t)
	if len(dead) != 1 || !strings.Contains(string(dead[0].Body), "deadly") || !strings.Contains(dead[0].Cause, "the process ended") {
		t.Errorf("dead letters %+v", dead)
	}
	for room, want := range map[string]string{string(c.room): "hi in lobby, after", string(other): "hi in garden, one, two"} {
		var texts []string
		for _, e := range must(c.alice.Timeline(c.ctx, id.RoomID(room)))(t) {
			if e.Sender == c.bob() && e.Type == "m.room.message" {
				texts = append(texts, e.Body())
			}
		}
		if got := strings.Join(texts, ", "); got != want {
			t.Errorf("%s has: %s", room, got)
		}
	}
}

func TestOutbox_RowThatPanics_IsTriedFiveTimes(t *testing.T) {
	for attempts := range 5 {
		err := bridge.TryOfNothing(attempts)
		if err == nil || !strings.HasPrefix(err.Error(), "panic: ") || appservice.IsPermanent(err) != (attempts == 4) {
			t.Errorf("after %d attempts: %v", attempts, err)
		}
	}
}
