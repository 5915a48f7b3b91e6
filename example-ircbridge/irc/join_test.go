package irc

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

func (s *session) known() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.channels)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// refuse answers every JOIN with a numeric.
func refuse(numeric string) func(string, func(string, ...any)) {
	return func(line string, say func(string, ...any)) {
		if f := strings.Fields(line); f[0] == "JOIN" {
			say(":s %s bridge %s :no, not now", numeric, f[1])
		}
	}
}

func TestJoin_Numerics_SayWhetherItCanPass_AndLeaveNothingBehind(t *testing.T) {
	for numeric, passes := range map[string]bool{
		"437": true, "439": true, "471": true, "480": true, "403": false, "474": false, "926": false, "520": false,
	} {
		t.Run(numeric, func(t *testing.T) {
			_, session, _ := scripted(t, refuse(numeric))
			err := session.JoinChannel(t.Context(), "#c")
			if err == nil || bridge.IsPermanent(err) == passes || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			if n := session.known(); n != 0 {
				t.Errorf("%d channels are kept", n)
			}
		})
	}
}

func TestJoin_GivenUp_IsForgotten(t *testing.T) {
	server, session, out := scripted(t, func(line string, say func(string, ...any)) {})
	out.until(t, "Connected to")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := session.JoinChannel(ctx, "#c"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	eventually(t, "JOIN", func() bool { return server.count("JOIN #c") == 1 })
	server.cut()
	eventually(t, "a second connection", func() bool { return out.count("Connected to") == 2 })
	if err := session.JoinChannel(ctx, "#d"); err == nil {
		t.Error("no error")
	}
	if n := server.count("JOIN #c"); n != 1 || session.known() != 0 {
		t.Errorf("%d JOINs, %d channels are kept", n, session.known())
	}
}

func TestJoin_GivenUp_OfAChannelThatWasWantedBefore_IsKept(t *testing.T) {
	withoutDelay(t, givesUpAndKeepsTheChannel)
}

func givesUpAndKeepsTheChannel(t *testing.T) {
	f := joined(t, piping(allCaps), func(c *Config) { c.Reconnect.First = 300 * time.Millisecond; c.Reconnect.Max = time.Second })
	f.cut()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := f.session.(*session).JoinChannel(ctx, "#c"); err == nil {
		t.Error("no error")
	}
	f.mustSend(message("back"))
}

func TestSend_JOINWithoutAnswer_IsOffline_AndDoesNotHang(t *testing.T) {
	_, session, out := scripted(t, func(string, func(string, ...any)) {})
	out.until(t, "online")
	session.mu.Lock()
	session.joinWait = 50 * time.Millisecond
	session.mu.Unlock()
	if _, err := session.Send(context.Background(), message("x")); !errors.Is(err, bridge.ErrOffline) || bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestJoin_WithoutAnswerAfterReconnect_IsTriedAgain(t *testing.T) {
	var n atomic.Int32
	server, session, out := scripted(t, func(line string, say func(string, ...any)) {
		if strings.HasPrefix(line, "JOIN") && n.Add(1) != 2 {
			say(":bridge!u@h JOIN #c")
		}
	})
	if err := session.JoinChannel(t.Context(), "#c"); err != nil {
		t.Fatal(err)
	}
	session.mu.Lock()
	session.joinWait = 50 * time.Millisecond // from here on: that one was answered
	session.mu.Unlock()
	server.cut()
	out.until(t, "#c warn The bridge has had no answer to its joining #c")
	eventually(t, "the second joining", func() bool { return out.count("Joined #c") >= 2 })
}

func TestSend_WhileJOINIsUnderWay_IsOfflineAtOnce(t *testing.T) {
	server, session, out := scripted(t, func(string, func(string, ...any)) {})
	out.until(t, "Connected to")
	joining := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { joining <- session.JoinChannel(ctx, "#c") }()
	eventually(t, "JOIN", func() bool { return server.count("JOIN #c") == 1 })
	session.mu.Lock()
	session.joinWait = time.Hour
	session.mu.Unlock()
	short, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	if _, err := session.Send(short, message("x")); !errors.Is(err, bridge.ErrOffline) {
		t.Errorf("%v", err)
	}
	cancel()
	<-joining
}

func TestJoin_RefusedToWhoWrites_IsTriedAgainAfterTheNextConnection(t *testing.T) {
	server, session, out := scripted(t, refuse("474"))
	out.until(t, "Connected to")
	// A portal from before the start: its first JOIN is refused, and then somebody writes.
	if err := session.JoinChannel(t.Context(), "#c"); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if _, err := session.Send(context.Background(), message("x")); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	for n := 2; n < 5; n++ {
		server.cut()
		eventually(t, "JOIN again", func() bool { return server.count("JOIN #c") > n })
	}
	out.until(t, "#c warn The bridge cannot join #c on IRC: the bridge is banned from it")
}

func TestJoin_RefusalThatMayPass_IsTriedAgainByItself_AndToldOnce(t *testing.T) {
	var joins atomic.Int32
	_, session, out := scripted(t, func(line string, say func(string, ...any)) {
		if !strings.HasPrefix(line, "JOIN") {
			return
		}
		if n := joins.Add(1); n == 1 || n > 4 {
			say(":bridge!u@h JOIN #c")
		} else {
			say(":s 480 bridge #c :throttled")
		}
	})
	if err := session.JoinChannel(t.Context(), "#c"); err != nil {
		t.Fatal(err)
	}
	session.mu.Lock()
	l := session.link
	session.mu.Unlock()
	_ = l.conn.Close()
	eventually(t, "the second joining", func() bool { return out.count("Joined #c") == 2 })
	if n := out.count("#c warn"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestLeave_EndsAJoinUnderWay(t *testing.T) {
	server, session, out := scripted(t, func(string, func(string, ...any)) {})
	out.until(t, "Connected to")
	joining := make(chan error, 1)
	go func() { joining <- session.JoinChannel(t.Context(), "#c") }()
	eventually(t, "JOIN", func() bool { return server.count("JOIN #c") == 1 })
	if err := session.LeaveChannel(t.Context(), "#c"); err != nil {
		t.Fatal(err)
	}
	if err := <-joining; !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestJoin_WhileLeavingIsUnderWay_ComesBack(t *testing.T) {
	f := joined(t, noCaps)
	f.server.Hold("bridge", true)
	left := make(chan error, 1)
	go func() { left <- f.session.(*session).LeaveChannel(f.ctx(), "#c") }()
	f.received("PART #c")
	back := make(chan error, 1)
	go func() { back <- f.session.(*session).JoinChannel(f.ctx(), "#c") }()
	eventually(t, "JOIN again", func() bool { return strings.Count(strings.Join(f.server.Lines("bridge"), "\n"), "JOIN #c") == 2 })
	f.server.Hold("bridge", false)
	if err := errors.Join(<-left, <-back); err != nil {
		t.Fatal(err)
	}
	f.mustSend(message("back"))
	if n := f.sink.count("made to leave"); n != 0 {
		t.Error("the room was told that somebody made the bridge leave")
	}
}
