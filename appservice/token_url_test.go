package appservice_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
)

// listener is a handler that tells which events it was given.
type listener struct{ heard chan id.EventID }

func (l *listener) HandleEvent(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	select {
	case l.heard <- ev.ID:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (*listener) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

// connect starts an appservice for the homeserver at an address. What hears is told where the appservice listens.
func connect(t *testing.T, homeserver string, hears func(reg *appservice.Registration), change ...func(*appservice.Config)) (*appservice.AppService, *listener) {
	t.Helper()
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "test.db"), store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	l := &listener{heard: make(chan id.EventID, 100)}
	var as *appservice.AppService
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { as.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	reg, err := appservice.Generate(appservice.GenerateOptions{
		ID: "irc", URL: server.URL, Domain: "hs.test", SenderLocalpart: "ircbot", GhostPrefix: "irc_", AliasPrefix: "irc_",
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := appservice.Config{Registration: reg, HomeserverURL: homeserver, ServerName: "hs.test", Store: db, Handler: l, Log: zerolog.Nop()}
	for _, c := range change {
		c(&cfg)
	}
	if as, err = appservice.New(cfg); err != nil {
		t.Fatal(err)
	}
	if hears != nil {
		hears(reg)
	}
	if err := as.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := as.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return as, l
}

// everything is what an intent can do, by the name of its method. Two intents share a room, so that each can act on the other.
func everything(ctx context.Context, bot, ghost *appservice.Intent, room id.RoomID) map[string]func(i *appservice.Intent) error {
	content := map[string]string{"msgtype": "m.text", "body": "x"}
	return map[string]func(i *appservice.Intent) error{
		"UserID":           func(*appservice.Intent) error { return nil },
		"EnsureRegistered": func(i *appservice.Intent) error { return i.EnsureRegistered(ctx) },
		"EnsureDevice":     func(i *appservice.Intent) error { _, err := i.EnsureDevice(ctx); return err },
		"RemoveDevice":     func(i *appservice.Intent) error { return i.RemoveDevice(ctx) },
		"EnsureJoined":     func(i *appservice.Intent) error { return i.EnsureJoined(ctx, room) },
		"JoinByIDOrAlias": func(i *appservice.Intent) error {
			_, err := i.JoinByIDOrAlias(ctx, string(room))
			return err
		},
		"ResolveAlias": func(i *appservice.Intent) error {
			if _, err := i.ResolveAlias(ctx, "#nowhere:hs.test"); !errors.Is(err, mautrix.MNotFound) {
				return fmt.Errorf("an alias that leads nowhere: %w", err)
			}
			return nil
		},
		"Leave":  func(i *appservice.Intent) error { return i.Leave(ctx, room, "bye") },
		"Invite": func(*appservice.Intent) error { return bot.Invite(ctx, room, "@someone:hs.test") },
		"Kick":   func(*appservice.Intent) error { return bot.Kick(ctx, room, ghost.UserID(), "why") },
		"SendMessage": func(i *appservice.Intent) error {
			_, err := i.SendMessage(ctx, room, event.EventMessage, content, "m"+string(i.UserID()))
			return err
		},
		"KnowRoom": func(i *appservice.Intent) error { return i.KnowRoom(ctx, room) },
		"Event": func(i *appservice.Intent) error {
			sent, err := i.SendMessage(ctx, room, event.EventMessage, content, "e"+string(i.UserID()))
			if err == nil {
				_, err = i.Event(ctx, room, sent)
			}
			return err
		},
		"CatchUp": func(i *appservice.Intent) error {
			if err := i.EnsureJoined(ctx, room); err != nil {
				return err
			}
			_, err := i.CatchUp(ctx, room, time.Now().Add(-time.Minute))
			return err
		},
		"FindSent": func(i *appservice.Intent) error {
			_, err := i.FindSent(ctx, room, time.Now().Add(-time.Minute), func(json.RawMessage) bool { return false })
			return err
		},
		"KeyDevice": func(i *appservice.Intent) error { _, err := i.KeyDevice(ctx); return err },
		"Client": func(i *appservice.Intent) error {
			device, err := i.KeyDevice(ctx)
			if err == nil {
				_, err = i.Client(device).Whoami(ctx)
			}
			return err
		},
		"WithDevice": func(i *appservice.Intent) error {
			return i.WithDevice(ctx, func(cli *mautrix.Client) error { _, err := cli.Whoami(ctx); return err })
		},
		"SyncKeys": func(i *appservice.Intent) error {
			device, err := i.KeyDevice(ctx)
			if err == nil {
				_, err = i.SyncKeys(ctx, device, "", 0)
			}
			return err
		},
		"SendState": func(*appservice.Intent) error {
			_, err := bot.SendState(ctx, room, event.StateTopic, "", map[string]string{"topic": "x"})
			return err
		},
		"Redact": func(i *appservice.Intent) error {
			sent, err := i.SendMessage(ctx, room, event.EventMessage, content, "r"+string(i.UserID()))
			if err == nil {
				_, err = i.Redact(ctx, room, sent, "why", "d"+string(i.UserID()))
			}
			return err
		},
		"Typing":         func(i *appservice.Intent) error { return i.Typing(ctx, room, true, time.Second) },
		"SetDisplayName": func(i *appservice.Intent) error { return i.SetDisplayName(ctx, "A name") },
		"Profile":        func(i *appservice.Intent) error { _, err := i.Profile(ctx, bot.UserID()); return err },
		"CreateRoom":     func(i *appservice.Intent) error { _, err := i.CreateRoom(ctx, &mautrix.ReqCreateRoom{}); return err },
		"CreateRoomOnce": func(i *appservice.Intent) error {
			_, err := i.CreateRoomOnce(ctx, &appservice.Creation{Purpose: string(i.UserID()), Again: true})
			return err
		},
		"State": func(i *appservice.Intent) error {
			var out map[string]any
			return i.State(ctx, room, event.StateCreate, "", &out)
		},
		"PowerLevels":   func(i *appservice.Intent) error { _, err := i.PowerLevels(ctx, room); return err },
		"MaySend":       func(i *appservice.Intent) error { _, err := i.MaySend(ctx, room, event.EventMessage); return err },
		"MayRedact":     func(i *appservice.Intent) error { _, err := i.MayRedact(ctx, room, bot.UserID()); return err },
		"Joined":        func(i *appservice.Intent) error { _, err := i.Joined(ctx, room); return err },
		"Members":       func(i *appservice.Intent) error { _, err := i.Members(ctx, room); return err },
		"JoinedRooms":   func(i *appservice.Intent) error { _, err := i.JoinedRooms(ctx); return err },
		"RemoveAliases": func(i *appservice.Intent) error { _, err := i.RemoveAliases(ctx, room); return err },
		"Withdraw":      func(i *appservice.Intent) error { _, err := i.Withdraw(ctx, nil, ""); return err },
		"Upload": func(i *appservice.Intent) error {
			_, err := i.Upload(ctx, strings.NewReader("data"), 4, "text/plain", "a.txt")
			return err
		},
		"Download": func(i *appservice.Intent) error {
			uri, err := i.Upload(ctx, strings.NewReader("data"), 4, "text/plain", "a.txt")
			if err != nil {
				return err
			}
			resp, err := i.Download(ctx, uri)
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		},
	}
}

// methodsOf fails when a method of an intent is missing in everything.
func methodsOf(t *testing.T, all map[string]func(*appservice.Intent) error) (names []string) {
	t.Helper()
	intent := reflect.TypeFor[*appservice.Intent]()
	for i := range intent.NumMethod() {
		name := intent.Method(i).Name
		if all[name] == nil {
			t.Errorf("Intent.%s is not tried here: add it", name)
			continue
		}
		if name != "Leave" && name != "Kick" && name != "Withdraw" {
			names = append(names, name)
		}
	}
	return append(names, "Leave", "Kick", "Withdraw")
}

func TestF1_F4_WhateverAnIntentDoes_TheTokenIsInTheHeaderAlone(t *testing.T) {
	hs := bridgetest.NewHomeserver(t) // fails the test when a URL has a token in it
	var mu sync.Mutex
	seen := map[string]bool{}
	var token string
	hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("User-Agent") == "Trestle" && !strings.Contains(r.URL.Path, "/version") { // what everybody may ask needs no token
			seen[r.Method+" "+r.URL.Path] = true
			if got := r.Header.Values("Authorization"); len(got) != 1 || got[0] != "Bearer "+token {
				t.Errorf("%s %s came with the header %d times, or with another token", r.Method, r.URL.Path, len(got))
			}
			if strings.Contains(r.URL.RawQuery, token) || strings.Contains(r.URL.Path, token) {
				t.Errorf("%s %s has the token in its URL", r.Method, r.URL.Path)
			}
		}
		return false
	})
	as, _ := connect(t, hs.URL(), func(reg *appservice.Registration) {
		mu.Lock()
		token = reg.ASToken
		mu.Unlock()
		path := filepath.Join(t.TempDir(), "registration.yaml")
		if err := errors.Join(reg.Save(path), hs.AddAppService(path)); err != nil {
			t.Fatal(err)
		}
	})
	ctx := t.Context()
	bot, ghost := as.Bot(), as.Ghost("@irc_a:hs.test")
	room, err := bot.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "public_chat"})
	if err != nil {
		t.Fatal(err)
	}
	all := everything(ctx, bot, ghost, room)
	for _, name := range methodsOf(t, all) {
		for _, i := range []*appservice.Intent{ghost, bot} {
			refused := name == "SyncKeys" && i == bot && !as.BotSyncs()                            // by Synapse, whatever the token
			if err := all[name](i); err != nil && name != "Kick" && name != "Invite" && !refused { // these two do it only once
				t.Errorf("%s by %s: %v", name, i.UserID(), err)
			}
		}
	}
	if _, err := as.Whoami(ctx); err != nil {
		t.Error(err)
	}
	if _, err := as.Ping(ctx); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 20 {
		t.Errorf("only %d different requests were seen: %v", len(seen), seen)
	}
}

