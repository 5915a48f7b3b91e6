package appservice

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// setting is an effect that counts in the store how often it was committed.
func setting(key string) Effect {
	return func(tx *store.Tx) error { return tx.PutSetting(key, []byte("done")) }
}

func (f *fixture) setting(key string) string {
	value, err := f.store.Setting(context.Background(), key)
	if err != nil {
		return ""
	}
	return string(value)
}

func (f *fixture) rows() int64 {
	stats, err := f.store.InboxStats(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return stats.Rows
}

func TestWorker_Effects_AreCommittedWithTheProgress(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) { return []Effect{setting(string(ev.ID))}, nil }
	f.mustPut("1", events(message("$1"), message("$2")))
	f.idle()
	if f.setting("$1") != "done" || f.setting("$2") != "done" {
		t.Error("effects are missing")
	}
	if n := f.rows(); n != 0 {
		t.Errorf("%d rows are left in the inbox", n)
	}
}

func TestWorker_TransientError_IsTriedAgainAndTheLaneWaits(t *testing.T) {
	f := newFixture(t, nil)
	var tries atomic.Int32
	var attempts []int
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		if ev.ID == "$1" {
			attempts = append(attempts, ev.Attempts)
			if tries.Add(1) == 1 {
				return []Effect{setting("wrong")}, errTest
			}
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1"), message("$2"), messageIn("!other:hs.test", "$o")))
	f.idle()
	got := f.rec.ids()
	if got = strings.Replace(got+" ", "$o ", "", 1); got != "$1 $1 $2 " {
		t.Errorf("handled %s", got)
	}
	if fmt.Sprint(attempts) != "[0 1]" || f.setting("wrong") != "" || len(f.deadLetters()) != 0 {
		t.Errorf("attempts %v, dead %v", attempts, f.deadLetters())
	}
}

// failOnce fails, and when it is tried again it is there until the end.
func failOnce(ctx context.Context, ev *Event) ([]Effect, error) {
	if ev.Attempts > 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, errTest
}

func TestWorker_FailingHead_IsFoundAgainWithItsAttempts(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = failOnce
	f.mustPut("1", events(message("$1"), message("$2")))
	f.rec.waitEvents(1)
	for f.as.heads.get("room:"+testRoom).attempts == 0 { // set after its commit
		time.Sleep(time.Millisecond)
	}
	f.crashTo(nil)
	got := f.rec.waitEvents(2)
	if got[0].ID != "$1" || got[0].Attempts != 1 || got[0].InDoubt || got[1].Attempts != 0 {
		t.Errorf("%+v %+v", got[0], got[1])
	}
	f.idle()
}

func TestWorker_PermanentError_BecomesADeadLetterAtOnce(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		if ev.ID == "$1" {
			return nil, fmt.Errorf("sending: %w", Permanent(errTest))
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1"), message("$2")))
	f.idle()
	dead := f.deadLetters()
	if len(dead) != 1 || dead[0].Key != "$1" || dead[0].Attempts != 1 || dead[0].Cause != "sending: test" || dead[0].Lane != "room:"+testRoom {
		t.Errorf("%+v", dead)
	}
	if f.rec.ids() != "$1 $2" || len(f.rec.buried) != 1 || f.rows() != 0 {
		t.Errorf("handled %s, told of %v", f.rec.ids(), f.rec.buried)
	}
}

func TestWorker_HandlerThatKeepsQuietAboutADecodeError_TheEventIsBuriedAllTheSame(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		_, _ = ev.Decode()
		return nil, nil
	}
	f.mustPut("1", events(strings.Replace(message("$1"), `"content":{`, `"content":[],"ignored":{`, 1), message("$2")))
	f.idle()
	if dead := f.deadLetters(); len(dead) != 1 || dead[0].Key != "$1" || f.rec.ids() != "$1 $2" {
		t.Errorf("%+v, handled %s", dead, f.rec.ids())
	}
}

func TestWorker_Panic_IsADeadLetterAfterFiveAttempts(t *testing.T) {
	f := newFixture(t, nil)
	looked := make(chan struct{})
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		if ev.Attempts == maxPanics-1 {
			<-looked
		}
		if ev.ID == "$1" {
			panic("boom")
		}
		return nil, nil
	}
	f.as.heads.set("room:"+testRoom, head{attempts: maxPanics - 2})
	f.mustPut("1", events(message("$1")))
	for f.as.heads.get("room:"+testRoom).attempts != maxPanics-1 {
		time.Sleep(time.Millisecond)
	}
	if len(f.deadLetters()) != 0 {
		t.Error("buried too early")
	}
	close(looked)
	f.as.lanes.Wake("room:" + testRoom)
	f.idle()
	f.mustPut("2", events(message("$2")))
	f.idle()
	dead := f.deadLetters()
	if len(dead) != 1 || dead[0].Cause != "panic: boom" || dead[0].Attempts != maxPanics || f.rec.ids() != "$2" {
		t.Errorf("%+v, handled %s", dead, f.rec.ids())
	}
}

