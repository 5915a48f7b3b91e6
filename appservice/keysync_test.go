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

// keyEvents are events about keys, by their kind: messages and counts are in different lanes, so either may come first.
type keyEvents map[store.Kind]chan *appservice.Event

// keyListener keeps what is about keys.
type keyListener struct {
	listener
	events keyEvents
}

func (l *keyListener) HandleEvent(_ context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if ev.Kind != store.KindPDU {
		l.events[ev.Kind] <- ev
	}
	return nil, nil
}

// keySite is a started appservice on a homeserver whose transactions have nothing about keys, with a ghost that has a device.
func keySite(t *testing.T) (s *site, heard keyEvents, device id.DeviceID) {
	t.Helper()
	s = newSite(t, bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true})
	l := &keyListener{events: make(keyEvents)}
	for _, kind := range []store.Kind{store.KindToDevice, store.KindDeviceLists, store.KindKeyCounts} {
		l.events[kind] = make(chan *appservice.Event, 1000)
	}
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

func next(t *testing.T, heard keyEvents, kind store.Kind) *appservice.Event {
	t.Helper()
	select {
	case ev := <-heard[kind]:
		return ev
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing of kind %v came", kind)
		return nil
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
		Keys     map[id.UserID]map[id.DeviceID]map[string]int `json:"device_one_time_keys_count"`
		Fallback map[id.UserID]map[id.DeviceID][]string       `json:"device_unused_fallback_key_types"`
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

	// Counts come again when they are others, and not before.
	cli := s.as.Ghost(ghost).Client(device)
	if _, err := cli.MakeRequest(t.Context(), http.MethodPost, cli.BuildClientURL("v3", "keys", "upload"), map[string]any{"fallback_keys": map[string]any{
		"signed_curve25519:AAAA": map[string]any{"key": "iHUapjAFwwqAzSglkNU2gLdrf6FgrX/U2hqL8nAZHqo", "fallback": true, "signatures": map[string]any{}},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	sync(second.Next)
	if raw := next(t, heard, store.KindKeyCounts).Raw; json.Unmarshal(raw, &counts) != nil || len(counts.Fallback[ghost][device]) != 1 {
		t.Fatalf("the counts after one fallback key are %s", raw)
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
