package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// chat is the other end: it keeps what was posted, and repeats what others said on every new connection.
type chat struct {
	*httptest.Server
	mu     sync.Mutex
	others []message
	posted []message
	change chan struct{} // closed and replaced when something was said, or the streams are to be cut
	cuts   int
}

func newChat(t *testing.T) *chat {
	c := &chat{change: make(chan struct{})}
	c.Server = httptest.NewServer(c)
	t.Cleanup(func() {
		c.CloseClientConnections()
		c.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return c
}

func (c *chat) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.change)
	c.change = make(chan struct{})
}

func (c *chat) say(channel, name, text string) {
	c.do(func() { c.others = append(c.others, message{fmt.Sprint("m", len(c.others)), channel, name, text}) })
}

func (c *chat) cut() { c.do(func() { c.cuts++ }) }

// wait waits until that many messages were posted, or ctx ends.
func (c *chat) wait(ctx context.Context, n int) {
	for {
		c.mu.Lock()
		change, enough := c.change, len(c.posted) >= n
		c.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
			return
		}
	}
}

func (c *chat) got() []message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]message(nil), c.posted...)
}

func (c *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		var m message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.do(func() {
			m.ID = fmt.Sprint("p", len(c.posted))
			c.posted = append(c.posted, m)
		})
		json.NewEncoder(w).Encode(m)
		return
	}
	c.mu.Lock()
	cuts, next := c.cuts, 0
	c.mu.Unlock()
	for {
		c.mu.Lock()
		change, cut, news := c.change, c.cuts != cuts, c.others[next:]
		c.mu.Unlock()
		if cut {
			return
		}
		for _, m := range news {
			json.NewEncoder(w).Encode(m)
			next++
		}
		w.(http.Flusher).Flush()
		select {
		case <-change:
		case <-r.Context().Done():
			return
		}
	}
}

func TestEmbed_MessagesCrossBothWays_AlsoAfterTheConnectionBroke(t *testing.T) {
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	chat := newChat(t)
	hs := bridgetest.NewHomeserver(t)
	alice := hs.User("alice")
	room, err := alice.CreateRoom(ctx, bridgetest.RoomOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := bridgetest.StartBridge(t, hs, network{chat.URL})
	sees := func(match func(bridgetest.Event) bool) {
		t.Helper()
		if _, err := alice.WaitFor(ctx, room, match); err != nil {
			t.Fatal(err)
		}
	}
	says := func(text string) {
		t.Helper()
		if _, err := alice.SendText(ctx, room, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := alice.Invite(ctx, room, b.BotID()); err != nil {
		t.Fatal(err)
	}
	sees(bridgetest.Member(b.BotID(), "join"))
	says("!web plumb lobby")
	sees(bridgetest.Message(b.BotID(), "This room is now connected to lobby on Webchat."))
	bob := id.NewUserID("web_bob", hs.Domain())
	chat.say("lobby", "bob", "hello, Matrix")
	sees(bridgetest.Message(bob, "hello, Matrix"))
	says("hello, chat")
	chat.cut()
	chat.say("lobby", "bob", "still there?")
	sees(bridgetest.Message(bob, "still there?"))
	says("still here")
	chat.say("lobby", "bob", "good")
	sees(bridgetest.Message(bob, "good"))
	var texts []string
	events, err := alice.Timeline(ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Sender == bob && e.Type == "m.room.message" {
			texts = append(texts, e.Body())
		}
	}
	if got := strings.Join(texts, " | "); got != "hello, Matrix | still there? | good" {
		t.Errorf("the room has: %s", got)
	}
	chat.wait(ctx, 2)
	b.Stop()
	b.Start() // nothing comes twice
	says("and after a restart")
	chat.wait(ctx, 3)
	got := chat.got()
	if len(got) != 3 || got[0].Text != "hello, chat" || got[1].Text != "still here" || got[0].Name != "alice" {
		t.Errorf("the chat got %+v", got)
	}
}
