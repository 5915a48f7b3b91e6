package appservice_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// past is a room in which much has happened that no transaction has brought, unless the test makes one.
type past struct {
	*site
	alice *bridgetest.User
	heard chan id.EventID
	since time.Time
	sent  int
}

// inPast tries something with each database, in a room in which the ghost is, and of which one event has come before since.
func inPast(t *testing.T, do func(t *testing.T, p *past)) {
	for name, uri := range map[string]func(testing.TB) string{
		"SQLite": func(tb testing.TB) string { return "sqlite:" + filepath.Join(tb.TempDir(), "past.db") }, "PostgreSQL": storetest.Postgres,
	} {
		t.Run(name, func(t *testing.T) { do(t, newPast(t, uri(t))) })
	}
}

func newPast(t *testing.T, uri string, opts ...store.Options) *past {
	p := &past{site: newSite(t, bridgetest.Synapse), heard: make(chan id.EventID, 10_000)}
	p.alice = p.hs.User("alice")
	p.stop()
	opts = append(opts, store.Options{})
	opts[0].Log = zerolog.Nop()
	db, err := store.Open(t.Context(), uri, opts[0])
	p.ok(err)
	t.Cleanup(func() { _ = db.Close() })
	p.start(func(cfg *appservice.Config) { cfg.Handler, cfg.Store = &listener{heard: p.heard}, db })
	p.db = db
	p.ok(p.as.Start(t.Context()))
	p.ok(p.as.Ghost(ghost).EnsureJoined(t.Context(), p.room))
	anchor := p.says("known")
	p.comes(anchor)
	p.hears(anchor)
	p.passes()
	return p
}

// passes lets what has happened so far be before.
func (p *past) passes() {
	time.Sleep(5 * time.Millisecond)
	p.since = time.Now()
	time.Sleep(5 * time.Millisecond)
}

func (p *past) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *past) says(text string) id.EventID {
	p.t.Helper()
	ev, err := p.alice.SendText(p.t.Context(), p.room, text)
	p.ok(err)
	return ev
}

// comes has a transaction bring events.
func (p *past) comes(events ...id.EventID) {
	p.t.Helper()
	var raws []string
	for _, ev := range events {
		raws = append(raws, p.raw(ev))
	}
	p.comesAs(raws...)
}

func (p *past) raw(ev id.EventID) string {
	p.t.Helper()
	raw, err := p.as.Ghost(ghost).Event(p.t.Context(), p.room, ev)
	p.ok(err)
	return string(raw)
}

func (p *past) comesAs(raws ...string) {
	p.t.Helper()
	p.sent++
	req := httptest.NewRequest("PUT", "/_matrix/app/v1/transactions/"+strconv.Itoa(p.sent), strings.NewReader(`{"events":[`+strings.Join(raws, ",")+`]}`))
	req.Header.Set("Authorization", "Bearer "+p.reg.HSToken)
	answer := httptest.NewRecorder()
	p.as.ServeHTTP(answer, req)
	if answer.Code != 200 {
		p.t.Fatal(answer.Code, answer.Body)
	}
}

// hears compares what the handler is given, and nothing else.
func (p *past) hears(want ...id.EventID) {
	p.t.Helper()
	for i, ev := range want {
		select {
		case got := <-p.heard:
			if got != ev {
				p.t.Errorf("event %d is %s, and not %s", i, got, ev)
			}
		case <-time.After(time.Minute):
			p.t.Fatalf("event %d does not come", i)
		}
	}
	// What is done in turn after all that there is shows that there was no more.
	waiting := 1
	for waiting > 0 {
		waiting = 0
		p.ok(p.db.Backlog(context.Background(), func(l store.LaneRefs) error { waiting += len(l.Refs); return nil }))
		time.Sleep(time.Millisecond)
	}
	if len(p.heard) > 0 {
		p.t.Errorf("%s came besides", <-p.heard)
	}
}

