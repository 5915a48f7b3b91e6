package appservice

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// settle tries one in a bubble, and tells when it is settled, from now on.
func settle(t *testing.T, reach func(context.Context) error, meanwhile func(s *settling)) (after time.Duration, err error) {
	synctest.Test(t, func(t *testing.T) {
		if reach == nil {
			reach = func(context.Context) error { return nil }
		}
		s, began := newSettling("hs.test", reach), time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			meanwhile(s)
		}()
		err = s.settled(ctx)
		after = time.Since(began)
		<-done
	})
	return after, err
}

// sentAt is a transaction with an event that a user has sent then.
func sentAt(user string, at time.Time) *store.Transaction {
	raw := fmt.Sprintf(`{"event_id":"$1","room_id":"!r","type":"m.room.message","sender":%q,"origin_server_ts":%d,"content":{}}`, user, at.UnixMilli())
	return &store.Transaction{Elements: []store.Element{{Kind: store.KindKeyCounts, Raw: []byte("{}")}, {Kind: store.KindPDU, Lane: "room:!r", Raw: []byte(raw)}}}
}

func between(t *testing.T, after, from, to time.Duration) {
	t.Helper()
	if after < from || after > to {
		t.Errorf("somebody looks after %v, and not between %v and %v", after, from, to)
	}
}

func TestSettling_NothingComes_SomebodyLooksSoon(t *testing.T) {
	after, err := settle(t, nil, func(*settling) {})
	if err != nil {
		t.Error(err)
	}
	between(t, after, settleFirst+settleQuiet, settleFirst+settleQuiet+time.Second)
}

// What it has kept comes one after the other, and however long that takes: its order is the homeserver's.
func TestSettling_TheHomeserverIsBehind_NobodyLooksBeforeItHasSentAll(t *testing.T) {
	const behind = 20 * time.Minute
	after, err := settle(t, nil, func(s *settling) {
		for began := time.Now(); time.Since(began) < behind; {
			s.comes()
			time.Sleep(3 * time.Second)
			s.went(sentAt("@alice:hs.test", began.Add(-time.Hour)), false)
			time.Sleep(time.Second)
		}
	})
	if err != nil {
		t.Error(err)
	}
	between(t, after, behind, behind+2*settleQuiet)
}

func TestSettling_TransactionsComeAllTheTime_SomebodyLooksWhenOneBringsWhatIsNew(t *testing.T) {
	for user, want := range map[string]time.Duration{"@alice:hs.test": 2 * time.Minute, "@alice:elsewhere.test": 10 * time.Minute} {
		after, err := settle(t, nil, func(s *settling) {
			for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(time.Second) {
				sent := began
				if time.Since(began) > 2*time.Minute {
					sent = time.Now() // another's clock may be fast
				}
				s.comes()
				s.went(sentAt(user, sent), false)
			}
		})
		if err != nil {
			t.Error(err)
		}
		between(t, after, want, want+2*settleQuiet)
	}
}

func TestSettling_TheLastTransactionWasRefused_NobodyLooksBeforeItHasComeAgain(t *testing.T) {
	asked := 0
	reach := func(context.Context) error { asked++; return nil }
	after, err := settle(t, reach, func(s *settling) {
		s.comes()
		s.went(nil, false)
		time.Sleep(5 * time.Minute)
		s.comes()
		s.went(sentAt("@alice:hs.test", time.Unix(0, 0)), false)
	})
	if err != nil || asked < 9 {
		t.Errorf("error %v; the homeserver was asked %d times to send it", err, asked)
	}
	between(t, after, 5*time.Minute, 5*time.Minute+2*settleQuiet)
}

// Whoever has broken one off may have ended.
func TestSettling_ATransactionIsBrokenOff_ItIsNotWaitedFor(t *testing.T) {
	after, _ := settle(t, nil, func(s *settling) {
		s.comes()
		time.Sleep(settleFirst)
		s.went(nil, true)
	})
	between(t, after, settleFirst+settleQuiet, settleFirst+settleQuiet+time.Second)
}

func TestSettling_ATransactionIsUnderWay_NobodyLooks(t *testing.T) {
	after, _ := settle(t, nil, func(s *settling) {
		s.comes()
		time.Sleep(time.Minute)
		s.went(sentAt("@alice:hs.test", time.Unix(0, 0)), false)
	})
	between(t, after, time.Minute+settleQuiet, time.Minute+2*settleQuiet)
}

func TestSettling_TheHomeserverDoesNotReachTheBridge_NobodyLooks(t *testing.T) {
	until := time.Time{}
	reach := func(context.Context) error {
		if until.IsZero() {
			until = time.Now().Add(3 * time.Minute)
		}
		if time.Now().Before(until) {
			return errors.New("not yet")
		}
		return nil
	}
	after, err := settle(t, reach, func(*settling) {})
	if err != nil {
		t.Error(err)
	}
	between(t, after, 3*time.Minute, 6*time.Minute)
}

func TestSettling_TheHomeserverHasNoPing_NobodyLooksAtAll(t *testing.T) {
	_, err := settle(t, func(context.Context) error { return ErrPingUnsupported }, func(*settling) {})
	if !errors.Is(err, ErrPingUnsupported) {
		t.Errorf("error %v", err)
	}
}

func TestReading_ItDoesNotEnd_ATransactionWaitsFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readings
		end := r.begin("room:!r")
		for lane, want := range map[string]time.Duration{"room:!r": readingHold, "room:!other": 0} {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			r.wait(ctx, &store.Transaction{Elements: []store.Element{{Lane: "room:!another"}, {Lane: lane}}})
			cancel()
			if waited := time.Since(began); waited != want {
				t.Errorf("with something in %s a transaction waits %v, and not %v", lane, waited, want)
			}
		}
		end()
		if r.of(&store.Transaction{Elements: []store.Element{{Lane: "room:!r"}}}) != nil {
			t.Error("after its end a transaction would wait")
		}
	})
}