func TestWorker_MaxAgeOver_IsADeadLetter(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.MaxAge = time.Nanosecond })
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { return nil, errTest }
	f.as.heads.set("room:"+testRoom, head{attempts: 1})
	f.mustPut("1", events(message("$1")))
	f.idle()
	if dead := f.deadLetters(); len(dead) != 1 || dead[0].Attempts != 2 {
		t.Errorf("%+v", dead)
	}
}

func TestBackoff_DoublesToFiveMinutesAndADayIsReached(t *testing.T) {
	var sum time.Duration
	for n := 1; n < 400; n++ {
		if got := waited(n); got != sum {
			t.Fatalf("waited(%d) is %v, want %v", n, got, sum)
		}
		d := backoff(n)
		if want := min(time.Second<<min(n-1, 30), 5*time.Minute); d != want {
			t.Fatalf("backoff(%d) is %v, want %v", n, d, want)
		}
		sum += d
	}
	if sum < 24*time.Hour {
		t.Errorf("400 attempts wait only %v", sum)
	}
}

func TestWorker_CrashAfterDoubt_ComesBackInDoubt(t *testing.T) {
	f := newFixture(t, nil)
	doubted := make(chan struct{})
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if ev.ID != "$2" {
			return []Effect{setting(string(ev.ID))}, nil
		}
		if err := ev.Doubt(ctx); err != nil {
			return nil, err
		}
		close(doubted)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mustPut("1", events(message("$1"), message("$2"), message("$3")))
	<-doubted
	if f.setting("$1") != "done" {
		t.Error("Doubt did not commit what came before")
	}
	f.crashTo(nil)
	got := f.rec.waitEvents(2)
	if got[0].ID != "$2" || !got[0].InDoubt || got[0].Attempts != 1 || got[1].InDoubt {
		t.Errorf("%+v %+v", got[0], got[1])
	}
	f.idle()
}

func TestWorker_ErrorAfterDoubt_ClearsTheDoubt(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if ev.Attempts == 0 {
			if err := ev.Doubt(ctx); err != nil {
				t.Error(err)
			}
		}
		return failOnce(ctx, ev)
	}
	f.mustPut("1", events(message("$1")))
	f.rec.waitEvents(1)
	for f.as.heads.get("room:"+testRoom).attempts == 0 {
		time.Sleep(time.Millisecond)
	}
	f.crashTo(nil)
	if got := f.rec.waitEvents(1); got[0].InDoubt || got[0].Attempts != 1 {
		t.Errorf("%+v", got[0])
	}
	f.idle()
}

func TestWorker_DoubtAfterTheHandler_IsRefused(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", events(message("$1")))
	f.idle()
	if err := f.rec.events[0].Doubt(t.Context()); err == nil {
		t.Error("Doubt was taken")
	}
}

func TestWorker_FailingEffect_FailsItsEventAlone(t *testing.T) {
	f := newFixture(t, nil)
	var tries atomic.Int32
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		effects := []Effect{setting(string(ev.ID))}
		if ev.ID == "$2" && tries.Add(1) == 1 {
			effects = append(effects, func(*store.Tx) error { return errTest })
		}
		return effects, nil
	}
	f.mustPut("1", events(message("$1"), message("$2"), message("$3")))
	f.idle()
	for _, key := range []string{"$1", "$2", "$3"} {
		if f.setting(key) != "done" {
			t.Errorf("the effect of %s is missing", key)
		}
	}
	if len(f.deadLetters()) != 0 || f.rows() != 0 {
		t.Errorf("dead letters %+v, rows %d", f.deadLetters(), f.rows())
	}
}