// catchUp compares what is taken in.
func (p *past) catchUp(want ...id.EventID) {
	p.t.Helper()
	fresh, err := p.as.Ghost(ghost).CatchUp(p.t.Context(), p.room, p.since)
	p.ok(err)
	if fresh != len(want) {
		p.t.Errorf("%d events were taken in, and not %d", fresh, len(want))
	}
	p.hears(want...)
}

func (p *past) member(user *bridgetest.User, membership string) id.EventID {
	p.t.Helper()
	ctx := p.t.Context()
	if membership == "leave" {
		p.ok(user.Leave(ctx, p.room, ""))
	} else {
		_, err := user.Join(ctx, string(p.room))
		p.ok(err)
	}
	ev, err := p.alice.WaitFor(ctx, p.room, bridgetest.Member(user.ID(), membership))
	p.ok(err)
	return ev.ID
}

func TestCatchUp_EventsThatNoTransactionBrought_ComeOnceInTheirOrder(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		var all []id.EventID
		for range 150 { // more than a page
			all = append(all, p.says("forgotten"))
		}
		p.catchUp(all...)
		later := p.says("later")
		p.catchUp(later)
		p.catchUp()
		p.comes(append(all[100:], later)...) // late
		p.hears()
	})
}

func TestCatchUp_SomethingLaterHasCome_WhatIsMissingComesAllTheSame(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		forgotten := p.says("forgotten")
		later := p.says("later")
		p.comes(later)
		p.hears(later)
		p.catchUp(forgotten)
	})
}

// What was redacted may still be in a transaction that comes late: as it was, when the homeserver keeps that.
func TestCatchUp_AMessageIsRedacted_NeitherNowNorLateIsItHandled(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		redacted := p.says("redacted")
		raw, err := p.as.Ghost(ghost).Event(t.Context(), p.room, redacted)
		p.ok(err)
		redaction, err := p.alice.Redact(t.Context(), p.room, redacted, "")
		p.ok(err)
		p.catchUp(redaction)
		p.comesAs(string(raw))
		p.hears()
	})
}

func TestCatchUp_NewerStateHasCome_TheOlderIsHandledNeitherNowNorLate(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		carol := p.hs.User("carol")
		joined := p.member(carol, "join")
		left := p.member(carol, "leave")
		p.comes(left)
		p.hears(left)
		p.catchUp()
		p.comes(joined)
		p.hears()
	})
}

func TestCatchUp_NewerStateIsForgottenToo_BothComeInTheirOrder(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		carol := p.hs.User("carol")
		joined := p.member(carol, "join")
		left := p.member(carol, "leave")
		p.catchUp(joined, left)
	})
}

func TestCatchUp_NothingIsMissing_ItTakesOneSmallRequest(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		for range 30 {
			ev := p.says("known")
			p.comes(ev)
			p.hears(ev)
		}
		p.passes()
		p.catchUp()
		p.oneSmallRequest()
	})
}

// Of a room in which nothing has been said for long nothing is remembered.
func TestCatchUp_ARoomWasSilentForLong_ItTakesOneSmallRequest(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		for range 30 {
			p.says("old")
		}
		p.since = time.Now().Add(2 * time.Hour)
		p.catchUp()
		p.oneSmallRequest()
	})
}

func (p *past) oneSmallRequest() {
	p.t.Helper()
	asked := p.requests("GET", "/messages$")
	if len(asked) != 1 || !strings.Contains(asked[0].Query.Encode(), "limit=20") {
		p.t.Errorf("it took %+v", asked)
	}
}

// What is taken in must be in order, and the homeserver may send what is older.
func TestCatchUp_NothingIsKnownOfTheNewest1920_NothingIsTaken(t *testing.T) {
	p := newPast(t, "sqlite:"+filepath.Join(t.TempDir(), "past.db"))
	for range 2100 {
		p.says("much")
	}
	_, err := p.as.Ghost(ghost).CatchUp(t.Context(), p.room, p.since)
	if !appservice.IsPermanent(err) || !strings.Contains(err.Error(), string(p.room)) {
		t.Errorf("error %v", err)
	}
	p.hears()
}

