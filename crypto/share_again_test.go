//go:build goolm

package crypto_test

import (
	"testing"
	"time"

	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

func TestShare_DeviceThatHadNoKeyLeft_ReadsOnceItHasSome(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	crypto.GiveAgainAfter(w.crypto, 200*time.Millisecond)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	for range 50 {
		w.claim(w.alice.ID(), w.alice.DeviceID()) // by somebody else
	}
	says := func(what string) (read bool) {
		t.Helper()
		sealed, err := w.seal(ghost, room, what)
		w.no(err)
		_, err = w.as.Ghost(ghost).SendMessage(t.Context(), room, event.EventEncrypted, sealed, what)
		w.no(err)
		for _, ev := range w.alice.sync(room) {
			opened, err := w.alice.olm.DecryptMegolmEvent(t.Context(), ev)
			read = read || err == nil && text(opened) == what
		}
		return read
	}
	if says("one") {
		t.Fatal("alice had a key left, and this shows nothing")
	}
	w.no(w.alice.olm.ShareKeys(t.Context(), 0))
	time.Sleep(300 * time.Millisecond)
	if !says("two") {
		t.Error("alice has keys again, and cannot read")
	}
	first := w.session(ghost, room)
	time.Sleep(500 * time.Millisecond)
	if w.session(ghost, room) != first {
		t.Error("everybody has the key, and the room gets another")
	}
}

func TestShare_RestartWhileADeviceHasNoKey_GetsOneAllTheSame(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	for range 50 {
		w.claim(w.alice.ID(), w.alice.DeviceID()) // by somebody else
	}
	first := w.session(ghost, room)
	w.no(w.alice.olm.ShareKeys(t.Context(), 0))
	w.session(ghost, w.room(ghost))  // so that there is a way to her device, by which she was not given the key of the first room
	w.with(func(*crypto.Options) {}) // as after a restart
	crypto.GiveAgainAfter(w.crypto, 200*time.Millisecond)
	for n := 0; w.session(ghost, room) == first; n++ {
		if n == 50 { // at 100 messages there would be another key anyway
			t.Fatal("after a restart nobody knows that the device was left out")
		}
		time.Sleep(100 * time.Millisecond)
	}
	for range 3 {
		w.session(ghost, room)
	}
	last := w.session(ghost, room)
	w.alice.sync(room)
	if got, err := w.alice.olm.CryptoStore.GetGroupSession(t.Context(), room, last); got == nil {
		t.Errorf("the device has no key: %v", err)
	}
}

func TestShare_DeviceThatNeverHasAKey_CostsTheRoomFewKeys(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	crypto.GiveAgainAfter(w.crypto, 100*time.Millisecond)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	for range 50 {
		w.claim(w.alice.ID(), w.alice.DeviceID())
	}
	sessions := map[string]bool{}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		sessions[string(w.session(ghost, room))] = true
	}
	if n := len(sessions); n < 2 || n > 4 { // after 0.1, 0.3 and 0.7 s
		t.Errorf("the room had %d keys in a second", n)
	}
}

func TestShare_SomebodyComesWithoutAKeyWhereAnotherWaitsLong_DoesNotWaitAsLong(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	crypto.GiveAgainAfter(w.crypto, time.Hour)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	for range 50 {
		w.claim(w.alice.ID(), w.alice.DeviceID()) // by somebody else
	}
	w.session(ghost, room)
	crypto.GiveAgainAfter(w.crypto, 200*time.Millisecond)
	bob := newPerson(w, "bob")
	for range 50 {
		w.claim(bob.ID(), bob.DeviceID())
	}
	_, err := bob.Join(t.Context(), string(room))
	w.no(err)
	w.settle()
	last := w.session(ghost, room)
	w.no(bob.olm.ShareKeys(t.Context(), 0))
	for n := 0; w.session(ghost, room) == last; n++ {
		if n == 50 { // at 100 messages there would be another key anyway
			t.Fatal("he waits for as long as she does")
		}
		time.Sleep(100 * time.Millisecond)
	}
	last = w.session(ghost, room)
	bob.sync(room)
	if got, err := bob.olm.CryptoStore.GetGroupSession(t.Context(), room, last); got == nil {
		t.Errorf("he has no key: %v", err)
	}
	time.Sleep(300 * time.Millisecond)
	if w.session(ghost, room) != last {
		t.Error("nobody is left but who waits for an hour, and the room gets another key")
	}
}

func TestAgain_WhatIsTriedInVain_WaitsTwiceAsLongOnlyWhenItsTimeHadCome(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		at   []int // minutes at which it is tried
		next int
	}{
		{[]int{0}, 1},
		{[]int{0, 1}, 3},
		{[]int{0, 1, 3}, 7},
		{[]int{0, 1, 3, 4}, 7},             // nothing is over yet
		{[]int{0, 1, 3, 6}, 10},            // as long once more
		{[]int{0, 1, 3, 6, 9, 12, 15}, 19}, // whoever comes and goes does not make it longer
		{[]int{0, 1, 3, 100}, 108},
		{[]int{0, 2000, 4000, 6000, 8000, 10_000, 12_000, 14_000, 16_000, 18_000, 20_000, 22_000, 24_000}, 24_000 + 24*60},
	} {
		next := crypto.TriedInVain(start, c.at)
		if next != c.next {
			t.Errorf("tried at %v it is tried again at %d, want %d", c.at, next, c.next)
		}
	}
}

func TestShare_MachineThatComesIntoMemoryAgain_LooksAtNoDeviceOnceAllHaveTheKey(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	crypto.GiveAgainAfter(w.crypto, time.Millisecond)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	first := w.session(ghost, room)
	keys, err := w.store.Foreign()
	w.no(err)
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { // so that it would seem as if she had not been given it
		_, err := keys.Exec(tx.Context(t.Context()), `DELETE FROM crypto_olm_session`)
		return err
	}))
	crypto.Unload(w.crypto, time.Now().Add(time.Hour))
	if n := crypto.Machines(w.crypto); n != 0 {
		t.Fatalf("%d machines are in memory", n)
	}
	for range 3 {
		if w.session(ghost, room) != first {
			t.Fatal("it was looked whether her device has the key")
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.DropRoomKeys(string(room)) }))
	second := w.session(ghost, room)
	w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { // as if the process had ended before it was noted
		_, err := keys.Exec(tx.Context(t.Context()), `DELETE FROM crypto_megolm_outbound_session_shared WHERE user_id = ''`)
		if err == nil {
			_, err = keys.Exec(tx.Context(t.Context()), `DELETE FROM crypto_olm_session`)
		}
		return err
	}))
	crypto.Unload(w.crypto, time.Now().Add(time.Hour))
	for n := 0; w.session(ghost, room) == second; n++ {
		if n == 50 {
			t.Fatal("without the note nobody looks")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
