package irc

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// FuzzHandle feeds any line to a registered link. Nothing may panic, and what is said in return is whole lines.
func FuzzHandle(f *testing.F) {
	for _, line := range []string{
		":a!b@c PRIVMSG #c :hi", ":bridge!b@c JOIN #c", ":x KICK #c bridge", "005 bridge CASEMAPPING=ascii PREFIX=(o CHANTYPES= :x",
		"@batch=x;label=1 BATCH +a labeled-response", ":x 353 bridge = #c :@+a b!c@d", "FAIL X Y :z", "CAP * NEW :echo-message=1",
		":bridge NICK", "PING :a b", "302 bridge :bridge=+a@b", "433 * bridge :x", "731 bridge :bridge", "PONG x fence-1",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parse(decode([]byte(text), nil))
		if err != nil {
			return
		}
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		config := testConfig("x:1")
		s := &session{config: *config, ctx: t.Context(), joinWait: time.Hour, channels: map[string]*channel{}, typing: map[string]time.Time{}}
		s.out = &outlet{sink: newSink(), events: make(chan func(context.Context), 64)}
		s.login, s.crew = bridge.RelayLogin, newCrew(s.out)
		s.crew.enters(s, "#c", "bridge")
		l := &link{
			session: s, conn: there, queue: newQueue(there, config, &s.running), caps: map[string]bool{"message-tags": true},
			support: newISupport(), batches: map[string]string{}, nick: "bridge", ready: true,
		}
		l.queue.writing = true // nothing is written
		l.registration = registration{offered: map[string]string{}, welcomed: true, ended: true}
		s.link = l
		s.channels["#c"] = &channel{name: "#c", wanted: true, joined: true, members: map[string]string{"a": "a"}}
		s.channels["#d"] = &channel{name: "#d", wanted: true, joining: true, waiting: []chan error{make(chan error, 1)}}
		s.mu.Lock()
		defer s.mu.Unlock()
		l.handle(&m)
		for _, line := range append(l.queue.lines, l.queue.urgent...) {
			if n := strings.Count(string(line.data), "\n"); n != 1 || !strings.HasSuffix(string(line.data), "\r\n") ||
				strings.Count(string(line.data), "\r") != 1 || strings.Contains(string(line.data), "\x00") {
				t.Fatalf("%q is not a line", line.data)
			}
		}
		_, _, _ = l.compose("#c", &bridge.Message{Text: text, HTML: text, Sender: bridge.Sender{Name: text}, Kind: bridge.KindText}, "")
	})
}
