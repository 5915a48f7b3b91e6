package irc

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
)

// script is a server that answers as a test says, and nothing but the welcome and PINGs by itself.
type script struct {
	mu    sync.Mutex
	lines []string
	conn  net.Conn // the newest
}

// scripted connects a session to a server whose answers to a line are what answer says with say.
func scripted(t *testing.T, answer func(line string, say func(format string, args ...any))) (*script, *session, *sink) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conn = conn
			s.mu.Unlock()
			running.Go(func() { s.serve(conn, answer) })
		}
	})
	n, out := NewNetwork("test"), newSink()
	n.config = testConfig(listener.Addr().String())
	opened, err := n.Open(t.Context(), &bridge.Login{ID: bridge.RelayLogin}, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = opened.Close(context.Background())
		_ = listener.Close()
		running.Wait()
	})
	return s, opened.(*session), out
}

func (s *script) serve(conn net.Conn, answer func(string, func(string, ...any))) {
	defer conn.Close()
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		line := lines.Text()
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		switch {
		case strings.HasPrefix(line, "NICK"):
			say(":s 001 bridge :welcome")
			say(":s 422 bridge :no motd")
		case strings.HasPrefix(line, "PING"):
			say(":s PONG s %s", line[5:])
		case strings.HasPrefix(line, "QUIT"):
			return
		default:
			answer(line, say)
		}
	}
}

// count is how many lines with the text came so far.
func (s *script) count(text string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (s *script) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.Close()
}