// What happened in a room before the bridge came is none of its affair.
func TestCatchUp_NothingOfARoomHasEverCome_ItBeginsWithTheBridge(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		room, err := p.alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat"})
		p.ok(err)
		p.room = room
		p.says("before")
		p.ok(p.as.Ghost(ghost).EnsureJoined(t.Context(), room))
		joined, err := p.alice.WaitFor(t.Context(), room, bridgetest.Member(ghost, "join"))
		p.ok(err)
		p.catchUp(joined.ID, p.says("after"))
	})
}

// Its history need not be read to its beginning to see that.
func TestCatchUp_PeopleSpokeJustBeforeTheBridgeCame_ItBeginsWithTheBridge(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		room, err := p.alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat"})
		p.ok(err)
		p.room = room
		for range 20 {
			p.says("an hour earlier")
		}
		p.passes()
		p.since = p.since.Add(time.Hour)
		p.says("before")
		p.ok(p.as.Ghost(ghost).EnsureJoined(t.Context(), room))
		joined, err := p.alice.WaitFor(t.Context(), room, bridgetest.Member(ghost, "join"))
		p.ok(err)
		p.catchUp(joined.ID, p.says("after"))
	})
}

// Nobody knows any more that the bridge came, long ago.
func TestCatchUp_ASmallRoomWasSilentForLong_WhatIsMissingComes(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		room, err := p.alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat"})
		p.ok(err)
		p.room = room
		p.ok(p.as.Ghost(ghost).EnsureJoined(t.Context(), room))
		p.says("an hour earlier")
		p.passes()
		p.since = p.since.Add(time.Hour)
		p.catchUp(p.says("after"))
	})
}

// What people write may be of any type.
func TestCatchUp_AnEventIsOddlyMade_ItComesLikeOthers(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		odd, err := p.alice.Send(t.Context(), p.room, "m.room.message", json.RawMessage(`{"membership":{"a":1},"body":[]}`))
		p.ok(err)
		p.catchUp(odd, p.says("after"))
	})
}

// enters makes another room, in which the ghost is not yet.
func (p *past) enters(preset string) {
	p.t.Helper()
	room, err := p.alice.CreateRoom(p.t.Context(), bridgetest.RoomOptions{Preset: preset})
	p.ok(err)
	p.room = room
}

// ours gives the newest event about the ghost itself.
func (p *past) ours(membership string) id.EventID {
	p.t.Helper()
	ev, err := p.alice.WaitFor(p.t.Context(), p.room, bridgetest.Member(ghost, membership))
	p.ok(err)
	return ev.ID
}

// The invitation is all that the homeserver sends of what happened before the bridge came.
func TestCatchUp_PeopleSpokeBetweenTheInvitationAndTheComing_ItBeginsWithTheBridge(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		p.enters("public_chat")
		p.ok(p.alice.Invite(t.Context(), p.room, ghost))
		invited := p.ours("invite")
		p.comesAs(p.raw(invited))
		p.hears(invited)
		p.passes()
		p.says("before")
		p.ok(p.as.Ghost(ghost).EnsureJoined(t.Context(), p.room))
		p.catchUp(p.ours("join"), p.says("after"))
	})
}

// The bridge was there, went, and has come back.
func TestCatchUp_TheBridgeWasGoneForAWhile_WhatWasSaidMeanwhileIsLeftOut(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		ctx := t.Context()
		said := p.says("while it is there")
		p.ok(p.as.Ghost(ghost).Leave(ctx, p.room, ""))
		left := p.ours("leave")
		p.says("while it is gone")
		p.ok(p.as.Ghost(ghost).EnsureJoined(ctx, p.room))
		joined := left
		for joined == left {
			events, err := p.alice.Timeline(ctx, p.room)
			p.ok(err)
			for _, ev := range events {
				if ev.Type == "m.room.member" && ev.Sender == ghost {
					joined = ev.ID
				}
			}
		}
		p.catchUp(said, left, joined, p.says("after"))
	})
}