func TestWorker_FailingEffectAfterDelivery_IsNeverDeliveredTwice(t *testing.T) {
	f := newFixture(t, nil)
	var sent atomic.Int32
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if err := ev.Doubt(ctx); err != nil {
			return nil, err
		}
		sent.Add(1)
		return []Effect{func(*store.Tx) error { return errTest }}, nil
	}
	f.mustPut("1", events(message("$1")))
	f.idle()
	dead := f.deadLetters()
	if sent.Load() != 1 || len(dead) != 1 || !strings.Contains(dead[0].Cause, "delivered") {
		t.Errorf("sent %d times, dead letters %+v", sent.Load(), dead)
	}
}

func TestWorker_SlowRoom_DoesNotHoldAnother(t *testing.T) {
	f := newFixture(t, nil)
	release := make(chan struct{})
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		if ev.RoomID == testRoom {
			<-release
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1"), messageIn("!other:hs.test", "$2")))
	if got := f.rec.waitEvents(1); got[0].ID != "$2" {
		t.Errorf("first was %s", got[0].ID)
	}
	close(release)
	f.idle()
}

func TestWorker_KickOfAGhost_IsNoticed(t *testing.T) {
	f := newFixture(t, nil)
	member := func(id, user, membership string) string {
		return fmt.Sprintf(`{"type":"m.room.member","event_id":%q,"room_id":%q,"sender":"@op:hs.test","state_key":%q,"content":{"membership":%q}}`, id, testRoom, user, membership)
	}
	f.mustPut("1", events(member("$1", "@irc_a:hs.test", "join"), member("$2", "@alice:hs.test", "join"), member("$3", "@ircbot:hs.test", "invite"), member("$4", "@irc_a:hs.test", "leave")))
	f.idle()
	got, err := f.store.Members(context.Background(), testRoom)
	if err != nil || fmt.Sprint(got) != "map[@irc_a:hs.test:leave @ircbot:hs.test:invite]" {
		t.Errorf("%v %v", got, err)
	}
}

func TestWorker_Stop_IsNoAttempt(t *testing.T) {
	f := newFixture(t, nil)
	began := make(chan struct{})
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mustPut("1", events(message("$1")))
	<-began
	short, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.as.Stop(short); err != nil {
		t.Error(err)
	}
	f.crashTo(nil)
	if got := f.rec.waitEvents(1); got[0].Attempts != 0 || got[0].InDoubt {
		t.Errorf("%+v", got[0])
	}
	f.idle()
}

func TestIsGhost_OnlyTheNamespaceOfThisServer(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) {
		users := &c.Registration.Namespaces.Users
		*users = append(*users, Namespace{Regex: "^@.*:hs\\.test$"}) // of interest, but not ours alone
	})
	for user, want := range map[string]bool{
		"@irc_a:hs.test": true, "@ircbot:hs.test": false, "@alice:hs.test": false, "@irc_a:evil.test": false, "x@irc_a:hs.test": false, "": false,
	} {
		if f.as.IsGhost(userID(user)) != want {
			t.Errorf("%s: %v", user, !want)
		}
	}
}

// While a commit hangs, the one worker goes on with other lanes; what they did is written together afterwards, and an
// effect that fails takes nothing of the others with it.
func TestWorker_SlowCommit_HoldsNoWorkerAndABadEffectHarmsNoOtherLane(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Workers = 1 })
	const rooms = 20
	bad := Permanent(errTest)
	gate, entered := make(chan struct{}), make(chan struct{})
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		<-entered
		effects := []Effect{setting(string(ev.ID))}
		if ev.ID == "$7" {
			effects = append(effects, func(*store.Tx) error { return bad })
		}
		return effects, nil
	}
	var list []string
	for i := range rooms {
		list = append(list, messageIn(fmt.Sprintf("!%d:hs.test", i), fmt.Sprint("$", i)))
	}
	f.mustPut("1", events(list...))
	go func() {
		_ = f.store.Commit(context.Background(), f.as.epoch, func(*store.Tx) error { close(entered); <-gate; return nil })
	}()
	f.rec.waitEvents(rooms) // the writer is busy all the time
	close(gate)
	f.idle()
	if dead := f.deadLetters(); len(dead) != 1 || dead[0].Key != "$7" {
		t.Errorf("dead letters %+v", dead)
	}
	for i := range rooms {
		if got := f.setting(fmt.Sprint("$", i)); (got == "done") != (i != 7) {
			t.Errorf("the effect of $%d: %q", i, got)
		}
	}
}
