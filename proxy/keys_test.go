package proxy

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

func TestProxy04_Keys_FirstStart_MakesOneRandomKey(t *testing.T) {
	clock := newClock()
	st := openStore(t, clock)
	var wg sync.WaitGroup
	rings := make([]*KeyRing, 8)
	for i := range rings {
		wg.Go(func() {
			var err error
			if rings[i], err = OpenKeyRing(t.Context(), st, clock.Now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	keys, err := st.MediaKeys(t.Context())
	if err != nil || len(keys) != 1 || len(keys[0].Secret) != 32 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	c := claims{purpose: purposeShort, record: 1, key: keys[0].ID}
	for _, r := range rings {
		if r == nil || !r.verify(&c, c.sum(keys[0].Secret)) {
			t.Error("a ring has another key")
		}
	}
	other, err := OpenKeyRing(t.Context(), openStore(t, clock), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	if reflect.DeepEqual(other.keys.Load().secrets[1], keys[0].Secret) {
		t.Error("two bridges have one key")
	}
}

func TestProxy04_Keys_Rotation_NewLinksHaveTheNewKeyAndOldLinksLive(t *testing.T) {
	s := newStoredStage(t)
	// A proxy in a process of its own reads the same store.
	elsewhere, err := NewServer(ServerConfig{HomeserverURL: s.hs.URL, Token: testToken, Store: s.store, Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(elsewhere.upstream.homeserver.CloseIdleConnections)
	t.Cleanup(func() { elsewhere.Close() })
	old := s.link(photo())
	first, _ := parse(t, old)
	s.clock.Advance(time.Hour)
	id, err := s.signer.Keys().Rotate(t.Context())
	if err != nil || id == first.key {
		t.Fatalf("key %d, %v", id, err)
	}
	if c, _ := parse(t, s.link(photo())); c.key != first.key {
		t.Error("the new key signs before every process knows it")
	}
	s.clock.Advance(settle)
	fresh := s.link(photo())
	if c, _ := parse(t, fresh); c.key != id {
		t.Error("the new key does not sign")
	}
	wantStatus(t, s.get(old), 200)
	wantStatus(t, s.get(fresh), 200)
	if err := elsewhere.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.server = elsewhere
	wantStatus(t, s.get(old), 200)
	wantStatus(t, s.get(fresh), 200)
	if verify, signing := s.signer.Keys().IDs(); len(verify) != 2 || signing != id {
		t.Errorf("%v, %d", verify, signing)
	}
}

func TestProxy04_Keys_RetiredKey_KillsItsLinksHereAndElsewhere(t *testing.T) {
	s := newStoredStage(t)
	elsewhere, err := NewServer(ServerConfig{HomeserverURL: s.hs.URL, Token: testToken, Store: s.store, Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(elsewhere.upstream.homeserver.CloseIdleConnections)
	t.Cleanup(func() { elsewhere.Close() })
	old := s.link(photo())
	first, _ := parse(t, old)
	keys := s.signer.Keys()
	if _, err := keys.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := keys.Retire(t.Context(), first.key); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.get(old), 404)
	fresh := s.link(photo()) // signed at once: the new key is alone
	wantStatus(t, s.get(fresh), 200)

	s.server = elsewhere // it has not been told, and finds out when it next looks
	s.clock.Advance(staleAfter)
	wantStatus(t, s.get(old), 404)
	wantStatus(t, s.get(fresh), 200)
	if err := keys.Retire(t.Context(), first.key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("retired twice: %v", err)
	}
}

func TestProxy04_Keys_OnlyKeyRetired_IsReplaced(t *testing.T) {
	s := newStoredStage(t)
	old := s.link(photo())
	c, _ := parse(t, old)
	if err := s.signer.Keys().Retire(t.Context(), c.key); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.get(old), 404)
	wantStatus(t, s.get(s.link(photo())), 200)
}

func TestProxy04_Keys_AfterARestart_OldLinksLiveAndRetiredKeysStayRetired(t *testing.T) {
	s := newStoredStage(t)
	dead := s.link(photo())
	c, _ := parse(t, dead)
	if err := s.signer.Keys().Retire(t.Context(), c.key); err != nil {
		t.Fatal(err)
	}
	live := s.link(photo())
	again, err := OpenKeyRing(t.Context(), s.store, s.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	s.server.stopWatching()
	s.server.watcher.Wait()
	s.server.keys = again
	wantStatus(t, s.get(dead), 404)
	wantStatus(t, s.get(live), 200)
}

func TestProxy04_StaticKeys_BadKeys_AreNamedWithoutTheirSecrets(t *testing.T) {
	short := testKey(4)
	short.Secret = []byte("secret-but-short")
	retired := testKey(5)
	retired.Retired = time.Unix(1, 0)
	for name, keys := range map[string][]store.MediaKey{
		"none": {}, "too short": {short}, "twice": {testKey(1), testKey(1)}, "all retired": {retired},
	} {
		if _, err := StaticKeys(keys...); err == nil || strings.Contains(err.Error(), "secret-but") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := StaticKeys(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rotate(t.Context()); !errors.Is(err, ErrStaticKeys) {
		t.Error(err)
	}
	if err := r.Retire(t.Context(), 1); !errors.Is(err, ErrStaticKeys) {
		t.Error(err)
	}
	if err := r.Reload(t.Context()); err != nil {
		t.Error(err)
	}
}
