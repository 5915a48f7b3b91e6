package proxy

import (
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// remembered sets up a server that has the real clock and a link in mind.
func remembered(t *testing.T, s *stage) (link string) {
	t.Helper()
	link = s.link(photo())
	wantStatus(t, s.get(link), 200)
	return link
}

func TestProxy07_LinkInMemory_EndsAtOnceInTheProcessThatRevokesIt(t *testing.T) {
	s := newStoredStage(t)
	s.server.stopWatching() // whose tick would forget it too
	s.server.watcher.Wait()
	link := remembered(t, s)
	if c, _ := parse(t, link); s.server.memo.get(&c) == nil {
		t.Fatal("nothing is remembered")
	}
	redact(t, s)
	wantStatus(t, s.get(link), 410)
}

func TestProxy07_LinkInMemory_EndsWithinASecondWhenAnotherProcessRevokesIt(t *testing.T) {
	onBothEngines(t, func(t *testing.T, s *stage, uri string) {
		v, err := store.Visit(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		link := remembered(t, s)
		s.server.stopWatching()
		s.server.watcher.Wait()
		remembered(t, s)
		err = v.ChangeMedia(t.Context(), func(tx store.MediaTx) error { _, err := tx.RevokeMedia("!room:example.org", "$event"); return err })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(watchEvery)
		wantStatus(t, s.get(link), 410)
	})
}

func TestProxy23_LinkInMemory_EndsInTime(t *testing.T) {
	s := newStoredStage(t)
	m := photo()
	m.Expires = s.clock.Now().Add(time.Minute)
	link := s.link(m)
	wantStatus(t, s.get(link), 200)
	s.clock.Advance(time.Minute)
	wantStatus(t, s.get(link), 410)
}

func TestProxy16_KeysOfEncryptedFiles_AreForgottenAtTheNextTick(t *testing.T) {
	s := newStoredStage(t)
	link := remembered(t, s)
	until(t, "it is forgotten", func() bool {
		s.server.memo.mu.RLock()
		defer s.server.memo.mu.RUnlock()
		return len(s.server.memo.known) == 0
	})
	wantStatus(t, s.get(link), 200)
}

func TestMemo_RevocationWhileTheRecordIsRead_IsNotMissed(t *testing.T) {
	made := uint64(1)
	m := memo{made: func() uint64 { return made }}
	c := claims{purpose: purposeShort, record: 1}
	at := m.now()
	made = 2
	m.put(&c, at, &target{})
	if m.get(&c) != nil {
		t.Error("it is remembered")
	}
	m.put(&c, m.now(), &target{})
	if m.get(&c) == nil {
		t.Error("it is not remembered")
	}
	for i := range int64(2 * maxMemo) {
		m.put(&claims{purpose: purposeShort, record: i}, m.now(), &target{})
	}
	if len(m.known) > maxMemo {
		t.Errorf("%d are remembered", len(m.known))
	}
}
