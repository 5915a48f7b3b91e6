package appservice_test

import (
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// past is a room in which much has happened that no transaction has brought.
type past struct {
	*site
	alice *bridgetest.User
	heard chan id.EventID
	begin time.Time
}

func newPast(t *testing.T) *past {
	p := &past{site: newSite(t, bridgetest.Synapse), heard: make(chan id.EventID, 10_000), begin: time.Now()}
	p.stop()
	p.start(func(cfg *appservice.Config) { cfg.Handler = &listener{heard: p.heard} })
	if err := p.as.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.alice = p.hs.User("alice")
	return p
}

func (p *past) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *past) enters() { p.t.Helper(); p.ok(p.as.Ghost(ghost).EnsureJoined(p.t.Context(), p.room)) }

func (p *past) says(text string) id.EventID {
	p.t.Helper()
	ev, err := p.alice.SendText(p.t.Context(), p.room, text)
	p.ok(err)
	return ev
}

// catchUp compares what is taken in.
func (p *past) catchUp(since, until time.Time, want ...id.EventID) {
	p.t.Helper()
	fresh, err := p.as.Ghost(ghost).CatchUp(p.t.Context(), p.room, since, until)
	p.ok(err)
	for i, ev := range want {
		if got := <-p.heard; got != ev {
			p.t.Errorf("event %d is %s, and not %s", i, got, ev)
		}
	}
	if fresh != len(want) {
		p.t.Errorf("%d events were taken in, and not %d", fresh, len(want))
	}
}

func TestCatchUp_EventsThatNoTransactionBrought_ComeOnceInTheirOrder(t *testing.T) {
	p := newPast(t)
	p.says("before the ghost joined")
	p.enters()
	var want []id.EventID
	for range 150 { // more than a page
		want = append(want, p.says("forgotten"))
	}
	p.catchUp(p.begin, time.Time{}, want...)
	want = []id.EventID{p.says("later")}
	p.catchUp(p.begin, time.Time{}, want...)
	p.catchUp(p.begin, time.Time{})
}

func TestCatchUp_WhatIsOfNoUseAnyMore_IsLeftOut(t *testing.T) {
	p := newPast(t)
	p.enters()
	ctx := t.Context()
	redacted := p.says("redacted")
	redaction, err := p.alice.Redact(ctx, p.room, redacted, "")
	p.ok(err)
	p.mustSay("1")
	carol := p.hs.User("carol")
	_, err = carol.Join(ctx, string(p.room))
	p.ok(err)
	p.ok(carol.Leave(ctx, p.room, "")) // her joining would come after it, if the leaving was sent
	left, err := p.alice.WaitFor(ctx, p.room, bridgetest.Member(carol.ID(), "leave"))
	p.ok(err)
	p.catchUp(p.begin, time.Time{}, redaction, left.ID)
}

func TestCatchUp_OutsideOfTheTime_IsLeftOut(t *testing.T) {
	p := newPast(t)
	p.enters()
	p.says("before")
	time.Sleep(5 * time.Millisecond)
	since := time.Now()
	time.Sleep(5 * time.Millisecond)
	want := p.says("meanwhile")
	time.Sleep(5 * time.Millisecond)
	until := time.Now()
	time.Sleep(5 * time.Millisecond)
	p.says("after")
	p.catchUp(since, until, want)
}

// What is taken in must be in order, and the homeserver may send what is older.
func TestCatchUp_ThereIsMoreThanIsRead_NothingIsTaken(t *testing.T) {
	p := newPast(t)
	p.enters()
	for range 2100 {
		p.says("much")
	}
	_, err := p.as.Ghost(ghost).CatchUp(t.Context(), p.room, p.begin, time.Time{})
	if !appservice.IsPermanent(err) || len(p.heard) != 0 {
		t.Errorf("%d events, error %v", len(p.heard), err)
	}
}