// Another of the bridge's users was there, to whom the homeserver sent what was said.
func TestCatchUp_TheReaderCameLater_WhatAnotherHeardComes(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		ctx := t.Context()
		other := id.UserID("@irc_other:hs.test")
		p.enters("public_chat")
		p.says("before")
		p.ok(p.as.Ghost(other).EnsureJoined(ctx, p.room))
		came, err := p.alice.WaitFor(ctx, p.room, bridgetest.Member(other, "join"))
		p.ok(err)
		said := p.says("to the other")
		p.ok(p.as.Ghost(ghost).EnsureJoined(ctx, p.room))
		p.catchUp(came.ID, said, p.ours("join"), p.says("to both"))
	})
}

// A new name is no coming.
func TestCatchUp_TheReaderTakesAnotherName_WhatWasSaidBeforeComes(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		ctx := t.Context()
		for range 20 {
			p.says("an hour earlier")
		}
		p.passes()
		p.since = p.since.Add(time.Hour)
		said := p.says("before")
		p.ok(p.as.Ghost(ghost).SetDisplayName(ctx, "Another name"))
		ev, err := p.alice.WaitFor(ctx, p.room, func(ev bridgetest.Event) bool {
			return ev.Type == "m.room.member" && ev.Sender == ghost && ev.Content["displayname"] == "Another name"
		})
		p.ok(err)
		p.catchUp(said, ev.ID)
	})
}

func TestCatchUp_ItIsMoreThan16MiB_NothingIsTaken(t *testing.T) {
	p := newPast(t, "sqlite:"+filepath.Join(t.TempDir(), "past.db"))
	long := strings.Repeat("long ", 12_000)
	for range 290 {
		p.says(long)
	}
	if _, err := p.as.Ghost(ghost).CatchUp(t.Context(), p.room, p.since); !appservice.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
	p.hears()
}

// The homeserver sends what is said while somebody reads, and what it has kept.
func TestCatchUp_ATransactionComesMeanwhile_ItComesAfterWhatIsRead(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		var all []id.EventID
		for range 30 { // two pages
			all = append(all, p.says("forgotten"))
		}
		second := regexp.MustCompile("/messages$")
		p.hs.Fault(bridgetest.Fault{Method: "GET", Path: second, Delay: 300 * time.Millisecond, Times: 2})
		read := make(chan error, 1)
		go func() {
			_, err := p.as.Ghost(ghost).CatchUp(t.Context(), p.room, p.since)
			read <- err
		}()
		for len(p.requests("GET", "/messages$")) == 0 { // the first page has been read
			time.Sleep(time.Millisecond)
		}
		later := p.says("later")
		p.comes(later)
		p.ok(<-read)
		p.comes(all[5], later)
		p.hears(append(all, later)...)
	})
}

// What the homeserver refuses to show, or cannot, is not taken for an empty room.
func TestCatchUp_TheHomeserverRefuses_TheErrorSaysSoAndItIsAllReadLater(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		forgotten := p.says("forgotten")
		for status, code := range map[int]string{403: "M_FORBIDDEN", 500: "M_UNKNOWN", 404: "M_NOT_FOUND"} {
			p.hs.Fault(bridgetest.Fault{Method: "GET", Path: regexp.MustCompile("/messages$"), Status: status, ErrCode: code})
			fresh, err := p.as.Ghost(ghost).CatchUp(t.Context(), p.room, p.since)
			if err == nil || fresh != 0 || !strings.Contains(err.Error(), string(p.room)) || appservice.IsPermanent(err) {
				t.Errorf("%d: %d new, error %v", status, fresh, err)
			}
		}
		p.hears()
		p.hs.Fault(bridgetest.Fault{Method: "GET", Path: regexp.MustCompile("/messages$"), Status: 429, ErrCode: "M_LIMIT_EXCEEDED", RetryAfter: 10 * time.Millisecond})
		p.catchUp(forgotten)
	})
}