// A homeserver that says that there is no token must not be told it in any other way.
func TestF3_HomeserverThatWantsTheTokenElsewhere_IsNotGivenItInTheQuery(t *testing.T) {
	for _, answer := range []string{
		`401 {"errcode":"M_MISSING_TOKEN","error":"Missing access token"}`, `401 {"errcode":"M_UNKNOWN_TOKEN","error":"Unrecognised access token"}`,
		`403 {"errcode":"M_FORBIDDEN","error":"use ?access_token="}`, `400 {"errcode":"M_MISSING_PARAM","error":"access_token"}`, `404 {"errcode":"M_UNRECOGNIZED"}`, `500 `,
	} {
		status, body, _ := strings.Cut(answer, " ")
		code := map[string]int{"401": 401, "403": 403, "400": 400, "404": 404, "500": 500}[status]
		var mu sync.Mutex
		requests := 0
		hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			requests++
			_, _ = io.Copy(io.Discard, r.Body)
			if r.URL.Query().Has("access_token") || r.Header.Get("Authorization") == "" && !strings.Contains(r.URL.Path, "/version") {
				t.Errorf("after %s: %s %s", answer, r.Method, r.URL.Path)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}))
		as, _ := connect(t, hs.URL, nil)
		ctx := t.Context()
		all := everything(ctx, as.Bot(), as.Ghost("@irc_a:hs.test"), "!room:hs.test")
		// Where there is nothing to take back, or nothing is found, taking it back is no error.
		content := []string{"UserID", "RemoveDevice", "RemoveAliases", "JoinedRooms", "Withdraw"}
		for name, do := range all {
			if err := do(as.Ghost("@irc_a:hs.test")); err == nil && !slices.Contains(content, name) {
				t.Errorf("after %s: %s went well", answer, name)
			}
		}
		_, _ = as.Whoami(ctx)
		mu.Lock()
		if requests == 0 {
			t.Error("nothing was asked at all")
		}
		mu.Unlock()
		hs.Close()
	}
}

