package appservice

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

// replayAll replays every dead letter, and gives the errors.
func (f *fixture) replayAll() (errs []error) {
	f.t.Helper()
	for _, d := range f.deadLetters() {
		if err := f.as.ReplayDeadLetter(context.Background(), d.ID); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// handled describes what the handler was given since the last call.
func (f *fixture) handled() string {
	f.rec.mu.Lock()
	defer f.rec.mu.Unlock()
	var out []string
	for _, ev := range f.rec.events {
		text := fmt.Sprintf("%s %s", kindLabel(ev.Kind), ev.Lane)
		if ev.ID != "" {
			text += " " + string(ev.ID)
		}
		if ev.Attempts > 0 || ev.InDoubt {
			text += fmt.Sprintf(" (attempts %d, in doubt %v)", ev.Attempts, ev.InDoubt)
		}
		out = append(out, text)
	}
	f.rec.events = nil
	return strings.Join(out, "; ")
}

// everyKind is a transaction with everything that can die in a lane, and handledOf what the handler is given of it.
const (
	everyKind = `{"events":[%s],"to_device":[{"type":"m.room_key","sender":"@bob:hs.test","to_user_id":"@irc_a:hs.test","to_device_id":"D","content":{}}],` +
		`"device_lists":{"changed":["@bob:hs.test"],"left":[]},"device_one_time_keys_count":{"@irc_a:hs.test":{"D":{"signed_curve25519":5}}}}`
	handledOf = "device_lists keys; key_counts keys; pdu room:!room:hs.test $1; to_device device:@irc_a:hs.test/D"
)

func sorted(text string) string {
	parts := strings.Split(text, "; ")
	for i := range parts {
		for j := i; j > 0 && parts[j] < parts[j-1]; j-- {
			parts[j], parts[j-1] = parts[j-1], parts[j]
		}
	}
	return strings.Join(parts, "; ")
}

// buryEveryKind leaves one dead letter of each kind that dies in a lane, and a handler that takes everything.
func buryEveryKind(t *testing.T) *fixture {
	f := newFixture(t, nil)
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { return nil, Permanent(errTest) }
	f.mustPut("1", fmt.Sprintf(everyKind, message("$1")))
	f.idle()
	if got := sorted(f.handled()); got != handledOf {
		t.Fatalf("handled %s", got)
	}
	if n := len(f.deadLetters()); n != 4 || f.rows() != 0 {
		t.Fatalf("%d dead letters, %d rows", n, f.rows())
	}
	f.rec.handle = nil
	return f
}

func TestReplay_EveryKindThatDiedInALane_IsHandledAgainAsNew(t *testing.T) {
	f := buryEveryKind(t)
	if errs := f.replayAll(); errs != nil {
		t.Error(errs)
	}
	f.idle()
	if got := sorted(f.handled()); got != handledOf {
		t.Errorf("handled %s", got)
	}
	if dead := f.deadLetters(); len(dead) != 0 || f.rows() != 0 {
		t.Errorf("dead letters %+v, %d rows", dead, f.rows())
	}
	f.mustPut("2", fmt.Sprintf(everyKind, message("$1"))) // its to-device messages have another ID, so they are others
	f.idle()
	if got := f.handled(); strings.Contains(got, "$1") {
		t.Errorf("the homeserver's repetition was handled: %s", got)
	}
}

func TestReplay_ThatFailsAgain_IsADeadLetterAgainWithTheNewCause(t *testing.T) {
	f := buryEveryKind(t)
	before := f.deadLetters()
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { return nil, Permanent(errors.New("another reason")) }
	if errs := f.replayAll(); errs != nil {
		t.Error(errs)
	}
	f.idle()
	dead := f.deadLetters()
	if len(dead) != len(before) {
		t.Fatalf("dead letters %+v", dead)
	}
	bodies := map[string]string{}
	for _, d := range before {
		bodies[d.Kind+d.Lane+string(d.Body)] = d.Key
	}
	for _, d := range dead {
		if key, ok := bodies[d.Kind+d.Lane+string(d.Body)]; !ok || key != d.Key || d.Cause != "another reason" || d.Attempts != 1 || d.ID <= 4 || d.From <= 1 {
			t.Errorf("%+v", d)
		}
	}
	f.rec.handle = nil
	f.handled()
	if errs := f.replayAll(); errs != nil {
		t.Error(errs)
	}
	f.idle()
	if got := sorted(f.handled()); got != handledOf {
		t.Errorf("handled %s", got)
	}
}

func TestReplay_ProcessEndsBetweenTheCommitAndTheHandOver_EverythingWaits(t *testing.T) {
	f := buryEveryKind(t)
	for _, d := range f.deadLetters() {
		tr, err := readLetter(&d)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.store.Commit(context.Background(), f.as.epoch, func(tx *store.Tx) error {
			_, err := tx.Replay(d.ID, tr)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.handled(); got != "" || len(f.deadLetters()) != 0 {
		t.Errorf("handled %s, dead letters %+v", got, f.deadLetters())
	}
	f.crash()
	f.idle()
	if got := sorted(f.handled()); got != handledOf {
		t.Errorf("handled %s", got)
	}
}

func TestReplay_ProcessEndsBeforeTheCommit_EverythingIsStillDead(t *testing.T) {
	f := buryEveryKind(t)
	f.as.commitEnd()
	before := f.deadLetters()
	for _, d := range before {
		tr, err := readLetter(&d)
		if err != nil {
			t.Fatal(err)
		}
		err = f.store.Commit(context.Background(), f.as.epoch, func(tx *store.Tx) error {
			if _, err := tx.Replay(d.ID, tr); err != nil {
				return err
			}
			return errTest
		})
		if !errors.Is(err, errTest) {
			t.Fatal(err)
		}
	}
	f.crash()
	f.idle()
	if got := f.handled(); got != "" || len(f.deadLetters()) != len(before) || f.rows() != 0 {
		t.Errorf("handled %s, dead letters %+v, %d rows", got, f.deadLetters(), f.rows())
	}
}

func TestReplay_ProcessEndsInTheHandler_ItIsInDoubtAndWaits(t *testing.T) {
	f := newFixture(t, nil)
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { return nil, Permanent(errTest) }
	f.mustPut("1", events(message("$1")))
	f.idle()
	entered := make(chan Event, 1)
	f.rec.handle = untilCrash(t, entered)
	if errs := f.replayAll(); errs != nil {
		t.Error(errs)
	}
	if ev := <-entered; ev.Attempts != 0 || ev.InDoubt {
		t.Errorf("%+v", ev)
	}
	if dead := f.deadLetters(); len(dead) != 0 {
		t.Errorf("dead letters %+v", dead)
	}
	f.rec.handle = nil
	f.crash()
	f.idle()
	if got := f.handled(); got != "pdu room:!room:hs.test $1 (attempts 1, in doubt true)" {
		t.Errorf("handled %s", got)
	}
	if dead := f.deadLetters(); len(dead) != 0 || f.rows() != 0 {
		t.Errorf("dead letters %+v, %d rows", dead, f.rows())
	}
}

// inDoubt is an error of a handler that knows that it does not know.
type inDoubt struct{ error }

func (inDoubt) InDoubt() bool { return true }

func TestReplay_DiedInDoubt_IsHandledAndNoLongerInDoubt(t *testing.T) {
	for what, c := range map[string]struct {
		cause func() error
		doubt bool
	}{
		"the handler says so":        {func() error { return Permanent(inDoubt{errTest}) }, true},
		"it panicked after Doubt":    {func() error { panic("gone") }, true},
		"its effects cannot be kept": {func() error { return nil }, true},
		"it was refused":             {func() error { return Permanent(errTest) }, false},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t, nil, func(c *Config) { c.MaxAge = 1 }) // only once is anything tried again
			f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
				if err := ev.Doubt(ctx); err != nil {
					return nil, err
				}
				return []Effect{func(*store.Tx) error { return errTest }}, c.cause()
			}
			f.mustPut("1", events(message("$1")))
			f.idle()
			dead := f.deadLetters()
			if len(dead) != 1 || dead[0].Doubt != c.doubt {
				t.Fatalf("dead letters %+v", dead)
			}
			f.rec.handle = nil
			f.handled()
			if errs := f.replayAll(); errs != nil {
				t.Error(errs)
			}
			f.idle()
			if got := f.handled(); got != "pdu room:!room:hs.test $1" {
				t.Errorf("handled %s", got)
			}
		})
	}
}

func TestReplay_BodyThatCanBeReadNow_BringsItsEventsOnce(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", events(message("$1")))
	f.idle()
	encryption := strings.Replace(message("$e"), `"type":"m.room.message"`, `"type":"m.room.encryption","state_key":""`, 1)
	letter := store.DeadLetter{Kind: "body", Key: "2", Cause: "of an older version", Body: []byte(events(message("$1"), message("$2"), "5", encryption))}
	f.buryByHand(&letter)
	f.handled()
	if errs := f.replayAll(); errs != nil {
		t.Error(errs)
	}
	f.idle()
	if got := f.handled(); got != "pdu room:!room:hs.test $2; pdu room:!room:hs.test $e" {
		t.Errorf("handled %s", got)
	}
	if encrypted, _, err := f.store.Encrypted(context.Background(), testRoom); err != nil || !encrypted {
		t.Errorf("the room is encrypted: %v, %v", encrypted, err)
	}
	dead := f.deadLetters()
	if len(dead) != 1 || dead[0].Kind != "pdu" || string(dead[0].Body) != "5" {
		t.Errorf("dead letters %+v", dead)
	}
	letter.ID = 0
	f.buryByHand(&letter)
	f.replayAll()
	f.idle()
	if got := f.handled(); got != "" {
		t.Errorf("of the same body again: %s", got)
	}
}

func TestReplay_BadElementsThatCanBeReadNow_AreHandled(t *testing.T) {
	f := newFixture(t, nil)
	device := `{"type":"m.room_key","sender":"@bob:hs.test","to_user_id":"@irc_a:hs.test","to_device_id":"D"}`
	for _, letter := range []store.DeadLetter{
		{Kind: "pdu", Key: "$1", Body: []byte(message("$1"))},
		{Kind: "to_device", Body: []byte(device)},
		{Kind: "element", Body: []byte(`{"device_lists":{"left":["@bob:hs.test"]}}`)},
		{Kind: "element", Body: []byte(`{"to_device":[` + device + `],"events":[5,` + message("$2") + `]}`)},
	} {
		f.buryByHand(&letter)
	}
	if errs := f.replayAll(); errs != nil {
		t.Error(errs)
	}
	f.idle()
	want := "device_lists keys; pdu room:!room:hs.test $1; pdu room:!room:hs.test $2; to_device device:@irc_a:hs.test/D; to_device device:@irc_a:hs.test/D"
	if got := sorted(f.handled()); got != want {
		t.Errorf("handled %s", got)
	}
	// The homeserver may send what it sent before, which is good now.
	f.mustPut("1", events(message("$1"), message("$2")))
	f.idle()
	if got := f.handled(); got != "" {
		t.Errorf("handled %s", got)
	}
}

func TestReplay_EventThatCameInMeanwhile_IsNotHandledTwice(t *testing.T) {
	f := newFixture(t, nil)
	f.buryByHand(&store.DeadLetter{Kind: "pdu", Key: "$1", Body: []byte(message("$1"))}) // never in a lane
	f.mustPut("1", events(message("$1")))
	if errs := f.replayAll(); errs != nil {
		t.Error(errs)
	}
	f.idle()
	if got := f.handled(); got != "pdu room:!room:hs.test $1" || len(f.deadLetters()) != 0 {
		t.Errorf("handled %s, dead letters %+v", got, f.deadLetters())
	}
}

func TestReplay_StillUnreadable_StaysWithTheCauseOfNow(t *testing.T) {
	f := newFixture(t, nil)
	bodies := map[string]string{
		"5": "pdu", nested("$deep", maxDepth): "pdu", `{"type":"x"}`: "to_device", `{"events":{}}`: "element",
		`{"device_lists":{"changed":5}}`: "element", `nonsense`: "body", `{"events":[{]}`: "body", "{}": "of another version",
	}
	for body, kind := range bodies {
		f.buryByHand(&store.DeadLetter{Kind: kind, Cause: "old", Body: []byte(body)})
	}
	for _, d := range f.deadLetters() {
		if err := f.as.ReplayDeadLetter(context.Background(), d.ID); !IsPermanent(err) || !strings.Contains(err.Error(), fmt.Sprint("dead letter ", d.ID)) {
			t.Errorf("%s %.50q: %v", d.Kind, d.Body, err)
		}
	}
	f.idle()
	dead := f.deadLetters()
	if len(dead) != len(bodies) || f.handled() != "" || f.rows() != 0 {
		t.Fatalf("%d dead letters", len(dead))
	}
	for _, d := range dead {
		if kind, ok := bodies[string(d.Body)]; !ok || kind != d.Kind || d.Cause == "old" || d.Cause == "" {
			t.Errorf("%s %.50q: %s", d.Kind, d.Body, d.Cause)
		}
	}
}

func TestReplay_WhatCannotBeDoneNow_LeavesTheLetterAsItIs(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.BacklogLimit = 1 })
	f.buryByHand(&store.DeadLetter{Kind: "pdu", Cause: "old", Body: []byte(message("$1"))})
	f.buryByHand(&store.DeadLetter{Kind: "outbox", Cause: "old"})
	ctx := context.Background()
	if err := f.as.ReplayDeadLetter(ctx, 7); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	if err := f.as.ReplayDeadLetter(ctx, 2); !errors.Is(err, errForeignLetter) || !IsPermanent(err) {
		t.Errorf("one of the outbox: %v", err)
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) {
		close(entered)
		<-leave
		return nil, nil
	}
	f.mustPut("1", events(message("$busy")))
	<-entered
	if err := f.as.ReplayDeadLetter(ctx, 1); !errors.Is(err, errBacklog) || IsPermanent(err) {
		t.Errorf("with a full backlog: %v", err)
	}
	close(leave)
	f.idle()
	f.stop()
	if err := f.as.ReplayDeadLetter(ctx, 1); !errors.Is(err, errStopped) || IsPermanent(err) {
		t.Errorf("after the stop: %v", err)
	}
	for _, d := range f.deadLetters() {
		if d.Cause != "old" {
			t.Errorf("%+v", d)
		}
	}
	if n := len(f.deadLetters()); n != 2 {
		t.Errorf("%d dead letters", n)
	}
}

func (f *fixture) buryByHand(d *store.DeadLetter) {
	f.t.Helper()
	if err := f.store.Commit(context.Background(), f.as.epoch, func(tx *store.Tx) error { return tx.Bury(d) }); err != nil {
		f.t.Fatal(err)
	}
}
