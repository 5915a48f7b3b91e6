package appservice_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// Whoever looks is asked before each request that has words for the room, whatever kind of event they are in.
func TestLooking_WhoeverLooksSaysNo_NothingWithWordsLeaves(t *testing.T) {
	s := newSite(t, bridgetest.Options{})
	bot, ghost := s.as.Bot(), s.as.Ghost("@irc_a:hs.test")
	room, err := bot.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat"})
	if err != nil {
		t.Fatal(err)
	}
	if err := ghost.EnsureJoined(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	sent, err := ghost.SendMessage(t.Context(), room, event.EventMessage, map[string]string{"msgtype": "m.text", "body": "hello"}, "1")
	if err != nil {
		t.Fatal(err)
	}
	no := errors.New("it is encrypted by now")
	ctx := appservice.Looking(t.Context(), func(context.Context) error { return no })
	before := len(s.hs.Requests(func(r bridgetest.Request) bool { return r.Method != "GET" && strings.Contains(r.Path, "/rooms/") }))
	for name, act := range map[string]func() error{
		"a message": func() error {
			_, err := ghost.SendMessage(ctx, room, event.EventMessage, map[string]string{"msgtype": "m.text", "body": "hello"}, "2")
			return err
		},
		"a redaction": func() error { _, err := ghost.Redact(ctx, room, sent, "why", "3"); return err },
		"leaving":     func() error { return ghost.Leave(ctx, room, "why") },
		"a kick":      func() error { return bot.Kick(ctx, room, ghost.UserID(), "why") },
	} {
		if err := act(); !errors.Is(err, no) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, r := range s.hs.Requests(func(r bridgetest.Request) bool { return r.Method != "GET" && strings.Contains(r.Path, "/rooms/") })[before:] {
		t.Errorf("the homeserver has seen %s %s", r.Method, r.Path)
	}
}
