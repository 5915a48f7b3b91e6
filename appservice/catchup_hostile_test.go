package appservice_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

// rewrites has the homeserver give a room's history with other events in the place of some, as another server may have made them.
func (p *past) rewrites(with map[id.EventID]func(raw string) string) {
	p.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/messages") || r.Header.Get("Forwarded-By-Test") != "" {
			return false
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, p.hs.URL()+r.URL.RequestURI(), nil)
		if err != nil {
			p.t.Error(err)
			return false
		}
		req.Header = r.Header.Clone()
		req.Header.Set("Forwarded-By-Test", "1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			p.t.Error(err)
			return false
		}
		defer resp.Body.Close()
		var page struct {
			Chunk []json.RawMessage `json:"chunk"`
			Start string            `json:"start"`
			End   string            `json:"end,omitempty"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
			p.t.Error(err)
		}
		for n, raw := range page.Chunk {
			var ev struct {
				ID id.EventID `json:"event_id"`
			}
			if err := json.Unmarshal(raw, &ev); err != nil {
				p.t.Error(err)
			}
			if as := with[ev.ID]; as != nil {
				page.Chunk[n] = json.RawMessage(as(string(raw)))
			}
		}
		answer := httptest.NewRecorder()
		encoder := json.NewEncoder(answer)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(page); err != nil {
			p.t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, bytes.NewReader(answer.Body.Bytes()))
		return true
	})
}

// When an event happened its server says, and it may say 1970.
func TestCatchUp_AnotherServerDatesItsEventsLongAgo_WhatIsBehindThemComes(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		all := []id.EventID{p.says("forgotten")}
		made := map[id.EventID]func(string) string{}
		for range 15 {
			ev := p.says("long ago")
			made[ev] = func(raw string) string {
				return strings.Replace(raw[:len(raw)-1], string(p.alice.ID()), "@mallory:elsewhere.test", 1) + `,"origin_server_ts":1}`
			}
			all = append(all, ev)
		}
		p.rewrites(made)
		p.catchUp(all...)
	})
}

// Members of an event whose names nobody knows may be anything.
func TestCatchUp_NamesInAnotherCase_SayNothing(t *testing.T) {
	inPast(t, func(t *testing.T, p *past) {
		topic, err := p.alice.SendState(t.Context(), p.room, "m.room.topic", "", json.RawMessage(`{"topic":"forgotten"}`))
		p.ok(err)
		known, other := p.says("known"), p.says("elsewhere")
		p.comes(known)
		p.hears(known)
		p.rewrites(map[id.EventID]func(string) string{
			known: func(raw string) string { return raw[:len(raw)-1] + `,"TYPE":"m.room.topic","STATE_KEY":""}` },
			other: func(raw string) string { return raw[:len(raw)-1] + `,"ROOM_ID":"!elsewhere:x"}` },
		})
		p.catchUp(topic, other)
	})
}
