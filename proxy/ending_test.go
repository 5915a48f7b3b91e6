package proxy

import (
	"context"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

func TestProxy07_Server_RevokedEvent_Is410AtOnce(t *testing.T) {
	s := newStoredStage(t)
	link := s.link(photo())
	other := photo()
	other.Event = "$other"
	kept := s.link(other)
	wantStatus(t, s.get(link), 200)
	err := s.store.Commit(t.Context(), s.store.Epoch(), func(tx *store.Tx) error {
		n, err := tx.RevokeMedia("!room:example.org", "$event")
		if n != 1 {
			t.Errorf("%d links were revoked", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := len(s.hs.requests())
	wantStatus(t, s.get(link), 410)
	if len(s.hs.requests()) != before {
		t.Error("the homeserver was asked for a revoked file")
	}
	wantStatus(t, s.get(kept), 200)
}

func TestProxy23_Server_Expiry_EndsBothForms(t *testing.T) {
	for name, s := range map[string]*stage{"short": newStoredStage(t), "self-contained": newStage(t)} {
		m := photo()
		m.Expires = s.clock.Now().Add(time.Minute)
		link := s.link(m)
		resp := s.get(link)
		wantStatus(t, resp, 200)
		wantHeader(t, resp, "Cache-Control", "private, max-age=60")
		s.clock.Advance(59 * time.Second)
		wantHeader(t, s.get(link), "Cache-Control", "private, max-age=1")
		s.clock.Advance(time.Second)
		resp = s.get(link)
		wantStatus(t, resp, 410)
		wantHeader(t, resp, "Cache-Control", "no-store")
		if len(s.hs.requests()) != 2 {
			t.Errorf("%s: the homeserver was asked %d times", name, len(s.hs.requests()))
		}
	}
}

func TestProxy23_Server_Lifetime_IsThirtyDaysUnlessSaid(t *testing.T) {
	s := newStage(t)
	c, _ := parse(t, s.link(photo()))
	if got := time.Unix(c.expires, 0).Sub(s.clock.Now()); got != 30*24*time.Hour {
		t.Errorf("%v", got)
	}
	s.signer.lifetime = -1
	if c, _ := parse(t, s.link(photo())); c.expires != 0 {
		t.Error("a link for ever has an end")
	}
	wantHeader(t, s.get(s.link(photo())), "Cache-Control", "private, max-age=3600")
}

func TestProxy06_Server_RecordThatIsGone_Is410(t *testing.T) {
	s := newStoredStage(t)
	link, err := s.signer.sign(&claims{purpose: purposeShort, record: 99999}, "x")
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.get(strings.TrimPrefix(link, testPublic)), 410)
}

func TestProxy07_Server_SelfContainedLinkOfARevokedEvent_Is410(t *testing.T) {
	var revoked bool
	var asked int
	s := newStage(t, func(c *ServerConfig) {
		c.Revoked = func(_ context.Context, room id.RoomID, event id.EventID) (bool, error) {
			asked++
			if room != "!room:example.org" || event != "$event" {
				t.Errorf("asked about %s in %s", event, room)
			}
			return revoked, nil
		}
	})
	link := s.link(photo())
	wantStatus(t, s.get(link), 200)
	revoked = true
	wantStatus(t, s.get(link), 410)
	asked = 0
	s.get(strings.Replace(link, "event", "other", 1))
	if asked != 0 {
		t.Error("asked before the MAC held")
	}
}
