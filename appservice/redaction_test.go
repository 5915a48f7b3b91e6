package appservice

import (
	"context"
	"fmt"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

// told is a handler that is told of redactions at once.
type told struct {
	Handler
	redacted func(ev *Event) []Effect
}

func (h *told) Redacted(ev *Event) []Effect { return h.redacted(ev) }

func redactionOf(event, redacts string) string {
	return fmt.Sprintf(`{"type":"m.room.redaction","event_id":%q,"room_id":%q,"sender":"@bob:hs.test","redacts":%q,"content":{}}`, event, testRoom, redacts)
}

func TestRedacted_IsCommittedWithTheTransaction_WhateverItsLaneWaitsFor(t *testing.T) {
	hold := make(chan struct{})
	f := newFixture(t, nil, func(c *Config) {
		c.Handler = &told{c.Handler, func(ev *Event) []Effect {
			return []Effect{func(tx *store.Tx) error { return tx.PutSetting("redacted "+string(ev.ID), []byte(ev.RoomID)) }}
		}}
	})
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1"), redactionOf("$2", "$1"), message("$3")))
	for id, want := range map[string]string{"$1": "", "$2": testRoom, "$3": ""} {
		if got, _ := f.store.Setting(t.Context(), "redacted "+id); string(got) != want {
			t.Errorf("of %s is written %q, want %q", id, got, want)
		}
	}
	close(hold)
	f.idle()
	if f.rec.ids() != "$1 $2 $3" {
		t.Errorf("handled %s", f.rec.ids())
	}
}

func TestRedacted_Panic_LeavesTheRedactionToItsTurn(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) {
		c.Handler = &told{c.Handler, func(*Event) []Effect { panic("a redaction like no other") }}
	})
	f.mustPut("1", events(message("$1"), redactionOf("$2", "$1")))
	f.idle()
	if f.rec.ids() != "$1 $2" {
		t.Errorf("handled %s", f.rec.ids())
	}
}
