package irc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

func TestSendMarked_LeavingIsCalledOnce_JustBeforeTheFirstLine(t *testing.T) {
	for name, opts := range map[string]struct{ caps []string }{"all": {nil}, "none": {[]string{}}} {
		t.Run(name, func(t *testing.T) {
			options := allCaps
			options.Capabilities = opts.caps
			f := joined(t, options)
			calls := 0
			_, err := f.session.(*session).SendMarked(f.ctx(), message("one\ntwo"), func(context.Context) error {
				if calls++; f.got("one") {
					t.Error("the line has left already")
				}
				return nil
			})
			if err != nil || calls != 1 {
				t.Errorf("%d calls, %v", calls, err)
			}
			f.witness.until("<Alice> two")
		})
	}
}

func TestSendMarked_WhileLeavingIsSlow_PONGGoesOn_AndNothingOfTheMessage(t *testing.T) {
	f := joined(t, noCaps)
	release := make(chan struct{})
	result := make(chan error, 1)
	under := make(chan struct{})
	go func() {
		_, err := f.session.(*session).SendMarked(f.ctx(), message("slow"), func(context.Context) error {
			close(under)
			<-release
			return nil
		})
		result <- err
	}()
	<-under
	f.server.Inject("bridge", "PING :are-you-there")
	f.received("PONG are-you-there")
	if f.got("slow") {
		t.Error("the message has left unmarked")
	}
	close(release)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestSendMarked_LeavingFails_NothingLeaves_AndOthersGoOn(t *testing.T) {
	f := joined(t, noCaps, func(c *Config) { c.Flood = Flood{Burst: 4, Interval: time.Minute} })
	full := errors.New("the disk is full")
	for range 20 { // the token goes back every time
		_, err := f.session.(*session).SendMarked(f.ctx(), message("one\ntwo"), func(context.Context) error { return full })
		if !errors.Is(err, full) || bridge.IsInDoubt(err) || bridge.IsPermanent(err) {
			t.Fatalf("%v", err)
		}
	}
	f.mustSend(message("other"))
	if f.got("one") || f.got("two") {
		t.Error("it has left")
	}
}

func TestSendMarked_LeavingFails_WhatWaitsBehindGoesOn(t *testing.T) {
	f := joined(t, noCaps)
	full, behind := errors.New("the disk is full"), make(chan error, 1)
	_, err := f.session.(*session).SendMarked(f.ctx(), message("first"), func(context.Context) error {
		s := f.session.(*session)
		s.mu.Lock()
		q := s.link.queue
		s.mu.Unlock()
		go func() {
			_, err := s.Send(f.ctx(), message("behind"))
			behind <- err
		}()
		eventually(t, "both wait", func() bool {
			q.mu.Lock()
			defer q.mu.Unlock()
			return len(q.lines) == 2
		})
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if err := <-behind; err != nil {
		t.Error(err)
	}
}

func TestSendMarked_ContextEndsBeforeItsTurn_IsNotMarked(t *testing.T) {
	f := joined(t, noCaps)
	s := f.session.(*session)
	s.mu.Lock()
	q := s.link.queue
	s.mu.Unlock()
	q.mu.Lock()
	q.bucket.used = time.Hour // no tokens are left
	q.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.SendMarked(ctx, message("x"), func(context.Context) error {
		t.Error("marked")
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) || bridge.IsInDoubt(err) || bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestSendMarked_LinkLostWhileMarking_IsOffline(t *testing.T) {
	f := joined(t, allCaps)
	_, err := f.session.(*session).SendMarked(f.ctx(), message("x"), func(context.Context) error {
		f.cut()
		return nil
	})
	if !errors.Is(err, bridge.ErrOffline) || bridge.IsInDoubt(err) {
		t.Errorf("%v", err)
	}
}

func TestSend_RefusedInPart_SaysHowMuchArrived(t *testing.T) {
	n := 0
	_, session, out := scripted(t, func(line string, say func(string, ...any)) {
		if strings.HasPrefix(line, "JOIN") {
			say(":bridge!u@h JOIN #c")
		}
		if strings.HasPrefix(line, "PRIVMSG") {
			if n++; n == 3 { // when all have left, so that it is known how many
				say(":s 404 bridge #c :Cannot send")
			}
		}
	})
	out.until(t, "online")
	_, err := session.Send(t.Context(), message("one\ntwo\nthree"))
	if !bridge.IsPermanent(err) || !strings.Contains(err.Error(), "2 of 3 lines reached IRC") {
		t.Errorf("%v", err)
	}
}
