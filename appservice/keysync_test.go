package appservice_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
)

// keyListener keeps what is about keys.
type keyListener struct {
	listener
	events chan *appservice.Event
}

func (l *keyListener) HandleEvent(_ context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if ev.Kind != store.KindPDU {
		l.events <- ev
	}
	return nil, nil
}

// keySite is a started appservice on a homeserver whose transactions have nothing about keys, with a ghost that has a device.
func keySite(t *testing.T) (s *site, heard chan *appservice.Event, device id.DeviceID) {
	t.Helper()
	s = newSite(t, bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true})
	l := &keyListener{events: make(chan *appservice.Event, 1000)}
	s.restart(func(cfg *appservice.Config) { cfg.Handler = l })
	if err := s.as.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	device, err := s.as.Ghost(ghost).EnsureDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, l.events, device
}

func (s *site) toDevice(txn string, messages map[string]any) {
	s.t.Helper()
	if err := s.hs.User("alice").Do(s.t.Context(), http.MethodPut, "sendToDevice/m.room.encrypted/"+txn, map[string]any{"messages": map[id.UserID]any{ghost: messages}}, nil); err != nil {
		s.t.Fatal(err)
	}
}

func next(t *testing.T, heard chan *appservice.Event, kind store.Kind) *appservice.Event {
	t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case ev := <-heard:
			if ev.Kind == kind {
				return ev
			}
		case <-end:
			t.Fatalf("nothing of kind %v came", kind)
		}
	}
}

func TestK4_WhatWaitsForADevice_ComesAsFromATransaction(t *testing.T) {
	s, heard, device := keySite(t)
	sync := func(since string) appservice.KeySync {
		t.Helper()
		got, err := s.as.Ghost(ghost).SyncKeys(t.Context(), device, since, 0)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := sync("")
	s.toDevice("one", map[string]any{string(device): map[string]any{"n": 1}})
	second := sync(first.Next)
	ev := next(t, heard, store.KindToDevice)
	if second.Messages != 1 || ev.ToUserID != ghost || ev.ToDeviceID != device || ev.Sender != "@alice:hs.test" || ev.Type != "m.room.encrypted" {
		t.Fatalf("%d messages, and %+v", second.Messages, ev)
	}
	var counts struct {
		Keys map[id.UserID]map[id.DeviceID]map[string]int `json:"device_one_time_keys_count"`
	}
	if raw := next(t, heard, store.KindKeyCounts).Raw; json.Unmarshal(raw, &counts) != nil || len(counts.Keys[ghost][device]) == 0 {
		t.Fatalf("the counts are %s", raw)
	}

	// The same again is recognised, and what is new is not.
	s.toDevice("two", map[string]any{string(device): map[string]any{"n": 2}})
	if again := sync(first.Next); again.Messages != 2 {
		t.Fatalf("there are %d messages", again.Messages)
	}
	if ev := next(t, heard, store.KindToDevice); !strings.Contains(string(ev.Raw), `"n":2`) {
		t.Fatalf("the first came twice: %s", ev.Raw)
	}
	for len(heard) > 0 {
		if ev := <-heard; ev.Kind == store.KindKeyCounts {
			t.Errorf("counts came again that were the same: %s", ev.Raw)
		}
	}
}

func TestK4_OfManyDevices_HoldUpNobodyElse(t *testing.T) {
	s, _, device := keySite(t)
	first, err := s.as.Ghost(ghost).SyncKeys(t.Context(), device, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 2 * appservice.MaxKeySyncs {
		all.Go(func() { _, _ = s.as.Ghost(ghost).SyncKeys(ctx, device, first.Next, time.Minute) })
	}
	time.Sleep(300 * time.Millisecond)
	short, end := context.WithTimeout(t.Context(), 20*time.Second)
	defer end()
	if _, err := s.as.Whoami(short); err != nil {
		t.Error(err)
	}
	cancel()
	all.Wait()
}

func TestK4_DeviceIsGone_SaysSo(t *testing.T) {
	s, _, device := keySite(t)
	s.lose(string(device))
	if _, err := s.as.Ghost(ghost).SyncKeys(t.Context(), device, "", 0); !errors.Is(err, appservice.ErrDeviceGone) {
		t.Fatalf("got %v", err)
	}
}