// What a homeserver sends is judged by itself (A22): its token in the query says nothing about ours.
func TestF5_HomeserverThatPutsItsTokenIntoTheQuery_IsHeardAndAnsweredWithTheHeaderAlone(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		hs := bridgetest.NewHomeserver(t, bridgetest.Options{LegacyQueryToken: true})
		as, l := connect(t, hs.URL(), func(reg *appservice.Registration) {
			path := filepath.Join(t.TempDir(), "registration.yaml")
			if err := errors.Join(reg.Save(path), hs.AddAppService(path)); err != nil {
				t.Fatal(err)
			}
		}, func(c *appservice.Config) { c.AllowQueryToken = allowed })
		ctx := t.Context()
		room, err := as.Bot().CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "public_chat"})
		if err != nil {
			t.Fatal(err)
		}
		sent, err := as.Ghost("@irc_a:hs.test").SendMessage(ctx, room, event.EventMessage, map[string]string{"body": "x", "msgtype": "m.text"}, "t")
		if err != nil {
			t.Fatal(err)
		}
		if err := hs.Settle(ctx); err != nil {
			t.Fatal(err)
		}
		for ev := id.EventID(""); ev != sent; ev = <-l.heard { // until the test's own time is up
		}
		if state := hs.AppServiceState("irc"); state.Failed != 0 {
			t.Errorf("query token allowed %v: %+v", allowed, state)
		}
	}
}
